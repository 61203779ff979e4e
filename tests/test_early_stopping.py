"""EarlyStopping, and what all callbacks share that monitor a loss or metric."""

import math
from typing import Any

import numpy as np
import pytest
from helpers import problem, refused

import nncore
from nncore.callbacks import EarlyStopping
from nncore.history import Callback


def feed(
    callback: Any,
    losses: list[float],
    net: nncore.Network | None = None,
    first: int = 1,
    last: int | None = None,
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
        )
        answers.append(callback(end))
        if answers[-1] or epoch == end.epochs:
            end.finish()
            break
    return answers


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


# Errors


@pytest.mark.parametrize(
    ("options", "error", "fragment"),
    [
        ({"monitor": 3}, TypeError, "monitor must be a name such as 'validation_loss', got 3"),
        ({"monitor": "validation_f1"}, ValueError, "for the metric 'validation_f1', got None"),
        ({"mode": "auto"}, ValueError, "mode must be 'min' or 'max', got 'auto'"),
        ({"patience": 0}, ValueError, "patience must be at least 1, got 0"),
        ({"patience": 2.5}, TypeError, "patience must be an integer, got 2.5"),
        ({"min_delta": -1}, ValueError, "min_delta must be >= 0 and finite, got -1"),
        ({"min_delta": math.nan}, ValueError, "min_delta must be >= 0 and finite, got nan"),
        ({"restore_best": 1}, TypeError, "restore_best must be a bool, got 1"),
    ],
)
def test_invalid_arguments_are_refused(
    options: dict[str, Any], error: type[Exception], fragment: str
) -> None:
    with pytest.raises(error) as raised:
        EarlyStopping(**options)
    assert fragment in str(raised.value)


def test_a_monitor_that_the_fit_lacks_is_refused_before_training() -> None:
    net, X, Y = problem()
    message = "EarlyStopping monitors 'validation_loss', but this fit has ['loss']"
    with refused(ValueError, message, unchanged=[net]):
        net.fit(X, Y, callbacks=[EarlyStopping()])
