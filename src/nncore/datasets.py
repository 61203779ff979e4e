"""Handwritten digits: the data set in the package, and files in MNIST's IDX format."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ._files import naming

__all__ = ["load_digits", "load_idx", "load_mnist"]

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# The third byte of an IDX file names the type of its items; all are stored big-endian.
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

# How many bytes are read at a time.
_PIECE = 1 << 20


def load_digits() -> tuple[Images, Labels]:
    """Load the 1797 handwritten digits that ship with the package.

    They are the test set of the UCI *Optical Recognition of Handwritten Digits* in its original
    order. Consecutive examples come from the same writer, so shuffle them before splitting.

    Returns
    -------
    images : ndarray of float32, shape (1797, 64)
        A flattened 8 x 8 image per row. Pixels are multiples of 1/16, from 0 (paper) to 1 (ink).
    labels : ndarray of int64, shape (1797,)
        The digit that each image shows, 0 to 9.

    References
    ----------
    E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
    Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0).

    Examples
    --------
    >>> from nncore.datasets import load_digits
    >>> images, labels = load_digits()
    >>> images.shape, labels.shape
    ((1797, 64), (1797,))
    >>> images.min().item(), images.max().item()
    (0.0, 1.0)
    >>> labels[:10].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    file = resources.files(__package__) / "data" / "optdigits.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    return _scaled_rows(images, 16), labels.astype(np.int64)


def load_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read an IDX file, the format of MNIST.

    The file may be compressed with gzip, whatever its name. Reading takes no more memory than a
    small multiple of what the header declares and the file contains, whichever is less.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    ndarray
        A new array with the shape and type in the file's header: uint8, int8, int16, int32,
        float32 or float64, in native byte order.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file is damaged, too short, too long, or not an IDX file. The message names the file,
        what it holds and what was expected.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from nncore.datasets import load_idx
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 0x08, 1]) + bytes([0, 0, 0, 3]) + bytes([7, 2, 1]))
    ...     load_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    with naming(path), Path(path).open("rb") as file:
        if file.peek(2)[:2] != b"\x1f\x8b":
            return _read_idx(path, file)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _read_idx(path, cast(BinaryIO, stream))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: got damaged or truncated gzip data ({error}), expected a gzip file"
            ) from error


