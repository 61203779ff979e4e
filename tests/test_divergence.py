"""Losses, parameters and states that overflow."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import every_optimizer, linear_problem, make, refused, snapshot

import nncore

DType = np.dtype[Any]


@every_optimizer
def test_divergence_restores_the_end_of_the_last_finite_epoch(
    create: Callable[[], nncore.Optimizer], dtype: DType
) -> None:
    (net, X, Y), (other, _, _) = linear_problem(dtype), linear_problem(dtype)
    one, two = create(), create()

    def spoil(end: nncore.EpochEnd) -> None:
        if end.epoch == 3:
            one.learning_rate = 1e30 if dtype == np.float32 else 1e200

    with pytest.raises(nncore.DivergenceError) as raised:
        net.fit(X, Y, epochs=20, batch_size=8, optimizer=one, seed=0, callbacks=[spoil])
    assert raised.value.epoch == 4
    assert raised.value.learning_rate == one.learning_rate > 1e29
    assert "epoch 4" in str(raised.value)
    assert f"learning_rate={one.learning_rate:g}" in str(raised.value)
    assert "end of epoch 3" in str(raised.value)

    other.fit(X, Y, epochs=3, batch_size=8, optimizer=two, seed=0)
    assert net.equals(other)
    two.learning_rate = one.learning_rate
    assert snapshot(one) == snapshot(two)
    # Training goes on from there.
    one.learning_rate = two.learning_rate = 0.01
    net.fit(X, Y, epochs=2, optimizer=one, seed=1)
    other.fit(X, Y, epochs=2, optimizer=two, seed=1)
    assert net.equals(other)


@every_optimizer
def test_divergence_in_the_first_epoch_changes_nothing(
    create: Callable[[], nncore.Optimizer], dtype: DType
) -> None:
    net, X, Y = linear_problem(dtype)
    optimizer = create()
    net.fit(X, Y, optimizer=optimizer, seed=0)
    optimizer.learning_rate = 1e30 if dtype == np.float32 else 1e200
    with refused(
        nncore.DivergenceError, "epoch 1", "as it was before", unchanged=(net, optimizer, X, Y)
    ):
        net.fit(X, Y, epochs=3, batch_size=8, optimizer=optimizer)


def test_divergence_in_the_last_step_of_an_epoch_is_detected() -> None:
    """The loss is that before the step: here only the parameters show it."""
    net, X, Y = linear_problem()
    net.parameters *= 1e50
    optimizer = nncore.SGD(1e250)
    with refused(nncore.DivergenceError, "epoch 1", unchanged=(net, optimizer)):
        net.fit(X, Y, batch_size=40, optimizer=optimizer)


def test_divergence_restores_state_created_during_the_fit() -> None:
    net, X, Y = linear_problem()
    optimizer = nncore.SGD(0.01)
    states: list[list[Any]] = []

    def change(end: nncore.EpochEnd) -> None:
        optimizer.momentum = 0.9
        if end.epoch == 2:
            optimizer.learning_rate = 1e200
            states.append(snapshot(net, optimizer))

    with pytest.raises(nncore.DivergenceError, match="end of epoch 2"):
        net.fit(X, Y, epochs=9, batch_size=8, optimizer=optimizer, callbacks=[change])
    assert [snapshot(net, optimizer)] == states


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_parameters_that_are_not_finite_are_detected(output: str) -> None:
    net = make([2, 2], loss={"softmax": "cross_entropy", "sigmoid": "squared_error"}[output])
    net.weights[0][0, 0] = np.nan
    with pytest.raises(nncore.DivergenceError, match="epoch 1"):
        net.fit(np.ones((8, 2)), np.full((8, 2), 0.5))


@pytest.mark.parametrize("epoch", [None, 7])
def test_divergence_error_can_be_pickled(epoch: int | None) -> None:
    error = nncore.DivergenceError(epoch, 0.5, "the network is unchanged")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is nncore.DivergenceError
    assert (again.epoch, again.learning_rate, str(again)) == (epoch, 0.5, str(error))
    assert isinstance(error, ArithmeticError)


@pytest.mark.filterwarnings("ignore:X has values up to")
@pytest.mark.parametrize("call", ["fit", "train_on_batch"])
def test_a_second_moment_that_overflows_is_an_error(call: str) -> None:
    """Above 1.8e19 the square of a gradient is infinite in float32, and Adam would not move."""
    net = nncore.Network([1, 1], seed=0)
    X, Y = np.full((8, 1), 1e10), np.zeros((8, 1))
    optimizer = nncore.Adam()
    net.fit(X, Y, batch_size=8, optimizer=optimizer)
    with refused(nncore.DivergenceError, "optimizer's state", unchanged=(net, optimizer)):
        getattr(net, call)(1e3 * X, Y - 1e7, optimizer=optimizer)
    assert np.isfinite(optimizer.state).all()
