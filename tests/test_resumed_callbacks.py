"""Callbacks of interrupted and resumed runs do what those of an uninterrupted run do."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make
from runs import EPOCHS, Run

import nncore
from nncore.callbacks import BestModel, Checkpoint, EarlyStopping, Log, ReduceOnPlateau

FILES = Path(__file__).parent / "files"


def interrupt_after(epoch: int | None) -> Callable[[nncore.EpochEnd], None]:
    def interrupt(end: nncore.EpochEnd) -> None:
        if end.epoch == epoch:
            raise LookupError

    return interrupt


def fit(folder: Path, last: int | None = None, **every: Any) -> list[Any]:
    """Train until a callback ends it or `last` interrupts it; return everything it led to."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(150, 5)).astype("float32")
    Y = np.sin(2 * X[:, :1] + X[:, 1:2]) + 0.3 * rng.normal(size=(150, 1))
    net, optimizer = make([5, 20, 1], output="identity", dtype="float32"), nncore.Adam(0.02)
    stopping = EarlyStopping("validation_r2", patience=8)
    path = folder / "run.safetensors"
    history = net.fit(
        X,
        Y,
        epochs=100,
        batch_size=16,
        optimizer=optimizer,
        seed=0,
        validation_split=0.3,
        metrics=["r2"],
        training_metrics=True,
        callbacks=[
            stopping,
            ReduceOnPlateau("validation_loss", patience=3),
            BestModel(folder / "best.safetensors"),
            Log(folder / "log.csv"),
            Checkpoint(path, **every),
            interrupt_after(last),
        ],
        resume=path,
    )
    rows = (folder / "log.csv").read_text().splitlines()
    return [
        net.parameters.tobytes(),
        optimizer.coefficients,
        stopping.best_epoch,
        stopping.best_value,
        history.loss,
        history.metrics,
        nncore.load(folder / "best.safetensors").parameters.tobytes(),
        [row.rpartition(",")[0] for row in rows],  # without the seconds
    ]


@pytest.mark.parametrize("every", [{"every_epochs": 4}, {"every_steps": 5}])
def test_callbacks_continue_where_the_run_was_interrupted(
    every: dict[str, int], tmp_path: Path
) -> None:
    for name in ("whole", "interrupted"):
        (tmp_path / name).mkdir()
    expected = fit(tmp_path / "whole")
    n_epochs = len(expected[4])
    assert 15 < n_epochs < 100
    for last in (1, 2, 7, n_epochs - 1, n_epochs):
        with suppress(LookupError):
            fit(tmp_path / "interrupted", last, **every)
    assert fit(tmp_path / "interrupted", **every) == expected


def test_a_run_resumed_after_its_last_epoch_restores_the_best_parameters(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"

    def run(epochs: int, *callbacks: Any, **options: Any) -> tuple[Run, EarlyStopping]:
        # The loss falls, so the first epoch is the best.
        one, stopping = Run(callbacks=[]), EarlyStopping("loss", mode="max", patience=100)
        one.fit(stopping, *callbacks, epochs=epochs, **options)
        return one, stopping

    whole, longer = run(3)[0], run(5)[0]
    with suppress(LookupError):
        run(5, Checkpoint(path, every_epochs=3), interrupt_after(4))
    resumed, stopping = run(3, Checkpoint(path), resume=path)
    assert stopping.best_epoch == 1
    assert resumed.net.equals(whole.net)
    assert nncore.load(path).equals(whole.net)
    assert run(5, resume=path)[0].net.equals(longer.net)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda: EarlyStopping("loss", patience=4), r"EarlyStopping.patience must be \[3\]"),
        (lambda: EarlyStopping("loss", 3, 0.1), r"EarlyStopping.min_delta must be \[0.0\]"),
        (lambda: EarlyStopping("loss", 3, mode="max"), r"EarlyStopping.mode must be \['min'\]"),
    ],
)
def test_a_callback_with_other_settings_is_refused(
    changed: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"
    Run(callbacks=[]).fit(EarlyStopping("loss", patience=3), Checkpoint(path))
    run = Run(callbacks=[])
    with pytest.raises(ValueError, match=message):
        run.fit(changed(), resume=path)
    run.fit(EarlyStopping("loss", patience=3), resume=path)


@pytest.mark.filterwarnings("ignore:.* was written with the kernels")
def test_settings_of_callbacks_that_an_older_file_lacks_are_not_compared() -> None:
    X, Y = (np.arange(37.0 * n).reshape(37, n) * 37 % 101 / 128 for n in (5, 3))
    run = Run(shuffle=False)
    run.decay.settings = {"factor": 0.5}
    run.fit(resume=FILES / "checkpoint.safetensors", data=(X, Y))
    assert len(run.history) == EPOCHS
