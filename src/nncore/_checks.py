"""Every check of what a user passes in, and the conversion to what the kernels take.

Each function names the argument, says what was expected and what was got, and changes nothing.
"""

from __future__ import annotations

import decimal
import itertools
import math
import numbers
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ._kernels import Activation, Loss, first_beyond
from ._layout import Examples

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "as_activations",
    "as_bool",
    "as_dropout",
    "as_dtype",
    "as_examples",
    "as_generator",
    "as_integer",
    "as_loss",
    "as_matrix",
    "as_real",
    "as_sizes",
    "as_vector",
    "check_finite",
    "first_nonfinite",
    "is_plain",
    "largest_finite",
    "one_of",
]

Array = npt.NDArray[Any]
T = TypeVar("T")

ACTIVATIONS = {member.name.lower(): member for member in Activation}
LOSSES = {member.name.lower(): member for member in Loss}

# The output activations that a loss's delta (3) is right for.
_ELEMENTWISE = set(Activation) - {Activation.SOFTMAX}
_OUTPUTS = {
    Loss.SQUARED_ERROR: _ELEMENTWISE,
    Loss.ABSOLUTE_ERROR: _ELEMENTWISE,
    Loss.HUBER: _ELEMENTWISE,
    Loss.POISSON: {Activation.EXPONENTIAL},
    Loss.BINARY_CROSS_ENTROPY: {Activation.SIGMOID},
    Loss.CROSS_ENTROPY: {Activation.SOFTMAX},
}

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# The types that examples may keep: they are converted as they are gathered.
_SOURCES = (*_FLOATS, np.dtype(np.uint8))

# Smaller weights, of which the largest is 1, count as 0: their reciprocal must not overflow.
_LEAST_WEIGHT = {"float32": 2.0**-100, "float64": 2.0**-900}

# BLAS counts rows and columns in 32-bit integers.
_LARGEST = 2**31 - 1


def one_of(name: str, value: object, table: dict[str, T]) -> T:
    """Return the entry of the table that `value` names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {sorted(table)}, got {value!r}")
    if value not in table:
        raise ValueError(f"{name} must be one of {sorted(table)}, got {value!r}")
    return table[value]


def as_integer(name: str, value: object, *, low: int = 1, high: int | None = _LARGEST) -> int:
    """Return `value` as an int from `low` to `high`, by default the largest that BLAS can hold."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        integer = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if integer < low:
        raise ValueError(f"{name} must be at least {low}, got {integer}")
    if high is not None and integer > high:
        hint = ", the largest that BLAS can hold" if high == _LARGEST else ""
        raise ValueError(f"{name} must be at most {high}{hint}, got {integer}")
    return integer


def as_bool(name: str, value: object) -> bool:
    """Return `value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return bool(value)


def as_real(name: str, value: object) -> float:
    """Return `value` as a float."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf  # which no range includes
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
    n_parameters = sum((n_prev + 1) * n for n_prev, n in itertools.pairwise(checked))
    if n_parameters > sys.maxsize // 64:
        raise ValueError(
            f"sizes must make a network that memory can hold, got {list(checked)} with "
            f"{n_parameters} parameters"
        )
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


