"""Callbacks that monitor a loss or metric."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import problem, refused

import nncore
from nncore.callbacks import BestModel, EarlyStopping, Monitor, ReduceOnPlateau
from nncore.history import Callback


def feed(
    callback: Any,
    losses: list[float],
    net: nncore.Network | None = None,
    first: int = 1,
    last: int | None = None,
    optimizer: nncore.Optimizer | None = None,
) -> list[bool]:
    """Call a callback with the validation losses of the epochs `first` to `last`.

    Return its answers up to the first True.
    """
    net = net or nncore.Network([1, 1])
    answers: list[bool] = []
    for epoch, loss in list(enumerate(losses, start=1))[first - 1 : last]:
        net.parameters[:] = epoch
        end = nncore.EpochEnd(
            epoch=epoch,
            epochs=len(losses),
            loss=1.0,
            validation_loss=loss,
            seconds=0.1,
            n_examples=10,
            network=net,
            optimizer=optimizer,
        )
        answers.append(callback(end))
        if answers[-1] or epoch == end.epochs:
            end.finish()
            break
    return answers


# EarlyStopping


@pytest.mark.parametrize(
    ("losses", "patience", "n_epochs"),
    [
        ([3, 2, 1, 2, 2, 2, 0], 3, 6),
        ([3, 2, 1, 2, 2, 0, 1, 1, 1], 3, 9),
        ([1, 1, 1], 1, 2),
        ([1, math.nan, math.nan], 2, 3),
        ([math.nan, math.nan, 1], 2, 2),
        ([math.inf, 5, 6, 6], 2, 4),
    ],
)
def test_training_stops_after_patience_epochs_without_improvement(
    losses: list[float], patience: int, n_epochs: int
) -> None:
    answers = feed(EarlyStopping(patience=patience), [*losses, 9.0, 9.0, 9.0])
    assert len(answers) == n_epochs
    assert answers[-1]


def test_an_improvement_is_larger_than_min_delta() -> None:
    stopping = EarlyStopping(patience=2, min_delta=0.5)
    assert feed(stopping, [3.0, 2.5, 2.4, 2.0, 1.9, 0.0]) == [False, False, False, False, True]
    assert (stopping.best_epoch, stopping.best_value) == (3, 2.4)


def test_mode_max_prefers_larger_values() -> None:
    stopping = EarlyStopping(patience=2, mode="max")
    feed(stopping, [1.0, 3.0, 2.0, 2.0, 9.0])
    assert (stopping.best_epoch, stopping.best_value) == (2, 3.0)


@pytest.mark.parametrize("losses", [[3.0, 1.0, 2.0, 2.0, 2.0, 2.0], [3.0, 1.0, 2.0]])
def test_the_best_parameters_are_restored_however_training_ends(losses: list[float]) -> None:
    net = nncore.Network([1, 1])
    feed(EarlyStopping(patience=3), losses, net)
    assert (net.parameters == 2).all()


@pytest.mark.parametrize("stopping_first", [True, False])
def test_the_best_parameters_are_restored_if_another_callback_stops(stopping_first: bool) -> None:
    net, X, Y = problem()
    values: list[bytes] = []

    def stop(end: nncore.EpochEnd) -> bool:
        values.append(end.network.parameters.tobytes())
        return end.epoch == 5

    stopping = EarlyStopping("loss", mode="max")
    callbacks: list[Callback] = [stopping, stop] if stopping_first else [stop, stopping]
    assert len(net.fit(X, Y, epochs=20, callbacks=callbacks)) == 5
    assert stopping.best_epoch == 1
    assert net.parameters.tobytes() == values[0]


def test_the_last_parameters_stay_without_restore_best() -> None:
    net = nncore.Network([1, 1])
    stopping = EarlyStopping(patience=3, restore_best=False)
    feed(stopping, [3.0, 1.0, 2.0], net)
    assert (net.parameters == 3).all()
    assert stopping.best_parameters is None


def test_parameters_of_a_later_epoch_do_not_change_the_best_ones() -> None:
    net, X, Y = problem()
    stopping = EarlyStopping("loss", mode="max")
    net.fit(X, Y, epochs=5, optimizer="sgd", callbacks=[stopping])
    best = stopping.best_parameters
    assert best is not None
    assert np.array_equal(net.parameters, best)
    net.fit(X, Y)
    assert not np.array_equal(net.parameters, best)


def test_an_instance_starts_afresh_in_the_next_fit() -> None:
    stopping = EarlyStopping(patience=2)
    losses = [3.0, 1.0, 2.0, 2.0]
    first = feed(stopping, losses), stopping.best_epoch
    assert (feed(stopping, losses), stopping.best_epoch) == first
    assert feed(stopping, [9.0, 8.0, 7.0]) == [False, False, False]


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_resumed_instance_goes_on_as_if_it_had_never_stopped(cut: int) -> None:
    losses = [5.0, 3.0, 4.0, 2.0, 2.0, 2.5, 2.5]
    whole, first, second = (EarlyStopping(patience=3) for _ in range(3))
    net, resumed = nncore.Network([1, 1]), nncore.Network([1, 1])
    answers = feed(whole, losses, net)
    before = feed(first, losses, resumed, last=cut)
    second.set_state(first.state())
    assert before + feed(second, losses, resumed, first=cut + 1) == answers
    assert second.best_epoch == whole.best_epoch
    assert np.array_equal(net.parameters, resumed.parameters)


@pytest.mark.parametrize("best", [np.full(2, np.nan), np.ones((2, 1)), np.array(["a", "b"]), 3])
def test_a_state_with_other_parameters_is_refused(best: Any) -> None:
    stopping = EarlyStopping()
    state = {**stopping.state(), "best_parameters": best}
    with pytest.raises((TypeError, ValueError), match="best_parameters"):
        stopping.set_state(state)
    assert stopping.best_parameters is None


# BestModel


def test_the_file_holds_the_best_network(tmp_path: Path) -> None:
    net, path = nncore.Network([1, 1]), tmp_path / "best.safetensors"
    feed(BestModel(path), [3.0, 1.0, 2.0, 2.0], net)
    assert (nncore.load(path).parameters == 2).all()
    assert (net.parameters == 4).all()


def test_a_resumed_instance_keeps_a_better_file(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    first, second = BestModel(path), BestModel(path)
    losses = [3.0, 1.0, 2.0, 0.5]
    feed(first, losses, last=2)
    second.set_state(first.state())
    feed(second, losses, first=3, last=3)
    assert (nncore.load(path).parameters == 2).all()
    feed(second, losses, first=4)
    assert (nncore.load(path).parameters == 4).all()


def test_an_error_while_saving_reaches_the_caller(tmp_path: Path) -> None:
    net, X, Y = problem()
    with pytest.raises(OSError, match="missing"):
        net.fit(X, Y, callbacks=[BestModel(tmp_path / "missing" / "best", "loss")])


# ReduceOnPlateau


def rates(callback: ReduceOnPlateau, losses: list[float], first: int = 1) -> list[float]:
    """Return the learning rate after each epoch."""
    optimizer, found = nncore.SGD(1.0), list[float]()

    def note(end: nncore.EpochEnd) -> None:
        callback(end)
        found.append(optimizer.learning_rate)

    feed(note, losses, first=first, optimizer=optimizer)
    return found


@pytest.mark.parametrize(
    ("options", "losses", "expected"),
    [
        ({"patience": 2}, [3, 3, 3, 3, 3], [1, 1, 0.5, 0.5, 0.25]),
        ({"patience": 2}, [3, 2, 2, 1, 1, 1], [1, 1, 1, 1, 1, 0.5]),
        ({"patience": 1, "factor": 0.1, "min_rate": 0.05}, [3, 3, 3, 3], [1, 0.1, 0.05, 0.05]),
        ({"patience": 1, "min_rate": 2.0}, [3, 3], [1, 1]),
        ({"patience": 1, "min_delta": 1.0}, [3, 2.5, 2.4], [1, 0.5, 0.25]),
        ({"patience": 1, "mode": "max"}, [3, 4, 4], [1, 1, 0.5]),
    ],
)
def test_the_rate_is_reduced_after_patience_epochs_without_improvement(
    options: dict[str, Any], losses: list[float], expected: list[float]
) -> None:
    assert rates(ReduceOnPlateau(**options), losses) == pytest.approx(expected)


def test_a_resumed_instance_reduces_the_rate_in_the_same_epochs() -> None:
    losses = [3.0] * 8
    whole, first, second = (ReduceOnPlateau(patience=3) for _ in range(3))
    expected = rates(whole, losses)
    rates(first, losses[:5])
    second.set_state(first.state())
    assert rates(second, losses, first=6) == [2 * rate for rate in expected[5:]]


def test_the_next_epoch_uses_the_reduced_rate() -> None:
    (net, X, Y), (twin, _, _) = problem(), problem()
    reduce = ReduceOnPlateau("loss", factor=0.1, patience=1, min_delta=100.0)
    net.fit(X, Y, epochs=3, optimizer=nncore.SGD(0.1), shuffle=False, callbacks=[reduce])
    for rate in (0.1, 0.1, 0.1 * 0.1):
        twin.fit(X, Y, optimizer=nncore.SGD(rate), shuffle=False)
    assert net.equals(twin)


# Errors


@pytest.mark.parametrize(
    ("create", "options", "error", "fragment"),
    [
        (
            EarlyStopping,
            {"monitor": 3},
            TypeError,
            "monitor must be a name such as 'validation_loss', got 3",
        ),
        (
            EarlyStopping,
            {"monitor": "validation_f1"},
            ValueError,
            "mode must be 'min' or 'max' for 'validation_f1', a metric",
        ),
        (EarlyStopping, {"monitor": "validation_los"}, ValueError, "did you mean 'loss'?"),
        (EarlyStopping, {"mode": "auto"}, ValueError, "mode must be 'min' or 'max', got 'auto'"),
        (EarlyStopping, {"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        (EarlyStopping, {"patience": 2.5}, TypeError, "patience must be an integer, got 2.5"),
        (EarlyStopping, {"min_delta": -1}, ValueError, "min_delta must be >= 0 and finite, got -1"),
        (
            EarlyStopping,
            {"min_delta": math.nan},
            ValueError,
            "min_delta must be >= 0 and finite, got nan",
        ),
        (EarlyStopping, {"restore_best": 1}, TypeError, "restore_best must be a bool, got 1"),
        (BestModel, {"path": 3}, TypeError, "path must be a str or os.PathLike, got 3"),
        (ReduceOnPlateau, {"factor": 1}, ValueError, "factor must be between 0 and 1, got 1"),
        (ReduceOnPlateau, {"min_rate": -1}, ValueError, "min_rate must be >= 0"),
    ],
)
def test_invalid_arguments_are_refused(
    create: Callable[..., Monitor], options: dict[str, Any], error: type[Exception], fragment: str
) -> None:
    with pytest.raises(error) as raised:
        create(**options)
    assert fragment in str(raised.value)


def test_a_monitor_that_the_fit_lacks_is_refused_before_training() -> None:
    net, X, Y = problem()
    message = "EarlyStopping monitors 'validation_loss', but this fit has ['loss']"
    with refused(ValueError, message, unchanged=[net]):
        net.fit(X, Y, callbacks=[EarlyStopping()])


@pytest.mark.parametrize("names", [["accuracy"], ["validation_accuracy"]])
def test_the_message_names_what_the_fit_has(names: list[str]) -> None:
    stopping = EarlyStopping("validation_r2")
    with pytest.raises(ValueError, match="monitors 'validation_r2', but this fit has") as raised:
        stopping.check(["loss", *names], None)
    assert str(names)[1:-1] in str(raised.value)


def test_a_schedule_cannot_be_reduced() -> None:
    net, X, Y = problem()
    optimizer = nncore.SGD(nncore.schedules.constant(0.1))
    reduce = ReduceOnPlateau("loss")
    with refused(ValueError, "got the schedule constant(", unchanged=[net, optimizer]):
        net.fit(X, Y, optimizer=optimizer, callbacks=[reduce])
