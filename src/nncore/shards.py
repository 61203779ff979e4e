"""Examples in shards, which need not fit into memory; a thread reads them block by block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import (
    LIMITED_LOSSES,
    as_matrix,
    as_targets,
    as_weights,
    check_finite,
    check_real,
    check_rows,
    check_targets,
)
from ._layout import SOURCES, Examples
from .architecture import Architecture
from .enums import Loss
from .long_arrays import FileShard, LongArray, MemoryShard, Reader, as_file, is_file
from .reading import ahead, rows_of_a_block
from .training import Piece, Pieces

__all__ = ["ShardData", "Shards", "are_shards"]

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Order = npt.NDArray[np.intp]


def are_shards(value: Any) -> bool:
    """Whether an argument is to be read in shards: a file, or a list of files and matrices.

    A list of vectors is a matrix, as ever.
    """
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(
            part.ndim == 2 if isinstance(part, np.ndarray) else is_file(part) for part in value
        )
    return is_file(value) and getattr(value, "ndim", 2) == 2


class Shards:
    """What `Examples` are for arrays in memory.

    Parameters
    ----------
    X, Y : array_like, file, or list of arrays and files
        Y may be None.
    sample_weight : likewise, optional
        Read at once, as class indices are.
    architecture : Architecture
    names : tuple of str
        Of the three arguments, for error messages.
    scales_weights : bool, default True
        See `as_weights`.

    Attributes
    ----------
    arrays : tuple of (LongArray, LongArray or None, ndarray or None)
    n : int
    weight : float
        The sum of the weights.
    columns : list of LongArray
        The inputs and the targets, if there are any.

    Raises
    ------
    OSError
        A file cannot be read, or is too short.
    TypeError, ValueError
        As for arrays. In files only shapes and dtypes are checked, and the targets if the loss does
        not allow all of them.
    """

    def __init__(
        self,
        X: Any,
        Y: Any,
        sample_weight: Any,
        architecture: Architecture,
        *,
        names: tuple[str, str, str] = ("X", "Y", "sample_weight"),
        scales_weights: bool = True,
    ) -> None:
        self.architecture, self.names = architecture, names
        inputs = _as_inputs(names[0], X, architecture)
        self.n = n = len(inputs)
        if n == 0 and Y is not None:
            raise ValueError(f"{names[0]} must have at least 1 row, got shape {inputs.shape}")
        targets = None if Y is None else _as_targets(names[1], Y, architecture)
        if targets is not None and len(targets) != n:
            raise ValueError(
                f"{names[1]} must have as many rows as {names[0]}, {n}, got {len(targets)}"
            )
        weights, self.weight = None, float(n)
        if sample_weight is not None:
            parts = [_loaded(part) for _, part in _parts(names[2], sample_weight)]
            given = parts[0] if len(parts) == 1 else np.concatenate(parts)
            weights, self.weight = as_weights(
                names[2], given, n, architecture, scales=scales_weights
            )
        self.arrays = inputs, targets, weights
        self.columns = [inputs] if targets is None else [inputs, targets]

    def __len__(self) -> int:
        return self.n


class ShardData:
    """`training.Data` in shards.

    Parameters
    ----------
    shards : Shards
    rows : ndarray of intp, optional
        Those to train on; by default all.
    places : callable, optional
        Returns which places of a batch to read, from its number of examples; by default all. At the
        other places pieces have any examples.
    """

    def __init__(
        self,
        shards: Shards,
        rows: Order | None = None,
        places: Callable[[int], slice] | None = None,
    ) -> None:
        self.n = shards.n if rows is None else len(rows)
        self._shards, self._rows = shards, rows
        self._places = None if places is None else cache(places)

    def pieces(self, order: Order | None, batch_size: int, begin: int) -> Pieces:
        """See the protocol."""
        stop = bytearray(1)
        return ahead(self._blocks(order, batch_size, begin, stop), stop)

    def _blocks(self, order: Order | None, batch_size: int, begin: int, stop: bytearray) -> Pieces:
        """Yield the pieces, every second one in the same memory."""
        columns = self._shards.columns
        step = rows_of_a_block(sum(column.row_bytes for column in columns), batch_size)
        blocks = [_Block(self._shards, min(step, self.n - begin)) for _ in range(2)]
        with ExitStack() as stack:
            readers = [stack.enter_context(Reader(column, stop)) for column in columns]
            for first in range(begin, self.n, step):
                places = slice(first, first + step)
                rows = np.arange(first, min(first + step, self.n))
                if order is not None:
                    rows = order[places]
                if self._rows is not None:
                    rows = self._rows[rows]
                n, read = len(rows), None
                if self._places is not None:
                    needed = _needed(self._places, n, batch_size)
                    rows, read = rows[needed], np.zeros(n, np.intp)
                    read[needed] = np.arange(len(rows))
                examples = blocks[0].fill(rows, readers)
                if stop[0]:
                    return
                yield Piece(examples, read, 0, n)
                blocks.reverse()


def _needed(places: Callable[[int], slice], n: int, batch_size: int) -> Order:
    """Return the places of n examples that are needed, in batches from the first one on."""
    batches = (np.arange(first, min(first + batch_size, n)) for first in range(0, n, batch_size))
    return np.concatenate([batch[places(len(batch))] for batch in batches])


class _Block:
    """Memory for some of the examples."""

    def __init__(self, shards: Shards, n: int) -> None:
        self._shards = shards
        self._arrays = [np.empty((n, *column.shape[1:]), column.dtype) for column in shards.columns]

    def fill(self, rows: Order, readers: list[Reader]) -> Examples:
        """Read some rows, at most n, and check them."""
        shards, weights = self._shards, self._shards.arrays[2]
        is_custom = shards.architecture.loss == Loss.CUSTOM
        parts = [array[: len(rows)] for array in self._arrays]
        for i, (part, reader) in enumerate(zip(parts, readers, strict=True)):
            reader.read(rows, part)
            if i == 0 or not is_custom:
                check_finite(
                    shards.names[i],
                    part,
                    shards.architecture.dtype,
                    partial(_where, reader.array, rows),
                )
        if is_custom:
            parts[-1].flags.writeable = False  # functions of users read it
        X, *rest = parts
        Y = rest[0] if rest else None
        return Examples(X, Y, None if weights is None else weights[rows])


def _where(array: LongArray, rows: Order | range, i: int) -> str:
    """Return the place of the i-th of some rows."""
    return array.where(int(rows[i]))


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return the shards of an argument that may have some, with their names."""
    if (
        isinstance(value, (list, tuple))
        and value
        and all((isinstance(part, np.ndarray) and part.ndim > 0) or is_file(part) for part in value)
    ):
        return [(f"{name}[{i}]", part) for i, part in enumerate(value)]
    return [(name, value)]


