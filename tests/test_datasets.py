from __future__ import annotations

import doctest
import gzip
import itertools
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nncore import datasets
from nncore.datasets import load_digits, load_idx, load_mnist

IDX_TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}

needs_mnist = pytest.mark.skipif(
    "NNCORE_MNIST" not in os.environ,
    reason="NNCORE_MNIST must name a directory with MNIST's 10,000 test digits",
)


def idx(array: npt.NDArray[Any]) -> bytes:
    header = bytes([0, 0, IDX_TYPES[array.dtype.str[1:]], array.ndim])
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def digits(n: int, side: int = 5) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    return images, rng.integers(0, 10, n, dtype=np.uint8)


def write_pair(
    directory: Path,
    images: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    prefix: str = "",
    infix: str = "-idx",
    compress: bool = True,
) -> None:
    for name, array in ((f"images{infix}3-ubyte", images), (f"labels{infix}1-ubyte", labels)):
        data = idx(array)
        if compress:
            (directory / f"{prefix}{name}.gz").write_bytes(gzip.compress(data))
        else:
            (directory / f"{prefix}{name}").write_bytes(data)


def write_four(
    directory: Path,
    train: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    test: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    infix: str = "-idx",
    compress: bool = True,
) -> None:
    write_pair(directory, *train, "train-", infix, compress)
    write_pair(directory, *test, "t10k-", infix, compress)


# load_digits


def test_digits_have_the_documented_shapes_types_and_ranges() -> None:
    images, labels = load_digits()
    assert images.shape == (1797, 64)
    assert images.dtype == np.float32
    assert set(np.unique(images)) == set(np.arange(17) / 16)
    assert labels.shape == (1797,)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_those_of_scikit_learn_in_the_same_order() -> None:
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = load_digits()
    np.testing.assert_array_equal(images * 16, theirs.data)
    np.testing.assert_array_equal(labels, theirs.target)


def test_digits_are_fresh_arrays_at_each_call() -> None:
    images, labels = load_digits()
    images[:] = -1
    labels[:] = -1
    images, labels = load_digits()
    assert images.min() == 0
    assert labels.min() == 0


# load_idx


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 4), (2, 3, 5), (2, 1, 3, 2), (0, 4, 4), (0,)])
@pytest.mark.parametrize("dtype", IDX_TYPES)
def test_idx_files_are_read_back(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], compress: bool
) -> None:
    rng = np.random.default_rng(0)
    array = (100 * rng.standard_normal(shape)).astype(np.int8).astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    read = load_idx(path)
    np.testing.assert_array_equal(read, array, strict=True)
    assert read.dtype.isnative
    assert read.flags.writeable


@pytest.mark.parametrize(("name", "compress"), [("plain.gz", False), ("zipped", True)])
def test_idx_recognises_gzip_by_content_not_by_name(
    tmp_path: Path, name: str, compress: bool
) -> None:
    array = np.arange(5, dtype=np.uint8)
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx(array)) if compress else idx(array))
    np.testing.assert_array_equal(load_idx(str(path)), array)


WHOLE = idx(np.arange(12, dtype=np.int16).reshape(3, 4))
DAMAGED = {
    "empty": (b"", "got b''"),
    "shorter than the magic number": (WHOLE[:3], "magic number"),
    "no IDX": (b"P5 28 28 255 ...", "got b'P5 2'"),
    "unknown item type": (b"\0\0\x0a" + WHOLE[3:], "got IDX item type 0x0A"),
    "truncated header": (WHOLE[:10], "got 10 bytes, expected at least the 12 bytes"),
    "truncated items": (WHOLE[:-1], "got 23 bytes of IDX items, expected 24"),
    "trailing byte": (WHOLE + b"\0", "got more than 24 bytes of IDX items, expected 24"),
    "impossibly many items": (
        b"\0\0\x08\x03" + b"\xff" * 12 + b"items",
        f"got 5 bytes of IDX items, expected {(2**32 - 1) ** 3}",
    ),
    "too many dimensions": (b"\0\0\x08\xff" + 255 * b"\0\0\0\1" + b"x", "got IDX dimensions"),
    "dimensions beyond memory": (b"\0\0\x0e\x04" + bytes(4) + b"\xff" * 12, "got IDX dimensions"),
    "truncated gzip": (gzip.compress(WHOLE)[:-9], "damaged or truncated gzip"),
    "gzip header alone": (b"\x1f\x8b", "damaged or truncated gzip"),
    "wrong gzip checksum": (gzip.compress(WHOLE)[:-8] + bytes(8), "damaged or truncated gzip"),
    "garbage after gzip": (gzip.compress(WHOLE) + b"garbage", "damaged or truncated gzip"),
    "damaged gzip blocks": (gzip.compress(WHOLE)[:10] + b"\xff" * 20, "damaged or truncated gzip"),
    "truncated items in gzip": (gzip.compress(WHOLE[:-2]), "got 22 bytes of IDX items"),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("declared", "n_contained"),
    [((2**31, 2**20), 100), ((3, 4), 1 << 25)],
    ids=["declares more", "contains more"],
)
def test_idx_takes_no_more_memory_than_its_header_declares_and_the_file_contains(
    tmp_path: Path, declared: tuple[int, int], n_contained: int, compress: bool
) -> None:
    path = tmp_path / "images-idx2-ubyte"
    with gzip.open(path, "wb", 1) if compress else path.open("wb") as file:
        file.write(bytes([0, 0, 0x08, 2]) + struct.pack(">2I", *declared))
        file.write(bytes(n_contained))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes of IDX items"):
            load_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_idx_is_refused_naming_file_got_and_expected(tmp_path: Path, kind: str) -> None:
    content, got = DAMAGED[kind]
    path = tmp_path / "some-file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected") as caught:
        load_idx(path)
    assert str(path) in str(caught.value)
    assert got in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_cut_anywhere_is_refused(tmp_path: Path, compress: bool) -> None:
    whole = gzip.compress(WHOLE) if compress else WHOLE
    path = tmp_path / "file"
    for n_bytes in range(len(whole)):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ValueError, match="expected"):
            load_idx(path)


