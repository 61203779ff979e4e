"""Checks of the arrays that a user passes in, and their conversion for the compiled step.

Each function names the argument, what was expected and what was got, and changes nothing.
"""

from __future__ import annotations

import decimal
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ._kernels import first_beyond
from ._layout import SOURCES, Examples, plain_examples
from .architecture import FLOATS, Architecture
from .enums import Loss

__all__ = [
    "LEAST_WEIGHT",
    "LIMITED_LOSSES",
    "are_equal",
    "as_matrix",
    "as_row_numbers",
    "as_rows",
    "as_targets",
    "as_training_examples",
    "as_vector",
    "as_weights",
    "check_finite",
    "check_not_negative",
    "check_output",
    "check_real",
    "check_rows",
    "check_targets",
    "first_nonfinite",
    "is_plain",
]

Array = npt.NDArray[Any]

# Relative to the largest weight, which is scaled to about 1, smaller ones count as 0: their
# reciprocal must not overflow.
LEAST_WEIGHT = {"float32": 2.0**-100, "float64": 2.0**-900}

# The losses that do not allow all targets.
LIMITED_LOSSES = (Loss.BINARY_CROSS_ENTROPY, Loss.CROSS_ENTROPY, Loss.POISSON)

# How many elements of a mapped file are checked at a time.
_BLOCK = 1 << 20

# How many elements of vectors are compared at a time.
_COMPARED = 1 << 15


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
        # Decimals, fractions and large Python integers are real numbers, too.
        for entry in array.flat:
            if not isinstance(entry, (numbers.Real, decimal.Decimal)):
                raise TypeError(f"{name} must hold real numbers, got objects such as {entry!r}")
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise ValueError(f"{name} must be finite, got an integer beyond every float") from None
    check_real(name, array.dtype)
    return array


def check_real(name: str, dtype: np.dtype[Any]) -> None:
    """Raise TypeError unless arrays of the dtype hold real numbers."""
    if dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {dtype}")


def first_nonfinite(array: Array, dtype: np.dtype[Any] | None = None) -> int | None:
    """Return the index of the first NaN or infinity in a contiguous array of floats, or None.

    With a narrower `dtype`, of the first value that is infinite in it.
    """
    flat = array.reshape(-1)
    most = float(np.finfo(array.dtype).max)
    if dtype is not None and dtype.itemsize < array.itemsize:
        # Half a unit in the last place more would round to infinity.
        narrow = np.finfo(dtype)
        tie = float(narrow.max) + 0.5 * float(narrow.eps) * 2.0 ** (narrow.maxexp - 1)
        most = float(np.nextafter(tie, 0))
    at = first_beyond(flat, most)
    return None if at == flat.size else at


def are_equal(one: Array, other: Array) -> bool:
    """Return whether two vectors of the same length are equal, with little memory."""
    blocks = (slice(begin, begin + _COMPARED) for begin in range(0, one.size, _COMPARED))
    return all(np.array_equal(one[block], other[block]) for block in blocks)


