import copy
import pickle
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from helpers import (
    OPTIMIZERS,
    Array,
    Stepper,
    Twin,
    assert_layers_close,
    data,
    every_optimizer,
    make,
    refused,
)

import nncore
from nncore.typing import OptimizerName

DType = np.dtype[Any]


def problem(dtype: Any = "float64", n: int = 37) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 4, 3], loss="cross_entropy", dtype=dtype)
    return net, *data(net, n, np.random.default_rng(6))


def same(one: nncore.Optimizer, other: nncore.Optimizer) -> bool:
    return (repr(one), one.step_count, [v.tobytes() for v in one.state]) == (
        repr(other),
        other.step_count,
        [v.tobytes() for v in other.state],
    )


# Trajectories: 100 steps in 20 epochs of 5 batches, the last of which is shorter.


@every_optimizer
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_hundred_steps_equal_those_of_the_reference(
    create: Callable[[], nncore.Optimizer], shuffle: bool, weighted: bool
) -> None:
    net, X, Y = problem()
    weights = np.random.default_rng(9).uniform(0.2, 2, len(X)) if weighted else None
    twin, optimizer = Twin(net), create()
    stepper = Stepper(twin, create())
    orders = np.random.default_rng(3)
    losses = [
        stepper.epoch(X, Y, 8, orders.permutation(len(X)) if shuffle else None, weights)
        for _ in range(20)
    ]
    history = net.fit(
        X,
        Y,
        epochs=20,
        batch_size=8,
        optimizer=optimizer,
        shuffle=shuffle,
        seed=3,
        sample_weight=weights,
    )
    assert optimizer.step_count == stepper.step_count == 100
    np.testing.assert_allclose(history.loss, losses, rtol=1e-10)
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-10)
    for vector, expected in zip(optimizer.state, stepper.state, strict=False):
        assert_layers_close(twin, vector, expected, 1e-10)
    assert history.loss[-1] < history.loss[0]


@every_optimizer
def test_hundred_steps_in_float32_stay_close_to_those_in_float64(
    create: Callable[[], nncore.Optimizer],
) -> None:
    single, X, Y = problem("float32")
    double, _, _ = problem("float64")
    double.parameters = single.parameters
    for net in (single, double):
        net.fit(X, Y, epochs=20, batch_size=8, optimizer=create(), seed=3)
    assert_layers_close(Twin(double), single.parameters, double.parameters, 1e-3)


def test_weight_decay_shrinks_weights_and_leaves_biases() -> None:
    net = nncore.Network([2, 3], init="normal", dtype="float64", seed=0)
    W, b = net.weights[0].copy(), net.biases[0].copy()
    X = np.zeros((4, 2))
    net.train_on_batch(X, np.tile(b, (4, 1)), nncore.SGD(0.5, weight_decay=0.1))
    np.testing.assert_allclose(net.weights[0], 0.95 * W, rtol=1e-15)
    assert net.biases[0].tobytes() == b.tobytes()


def test_learning_rate_of_zero_changes_nothing(dtype: DType) -> None:
    for create in (nncore.SGD, nncore.Adam, nncore.AdamW, nncore.RMSprop):
        net, X, Y = problem(dtype)
        before = net.parameters.tobytes()
        net.fit(X, Y, epochs=3, optimizer=create(0.0))
        assert net.parameters.tobytes() == before


# State


@every_optimizer
def test_two_fits_of_n_epochs_equal_one_of_twice_as_many(
    create: Callable[[], nncore.Optimizer], dtype: DType
) -> None:
    (once, X, Y), (twice, _, _) = problem(dtype), problem(dtype)
    one, two = create(), create()
    history = once.fit(X, Y, epochs=10, batch_size=8, optimizer=one, shuffle=False)
    parts = [
        twice.fit(X, Y, epochs=5, batch_size=8, optimizer=two, shuffle=False) for _ in range(2)
    ]
    assert once.equals(twice)
    assert same(one, two)
    assert history.loss == parts[0].loss + parts[1].loss


@every_optimizer
def test_train_on_batch_continues_from_the_state_of_fit(
    create: Callable[[], nncore.Optimizer],
) -> None:
    (by_fit, X, Y), (by_batch, _, _) = problem(), problem()
    one, two = create(), create()
    by_fit.fit(X, Y, epochs=2, batch_size=8, optimizer=one, shuffle=False)
    by_batch.fit(X, Y, epochs=1, batch_size=8, optimizer=two, shuffle=False)
    for begin in range(0, len(X), 8):
        by_batch.train_on_batch(X[begin : begin + 8], Y[begin : begin + 8], two)
    assert by_fit.equals(by_batch)
    assert same(one, two)


def test_an_optimizer_given_by_name_is_new_with_default_coefficients() -> None:
    for name in get_args(OptimizerName):
        create = nncore.optimizers.OPTIMIZERS[name]
        (by_name, X, Y), (by_instance, _, _) = problem(), problem()
        for _ in range(2):
            by_name.fit(X, Y, epochs=3, optimizer=name, seed=1)
            by_instance.fit(X, Y, epochs=3, optimizer=create(), seed=1)
        assert by_name.equals(by_instance)