@given(
    position=st.integers(0, len(gzip.compress(WHOLE, mtime=0)) - 1),
    value=st.integers(0, 255),
    compress=st.booleans(),
)
def test_idx_with_any_byte_changed_is_read_or_refused_with_value_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, compress: bool
) -> None:
    content = bytearray(gzip.compress(WHOLE, mtime=0) if compress else WHOLE)
    content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(content)
    message = None
    try:
        load_idx(path)
    except ValueError as error:
        message = str(error)
    assert message is None or str(path) in message


def test_missing_idx_file_is_an_os_error_naming_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        load_idx(tmp_path / "absent")


# load_mnist


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("infix", ["-idx", ".idx"])
def test_one_pair_is_split_into_first_80_and_last_20_percent(
    tmp_path: Path, infix: str, compress: bool
) -> None:
    images, labels = digits(50)
    write_pair(tmp_path, images, labels, infix=infix, compress=compress)
    (X, y), (X_test, y_test) = load_mnist(tmp_path)
    assert X.shape == (40, 25)
    assert X_test.shape == (10, 25)
    assert X.dtype == X_test.dtype == np.float32
    assert y.dtype == y_test.dtype == np.int64
    rows = images.reshape(50, 25) / np.float32(255)
    np.testing.assert_array_equal(np.concatenate([X, X_test]), rows)
    np.testing.assert_array_equal(np.concatenate([y, y_test]), labels)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("infix", ["-idx", ".idx"])
def test_four_files_bring_their_own_split(tmp_path: Path, infix: str, compress: bool) -> None:
    train, test = digits(20), digits(30)
    write_four(tmp_path, train, test, infix, compress)
    for (X, y), (images, labels) in zip(load_mnist(str(tmp_path)), (train, test), strict=True):
        np.testing.assert_array_equal(X, images.reshape(len(images), -1) / np.float32(255))
        np.testing.assert_array_equal(y, labels)


def test_one_pair_comes_before_four_files(tmp_path: Path) -> None:
    write_four(tmp_path, digits(20), digits(30))
    write_pair(tmp_path, *digits(10))
    (X, _), (X_test, _) = load_mnist(tmp_path)
    assert (len(X), len(X_test)) == (8, 2)


IMAGES, LABELS = digits(10)
MISMATCHED: dict[str, tuple[Callable[[Path], None], str]] = {
    "fewer labels than images": (
        lambda d: write_pair(d, IMAGES, LABELS[:9]),
        r"labels-idx1-ubyte\.gz: got 9 labels, expected 10",
    ),
    "label above 9": (
        lambda d: write_pair(d, IMAGES, np.where(np.arange(10) == 6, 12, LABELS).astype("u1")),
        r"labels-idx1-ubyte\.gz: got label 12 for example 6, expected 0 to 9",
    ),
    "labels for images": (
        lambda d: write_pair(d, LABELS, LABELS),
        r"images-idx3-ubyte\.gz: got 1 dimensions of uint8, expected 3",
    ),
    "images for labels": (
        lambda d: write_pair(d, IMAGES, IMAGES),
        r"labels-idx1-ubyte\.gz: got 3 dimensions of uint8, expected 1",
    ),
    "images of another type": (
        lambda d: write_pair(d, IMAGES.astype("f4"), LABELS),
        r"images-idx3-ubyte\.gz: got 3 dimensions of float32, expected 3 of uint8",
    ),
    "no images": (
        lambda d: write_pair(d, IMAGES[:0], LABELS[:0]),
        r"got training images of shape \(0, 5, 5\), expected at least one",
    ),
    "images without pixels": (
        lambda d: write_pair(d, IMAGES[:, :0], LABELS),
        r"got training images of shape \(8, 0, 5\), expected at least one",
    ),
    "test images of another size": (
        lambda d: write_four(d, (IMAGES, LABELS), (IMAGES[:, 1:], LABELS)),
        r"got test images of shape \(4, 5\), expected \(5, 5\)",
    ),
}


@pytest.mark.parametrize("kind", MISMATCHED)
def test_mismatched_files_are_refused_naming_got_and_expected(tmp_path: Path, kind: str) -> None:
    write, message = MISMATCHED[kind]
    write(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_each_missing_file_is_named(tmp_path: Path) -> None:
    write_four(tmp_path, digits(4), digits(4))
    for part, what in itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        path = tmp_path / f"{part}-{what}-ubyte.gz"
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.stem):
            load_mnist(tmp_path)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"])
def test_missing_half_of_a_pair_is_named(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, *digits(4))
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name.removesuffix(".gz")):
        load_mnist(tmp_path)


def test_missing_empty_and_wrong_directories_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory"):
        load_mnist(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="got neither images-idx3-ubyte nor"):
        load_mnist(tmp_path)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError, match="expected a directory"):
        load_mnist(file)


@needs_mnist
def test_real_mnist_is_split_into_8000_and_2000() -> None:
    (X, y), (X_test, y_test) = load_mnist(os.environ["NNCORE_MNIST"])
    assert X.shape == (8000, 784)
    assert X_test.shape == (2000, 784)
    assert (X.min(), X.max()) == (0, 1)
    assert y[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.unique(y_test).tolist() == list(range(10))


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(datasets).failed == 0