def as_dropout(dropout: float | Sequence[float], n_hidden: int) -> tuple[float, ...]:
    """Return the share of units that each hidden layer drops."""
    if isinstance(dropout, str) or not isinstance(dropout, Iterable):
        rates = [as_real("dropout", dropout)] * n_hidden
    else:
        rates = [as_real(f"dropout[{l}]", rate) for l, rate in enumerate(dropout)]
        if len(rates) != n_hidden:
            raise ValueError(
                f"dropout must be one number or one for each of the {n_hidden} hidden layers, "
                f"got {len(rates)} numbers"
            )
    for rate in rates:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout must be in [0, 1), got {rate!r}")
    return tuple(rates)


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64."""
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = None
    # NumPy takes None for float64, in comparisons too.
    if dtype is None or checked is None or checked not in _FLOATS:
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
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must not have masked entries, got a masked array")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.dtype.kind == "O":
        # Decimals, fractions and Python's own large integers are numbers all the same.
        for entry in array.flat:
            if not isinstance(entry, (numbers.Real, decimal.Decimal)):
                raise TypeError(f"{name} must hold real numbers, got objects such as {entry!r}")
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{name} must be finite, got an integer beyond every float") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def largest_finite(*dtypes: np.dtype[Any]) -> float:
    """Return the largest number that is finite in all of the floating types."""
    return min(float(np.finfo(dtype).max) for dtype in dtypes)


def first_nonfinite(array: Array, dtype: np.dtype[Any] | None = None) -> int | None:
    """Return the index of the first NaN or infinity in a contiguous array of floats, or None.

    With a narrower `dtype` that of the first value which is infinite there.
    """
    flat = array.reshape(-1)
    at = first_beyond(flat, largest_finite(array.dtype, array.dtype if dtype is None else dtype))
    return None if at == flat.size else at


def check_finite(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    """Raise ValueError if an element of a contiguous array is not finite in `dtype`."""
    at = first_nonfinite(array, dtype) if array.dtype.kind == "f" else None
    if at is not None:
        value = array.reshape(-1)[at]
        cast = f", which is {'-' * bool(value < 0)}inf in {dtype}," if np.isfinite(value) else ""
        row = at // max(1, array.size // array.shape[0])
        raise ValueError(f"{name} must be finite, got {value}{cast} in row {row}")


def _as_finite(
    name: str, array: Array, dtype: np.dtype[Any], sources: tuple[np.dtype[Any], ...]
) -> Array:
    """Return the array in C order, in its own type if that is one of `sources`."""
    if array.dtype in sources and array.dtype.isnative:
        converted = np.ascontiguousarray(array)
        check_finite(name, converted, dtype)
        return converted
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    converted = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if converted.dtype in _FLOATS:
        check_finite(name, converted, dtype)
    return _as_finite(name, converted.astype(dtype), dtype, (dtype,))


def as_matrix(
    name: str, value: object, n_columns: int, dtype: np.dtype[Any], *, unread: bool = False
) -> Array:
    """Return `value` as an array of shape (n, n_columns) that an `Examples` takes.

    Rows of a mapped file are taken from it as they are needed: it is never read as a whole. Nor is,
    with `unread`, one that `is_plain`; it may then hold NaN and infinities.
    """
    array = _as_real_array(name, value)
    if array.ndim != 2 or array.shape[1] != n_columns:
        hint = f"; a single example is {name}[np.newaxis]" if array.shape == (n_columns,) else ""
        raise ValueError(
            f"{name} must have shape (n_samples, {n_columns}), got {array.shape}{hint}"
        )
    if _is_mapped(value) or (unread and is_plain(array)):
        return array
    return _as_finite(name, array, dtype, _SOURCES)


def is_plain(array: Array, dtype: np.dtype[Any] | None = None) -> bool:
    """Whether the array is one of C's in the dtype given, or in float or double."""
    fits = array.dtype in _FLOATS if dtype is None else array.dtype == dtype
    return fits and array.flags.c_contiguous and array.flags.aligned


def _is_mapped(value: object) -> bool:
    """Whether the rows of `value` are taken from a file as they are needed."""
    return isinstance(value, np.memmap) and value.dtype in _SOURCES and value.dtype.isnative


def as_vector(name: str, value: object, n: int, dtype: np.dtype[Any]) -> Array:
    """Return `value` as a finite, contiguous array of shape (n,)."""
    array = _as_real_array(name, value)
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), got {array.shape}")
    return _as_finite(name, array, dtype, (dtype,))


def _as_classes(name: str, labels: Array, n_classes: int) -> Array:
    if labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        row = int(np.argmax((labels < 0) | (labels >= n_classes)))
        raise ValueError(
            f"{name} must hold class indices from 0 to {n_classes - 1}, "
            f"got {labels[row]} in row {row}"
        )
    # A copy, since they become addresses: nobody may change them after this check.
    return labels.astype(np.intp)


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
        elif array.ndim == 1 and array.dtype.kind in "iu":
            also += "; class indices need loss='cross_entropy'"
        raise ValueError(
            f"{name} must have shape (n_samples, {n_out}){also}, got {array.shape} of {array.dtype}"
        )
    if _is_mapped(value):
        return array
    array = _as_finite(name, array, dtype, _SOURCES)
    if loss in (Loss.BINARY_CROSS_ENTROPY, Loss.CROSS_ENTROPY):
        _check_probabilities(name, array, loss)
    if loss == Loss.POISSON and (array < 0).any():
        row = int(np.argmax((array < 0).any(axis=1)))
        raise ValueError(
            f"{name} must not be negative with loss 'poisson', got {array[row].tolist()} in row "
            f"{row}"
        )
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
    weights = as_vector(names[2], sample_weight, n, np.dtype(np.float64))
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise ValueError(f"{names[2]} must not be negative, got {weights[row]} in row {row}")
    largest = weights.max()
    if largest == 0:
        raise ValueError(f"{names[2]} must have a sum above 0, got zeros only")
    # Only their ratios count. A power of two scales them without rounding, and keeps the sum and
    # its reciprocal within the type.
    weights = np.ldexp(weights, -np.frexp(largest)[1])
    weights = np.where(weights < _LEAST_WEIGHT[dtype.name], 0, weights).astype(dtype)
    return Examples(inputs, targets, weights), float(weights.sum(dtype=np.float64))
