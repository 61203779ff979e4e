"""Shards that are wrong, or become so during training: the error names file and row."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, assert_no_new_threads, data, make, refused

import nncore
from nncore import reading

N, CUT = 203, 120


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1000)


class Problem:
    """A network with data, the second of whose two shards is a file."""

    def __init__(self, folder: Path, loss: Any = "squared_error") -> None:
        self.net = nncore.Network([4, 6, 3], loss=loss, dtype="float32", seed=1)
        self.X, self.Y = data(self.net, N, np.random.default_rng(3))
        self.path = folder / "second.npy"
        self.save(self.X)

    def save(self, X: Array) -> None:
        np.save(self.path, X[CUT:])

    def write(self, row: int, values: Any) -> None:
        """Overwrite numbers of a row of the file."""
        with self.path.open("r+b") as file:
            file.seek(128 + row * 16)
            file.write(np.asarray(values, np.float32).tobytes())
            file.flush()
        os.utime(self.path, ns=(0, 0))  # clocks of file systems may be coarse

    def shrink(self, row: int) -> None:
        os.truncate(self.path, 128 + row * 16 + 3)

    def shards(self, mode: Any) -> list[Any]:
        file = str(self.path) if mode is None else np.load(self.path, mmap_mode=mode)
        return [self.X[:CUT], file]

    def fit(self, X: Any, **options: Any) -> nncore.History:
        options = {"epochs": 4, "batch_size": 8, "seed": 0} | options
        return self.net.fit(X, self.Y, **options)


every_mode = pytest.mark.parametrize("mode", [None, "r", "r+"])


@every_mode
@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_a_short_file_is_refused(mode: Any, call: str, tmp_path: Path) -> None:
    problem = Problem(tmp_path)
    X = problem.shards(mode)
    problem.shrink(50)
    arguments = (X,) if call == "predict" else (X, problem.Y)
    with refused(OSError, "row 50", "too short", str(problem.path), unchanged=[problem.net]):
        getattr(problem.net, call)(*arguments)


@every_mode
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_shrinks_during_training_ends_it(
    mode: Any, alone: bool, tmp_path: Path
) -> None:
    """A mapping would end the process."""
    problem = Problem(tmp_path)
    X, options = problem.shards(mode), {"shuffle": False}
    if alone:
        X = X[1]
        problem.Y = problem.Y[CUT:]
    ends: list[Array] = []

    def shrink(end: nncore.EpochEnd) -> None:
        ends.append(problem.net.copy_parameters())
        if end.epoch == 2:
            problem.shrink(70)

    with assert_no_new_threads(), pytest.raises(OSError, match="could not be read") as raised:
        problem.fit(X, callbacks=[shrink], **options)
    assert raised.value.filename == str(problem.path)
    assert len(ends) == 2
    # The steps of the third epoch until then.
    n_steps = 0 if alone and mode != "r+" else None
    assert np.isfinite(problem.net.parameters).all()
    if n_steps == 0:
        assert np.array_equal(problem.net.parameters, ends[-1])


@pytest.mark.parametrize("mode", [None, "r"])
@pytest.mark.usefixtures("small_blocks")
def test_the_network_keeps_the_steps_before_an_unreadable_row(mode: Any, tmp_path: Path) -> None:
    problem, twin = Problem(tmp_path), Problem(tmp_path)
    optimizer = nncore.Adam()
    problem.write(50, [1, 2, np.nan, 3])
    X = problem.shards(mode)
    message = rf"X must be finite, got nan in row 50 of '{problem.path}'"
    with assert_no_new_threads(), pytest.raises(ValueError, match=message):
        problem.fit(X, shuffle=False, optimizer=optimizer)
    # Whole blocks before the one with the row.
    n_steps = optimizer.step_count
    assert 0 < n_steps <= (CUT + 50) // 8
    other = nncore.Adam()
    twin.net.fit(
        twin.X[: 8 * n_steps], twin.Y[: 8 * n_steps], batch_size=8, shuffle=False, optimizer=other
    )
    assert problem.net.equals(twin.net)


def modify(problem: Problem) -> None:
    problem.write(60, [1, 2, 3, 4])


def replace(problem: Problem) -> None:
    other = problem.path.with_name("other.npy")
    np.save(other, np.zeros((N - CUT, 4), np.float32))
    os.replace(other, problem.path)


def remove(problem: Problem) -> None:
    problem.path.unlink()


def prolong(problem: Problem) -> None:
    with problem.path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("mode", [None, "r"])
@pytest.mark.parametrize("change", [modify, replace, remove, prolong])
@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_changes_during_training_ends_it(
    mode: Any, change: Callable[[Problem], None], tmp_path: Path
) -> None:
    problem = Problem(tmp_path)

    def callback(end: nncore.EpochEnd) -> None:
        if end.epoch == 2:
            change(problem)

    with assert_no_new_threads(), pytest.raises(OSError, match=r"second\.npy") as raised:
        problem.fit(problem.shards(mode), callbacks=[callback])
    if change is not remove:
        assert "row" in str(raised.value)
        assert "modified" in str(raised.value)


def test_a_file_mapped_for_writing_may_be_changed(tmp_path: Path) -> None:
    problem = Problem(tmp_path)
    X = problem.shards("r+")
    before = problem.net.predict(X[1])

    def change(end: nncore.EpochEnd) -> None:
        X[1][:] = 0

    problem.fit(X, callbacks=[change], optimizer=nncore.SGD(1e-9))
    after = problem.net.predict(X[1])
    assert not np.allclose(before, after)
    assert np.ptp(after, axis=0).max() == 0


def with_header(text: str) -> Callable[[Path], Any]:
    """Return what writes a file with this header and 64 bytes of data."""
    start = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little")
    return lambda path: path.write_bytes(start + text.encode() + bytes(64))


def declares(dtype: str, *shape: int) -> Callable[[Path], Any]:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    return with_header(repr(header))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda path: path.write_text("no array"), "holds no array"),
    "empty": (lambda path: path.write_bytes(b""), "holds no array"),
    "long header": (
        lambda path: path.write_bytes(b"\x93NUMPY\x02\0\xf0\xff\xff\xff{}"),
        "reading array header",
    ),
    "negative": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"(", b"(-")),
        "rows in C order",
    ),
    "fortran": (lambda path: np.save(path, np.ones((5, 4)).T.copy().T), "C order"),
    "scalar": (lambda path: np.save(path, 3.0), "C order"),
    "objects": (lambda path: np.save(path, np.array([[None] * 4])), "dtype"),
    "records": (lambda path: np.save(path, np.ones((4, 4), "f4,f4")), "real numbers"),
    "complex": (lambda path: np.save(path, np.ones((4, 4), complex)), "real numbers"),
    "columns": (lambda path: np.save(path, np.ones((4, 5))), r"X\[1\].*\(n_samples, 4\).*\(4, 5"),
    "open bracket": (with_header("{"), "holds no array"),
    "recursion": (with_header("1" + "+1" * 4000), "holds no array"),
    "rows of another type": (with_header("{'descr': 1}"), "holds no array"),
    "no columns": (declares("<f4", 2**40, 0), "rows must not be empty"),
    "no characters": (declares("<U0", 2**40, 4), "rows must not be empty"),
    "no fields": (declares("|V0", 2**70, 4), "rows must not be empty"),
    "beyond 64 bits": (declares("<f4", 2**70, 4), "row 4 could not be read"),
    "cube": (lambda path: np.save(path, np.ones((4, 4, 4))), r"X\[1\].*\(4, 4, 4\)"),
}


@pytest.mark.parametrize(("write", "message"), BAD.values(), ids=BAD)
def test_files_that_hold_no_rows_of_numbers_are_refused(
    write: Any, message: str, tmp_path: Path
) -> None:
    problem = Problem(tmp_path)
    write(problem.path)
    with pytest.raises((OSError, ValueError, TypeError), match=message):
        problem.fit(problem.shards(None))
    assert problem.net.equals(Problem(tmp_path).net)


@pytest.mark.parametrize("dtype", ["<U0", "|S0", "|V0"])
def test_labels_without_bytes_are_refused(dtype: str, tmp_path: Path) -> None:
    problem = Problem(tmp_path, "cross_entropy")
    declares(dtype, 2**40)(problem.path)
    with refused(ValueError, str(problem.path), "rows must not be empty", unchanged=[problem.net]):
        problem.net.fit(problem.X, str(problem.path))


def test_a_header_beyond_the_file_is_refused(tmp_path: Path) -> None:
    problem = Problem(tmp_path)
    mapped = np.lib.format.open_memmap(problem.path, mode="w+", dtype="f4", shape=(10**6, 4))
    del mapped
    os.truncate(problem.path, 128 + 16 * 50)
    with refused(OSError, "row 50", str(problem.path), unchanged=[problem.net]):
        problem.net.predict(str(problem.path))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    problem = Problem(tmp_path)
    remove(problem)
    with refused(FileNotFoundError, str(problem.path), unchanged=[problem.net]):
        problem.fit(problem.shards(None))


@pytest.mark.parametrize(
    ("loss", "row", "message"),
    [
        ("binary_cross_entropy", [0, 7, 1], "probabilities from 0 to 1"),
        ("cross_entropy", [1, 1, 0], "sum to 1"),
        ("poisson", [1, -7, 0], "must not be negative"),
        ("poisson", [1, np.nan, 0], "must not be negative"),
    ],
)
def test_targets_that_the_loss_does_not_allow_name_the_file(
    loss: str, row: Any, message: str, tmp_path: Path
) -> None:
    net = make([4, 6, 3], "relu", loss, dtype="float32")
    X, Y = data(net, N, np.random.default_rng(3))
    Y[CUT + 7] = row
    path = tmp_path / "Y.npy"
    np.save(path, Y[CUT:])
    with refused(ValueError, message, f"row 7 of '{path}'", unchanged=[net]):
        net.fit(X, [Y[:CUT], str(path)])


def test_numbers_of_rows_must_agree(tmp_path: Path) -> None:
    problem = Problem(tmp_path)
    with refused(ValueError, "Y must have as many rows as X, 203, got 202", unchanged=[]):
        problem.net.fit(problem.shards(None), problem.Y[:-1])
    with refused(ValueError, "sample_weight must have shape (203,)", unchanged=[]):
        problem.net.fit(problem.shards(None), problem.Y, sample_weight=np.ones(5))
    with refused(ValueError, "at least 1 row", unchanged=[]):
        problem.net.fit([problem.X[:0], problem.X[:0]], problem.Y)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("where", ["callback", "loss"])
@pytest.mark.usefixtures("small_blocks")
def test_no_thread_outlives_an_exception(where: str, tmp_path: Path) -> None:
    class Loss:
        calls = 0

        def value(self, A: Array, Y: Array) -> Any:
            return ((A - Y) ** 2).sum(axis=1)

        def delta(self, A: Array, Y: Array) -> Array:
            self.calls += 1
            if where == "loss" and self.calls == 10:
                raise StoppedError
            return A - Y

    def stop(end: nncore.EpochEnd) -> None:
        if where == "callback":
            raise StoppedError

    problem = Problem(tmp_path, Loss())
    with assert_no_new_threads(), pytest.raises(StoppedError):
        problem.fit(problem.shards("r"), callbacks=[stop])


@pytest.mark.usefixtures("small_blocks")
def test_no_thread_outlives_divergence(tmp_path: Path) -> None:
    problem = Problem(tmp_path)
    with assert_no_new_threads(), pytest.raises(nncore.DivergenceError):
        problem.fit(problem.shards("r"), optimizer=nncore.SGD(1e30), epochs=9)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_no_thread_outlives_ctrl_c(tmp_path: Path) -> None:
    net = make([4, 6, 3])
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((200_000, 4)))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with assert_no_new_threads():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                net.fit(str(tmp_path / "x.npy"), np.zeros((200_000, 3)), epochs=10**9)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.isfinite(net.parameters).all()
