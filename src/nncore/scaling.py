"""Scaling of inputs and targets as a part of the first and the last layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import as_vector
from .architecture import Architecture
from .enums import Activation
from .hints import hint

__all__ = ["fold_scaling"]

Array = npt.NDArray[Any]

# Rounding to float32 then changes a scaled input by up to 0.001.
_LARGEST_RATIO = 2.0**14


def fold_scaling(
    architecture: Architecture,
    parameters: Array,
    X_mean: npt.ArrayLike,
    X_scale: npt.ArrayLike,
    Y_mean: npt.ArrayLike,
    Y_scale: npt.ArrayLike,
) -> Array:
    """Return the parameters that make a network of scaled values one of raw values.

    The network's inputs are (x - m) / s and, if its outputs are identity, its targets are
    (y - m_Y) / s_Y. With every weight as w_ij from unit i to unit j, (1) of the first and the last
    layer is the same for raw values with

        w^1_ij / s_i        and  b^1_j - Σ_i (m_i / s_i) w^1_ij,
        w^L_ij s_Y,j        and  b^L_j s_Y,j + m_Y,j.

    Parameters
    ----------
    architecture : Architecture
        Of the new network.
    parameters : ndarray of shape (n_parameters,)
        Of the network for scaled values.
    X_mean, X_scale, Y_mean, Y_scale : array_like
        As in `Network.fold_scaling`.

    Returns
    -------
    ndarray of shape (n_parameters,)
        Computed in float64 and rounded to the architecture's dtype.

    Raises
    ------
    TypeError, ValueError
        As in `Network.fold_scaling`.
    """
    n_in, n_out = architecture.sizes[0], architecture.sizes[-1]
    m, s = _as_vector("X_mean", X_mean, n_in), _as_scale("X_scale", X_scale, n_in)
    m_Y, s_Y = _as_vector("Y_mean", Y_mean, n_out), _as_scale("Y_scale", Y_scale, n_out)
    output = architecture.activations[-1]
    if output != Activation.IDENTITY and ((m_Y != 0).any() or (s_Y != 1).any()):
        raise ValueError(
            "Y_mean and Y_scale must be 0 and 1 unless the outputs are identity, "
            f"got other values with {output.name.lower()} outputs"
        )
    folded = parameters.astype(np.float64)
    weights, biases = architecture.views(folded)
    with np.errstate(over="ignore", invalid="ignore"):
        weights[0][...] /= s[:, np.newaxis]
        # Not a product of BLAS, whose order of summation depends on its threads.
        biases[0][...] -= (m[:, np.newaxis] * weights[0]).sum(axis=0)
        weights[-1][...] *= s_Y
        biases[-1][...] *= s_Y
        biases[-1][...] += m_Y
        ratios = np.abs(m / s)
    inside = np.abs(folded) <= np.finfo(architecture.dtype).max
    if not inside.all():
        raise ValueError(
            "X_mean, X_scale, Y_mean and Y_scale must give parameters that are finite in "
            f"{architecture.dtype}, got {folded[np.argmin(inside)]:g}"
        )
    if architecture.dtype == np.float32:
        _hint_at_lost_digits(ratios)
    return folded.astype(architecture.dtype)


def _as_vector(name: str, value: npt.ArrayLike, n: int) -> Array:
    return as_vector(name, value, n, np.dtype(np.float64), or_number=True)


def _as_scale(name: str, value: npt.ArrayLike, n: int) -> Array:
    """Return n finite numbers other than 0."""
    scale = _as_vector(name, value, n)
    if (scale == 0).any():
        column = int(np.argmax(scale == 0))
        raise ValueError(
            f"{name} must not be 0, got 0 for column {column}; the scale of a constant column is 1"
        )
    return scale


def _hint_at_lost_digits(ratios: Array) -> None:
    column = int(ratios.argmax())
    if ratios[column] > _LARGEST_RATIO:
        hint(
            f"X_mean is {ratios[column]:.2g} times X_scale in column {column}, and float32 has few "
            "digits for so small differences of raw inputs: pass dtype='float64'"
        )
