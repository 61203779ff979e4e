"""Examples in mapped files, which are never read or copied as a whole."""

import copy
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from helpers import Array, child, data, make, refused

import nncore
from nncore import network

DType = np.dtype[Any]


def as_map(path: Path, array: Array, order: Literal["C", "F"] = "C") -> Any:
    mapped = np.memmap(path, dtype=array.dtype, mode="w+", shape=array.shape, order=order)
    mapped[...] = array
    return mapped


LAYOUTS: dict[str, Callable[[Path, Array], Any]] = {
    "plain": as_map,
    "fortran": lambda path, array: as_map(path, array, order="F"),
    "strided": lambda path, array: as_map(path, np.repeat(array, 2, axis=0))[::2],
    "columns": lambda path, array: as_map(path, np.repeat(array, 3, axis=1))[:, 1::3],
    "slice of columns": lambda path, array: as_map(path, np.hstack([array, array]))[
        :, array.shape[1] :
    ],
    "backwards": lambda path, array: as_map(path, array[::-1, ::-1])[::-1, ::-1],
    "one row repeated": lambda path, array: np.broadcast_to(
        as_map(path, array[:1]), array.shape, subok=True
    ),
}


def read_only(mapped: Any) -> Any:
    mapped.flags.writeable = False
    return mapped


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_mapped_data_give_the_same_bits_as_arrays(
    outputs: int, layout: Callable[[Path, Array], Any], shuffle: bool, dtype: DType, tmp_path: Path
) -> None:
    net = make([4, 6, outputs], dtype=dtype)
    X, Y = data(net, 300, np.random.default_rng(3))
    X_map = read_only(layout(tmp_path / "X", X))
    Y_map = read_only(layout(tmp_path / "Y", Y))
    assert isinstance(X_map, np.memmap)
    assert isinstance(Y_map, np.memmap)
    # What is compared to: plain arrays of the same values.
    X, Y = np.array(X_map, order="C"), np.array(Y_map, order="C")
    assert net.predict(X_map).tobytes() == net.predict(X).tobytes()
    assert net.layer_outputs(X_map)[0].tobytes() == net.layer_outputs(X)[0].tobytes()
    assert net.evaluate(X_map, Y_map) == net.evaluate(X, Y)
    assert net.gradient(X_map, Y_map).tobytes() == net.gradient(X, Y).tobytes()
    twin = copy.deepcopy(net)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 7, "shuffle": shuffle, "seed": 0}
    mapped_history = net.fit(X_map, Y_map, validation_data=(X_map, Y_map), **options)
    history = twin.fit(X, Y, validation_data=(X, Y), **options)
    assert net.equals(twin)
    assert mapped_history.loss == history.loss
    assert mapped_history.validation_loss == history.validation_loss
    one, two = nncore.SGD(0.1), nncore.SGD(0.1)
    assert net.train_on_batch(X_map, Y_map, one) == twin.train_on_batch(X, Y, two)
    assert net.equals(twin)


def test_mapped_targets_may_be_a_vector(dtype: DType, tmp_path: Path) -> None:
    net = make([5, 1], dtype=dtype)
    X, Y = data(net, 50, np.random.default_rng(3))
    mapped = as_map(tmp_path / "Y", Y[:, 0].repeat(2))[::2]
    assert net.gradient(X, mapped).tobytes() == net.gradient(X, Y).tobytes()


@pytest.mark.parametrize("kind", ["i8", "u1", ">i4"])
def test_mapped_class_indices_are_class_indices(kind: str, tmp_path: Path) -> None:
    net = make([5, 4], loss="cross_entropy")
    X, _ = data(net, 50, np.random.default_rng(3))
    labels = np.arange(50) % 4
    mapped = as_map(tmp_path / "Y", labels.astype(kind))
    assert net.gradient(X, mapped).tobytes() == net.gradient(X, labels).tobytes()
    mapped[17] = 4
    with pytest.raises(ValueError, match=r"Y must hold class indices from 0 to 3, got 4 in row 17"):
        net.gradient(X, mapped)


@pytest.mark.parametrize("kind", ["f2", "i2", ">f4", "f8"])
def test_mapped_data_of_another_type_are_converted(kind: str, tmp_path: Path) -> None:
    net = make([5, 3], dtype="float32")
    X = np.random.default_rng(3).integers(-9, 9, (50, 5))
    mapped = as_map(tmp_path / "X", X.astype(kind))
    assert net.predict(mapped).tobytes() == net.predict(X).tobytes()