def _read_idx(path: str | os.PathLike[str], stream: BinaryIO) -> npt.NDArray[Any]:
    """Return the array in a stream, of which no more is read than its header declares."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(
            f"{path}: got {magic!r} as the first bytes, expected the magic number of an IDX "
            "file (two zero bytes, item type, number of dimensions)"
        )
    code, ndim = magic[2:]
    if code not in _IDX_DTYPES:
        known = ", ".join(f"0x{code:02X}" for code in _IDX_DTYPES)
        raise ValueError(f"{path}: got IDX item type 0x{code:02X}, expected one of {known}")
    stored = np.dtype(_IDX_DTYPES[code])
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(
            f"{path}: got {4 + len(sizes)} bytes, expected at least the {4 + 4 * ndim} bytes "
            f"of an IDX header with {ndim} dimensions"
        )
    shape = np.frombuffer(sizes, ">u4").tolist()
    # In Python's integers, since a damaged header may overflow 64 bits.
    n_bytes = math.prod(shape) * stored.itemsize
    # Memory grows with what the file contains, not with what it declares.
    data = bytearray()
    while len(data) < n_bytes and (part := stream.read(min(n_bytes - len(data), _PIECE))):
        data += part
    is_longer = len(data) == n_bytes and stream.read(1) != b""
    if is_longer or len(data) != n_bytes:
        expected = " x ".join(map(str, shape))
        raise ValueError(
            f"{path}: got {'more than ' * is_longer}{len(data)} bytes of IDX items, expected "
            f"{n_bytes} ({expected} items of {stored.itemsize} bytes)"
        )
    try:
        items = np.frombuffer(data, stored).reshape(shape)
    except ValueError as error:
        raise ValueError(
            f"{path}: got IDX dimensions {shape}, expected those of an array ({error})"
        ) from error
    return items.astype(stored.newbyteorder("="))


def load_mnist(
    directory: str | os.PathLike[str],
) -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Load handwritten digits from a directory of files in MNIST's format.

    The directory holds either the pair ``images-idx3-ubyte`` and ``labels-idx1-ubyte``, of which
    the first 80 % become the training set and the last 20 % the test set, or MNIST's four files
    ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte`` with their split. If both are present, the pair is used. Each file
    may be compressed with gzip and end in ``.gz``, and may have a dot instead of the dash before
    ``idx``.

    Parameters
    ----------
    directory : str or path-like
        The directory of the files.

    Returns
    -------
    (train_images, train_labels), (test_images, test_labels)
        Images are float32 of shape (n_samples, n_pixels), with an image per row and pixels scaled
        from 0...255 to 0...1. Labels are int64 of shape (n_samples,), from 0 to 9.

    Raises
    ------
    OSError
        The directory or one of its files is missing or cannot be read.
    ValueError
        A file is damaged, or the files do not match. The message names the file, what it holds and
        what was expected.

    Examples
    --------
    >>> from nncore.datasets import load_mnist
    >>> (images, labels), (test_images, test_labels) = load_mnist("mnist")  # doctest: +SKIP
    >>> images.shape, test_images.shape  # doctest: +SKIP
    ((60000, 784), (10000, 784))
    """
    directory = Path(directory)
    if not directory.exists():
        raise FileNotFoundError(f"{directory}: no such directory")
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory}: got a file, expected a directory with IDX files")

    if _find(directory, "images-idx3-ubyte") or _find(directory, "labels-idx1-ubyte"):
        images, labels = _load_pair(directory, "")
        n_train = len(images) * 4 // 5
        train, test = (images[:n_train], labels[:n_train]), (images[n_train:], labels[n_train:])
    elif not _find(directory, "train-images-idx3-ubyte"):
        raise FileNotFoundError(
            f"{directory}: got neither images-idx3-ubyte nor train-images-idx3-ubyte, "
            "expected one of them, gzipped or not"
        )
    else:
        train, test = _load_pair(directory, "train-"), _load_pair(directory, "t10k-")
        if train[0].shape[1:] != test[0].shape[1:]:
            raise ValueError(
                f"{directory}: got test images of shape {test[0].shape[1:]}, "
                f"expected {train[0].shape[1:]} as in the training images"
            )
    for name, (images, _) in (("training", train), ("test", test)):
        if images.size == 0:
            raise ValueError(
                f"{directory}: got {name} images of shape {images.shape}, expected at least "
                "one image with at least one pixel"
            )
    return (
        (_scaled_rows(train[0], 255), train[1].astype(np.int64)),
        (_scaled_rows(test[0], 255), test[1].astype(np.int64)),
    )


def _scaled_rows(images: npt.NDArray[np.uint8], maximum: int) -> Images:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(maximum)


def _find(directory: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz")
    return next((path for path in map(directory.joinpath, names) if path.is_file()), None)


def _load_pair(directory: Path, prefix: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    paths = []
    for name in (f"{prefix}images-idx3-ubyte", f"{prefix}labels-idx1-ubyte"):
        path = _find(directory, name)
        if path is None:
            raise FileNotFoundError(f"{directory}: got no {name}, expected it, gzipped or not")
        paths.append(path)
    arrays = []
    for path, ndim in zip(paths, (3, 1), strict=True):
        array = load_idx(path)
        if array.dtype != np.uint8 or array.ndim != ndim:
            raise ValueError(
                f"{path}: got {array.ndim} dimensions of {array.dtype}, expected {ndim} of uint8"
            )
        arrays.append(array)
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(
            f"{paths[1]}: got {len(labels)} labels, expected {len(images)}, "
            f"one for each image of {paths[0].name}"
        )
    wrong = np.flatnonzero(labels > 9)
    if wrong.size:
        raise ValueError(
            f"{paths[1]}: got label {labels[wrong[0]]} for example {wrong[0]}, expected 0 to 9"
        )
    return images, labels
