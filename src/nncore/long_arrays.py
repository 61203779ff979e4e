"""Arrays cut into shards, in memory or in files, each read as one long array.

Files are read row by row at their places and not through a mapping: memory stays bounded, and a
file that shrinks raises an exception, where a mapping would end the process with a signal.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
from collections.abc import Sequence
from tokenize import TokenError
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ._reading import read_rows

__all__ = ["FileShard", "LongArray", "MemoryShard", "Reader", "as_file", "is_file"]

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Order = npt.NDArray[np.intp]

# NumPy refuses longer headers of .npy files.
_MOST_HEADER = 1 << 14

# What NumPy's parser of headers raises.
_HEADER_ERRORS = (
    ArithmeticError,
    LookupError,
    RecursionError,
    SyntaxError,
    TokenError,
    TypeError,
    ValueError,
)

# How many files of an array are open at the same time: systems allow 1,024 by default.
_MOST_OPEN = 256


class MemoryShard:
    """Rows in an array."""

    def __init__(self, name: str, array: Array) -> None:
        self.name = name
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array

    def open(self) -> None:
        """Do nothing: an array needs no file."""

    def read(self, file: None, rows: Order, out: Array, places: Order, stop: bytearray) -> None:
        """Copy rows into places of `out`."""
        if len(rows) == len(out) and self.dtype == out.dtype:
            np.take(self._array, rows, axis=0, out=out, mode="clip")
        else:
            out[places] = self._array[rows]


class FileShard:
    """Rows of a file, at equal distances.

    Parameters
    ----------
    path : str
    shape : tuple of int
        The number of rows, then the shape of a row.
    dtype : dtype
    offset, stride : int
        Where row 0 begins, and the distance from row to row, in bytes.
    is_fixed : bool
        Whether the file must not change.

    Raises
    ------
    OSError
        The file cannot be read, or ends before the last row.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: DType,
        offset: int,
        stride: int,
        *,
        is_fixed: bool,
    ) -> None:
        self.name = repr(path)
        self.shape, self.dtype = shape, dtype
        self._path, self._offset, self._stride = path, offset, stride
        self._is_fixed = is_fixed
        self._stamp: tuple[int, ...] | None = None
        with self.open() as file:
            self._stamp = size, *_ = self._check(file, 0)
        # The bytes that follow row 0, if the file has all of it.
        left = size - offset - math.prod(shape[1:]) * dtype.itemsize
        if shape[0] and left < max((shape[0] - 1) * stride, 0):
            missing = left // stride + 1 if left >= 0 else 0
            raise self._error(missing, "the file is too short")

    def _offsets(self, rows: Order) -> npt.NDArray[np.int64]:
        return self._offset + rows.astype(np.int64) * self._stride

    def _error(self, row: int, why: str, number: int = errno.EIO) -> OSError:
        return OSError(number, f"row {row} could not be read: {why}", self._path)

    def open(self) -> BinaryIO:
        """Return the open file."""
        return open(self._path, "rb", buffering=0)

    def read(self, file: BinaryIO, rows: Order, out: Array, places: Order, stop: bytearray) -> None:
        """Read rows of the open file into places of `out`.

        Raises
        ------
        OSError
            A row could not be read, or the file was modified since this object was created.
        """
        raw = out
        if out.dtype != self.dtype:
            raw = np.empty((len(rows), *self.shape[1:]), self.dtype)
        numbers = np.arange(len(rows)) if raw is not out else places
        memory = raw.reshape(len(raw), -1).view(np.uint8)
        done, number = read_rows(file.fileno(), self._offsets(rows), numbers, memory, stop)
        if done < len(rows) and not stop[0]:
            why = os.strerror(number) if number else "the file is too short"
            raise self._error(int(rows[done]), why, number or errno.EIO)
        self._check(file, int(rows[-1]))
        if raw is not out:
            with np.errstate(over="ignore"):
                out[places] = raw

    def _check(self, file: BinaryIO, row: int) -> tuple[int, ...]:
        """Return what shows changes of a file; raise OSError if there is one."""
        status = os.fstat(file.fileno())
        stamp = status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev
        if self._is_fixed and self._stamp not in (None, stamp):
            raise self._error(row, "the file was modified during the call")
        return stamp


Shard = MemoryShard | FileShard


