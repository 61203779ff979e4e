"""Epochs of `Network.fit` and steps of `train_on_batch`: losses, orders and weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import (
    Stepper,
    Twin,
    assert_layers_close,
    data,
    every_optimizer,
    linear_problem,
    problem,
    refused,
    snapshot,
)

import nncore

DType = np.dtype[Any]

# History and the loss


@pytest.mark.parametrize("batch_size", [1, 8, 36, 37, 38, 2**31 - 1])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_last_shorter_batch_counts_with_its_own_examples(batch_size: int, weighted: bool) -> None:
    net, X, Y = problem()
    weights = np.random.default_rng(1).uniform(0.1, 3, 37) if weighted else None
    twin, optimizer = Twin(net), nncore.SGD(0.3)
    stepper = Stepper(twin, nncore.SGD(0.3))
    losses = [stepper.epoch(X, Y, min(batch_size, 37), None, weights) for _ in range(3)]
    history = net.fit(
        X,
        Y,
        epochs=3,
        batch_size=batch_size,
        optimizer=optimizer,
        shuffle=False,
        sample_weight=weights,
    )
    assert optimizer.step_count == stepper.step_count
    np.testing.assert_allclose(history.loss, losses, rtol=1e-12)
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-12)


def test_history_has_an_entry_per_epoch() -> None:
    net, X, Y = problem()
    history = net.fit(X, Y, epochs=4, seed=0)
    assert isinstance(history, nncore.History)
    assert len(history) == len(history.loss) == len(history.seconds) == 4
    assert history.validation_loss == []
    assert all(type(value) is float for value in history.loss + history.seconds)
    assert all(seconds >= 0 for seconds in history.seconds)


def test_loss_is_that_before_the_steps() -> None:
    net, X, Y = problem()
    before = net.evaluate(X, Y)
    history = net.fit(X, Y, epochs=2, batch_size=37, optimizer=nncore.SGD(0.0), shuffle=False)
    assert history.loss == pytest.approx([before, before], rel=1e-14)


def test_training_lowers_the_loss_in_both_types(dtype: DType) -> None:
    net, X, _ = problem(dtype)
    history = net.fit(X, X[:, :3] > 0, epochs=200, optimizer=nncore.Adam(0.01), seed=0)
    assert history.loss[-1] < 0.2 * history.loss[0]
    assert net.evaluate(X, X[:, :3] > 0) == pytest.approx(history.loss[-1], rel=0.05)


@pytest.mark.parametrize("given", [2, 3])
def test_validation_loss_is_the_loss_of_those_data_after_the_epoch(given: int) -> None:
    net, X, Y = problem()
    others = (*data(net, 300, np.random.default_rng(7)), np.random.default_rng(8).random(300))
    X_val, Y_val, weights = others
    expected: list[float] = []

    def evaluate(end: nncore.EpochEnd) -> None:
        loss = net.evaluate(X_val, Y_val, sample_weight=weights if given == 3 else None)
        assert end.validation_loss == loss
        expected.append(loss)

    history = net.fit(X, Y, epochs=3, validation_data=others[:given], callbacks=[evaluate])
    assert history.validation_loss == expected
    assert len(set(expected)) == 3


def test_validation_does_not_change_the_training() -> None:
    (with_it, X, Y), (without, _, _) = problem(), problem()
    history = with_it.fit(X, Y, epochs=3, seed=0, validation_data=[X[:5], Y[:5]])
    assert history.loss == without.fit(X, Y, epochs=3, seed=0).loss
    assert with_it.equals(without)


# Seeds and shuffling


def run(seed: Any, dtype: Any = "float64", **options: Any) -> tuple[bytes, list[float]]:
    net, X, Y = problem(dtype, 1000)
    history = net.fit(X, Y, epochs=3, batch_size=8, seed=seed, **options)
    return net.parameters.tobytes(), history.loss


@every_optimizer
def test_same_seed_gives_the_same_bits(
    create: Callable[[], nncore.Optimizer], dtype: DType
) -> None:
    first = run(0, dtype, optimizer=create())
    assert run(0, dtype, optimizer=create()) == first
    assert run(np.random.default_rng(0), dtype, optimizer=create()) == first
    assert run(1, dtype, optimizer=create())[0] != first[0]


def test_fits_without_a_seed_differ() -> None:
    assert run(None)[0] != run(None)[0]


def test_without_shuffling_the_seed_does_not_matter() -> None:
    assert run(0, shuffle=False) == run(1, shuffle=False) == run(None, shuffle=False)
    assert run(0, shuffle=False)[0] != run(0)[0]


def test_each_epoch_has_an_order_of_its_own() -> None:
    (once, X, Y), (twice, _, _) = problem(), problem()
    once.fit(X, Y, epochs=2, batch_size=8, optimizer="sgd", seed=0)
    for _ in range(2):
        twice.fit(X, Y, epochs=1, batch_size=8, optimizer="sgd", seed=0)
    assert not once.equals(twice)


def test_a_generator_is_drawn_from_across_calls() -> None:
    (once, X, Y), (twice, _, _) = problem(), problem()
    one, two, rng = nncore.Adam(), nncore.Adam(), np.random.default_rng(0)
    once.fit(X, Y, epochs=4, batch_size=8, optimizer=one, seed=0)
    for _ in range(2):
        twice.fit(X, Y, epochs=2, batch_size=8, optimizer=two, seed=rng)
    assert once.equals(twice)


def test_every_example_takes_part_once_in_each_epoch() -> None:
    """With squared error, identity and all inputs 0 the bias moves by the mean of the targets."""
    net = nncore.Network([1, 1], dtype="float64")
    targets = 2.0 ** np.arange(37)
    history = net.fit(
        np.zeros((37, 1)), targets, batch_size=8, epochs=3, seed=0, optimizer=nncore.SGD(0.0)
    )
    assert history.loss == pytest.approx([0.5 * (targets**2).mean()] * 3, rel=1e-15)


def test_fit_continues_from_the_current_parameters() -> None:
    net, X, Y = problem()
    net.parameters = np.linspace(-1, 1, net.parameters.size)
    before = net.evaluate(X, Y)
    history = net.fit(X, Y, batch_size=37)
    assert history.loss[0] == pytest.approx(before, rel=1e-13)
    assert net.fit(X, Y, batch_size=37).loss[0] < before


# Weights


@every_optimizer
def test_batch_without_weight_makes_no_step(
    create: Callable[[], nncore.Optimizer], dtype: DType
) -> None:
    (net, X, Y), (other, _, _) = problem(dtype, 40), problem(dtype, 40)
    weights = np.ones(40)
    weights[8:16] = 0
    one, two = create(), create()
    history = net.fit(
        X, Y, epochs=3, batch_size=8, optimizer=one, shuffle=False, sample_weight=weights
    )
    kept = weights > 0
    expected = other.fit(X[kept], Y[kept], epochs=3, batch_size=8, optimizer=two, shuffle=False)
    assert one.step_count == 12
    assert net.equals(other)
    assert snapshot(one) == snapshot(two)
    # Weighted losses are summed row by row, others in one pass.
    np.testing.assert_allclose(history.loss, expected.loss, rtol=8 * np.finfo(dtype).eps)


def test_equal_weights_change_only_rounding(dtype: DType) -> None:
    (net, X, Y), (other, _, _) = problem(dtype), problem(dtype)
    net.fit(X, Y, batch_size=8, seed=0, sample_weight=np.full(37, 4.0))
    other.fit(X, Y, batch_size=8, seed=0)
    rtol = 1e3 * float(np.finfo(dtype).eps)
    assert_layers_close(Twin(net), net.parameters, other.parameters, rtol)


# train_on_batch


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@every_optimizer
def test_train_on_batch_makes_one_step_and_returns_the_loss_before_it(
    create: Callable[[], nncore.Optimizer], weighted: bool
) -> None:
    net, X, Y = problem(n=600)
    weights = np.random.default_rng(1).random(600) if weighted else None
    twin, optimizer = Twin(net), create()
    stepper = Stepper(twin, create())
    for step in range(1, 6):
        before = net.evaluate(X, Y, sample_weight=weights)
        loss = net.train_on_batch(X, Y, optimizer, sample_weight=weights)
        assert type(loss) is float
        assert loss == pytest.approx(before, rel=1e-13)
        assert loss == pytest.approx(stepper.epoch(X, Y, 600, None, weights), rel=1e-12)
        assert optimizer.step_count == step
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-12)


def test_train_on_batch_leaves_the_network_when_the_loss_is_not_finite() -> None:
    net, X, Y = linear_problem()
    optimizer = nncore.Adam()
    net.train_on_batch(X, Y, optimizer)
    with refused(
        nncore.DivergenceError, "learning_rate=0.001", "unchanged", unchanged=(net, optimizer)
    ):
        net.train_on_batch(X, 1e200 * Y, optimizer)
    with pytest.raises(nncore.DivergenceError) as raised:
        net.train_on_batch(X, 1e200 * Y, optimizer)
    assert raised.value.epoch is None


def test_step_of_train_on_batch_that_overflows_is_undone() -> None:
    net, X, Y = linear_problem()
    optimizer = nncore.SGD(1e250)
    net.parameters *= 1e60
    with refused(nncore.DivergenceError, "a parameter", unchanged=(net, optimizer)):
        net.train_on_batch(X, Y, optimizer)