def _row_blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield an array in blocks of rows, each with its first row's index."""
    rows = max(1, _BLOCK // max(1, array.size // max(1, array.shape[0])))
    for begin in range(0, array.shape[0], rows):
        yield begin, array[begin : begin + rows]


def _in_row(row: int) -> str:
    return f"row {row}"


def check_finite(
    name: str, array: Array, dtype: np.dtype[Any], where: Callable[[int], str] = _in_row
) -> None:
    """Raise ValueError if an element of the array is not finite in `dtype`.

    `where` describes the place of a row.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return
    for begin, rows in _row_blocks(array):
        block = np.ascontiguousarray(rows)
        at = first_nonfinite(block, dtype)
        if at is not None:
            value = block.reshape(-1)[at]
            sign = "-" * bool(value < 0)
            cast = f", which is {sign}inf in {dtype}," if np.isfinite(value) else ""
            row = begin + at // (block.size // block.shape[0])
            raise ValueError(f"{name} must be finite, got {value}{cast} in {where(row)}")


def _as_finite(
    name: str, array: Array, dtype: np.dtype[Any], sources: tuple[np.dtype[Any], ...]
) -> Array:
    """Return the array in C order, in its own type if that is one of `sources`."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if array.dtype not in sources:
        if array.dtype in FLOATS:
            check_finite(name, array, dtype)
        array = array.astype(dtype)
    check_finite(name, array, dtype)
    return array


def check_rows(name: str, shape: tuple[int, ...], n_columns: int, or_else: str = "") -> None:
    """Raise ValueError if the shape of an array is not (n, n_columns)."""
    if len(shape) == 2 and shape[1] == n_columns:
        return
    hint = ""
    if shape == (n_columns,):
        hint = f"; a single example is {name}[np.newaxis]"
    elif len(shape) == 1 and n_columns == 1:
        hint = f"; {name}[:, np.newaxis] has an example per row"
    raise ValueError(f"{name} must have shape (n_samples, {n_columns}){or_else}, got {shape}{hint}")


def as_matrix(name: str, value: object, n_columns: int, dtype: np.dtype[Any]) -> Array:
    """Return `value` as an array of shape (n, n_columns) that an `Examples` accepts.

    A mapped file is returned as it is, since it must never be read as a whole.
    """
    array = _as_real_array(name, value)
    check_rows(name, array.shape, n_columns)
    return array if _is_mapped(value) else _as_finite(name, array, dtype, SOURCES)


def as_rows(name: str, value: object, n_columns: int, dtype: np.dtype[Any]) -> tuple[Array, bool]:
    """Return `value` as `as_matrix` does, and whether it is a single example of one dimension.

    An array that needs no conversion is returned as it is: the caller checks that it is finite.
    """
    array = _as_real_array(name, value)
    is_single = array.shape == (n_columns,)
    if is_single:
        array = array[np.newaxis]
    check_rows(name, array.shape, n_columns, f" or ({n_columns},)")
    if not (_is_mapped(value) or is_plain(array)):
        array = _as_finite(name, array, dtype, SOURCES)
    return array, is_single


def check_output(name: str, value: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise an error unless `value` is an array that results of this shape and dtype fit into."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(
            f"{name} must have shape {shape} and dtype {dtype}, got {value.shape} and {value.dtype}"
        )
    if not (value.flags.c_contiguous and value.flags.writeable):
        got = "strides of another order" if value.flags.writeable else "a read-only array"
        raise ValueError(f"{name} must be C-contiguous and writeable, got {got}")


def is_plain(array: Array, dtype: np.dtype[Any] | None = None) -> bool:
    """Whether the array is C-contiguous and aligned, of the dtype given or of either float type."""
    fits = array.dtype in FLOATS if dtype is None else array.dtype == dtype
    return fits and array.flags.c_contiguous and array.flags.aligned


def _is_mapped(value: object) -> bool:
    """Whether `value` is a mapped file whose rows can be gathered batch by batch."""
    return isinstance(value, np.memmap) and value.dtype in SOURCES and value.dtype.isnative


def as_vector(
    name: str, value: object, n: int, dtype: np.dtype[Any], *, or_number: bool = False
) -> Array:
    """Return `value` as a finite, contiguous array of shape (n,), with `or_number` repeated."""
    array = _as_real_array(name, value)
    if or_number and array.ndim == 0:
        array = np.full(n, array)
    if array.shape != (n,):
        also = " or be a number" if or_number else ""
        raise ValueError(f"{name} must have shape ({n},){also}, got {array.shape}")
    return _as_finite(name, array, dtype, (dtype,))


def as_row_numbers(name: str, value: object, n: int) -> npt.NDArray[np.intp]:
    """Return the numbers of rows out of n, at least one, from numbers or from a mask."""
    expected = f"{name} must be a vector of row numbers, or of {n} booleans"
    try:
        array = np.asarray(value)
    except ValueError:
        raise TypeError(f"{expected}, got {value!r}") from None
    if array.dtype == np.bool_ and array.shape == (n,):
        array = np.flatnonzero(array)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"{expected}, got {array.dtype} of shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least 1 row, got none")
    if array.min() < 0 or array.max() >= n:
        at = int(np.argmax((array < 0) | (array >= n)))
        raise ValueError(f"{name} must hold rows from 0 to {n - 1}, got {array[at]} at {at}")
    # Copy: they become addresses, so they must not change after this check.
    return array.astype(np.intp)


def _as_classes(name: str, labels: Array, n_classes: int) -> Array:
    if labels.size and (labels.min() < 0 or labels.max() >= n_classes):
        row = int(np.argmax((labels < 0) | (labels >= n_classes)))
        raise ValueError(
            f"{name} must hold class indices from 0 to {n_classes - 1}, "
            f"got {labels[row]} in row {row}"
        )
    # Copy: indices become addresses, so they must not change after this check.
    return labels.astype(np.intp)