@pytest.mark.parametrize("name", ["momentum", "adam", "amsgrad", "rmsprop-all"])
def test_changed_state_affects_the_next_fit(name: str) -> None:
    (kept, X, Y), (anew, _, _) = problem(), problem()
    create = OPTIMIZERS[name]
    optimizer = create()
    for _ in range(2):
        kept.fit(X, Y, optimizer=optimizer, shuffle=False)
        anew.fit(X, Y, optimizer=create(), shuffle=False)
    assert not kept.equals(anew)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@every_optimizer
def test_a_copy_made_between_fits_is_equal_and_independent(
    create: Callable[[], nncore.Optimizer],
    copied: Callable[[nncore.Optimizer], nncore.Optimizer],
    dtype: DType,
) -> None:
    net, X, Y = problem(dtype)
    optimizer = create()
    net.fit(X, Y, epochs=3, optimizer=optimizer, seed=0)
    other_net, other = copy.deepcopy(net), copied(optimizer)
    assert same(optimizer, other)
    net.fit(X, Y, epochs=3, optimizer=optimizer, seed=1)
    assert not same(optimizer, other)
    other_net.fit(X, Y, epochs=3, optimizer=other, seed=1)
    assert same(optimizer, other)
    assert net.equals(other_net)


def test_network_and_optimizer_pickled_together_continue_with_the_same_bits() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam(0.01)
    net.fit(X, Y, optimizer=optimizer, seed=0)
    other_net, other = pickle.loads(pickle.dumps((net, optimizer)))
    for each, its in ((net, optimizer), (other_net, other)):
        each.fit(X, Y, optimizer=its, seed=1)
    assert net.equals(other_net)


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [([5, 6, 4, 2], "float64"), ([5, 6, 3], "float64"), ([5, 6, 4, 3], "float32")],
)
@every_optimizer
def test_optimizer_of_another_network_is_refused(
    create: Callable[[], nncore.Optimizer], sizes: list[int], kind: str
) -> None:
    net, X, Y = problem()
    optimizer = create()
    net.fit(X, Y, optimizer=optimizer)
    other = make(sizes, dtype=kind)
    X_other, Y_other = data(other, 10, np.random.default_rng(0))
    expected = ("optimizer", "[5, 6, 4, 3]", "float64", str(sizes), kind)
    with refused(ValueError, *expected, unchanged=(other, optimizer)):
        other.fit(X_other, Y_other, optimizer=optimizer)
    with refused(ValueError, *expected, unchanged=(other, optimizer)):
        other.train_on_batch(X_other, Y_other, optimizer)
    # It still serves its own.
    net.fit(X, Y, optimizer=optimizer)


def test_refused_call_leaves_the_optimizer_free_for_another_network() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    with pytest.raises(ValueError, match="Y must"):
        net.fit(X, Y[:, 1:], optimizer=optimizer)
    with pytest.raises(ValueError, match="Y must"):
        net.train_on_batch(X, Y[:, 1:], optimizer)
    other = make([5, 2])
    other.fit(X, Y[:, :2], optimizer=optimizer)
    assert optimizer.step_count == 2


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("plain", 0),
        ("nesterov", 1),
        ("adam", 2),
        ("amsgrad", 3),
        ("rmsprop", 1),
        ("rmsprop-momentum", 2),
        ("rmsprop-centered", 2),
        ("rmsprop-all", 3),
    ],
)
def test_state_has_the_layout_of_the_parameters(name: str, count: int, dtype: DType) -> None:
    net, X, Y = problem(dtype)
    optimizer = OPTIMIZERS[name]()
    assert list(optimizer.state) == []
    assert optimizer.step_count == 0
    net.fit(X, Y, batch_size=10, optimizer=optimizer)
    assert optimizer.step_count == 4
    assert len(optimizer.state) == count
    for vector in optimizer.state:
        assert vector.shape == net.parameters.shape
        assert vector.dtype == dtype


# Coefficients


@every_optimizer
@pytest.mark.parametrize("train", ["fit", "train_on_batch"])
def test_changed_learning_rate_holds_from_the_next_epoch_on(
    create: Callable[[], nncore.Optimizer], train: str
) -> None:
    net, X, Y = problem()
    twin, optimizer = Twin(net), create()
    stepper = Stepper(twin, create())
    rates = [0.03, 0.01, 0.02, 0.04, 0.01, 0.02]
    for rate in rates:
        stepper.epoch(X, Y, 37)
        stepper.optimizer.learning_rate = rate
    coming = iter(rates)

    def change(_: object = None) -> None:
        optimizer.learning_rate = next(coming)

    if train == "fit":
        net.fit(
            X, Y, epochs=6, batch_size=37, optimizer=optimizer, shuffle=False, callbacks=[change]
        )
    else:
        for _ in rates:
            net.train_on_batch(X, Y, optimizer)
            change()
    assert optimizer.learning_rate == optimizer.current_rate == rates[-1]
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-10)


def test_momentum_may_be_changed_by_a_callback() -> None:
    net, X, Y = problem()
    twin, optimizer = Twin(net), nncore.SGD(0.1)
    stepper = Stepper(twin, nncore.SGD(0.1))

    def change(_: object) -> None:
        optimizer.momentum = 0.9

    for _ in range(4):
        stepper.epoch(X, Y, 8)
        assert isinstance(stepper.optimizer, nncore.SGD)
        stepper.optimizer.momentum = 0.9
    net.fit(X, Y, epochs=4, batch_size=8, optimizer=optimizer, shuffle=False, callbacks=[change])
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-10)
