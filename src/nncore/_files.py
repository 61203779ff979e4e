"""Files in the safetensors format, replaced as a whole; docs/internals.md describes what they hold.

The header is written here and not by safetensors, whose functions copy tensors in some versions,
turn disk errors into errors of their own and do not fsync. Reading leaves the format's checks to
safetensors, on bytes and not on a mapped file, which another process may truncate meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "VERSION",
    "Contents",
    "FilePath",
    "as_path",
    "naming",
    "read",
    "refused",
    "replacing",
    "write",
]

Array = npt.NDArray[Any]
FilePath = str | os.PathLike[str]

# The version of the files' contents. It grows when older versions of nncore could misread a file.
VERSION = 1

# safetensors refuses longer headers.
_LONGEST_HEADER = 100_000_000

# The name of each dtype in the format.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

# The section with version and checksum.
_STAMP = "nncore"


class Contents(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    sections : dict of str to JSON value
        The metadata.
    tensors : dict of str to ndarray
        Arrays from a file belong to the caller alone.
    """

    sections: dict[str, Any]
    tensors: dict[str, Array]


@contextmanager
def refused(path: str) -> Iterator[None]:
    """Raise whatever is wrong with the contents of a file as ValueError with its path."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"{path!r} is not a file that this version of nncore can read: {kind}{error}"
        ) from error


@contextmanager
def naming(path: FilePath) -> Iterator[None]:
    """Add the path to errors of reads and writes, which know only the open file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = as_path(path)
        raise


def as_path(path: FilePath) -> str:
    """Return a path as a str."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path must be a str or os.PathLike, got {path!r}") from None
    if "\0" in text:
        raise ValueError(f"path must hold no null character, got {path!r}")
    return text


# Writing.


def write(path: FilePath, contents: Contents) -> None:
    """Write a file, or replace it: at any moment the old or the new one exists, complete.

    Parameters
    ----------
    path : str or path
        A symbolic link stays, and the file that it leads to is replaced. The mode stays, too.
    contents : Contents
        Tensors in C order are not copied.

    Raises
    ------
    OSError
        The file could not be written; the old one is unchanged.
    ValueError
        The sections are longer than the format allows.
    """
    path = as_path(path)
    sections = {name: _to_json(value) for name, value in contents.sections.items()}
    header: dict[str, Any] = {}
    data, end = [], 0
    # The widest numbers first, so that all are aligned for readers who map the file.
    for name, tensor in sorted(contents.tensors.items(), key=lambda item: -item[1].itemsize):
        array = np.asarray(tensor, tensor.dtype.newbyteorder("<"), order="C")
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        data.append(array.reshape(-1).view(np.uint8).data)
    stamp = {"version": VERSION, "crc32": _checksum(sections, header, data)}
    text = _to_json({"__metadata__": {_STAMP: _to_json(stamp), **sections}, **header}).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise ValueError(
            f"names and settings must fit in {_LONGEST_HEADER} bytes to be stored, got {len(text)}"
        )
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for part in data:
            file.write(part)


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _checksum(
    sections: Mapping[str, str], header: Mapping[str, Any], data: Iterable[memoryview]
) -> int:
    """Return the CRC-32 of everything but the stamp: sections, tensors' entries, tensors."""
    entries = [f"{name}\n{sections[name]}\n" for name in sorted(sections)]
    entries += [f"{name}\n{_to_json(header[name])}\n" for name in sorted(header)]
    checksum = zlib.crc32("".join(entries).encode())
    for part in data:
        checksum = zlib.crc32(part, checksum)
    return checksum


@contextmanager
def replacing(path: FilePath) -> Iterator[BinaryIO]:
    """Open a temporary file, which replaces that of the path unless the block raises."""
    path = os.path.realpath(as_path(path))
    mode = _mode(path)
    file, temporary = _open_temporary(path)
    with naming(path), file:
        try:
            if mode is not None:
                os.chmod(temporary, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows cannot rename an open file
            os.replace(temporary, path)
        except BaseException:
            if fcntl is None:
                file.close()
            with suppress(OSError):
                os.unlink(temporary)
            raise
    _sync_directory(os.path.dirname(path))


def _mode(path: str) -> int | None:
    """Return the permissions of the file, None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Only a regular file can be replaced", path)
    return stat.S_IMODE(status.st_mode)


def _open_temporary(path: str) -> tuple[BinaryIO, str]:
    """Open an empty file in the same directory, and return it with its name.

    The name is short, since that of the path may be as long as the system allows, and always the
    same: a process that is killed while it writes leaves one file behind,
    which the next one overwrites. If another process is writing, it holds the file's lock, and
    the file gets a random name.
    """
    directory, name = os.path.split(path)
    stem = f".nncore-{zlib.crc32(os.fsencode(name)):08x}"
    temporary = os.path.join(directory, f"{stem}.tmp")
    if fcntl is not None:
        # Errors mean that it is locked, renamed or of another user, or that there are no locks.
        with suppress(OSError), open(_open(temporary, os.O_NOFOLLOW), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last owner may have renamed the file before it released the lock.
            if os.path.samestat(os.fstat(file.fileno()), os.lstat(temporary)):
                file.truncate()
                # The lock lasts until both descriptors are closed.
                return open(os.dup(file.fileno()), "wb"), temporary
    temporary = os.path.join(directory, f"{stem}-{secrets.token_hex(8)}.tmp")
    return open(_open(temporary, os.O_EXCL), "wb"), temporary


def _open(path: str, flags: int) -> int:
    """Return the descriptor of a file to write, which may be new."""
    flags |= os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def _sync_directory(directory: str) -> None:
    """Let a rename survive a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # files may be created in it, but it cannot be read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


# Reading.


def _deserialized(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the tensors of a file; raise MemoryError where safetensors' Rust code panics."""
    # Not at the top: everything else works on Pythons for which safetensors has no wheel.
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "reading a file needs safetensors: run `pip install safetensors`", name=error.name
        ) from error
    deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize
    try:
        return deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which no module exports
            raise
        raise MemoryError(f"could not allocate the tensors of {len(data)} bytes") from error


def read(path: FilePath) -> Contents:
    """Return what a file holds, checked against the format and the checksum.

    Raises
    ------
    OSError
        The file could not be read.
    ModuleNotFoundError
        safetensors is not installed.
    ValueError
        The file is damaged, of another origin, or of a newer version.
    """
    path = as_path(path)
    with naming(path), open(path, "rb") as file, refused(path):
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(size - 8, _LONGEST_HEADER):
            raise ValueError("it is not in the safetensors format, or is cut off")
        # Files of other origin are not read as a whole.
        header = json.loads(file.read(length))
        sections = header.pop("__metadata__")
        stamp = json.loads(sections.pop(_STAMP))
        version = stamp.pop("version")
        if version not in range(1, VERSION + 1):
            raise ValueError(f"it has version {version!r}, known are 1 to {VERSION}")
        file.seek(0)
        data = file.read(size)
        tensors: dict[str, Array] = {}
        for name, tensor in _deserialized(data):
            dtype = _DTYPES[tensor["dtype"]]
            tensors[name] = np.ndarray(tensor["shape"], dtype, tensor["data"])
        # Other programs may leave the checksum out.
        checksum = _checksum(sections, header, [memoryview(data)[8 + length :]])
        if stamp not in ({}, {"crc32": checksum}):
            raise ValueError("its checksum is wrong")
        return Contents({name: json.loads(text) for name, text in sections.items()}, tensors)
