"""Runs that are interrupted and resumed have the bits of runs that are not."""

import copy
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import data, make, temporary_of
from runs import EPOCHS, N_BATCHES, Run

import nncore
from nncore import _files, checkpoints, schedules
from nncore.callbacks import Checkpoint, EarlyStopping

FILES = Path(__file__).parent / "files"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every checkpoint that a run writes, in a file of its own."""
    paths: list[Path] = []

    def write(path: str, contents: Any) -> None:
        paths.append(tmp_path / f"checkpoint {len(paths)}")
        _files.write(paths[-1], contents)
        _files.write(path, contents)

    monkeypatch.setattr(checkpoints, "write", write)
    return paths


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a run wait for each checkpoint, so that none is postponed."""

    class Writer(checkpoints.Writer):
        def chunk(self, position: Any) -> int:
            if self._thread is not None:
                self._thread.join()
            return super().chunk(position)

    monkeypatch.setattr(checkpoints, "Writer", Writer)


def checkpoint_of_each_step(path: Path) -> Checkpoint:
    return Checkpoint(path, every_steps=1)


# The same bits.

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: nncore.SGD(0.1, weight_decay=0.01),
    "momentum": lambda: nncore.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: nncore.Adam(0.01),
    "amsgrad": lambda: nncore.Adam(0.01, amsgrad=True),
    "adamw": lambda: nncore.AdamW(0.01),
    "rmsprop": lambda: nncore.RMSprop(0.01, momentum=0.5, centered=True),
}