class LongArray:
    """Shards as one array, of which rows can be read.

    Parameters
    ----------
    shards : sequence of MemoryShard and FileShard
        Their rows have the same shape.
    dtype : dtype
        To which rows are converted.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
    ndim : int
    """

    def __init__(self, shards: Sequence[Shard], dtype: DType) -> None:
        self.shards = shards
        self.ends = np.cumsum([shard.shape[0] for shard in shards])
        self.shape: tuple[int, ...] = int(self.ends[-1]), *shards[0].shape[1:]
        self.dtype = dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        """The bytes of a row of the dtype."""
        return int(math.prod(self.shape[1:]) * self.dtype.itemsize)

    def where(self, row: int) -> str:
        """Return the place of a row, for error messages."""
        i = int(np.searchsorted(self.ends, row, side="right"))
        shard = self.shards[i]
        return f"row {row - int(self.ends[i]) + shard.shape[0]} of {shard.name}"

    def __getitem__(self, rows: slice | Order) -> Array:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        with Reader(self) as reader:
            reader.read(rows, out)
        return out


class Reader:
    """Reads rows of a long array, for one thread.

    Parameters
    ----------
    array : LongArray
    stop : bytearray of length 1, optional
        Once it is 1, `read` returns as soon as it can, with rows that are not read.
    """

    def __init__(self, array: LongArray, stop: bytearray | None = None) -> None:
        self.array = array
        self._stop = bytearray(1) if stop is None else stop
        # The open files, those used last at the end.
        self._files: dict[int, Any] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def read(self, rows: Order, out: Array) -> None:
        """Read rows into an array of the long array's dtype.

        Raises
        ------
        OSError
            A row could not be read.
        """
        if len(rows) == 0:
            return
        array = self.array
        of_rows = np.searchsorted(array.ends, rows, side="right")
        by_shard = np.argsort(of_rows, kind="stable")
        touched, firsts = np.unique(of_rows[by_shard], return_index=True)
        for i, places in zip(touched.tolist(), np.split(by_shard, firsts[1:]), strict=True):
            shard = array.shards[i]
            first = int(array.ends[i]) - shard.shape[0]
            shard.read(self._open(i, shard), rows[places] - first, out, places, self._stop)

    def _open(self, i: int, shard: Shard) -> Any:
        if isinstance(shard, MemoryShard):
            return None
        file = self._files.pop(i, None)
        if file is None:
            if len(self._files) >= _MOST_OPEN:
                self._files.pop(next(iter(self._files))).close()
            file = shard.open()
        self._files[i] = file
        return file


def _as_path(value: object) -> str | None:
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and path.endswith(".npy"):
            return path
    return None


def is_file(value: object) -> bool:
    """Whether `value` is the path of a .npy file, or maps a file whose rows can be read."""
    return _as_path(value) is not None or (
        isinstance(value, np.memmap)
        and value.ndim > 0
        and value.size > 0
        and value.filename is not None
        and value.mode != "c"
        and value[:1].flags.c_contiguous
        and _mapping_of(value) is not None
    )


def as_file(value: object) -> FileShard | None:
    """Return the file that `value` names or maps, or None for any other value.

    Raises
    ------
    OSError
        The file cannot be read, or ends before the last row.
    ValueError
        The file that is named holds no array in C order.
    """
    path = _as_path(value)
    if path is not None:
        return _named(path)
    return _mapped(value) if is_file(value) and isinstance(value, np.memmap) else None


def _named(path: str) -> FileShard:
    """Return the array in a .npy file."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with open(path, "rb") as file:
        # Its length is in the file, and memory for all of it would be allocated.
        head = io.BytesIO(file.read(_MOST_HEADER))
        try:
            version = np.lib.format.read_magic(head)
            if version not in readers:
                raise ValueError(f"version {version} of the format holds structured arrays")
            shape, is_fortran, dtype = readers[version](head)
            if dtype.hasobject:
                raise ValueError(f"its dtype is {dtype}")
            if not shape or min(shape) < 0 or (is_fortran and len(shape) > 1 and min(shape) > 1):
                raise ValueError(f"it must have rows in C order, got shape {shape}")
            # Of empty rows a small file can declare any number.
            if dtype.itemsize == 0 or 0 in shape[1:]:
                raise ValueError(f"its rows must not be empty, got shape {shape} of {dtype}")
        except _HEADER_ERRORS as error:
            raise ValueError(f"{path!r} holds no array that can be read: {error}") from None
        offset = head.tell()
    stride = math.prod(shape[1:]) * dtype.itemsize
    return FileShard(path, shape, dtype, offset, stride, is_fixed=True)


def _mapped(array: Any) -> FileShard | None:
    """Return the file behind a mapping; None if it has been deleted, so that only that is left."""
    mapping = _mapping_of(array)
    assert mapping is not None
    begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
    address = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
    offset = begin + array.__array_interface__["data"][0] - address
    is_fixed = array.mode == "r"
    try:
        return FileShard(
            os.fspath(array.filename),
            array.shape,
            array.dtype,
            offset,
            array.strides[0],
            is_fixed=is_fixed,
        )
    except FileNotFoundError:
        return None


def _mapping_of(array: object) -> mmap.mmap | None:
    """Return the mapping that a `numpy.memmap` or a view of it reads."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