# Values that are not allowed


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("bad", ["X", "Y"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mapped_values_that_are_not_finite_are_named(
    loss: str, bad: str, value: float, dtype: DType, tmp_path: Path
) -> None:
    net = make([5, 6, 3], "relu", loss, dtype=dtype)
    mapped = [
        as_map(tmp_path / name, a)
        for name, a in zip("XY", data(net, 37, np.random.default_rng(6)), strict=True)
    ]
    mapped["XY".index(bad)][33, 2] = value
    messages = [f"{bad} must be finite", f"got {value} in row 33", str(tmp_path / bad)]
    if bad == "Y" and loss != "squared_error":
        messages = ["Y must hold probabilities", "row 33", str(tmp_path / bad)]
    with refused(ValueError, *messages, unchanged=[net]):
        net.fit(*mapped, epochs=2, batch_size=8)
    with refused(ValueError, *messages, unchanged=[net]):
        net.evaluate(*mapped)


LATE = 700_001  # beyond the first block of rows that is checked


@pytest.mark.parametrize("call", ["fit", "evaluate", "gradient", "train_on_batch"])
@pytest.mark.parametrize(
    ("loss", "row", "message"),
    [
        ("binary_cross_entropy", [0, 7], "probabilities from 0 to 1"),
        ("cross_entropy", [1, 20], "probabilities from 0 to 1"),
        ("cross_entropy", [1, 1], "sum to 1"),
        ("poisson", [1, -7], "must not be negative"),
    ],
)
def test_mapped_targets_that_the_loss_does_not_allow_are_rejected(
    call: str, loss: str, row: list[float], message: str, tmp_path: Path
) -> None:
    net = make([1, 2], loss=loss, dtype="float32")
    X = np.zeros((LATE + 5, 1), np.float32)
    Y = as_map(tmp_path / "Y", np.full((LATE + 5, 2), 0.5, np.float32))
    Y[[LATE, LATE + 3]] = row
    optimizer = nncore.SGD(0.1)
    options = {"optimizer": optimizer} if call in ("fit", "train_on_batch") else {}
    with refused(ValueError, "Y must", message, f"row {LATE}", unchanged=[net]):
        getattr(net, call)(X, Y, **options)
    assert optimizer.step_count == 0


VIEWS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda mapped: mapped,
    "columns": lambda mapped: mapped[:, ::2],
    "rows": lambda mapped: mapped[::2],
    "backwards": lambda mapped: mapped[::-1],
    "transposed": lambda mapped: mapped.T,
}


@pytest.mark.parametrize("call", ["predict", "layer_outputs"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(
    ("kind", "bad"), [("f4", np.nan), ("f4", -np.inf), ("f8", np.nan), ("f8", 1e300)]
)
def test_outputs_for_mapped_views_name_the_row_that_is_not_finite(
    call: str,
    view: Callable[[Any], Any],
    n_threads: int,
    kind: str,
    bad: float,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(network, "as_n_threads", lambda *arguments: n_threads)
    X = view(as_map(tmp_path / "X", np.random.default_rng(0).random((300, 300)).astype(kind)))
    net = make([X.shape[1], 6, 3], dtype="float32")
    expected = [A.tobytes() for A in net.layer_outputs(np.array(X))]
    assert net.predict(X).tobytes() == expected[-1]
    assert [A.tobytes() for A in net.layer_outputs(X)] == expected
    X[[107, 140], 90] = bad
    with refused(ValueError, "X must be finite", f"got {bad}", "row 107", unchanged=[net]):
        getattr(net, call)(X)


# Memory


@pytest.mark.parametrize("call", ["fit", "evaluate", "gradient", "predict"])
def test_mapped_data_are_not_copied_as_a_whole(call: str, tmp_path: Path) -> None:
    net = make([1024, 2, 1], dtype="float32")
    n = 2**15
    path = tmp_path / "X"
    with path.open("wb") as file:
        file.truncate(4 * n * 1024)
    X: Any = np.memmap(path, dtype=np.float32, mode="r", shape=(n, 1024))
    Y = np.zeros(n, dtype=np.float32)
    tracemalloc.start()
    try:
        if call == "fit":
            net.fit(X, Y, batch_size=32, seed=0)
        elif call == "predict":
            net.predict(X)
        else:
            getattr(net, call)(X, Y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert X.nbytes == 2**27
    # Two blocks of 4 MiB, the outputs, and the order.
    assert peak < 2**24


TOUCH = """
import sys
import numpy as np, psutil
import nncore

path, n = sys.argv[1], int(sys.argv[2])
X = np.memmap(path, dtype=np.float32, mode="r", shape=(n, 1024))
Y = np.zeros(n, dtype=np.float32)
net = nncore.Network([1024, 8, 1], seed=0)
net.fit(np.ones((64, 1024)), np.zeros(64))
before = psutil.Process().memory_info().rss
seen = []
try:
    # Row 5000 holds NaN. Nothing may read the whole file before or after.
    net.fit(X, Y, batch_size=32, shuffle=False)
except ValueError:
    seen.append(psutil.Process().memory_info().rss - before)
net.train_on_batch(X[:32], Y[:32], nncore.SGD(0.1))
net.fit(X[-64:], Y[-64:])
net.predict(X[1000:1100])
seen.append(psutil.Process().memory_info().rss - before)
print(*seen)
"""


def test_only_rows_of_the_batches_are_read_from_a_mapped_file(tmp_path: Path) -> None:
    n = 2**19
    path = tmp_path / "X"
    with path.open("wb") as file:
        file.truncate(4 * n * 1024)
        file.seek(4 * 1024 * 5000)
        file.write(np.full(1024, np.nan, dtype=np.float32).tobytes())
    process = child(TOUCH, path, n)
    out, err = process.communicate(timeout=60)
    assert err == ""
    grown = [int(word) for word in out.split()]
    assert path.stat().st_size == 2**31
    assert len(grown) == 2
    assert max(grown) < 2**26
