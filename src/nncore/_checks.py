"""Every check of what a user passes in, and the conversion to what the kernels take.

Each function names the argument, says what was expected and what was got, and changes nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._kernels import Activation, Examples, Loss, first_nonfinite

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "as_activations",
    "as_dtype",
    "as_examples",
    "as_generator",
    "as_integer",
    "as_loss",
    "as_matrix",
    "as_real",
    "as_sizes",
    "as_vector",
    "one_of",
]

Array = npt.NDArray[Any]
T = TypeVar("T")

ACTIVATIONS = {member.name.lower(): member for member in Activation}
LOSSES = {member.name.lower(): member for member in Loss}

# The output activations that a loss's delta (3) is right for.
_OUTPUTS = {
    Loss.SQUARED_ERROR: set(Activation) - {Activation.SOFTMAX},
    Loss.BINARY_CROSS_ENTROPY: {Activation.SIGMOID},
    Loss.CROSS_ENTROPY: {Activation.SOFTMAX},
}

# BLAS counts rows and columns in 32-bit integers.
_LARGEST = 2**31 - 1


def one_of(name: str, value: object, table: dict[str, T]) -> T:
    """Return the entry of the table that `value` names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {sorted(table)}, got {value!r}")
    if value not in table:
        raise ValueError(f"{name} must be one of {sorted(table)}, got {value!r}")
    return table[value]


def as_integer(name: str, value: object, *, low: int = 1) -> int:
    """Return `value` as an int that is at least `low` and that BLAS can hold."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        integer = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if integer < low:
        raise ValueError(f"{name} must be at least {low}, got {integer}")
    if integer > _LARGEST:
        raise ValueError(f"{name} must be at most {_LARGEST}, which BLAS can hold, got {integer}")
    return integer


def as_real(name: str, value: object) -> float:
    """Return `value` as a float."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None


def as_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes n_0, ..., n_L, at least two of them."""
    try:
        checked = tuple(as_integer(f"sizes[{l}]", size) for l, size in enumerate(sizes))
    except TypeError as error:
        if str(error).startswith("sizes["):
            raise
        raise TypeError(f"sizes must be a sequence of integers, got {sizes!r}") from None
    if len(checked) < 2:
        raise ValueError(f"sizes must name an input and an output layer at least, got {sizes!r}")
    return checked


def as_activations(activation: str | Sequence[str], n_layers: int) -> tuple[Activation, ...]:
    """Return the activation of each layer."""
    if isinstance(activation, str):
        names: Sequence[str] = [activation] * n_layers
    else:
        try:
            names = list(activation)
        except TypeError:
            raise TypeError(
                f"activation must be a name or a sequence of names, got {activation!r}"
            ) from None
        if len(names) != n_layers:
            raise ValueError(
                f"activation must be one name or one for each of the {n_layers} layers after the "
                f"input, got {len(names)} names"
            )
    activations = tuple(one_of("activation", name, ACTIVATIONS) for name in names)
    if Activation.SOFTMAX in activations[:-1]:
        raise ValueError(f"activation softmax is for the output layer only, got {list(names)}")
    return activations


def as_loss(loss: str, output: Activation) -> Loss:
    """Return the loss, if its delta is right for the output layer's activation."""
    checked = one_of("loss", loss, LOSSES)
    if output not in _OUTPUTS[checked]:
        fitting = sorted(activation.name.lower() for activation in _OUTPUTS[checked])
        raise ValueError(
            f"loss {loss!r} needs an output layer with activation {' or '.join(fitting)}, "
            f"got {output.name.lower()!r}; activation takes one name for each layer, too"
        )
    return checked


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64."""
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = None
    if dtype is None or checked not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    return checked


def as_generator(seed: Any) -> np.random.Generator:
    """Return NumPy's generator for a seed, or the generator itself."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"seed must be None, an integer >= 0 or a numpy.random.Generator, got {seed!r}"
        ) from None


