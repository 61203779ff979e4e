"""Callbacks of interrupted and resumed runs do what those of an uninterrupted run do."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make

import nncore
from nncore.callbacks import BestModel, Checkpoint, EarlyStopping, Log, ReduceOnPlateau


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
