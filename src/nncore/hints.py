"""Hints: one UserWarning per call about arguments that are valid but cannot work well."""

from __future__ import annotations

import inspect
import math
import warnings

import numpy as np

from ._kernels import first_beyond
from ._layout import Examples
from .architecture import Architecture
from .enums import Loss, range_of
from .shards import Shards
from .streams import Streamed

__all__ = ["hint", "hint_at_data"]

# Inputs of 1e4 and above saturate units or make their gradients explode.
_LARGEST_INPUT = 9_999.0

# How far beyond the limits of the outputs a target may be, for example from rounding.
_SLACK = 1e-3

# How many inputs or targets to look at, unless a single row has more.
_SAMPLE = 1 << 16


def hint(message: str) -> None:
    """Warn at the line outside nncore that led to this call."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "nncore":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def hint_at_data(examples: Examples | Shards | Streamed, architecture: Architecture) -> bool:
    """Warn if inputs are so large that training will not work, or if no output can reach a target.

    It looks at the first rows only, so it costs next to nothing and reads little of a file, and
    nothing of a stream.

    Returns
    -------
    bool
        Whether it warned.
    """
    if isinstance(examples, Streamed):
        return False
    messages = _large_inputs(examples), _unreachable_targets(examples, architecture)
    for message in filter(None, messages):
        hint(message)
    return any(messages)


def _large_inputs(examples: Examples | Shards) -> str | None:
    X, _, weights = examples.arrays
    if X.dtype.kind != "f":
        return None
    rows = np.ascontiguousarray(X[: max(1, _SAMPLE // X.shape[1])])
    if first_beyond(rows.reshape(-1), _LARGEST_INPUT) == rows.size:
        return None
    # A mapped file may hold NaN and infinity, an example of weight 0 anything.
    sizes = np.where(np.isfinite(rows), np.abs(rows), 0)
    if weights is not None:
        sizes[weights[: len(rows)] == 0] = 0
    largest = sizes.max(axis=0)
    column = int(largest.argmax())
    if largest[column] > _LARGEST_INPUT:
        return (
            f"X has values up to {largest[column]:.3g} in column {column}, but training works with "
            "values of about 1: standardize the inputs, by (X - X.mean(axis=0)) / X.std(axis=0) or "
            "scikit-learn's StandardScaler. network.fold_scaling(mean, std) then returns a network "
            "that takes raw inputs"
        )
    return None


def _unreachable_targets(examples: Examples | Shards, architecture: Architecture) -> str | None:
    _, Y, weights = examples.arrays
    output = architecture.activations[-1]
    low, high = range_of(output, architecture.slopes[-1])
    if (low, high) == (-math.inf, math.inf) or Y is None or Y.ndim == 1:  # class indices
        return None
    if architecture.loss == Loss.CUSTOM:  # which alone knows what targets mean
        return None
    rows = Y[: max(1, _SAMPLE // Y.shape[1])]
    # Infinity, which a mapped file may hold, shows in the loss.
    beyond = ((rows < low - _SLACK) | (rows > high + _SLACK)) & np.isfinite(rows)
    if weights is not None:
        beyond[weights[: len(rows)] == 0] = False
    if beyond.any():
        row, column = divmod(int(beyond.argmax()), Y.shape[1])
        return (
            f"Y has {rows[row, column]} in row {row}, column {column}, but the outputs, with "
            f"activation {output.name.lower()!r}, range from {low:g} to {high:g}: use "
            "output_activation='identity', or scale Y to this range"
        )
    return None
