"""The values of tensors of untrusted ONNX models, in the model's file or in files beside it."""

from __future__ import annotations

import errno
import math
import os
import stat
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["TensorReader"]

Array = npt.NDArray[Any]
Tensor = Any  # onnx.TensorProto

# By the format's numbers: the type of the bytes, and the field that may hold numbers instead.
_TYPES: dict[int, tuple[np.dtype[Any], str]] = {
    1: (np.dtype("<f4"), "float_data"),
    7: (np.dtype("<i8"), "int64_data"),
    9: (np.dtype("u1"), "int32_data"),  # bool
    11: (np.dtype("<f8"), "double_data"),
}

_EXTERNAL = 1  # onnx.TensorProto.EXTERNAL

# A pipe must not block, nor a link lead out of the directory. Windows has neither flag.
_FLAGS = os.O_RDONLY
for _name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
    _FLAGS |= getattr(os, _name, 0)


class TensorReader:
    """Reads tensors of one model. They raise ValueError unless their values fit their shapes.

    Parameters
    ----------
    directory : str or None
        Of the model, which may have tensors in other files there. None allows no other files.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        # How many bytes of each other file no tensor has used yet. A file may have several names.
        self._unused: dict[tuple[int, int], int] = {}

    def read(self, tensor: Tensor) -> Array:
        """Return the values of a tensor of floats, int64 or bool with at most two dimensions."""
        what = f"tensor {tensor.name!r}"
        if tensor.data_type not in _TYPES:
            raise ValueError(
                f"{what} must hold float32, float64, int64 or bool, got type {tensor.data_type}"
            )
        if len(tensor.dims) > 2 or min(tensor.dims, default=0) < 0:
            raise ValueError(f"{what} must be a matrix or a vector, got shape {tensor.dims[:3]}")
        if tensor.HasField("segment"):
            raise ValueError(f"{what} must be stored as a whole, got a segment")
        dtype, field = _TYPES[tensor.data_type]
        n = math.prod(tensor.dims)
        values: Array
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            values = np.frombuffer(self._read_external(what, tensor, n * dtype.itemsize), dtype)
        elif tensor.HasField("raw_data"):
            values = np.frombuffer(tensor.raw_data, dtype)
        else:
            widest = np.float64 if dtype.kind == "f" else np.int64
            values = np.fromiter(getattr(tensor, field), widest).astype(dtype)
        if values.size != n:
            raise ValueError(f"{what} has shape {tensor.dims[:]}, but {values.size} values")
        return values.reshape(tensor.dims).astype(dtype.newbyteorder("="), copy=False)

    def _read_external(self, what: str, tensor: Tensor, n_bytes: int) -> bytes:
        """Return the bytes of a tensor in another file, which no other tensor has used."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._directory is None:
            raise ValueError(f"{what} is in the file {location!r}: pass the path of the model")
        if os.path.basename(location) != location or location in ("", os.curdir, os.pardir):
            raise ValueError(f"{what} must lie in the model's directory, got {location!r}")
        begin, length = int(entries.get("offset", 0)), int(entries.get("length", n_bytes))
        try:
            with _open_regular(os.path.join(self._directory, location)) as file:
                status = os.fstat(file.fileno())
                which, size = (status.st_dev, status.st_ino), status.st_size
                if not 0 <= begin <= size - n_bytes or length != n_bytes:
                    raise ValueError(f"{what} needs {n_bytes} bytes of the file {location!r}")
                self._unused.setdefault(which, size)
                self._unused[which] -= n_bytes
                if self._unused[which] < 0:
                    raise ValueError(f"{what} overlaps another tensor in the file {location!r}")
                file.seek(begin)
                return file.read(n_bytes)
        except OSError as error:
            raise ValueError(f"{what} needs the file {location!r}: {error}") from error


def _open_regular(path: str) -> BinaryIO:
    """Open a file that is no link, pipe or device."""
    file = os.fdopen(os.open(path, _FLAGS), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "Not a regular file", path)
    return file