def _as_real_array(name: str, value: object) -> Array:
    if hasattr(value, "toarray"):
        raise TypeError(
            f"{name} must be a dense array, got {type(value).__name__}; {name}.toarray() makes one"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind == "O":
        # Lists of Decimals or of Python's own large integers hold numbers all the same.
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must hold real numbers, got objects such as "
                f"{next(iter(array.flat), value)!r}"
            ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def _is_mapped(value: object, dtype: np.dtype[Any]) -> bool:
    """Whether rows can be taken from a mapped file as they are, so that it is never read whole."""
    return isinstance(value, np.memmap) and value.dtype == dtype and value.dtype.isnative


def _convert(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array in C order and of the dtype; the first row with NaN or infinity is named."""
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype)
    flat = converted.reshape(-1)
    at = first_nonfinite(flat)
    if at < flat.size:
        row = at // max(1, flat.size // converted.shape[0])
        reason = "" if not np.isfinite(array.reshape(-1)[at]) else f" in {dtype}"
        raise ValueError(f"{name} must be finite, got {flat[at]}{reason} in row {row}")
    return converted


def as_matrix(name: str, value: object, n_columns: int, dtype: np.dtype[Any]) -> Array:
    """Return `value` as an array of shape (n, n_columns) that an `Examples` takes."""
    mapped = _is_mapped(value, dtype)
    array = _as_real_array(name, value)
    if array.ndim != 2 or array.shape[1] != n_columns:
        hint = f"; a single example is {name}[np.newaxis]" if array.shape == (n_columns,) else ""
        raise ValueError(
            f"{name} must have shape (n_samples, {n_columns}), got {array.shape}{hint}"
        )
    return array if mapped else _convert(name, array, dtype)


def as_vector(name: str, value: object, n: int, dtype: np.dtype[Any]) -> Array:
    """Return `value` as a finite, contiguous array of shape (n,)."""
    array = _as_real_array(name, value)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {array.shape}")
    return _convert(name, array, dtype)


def _as_classes(name: str, labels: Array, n_classes: int) -> Array:
    if labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        row = int(np.argmax((labels < 0) | (labels >= n_classes)))
        raise ValueError(
            f"{name} must hold class indices from 0 to {n_classes - 1}, "
            f"got {labels[row]} in row {row}"
        )
    return np.ascontiguousarray(labels, dtype=np.intp)


def _check_probabilities(name: str, Y: Array, loss: Loss) -> None:
    """Refuse targets for which the deltas of the cross-entropies, A - Y, do not hold."""
    outside = ((Y < 0) | (Y > 1)).any(axis=1)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{name} must hold probabilities from 0 to 1 with loss {loss.name.lower()!r}, "
            f"got {Y[row].tolist()} in row {row}"
        )
    if loss == Loss.CROSS_ENTROPY:
        total = Y.sum(axis=1, dtype=np.float64)
        off = np.abs(total - 1) > 1e-3
        if off.any():
            row = int(np.argmax(off))
            raise ValueError(
                f"{name} must have rows that sum to 1 with loss 'cross_entropy', "
                f"got a sum of {total[row]:g} in row {row}"
            )


def _as_targets(name: str, value: object, n_out: int, loss: Loss, dtype: np.dtype[Any]) -> Array:
    mapped = _is_mapped(value, dtype)
    array = _as_real_array(name, value)
    if array.ndim == 1 and loss == Loss.CROSS_ENTROPY and array.dtype.kind in "iu":
        return _as_classes(name, array, n_out)
    if array.ndim == 1 and n_out == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or array.shape[1] != n_out:
        also = ""
        if n_out == 1:
            also = " or (n_samples,)"
        if loss == Loss.CROSS_ENTROPY:
            also = " or be a vector of integer class indices"
        raise ValueError(
            f"{name} must have shape (n_samples, {n_out}){also}, got {array.shape} of {array.dtype}"
        )
    if mapped:
        return array
    array = _convert(name, array, dtype)
    if loss != Loss.SQUARED_ERROR:
        _check_probabilities(name, array, loss)
    return array


def as_examples(
    X: object,
    Y: object,
    sample_weight: object | None,
    sizes: tuple[int, ...],
    loss: Loss,
    dtype: np.dtype[Any],
    *,
    names: tuple[str, str, str] = ("X", "Y", "sample_weight"),
) -> tuple[Examples, float]:
    """Return the examples for the kernels, at least one, and the sum of their weights."""
    inputs = as_matrix(names[0], X, sizes[0], dtype)
    n = inputs.shape[0]
    if n == 0:
        raise ValueError(f"{names[0]} must have at least 1 row, got shape {inputs.shape}")
    targets = _as_targets(names[1], Y, sizes[-1], loss, dtype)
    if targets.shape[0] != n:
        raise ValueError(
            f"{names[1]} must have as many rows as {names[0]}, {n}, got {targets.shape[0]}"
        )
    if sample_weight is None:
        return Examples(inputs, targets), float(n)
    weights = as_vector(names[2], sample_weight, n, dtype)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise ValueError(f"{names[2]} must not be negative, got {weights[row]} in row {row}")
    total = float(weights.sum(dtype=np.float64))
    if total == 0:
        raise ValueError(f"{names[2]} must have a sum above 0, got zeros only")
    return Examples(inputs, targets, weights), total