def _loaded(value: Any) -> Any:
    """Return a file as an array, and any other value as it is."""
    file = as_file(value)
    return value if file is None else LongArray([file], file.dtype)[:]


def _as_inputs(name: str, value: Any, architecture: Architecture) -> LongArray:
    n_0, dtype = architecture.sizes[0], architecture.dtype
    shards: list[FileShard | MemoryShard] = []
    for part_name, part in _parts(name, value):
        file = as_file(part)
        if file is None:
            shards.append(MemoryShard(part_name, as_matrix(part_name, part, n_0, dtype)))
        else:
            check_real(part_name, file.dtype)
            check_rows(part_name, file.shape, n_0)
            shards.append(file)
    return LongArray(shards, _common_dtype(shards, dtype))


def _as_targets(name: str, value: Any, architecture: Architecture) -> LongArray:
    n_out, loss = architecture.sizes[-1], architecture.loss
    shards: list[FileShard | MemoryShard] = []
    for part_name, part in _parts(name, value):
        file = as_file(part)
        if file is not None and (loss == Loss.CUSTOM or len(file.shape) > 1):
            if loss != Loss.CUSTOM:
                check_real(part_name, file.dtype)
                check_rows(part_name, file.shape, n_out)
            shards.append(file)
        else:
            targets = as_targets(part_name, _loaded(part), architecture)
            shards.append(MemoryShard(part_name, targets))
        if shards[-1].shape[1:] != shards[0].shape[1:]:
            raise ValueError(
                f"{part_name} must have rows as {name}[0], of shape {shards[0].shape[1:]}, got "
                f"{shards[-1].shape[1:]}"
            )
    if loss == Loss.CUSTOM:
        return LongArray(shards, np.result_type(*(shard.dtype for shard in shards)))
    if len(shards[0].shape) == 1:
        return LongArray(shards, np.dtype(np.intp))
    Y = LongArray(shards, _common_dtype(shards, architecture.dtype))
    if loss in LIMITED_LOSSES and any(isinstance(shard, FileShard) for shard in shards):
        step = rows_of_a_block(Y.row_bytes, 1)
        for first in range(0, len(Y), step):
            rows = range(first, min(first + step, len(Y)))
            check_targets(name, Y[first : first + step], loss, partial(_where, Y, rows))
    return Y


def _common_dtype(shards: list[FileShard | MemoryShard], dtype: DType) -> DType:
    """Return the dtype of the shards if an `Examples` accepts it, otherwise `dtype`."""
    dtypes = {shard.dtype for shard in shards}
    common = dtypes.pop()
    return common if not dtypes and common in SOURCES else dtype