VALIDATION = Run()
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "in order": {"shuffle": False},
    "dropout": {"dropout": 0.3, "gradient_clipping": 0.1},
    "weights": {"sample_weight": np.arange(37.0)},
    "one batch": {"batch_size": 100},
    "validation": {
        "validation_data": (VALIDATION.X[:9], VALIDATION.Y[:9]),
        "metrics": ["mean_absolute_error"],
    },
    "split": {
        "validation_split": 0.3,
        "metrics": ["mean_absolute_error"],
        "training_metrics": True,
    },
}


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("create", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_run_resumed_from_any_step_has_the_same_bits(
    create: Callable[[], Any], options: dict[str, Any], path: Path, written: list[Path]
) -> None:
    whole, watched = Run(create, **options), Run(create, **options)
    whole.fit()
    watched.fit(checkpoint_of_each_step(path))
    assert watched.result() == whole.result()
    assert len(written) == whole.optimizer.step_count

    for file in written:
        resumed = Run(create, **options)
        resumed.fit(resume=file)
        assert resumed.result() == whole.result()


@pytest.mark.usefixtures("waits")
def test_a_schedule_continues(path: Path, written: list[Path]) -> None:
    def run() -> Run:
        return Run(lambda: nncore.Adam(schedules.cosine(0.1, steps=18, warmup=4)), callbacks=[])

    whole = run()
    whole.fit(checkpoint_of_each_step(path))
    for file in written:
        resumed = run()
        resumed.fit(resume=file)
        assert resumed.result() == whole.result()


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("name", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_every_generator_of_numpy_continues(name: str, path: Path, written: list[Path]) -> None:
    def run() -> Run:
        return Run(seed=np.random.Generator(getattr(np.random, name)(5)), dropout=0.5)

    whole = run()
    whole.fit(checkpoint_of_each_step(path))
    for file in written[3:7]:
        resumed = run()
        resumed.fit(resume=file)
        assert resumed.result() == whole.result()
    whole.seed, resumed.seed = whole.options["seed"], resumed.options["seed"]
    assert whole.result()["seed"] == resumed.result()["seed"]


@pytest.mark.usefixtures("waits")
def test_a_run_without_a_seed_continues_with_its_own(path: Path, written: list[Path]) -> None:
    whole = Run(seed=None, dropout=0.5)
    whole.fit(checkpoint_of_each_step(path))
    resumed = Run(seed=None, dropout=0.5)
    resumed.fit(resume=written[7])
    assert resumed.result() == whole.result()


@pytest.mark.usefixtures("waits")
def test_another_number_of_threads_gives_the_same_bits(path: Path, written: list[Path]) -> None:
    whole, resumed = Run(n_threads=1), Run(n_threads=3)
    whole.fit(checkpoint_of_each_step(path))
    resumed.fit(resume=written[8])
    assert resumed.result() == whole.result()


@pytest.mark.usefixtures("waits")
def test_early_stopping_continues(path: Path, written: list[Path]) -> None:
    def fit(run: Run, **options: Any) -> EarlyStopping:
        stopping = EarlyStopping("loss", patience=2, min_delta=0.05)
        run.fit(stopping, **options)
        return stopping

    whole = Run(epochs=1000)
    stopping = fit(whole, callbacks=[checkpoint_of_each_step(path)])
    assert len(whole.history) < 100
    for file in written[:: len(written) // 10]:
        resumed = Run(epochs=1000)
        again = fit(resumed, resume=file, callbacks=[])
        assert resumed.history.loss == whole.history.loss
        assert resumed.net.equals(whole.net)
        assert again.best_epoch == stopping.best_epoch


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_longer_run_has_the_bits_of_one_planned_so(epochs: int, path: Path) -> None:
    """Although the shorter one ended with the parameters of its best epoch."""
    stopping = EarlyStopping("loss", patience=100, mode="max")
    whole, parts = Run(), Run()
    whole.fit(copy.copy(stopping))
    parts.fit(copy.copy(stopping), checkpoint_of_each_step(path), epochs=epochs)
    parts = Run()
    parts.fit(copy.copy(stopping), checkpoint_of_each_step(path), resume=path)
    assert parts.result() == whole.result()


def test_runs_killed_at_random_moments_have_the_same_bits() -> None:
    script = Path(__file__).with_name("killed_runs.py")
    process = subprocess.run(
        [sys.executable, script, "20"], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("the same bits\n")


# Repeating a command.


def test_the_same_command_begins_without_a_file_and_ends_at_once_with_a_complete_one(
    path: Path,
) -> None:
    first, again = Run(), Run()
    first.fit(Checkpoint(path, every_seconds=1000), resume=path)
    before = path.stat().st_mtime_ns
    again.fit(Checkpoint(path, every_seconds=1000), resume=path)
    assert again.result() == first.result()
    assert again.history == first.history
    assert path.stat().st_mtime_ns == before


def test_a_complete_run_can_move_to_another_file(path: Path) -> None:
    first, again = Run(), Run()
    first.fit(Checkpoint(path))
    again.fit(Checkpoint(f"{path}2"), resume=path)
    assert nncore.load(f"{path}2").equals(first.net)


def test_the_network_in_a_checkpoint_can_be_loaded(path: Path) -> None:
    run = Run()
    run.fit(EarlyStopping("loss", mode="max"), Checkpoint(path))
    net, optimizer = nncore.load(path, with_optimizer=True)
    assert net.equals(run.net)
    assert optimizer.step_count == EPOCHS * N_BATCHES


def test_a_file_that_a_killed_process_left_does_no_harm(path: Path) -> None:
    temporary_of(path).write_bytes(b"incomplete")
    run = Run()
    run.fit(Checkpoint(path), resume=path)
    assert list(path.parent.iterdir()) == [path]


# A file that an earlier version wrote. Never change it: add new ones.


@pytest.mark.filterwarnings("ignore:.* was written with the kernels")
def test_a_checkpoint_of_the_first_version_is_read() -> None:
    """After 13 of 20 steps, with data that every version of NumPy gives."""
    X, Y = (np.arange(37.0 * n).reshape(37, n) * 37 % 101 / 128 for n in (5, 3))
    run = Run(shuffle=False)
    run.fit(resume=FILES / "checkpoint.safetensors", data=(X, Y))
    assert run.optimizer.step_count == EPOCHS * N_BATCHES
    assert run.decay.rates == [0.001 / 2, 0.001 / 4, 0.001 / 8, 0.001 / 16]
    losses = [0.122042510, 0.119542594, 0.118372350, 0.117800694]
    np.testing.assert_allclose(run.history.loss, losses, rtol=1e-5)
    parameters = [0.0227781776, 0.656381011, -0.517029822]
    np.testing.assert_allclose(run.net.parameters[:3], parameters, rtol=1e-5)


# When checkpoints are written.


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, [5, 10, 15, 20]),
        ({"every_epochs": 3}, [15, 20]),
        ({"every_steps": 3}, [3, 6, 9, 12, 15, 18, 20]),
        ({"every_steps": 7, "every_epochs": 2}, [7, 10, 14, 20]),
        ({"every_steps": 100}, [20]),
        ({"every_seconds": 1e-9}, [1, *range(2, 21)]),
        ({"every_seconds": 1e9}, [20]),
    ],
)
def test_checkpoints_are_written_when_they_are_due(
    when: dict[str, Any],
    expected: list[int],
    path: Path,
    written: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "_CHUNK_SECONDS", 0.0)
    Run().fit(Checkpoint(path, **when))
    steps = [nncore.load(file, with_optimizer=True)[1].step_count for file in written]
    assert steps == expected


def test_chunks_take_about_the_same_time(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """With a clock that advances by 1/16 s for each step."""
    lengths: list[int] = []

    class Writer(checkpoints.Writer):
        def chunk(self, position: Any) -> int:
            lengths.append(super().chunk(position))
            return lengths[-1]

    clock = SimpleNamespace(monotonic=lambda: sum(lengths) / 16)
    monkeypatch.setattr(checkpoints, "Writer", Writer)
    monkeypatch.setattr(checkpoints, "time", clock)
    monkeypatch.setattr(checkpoints, "_CHUNK_SECONDS", 3 / 16)
    Run(batch_size=1, epochs=2).fit(Checkpoint(path, every_seconds=1e9))
    assert lengths == [1, *[3] * 25]


@pytest.mark.usefixtures("waits")
def test_checkpoints_take_the_memory_of_one_copy(path: Path) -> None:
    net = make([500, 400, 10], dtype="float32")
    X, Y = data(net, 100, np.random.default_rng(0))

    def peak(*callbacks: Any) -> int:
        optimizer = nncore.Adam()
        net.fit(X, Y, batch_size=10, optimizer=optimizer)
        tracemalloc.start()
        try:
            net.fit(X, Y, batch_size=10, optimizer=optimizer, epochs=2, callbacks=callbacks)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    copied = 3 * net.parameters.nbytes  # with both running vectors of Adam
    more = peak(Checkpoint(path, every_steps=5)) - peak()
    assert copied < more < 1.15 * copied