def check_targets(name: str, Y: Array, loss: Loss, where: Callable[[int], str] = _in_row) -> None:
    """Raise ValueError for targets outside the domain of the loss."""
    if loss not in LIMITED_LOSSES:
        return
    lost = f"with loss {loss.name.lower()!r}, got"
    for begin, block in _row_blocks(Y):
        if loss == Loss.POISSON:
            inside, expected = block >= 0, "must not be negative"
        else:
            inside, expected = (block >= 0) & (block <= 1), "must hold probabilities from 0 to 1"
        if not inside.all():
            row = int(np.argmin(inside.all(axis=1)))
            raise ValueError(
                f"{name} {expected} {lost} {block[row].tolist()} in {where(begin + row)}"
            )
        if loss == Loss.CROSS_ENTROPY:
            total = block.sum(axis=1, dtype=np.float64)
            off = np.abs(total - 1) > 1e-3
            if off.any():
                row = int(np.argmax(off))
                raise ValueError(
                    f"{name} must have rows that sum to 1 {lost} a sum of {total[row]:g} in "
                    f"{where(begin + row)}"
                )


def as_targets(name: str, value: object, architecture: Architecture) -> Array:
    """Return `value` as targets that an `Examples` accepts.

    A mapped file is returned as it is; only the domain of the loss is checked.
    """
    n_out, loss = architecture.sizes[-1], architecture.loss
    array = _as_real_array(name, value)
    if loss == Loss.CUSTOM:
        if array.ndim == 0:
            raise ValueError(f"{name} must have a row per example, got a number")
        array = array.view()
        array.flags.writeable = False  # functions of users read it
        return array
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
    if not _is_mapped(value):
        array = _as_finite(name, array, architecture.dtype, SOURCES)
    check_targets(name, array, loss)
    return array


def check_not_negative(name: str, weights: Array) -> None:
    """Raise ValueError if an element of a vector is negative."""
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise ValueError(f"{name} must not be negative, got {weights[row]} in row {row}")


def as_weights(
    name: str, value: object, n: int, architecture: Architecture, *, scales: bool = True
) -> tuple[Array, float]:
    """Return the weights of n examples in the network's dtype, perhaps scaled, and their sum."""
    weights = as_vector(name, value, n, np.dtype(np.float64))
    check_not_negative(name, weights)
    largest = weights.max()
    if largest == 0:
        raise ValueError(f"{name} must have a sum above 0, got zeros only")
    if scales:
        # Only their ratios count. A power of two scales them without rounding, and keeps the sum
        # and its reciprocal within the type.
        weights = np.ldexp(weights, -np.frexp(largest)[1])
    least = LEAST_WEIGHT[architecture.dtype.name]
    weights = np.where(weights < least, 0, weights).astype(architecture.dtype)
    return weights, float(weights.sum(dtype=np.float64))


def _as_examples(
    X: object,
    Y: object,
    sample_weight: object | None,
    architecture: Architecture,
    names: tuple[str, str, str],
    scales_weights: bool,
) -> tuple[Examples, float]:
    inputs = as_matrix(names[0], X, architecture.sizes[0], architecture.dtype)
    n = inputs.shape[0]
    if n == 0:
        raise ValueError(f"{names[0]} must have at least 1 row, got shape {inputs.shape}")
    targets = as_targets(names[1], Y, architecture)
    if targets.shape[0] != n:
        raise ValueError(
            f"{names[1]} must have as many rows as {names[0]}, {n}, got {targets.shape[0]}"
        )
    if sample_weight is None:
        return Examples(inputs, targets), float(n)
    weights, total = as_weights(names[2], sample_weight, n, architecture, scales=scales_weights)
    return Examples(inputs, targets, weights), total


def as_training_examples(
    X: object,
    Y: object,
    sample_weight: object | None,
    architecture: Architecture,
    *,
    names: tuple[str, str, str] = ("X", "Y", "sample_weight"),
    scales_weights: bool = True,
) -> tuple[Examples, float]:
    """Return the examples for the compiled step, at least one, and the sum of their weights.

    Arrays that need no conversion take little time.
    """
    if sample_weight is None:
        examples = plain_examples(X, Y, architecture)
        if examples is not None:
            return examples, float(examples.n)
    return _as_examples(X, Y, sample_weight, architecture, names, scales_weights)
