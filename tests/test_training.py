import copy
import gc
import json
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from helpers import Array, Stepper, Twin, assert_layers_close, data, make, refused, snapshot

import nncore

DType = np.dtype[Any]
Optimizer = nncore.SGD | nncore.Adam

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "plain": lambda: nncore.SGD(0.1),
    "momentum": lambda: nncore.SGD(0.1, momentum=0.9),
    "adam": lambda: nncore.Adam(0.01),
}
every_optimizer = pytest.mark.parametrize("create", OPTIMIZERS.values(), ids=OPTIMIZERS)


def problem(dtype: Any = "float64", n: int = 37) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 3], dtype=dtype)
    return net, *data(net, n, np.random.default_rng(6))


def linear(dtype: Any = "float64", n: int = 40) -> tuple[nncore.Network, Array, Array]:
    """Return a problem that diverges as soon as the learning rate is large."""
    net = make([5, 6, 3], hidden="identity", output="identity", dtype=dtype)
    return net, *data(net, n, np.random.default_rng(6))


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
def test_same_seed_gives_the_same_bits(create: Callable[[], Optimizer], dtype: DType) -> None:
    first = run(0, dtype, optimizer=create())
    assert run(0, dtype, optimizer=create()) == first
    assert run(np.random.default_rng(0), dtype, optimizer=create()) == first
    assert run(1, dtype, optimizer=create())[0] != first[0]


def test_no_seed_gives_another_order_each_time() -> None:
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
    net = nncore.Network([1, 1], activation="identity", dtype="float64")
    targets = 2.0 ** np.arange(37)
    history = net.fit(
        np.zeros((37, 1)), targets, batch_size=8, epochs=3, seed=0, optimizer=nncore.SGD(0.0)
    )
    assert history.loss == pytest.approx([0.5 * (targets**2).mean()] * 3, rel=1e-15)


def test_fit_goes_on_from_where_the_network_stands() -> None:
    net, X, Y = problem()
    net.parameters = np.linspace(-1, 1, net.parameters.size)
    before = net.evaluate(X, Y)
    history = net.fit(X, Y, batch_size=37)
    assert history.loss[0] == pytest.approx(before, rel=1e-13)
    assert net.fit(X, Y, batch_size=37).loss[0] < before


# Callbacks


def test_callback_is_told_epoch_losses_seconds_and_network() -> None:
    net, X, Y = problem()
    ends: list[nncore.EpochEnd] = []
    history = net.fit(X, Y, epochs=3, validation_data=(X, Y), callbacks=[ends.append])
    assert [end.epoch for end in ends] == [1, 2, 3]
    assert [end.loss for end in ends] == history.loss
    assert [end.validation_loss for end in ends] == history.validation_loss
    assert [end.seconds for end in ends] == history.seconds
    assert all(end.network is net for end in ends)
    net.fit(X, Y, callbacks=[ends.append])
    assert ends[-1].epoch == 1
    assert ends[-1].validation_loss is None


@pytest.mark.parametrize("answer", [True, np.True_])
def test_true_stops_after_all_callbacks_were_called(answer: object) -> None:
    net, X, Y = problem()
    calls: list[tuple[str, int]] = []

    def stop(end: nncore.EpochEnd) -> object:
        calls.append(("stop", end.epoch))
        return end.epoch == 2 and answer

    def after(end: nncore.EpochEnd) -> None:
        calls.append(("after", end.epoch))

    history = net.fit(X, Y, epochs=5, callbacks=[stop, after])
    assert len(history) == 2
    assert calls == [("stop", 1), ("after", 1), ("stop", 2), ("after", 2)]


@pytest.mark.parametrize("answer", [None, False, 0, np.False_, 0.3, "loss", [1], np.ones(3)])
def test_no_other_answer_than_true_stops(answer: object) -> None:
    net, X, Y = problem()
    assert len(net.fit(X, Y, epochs=3, callbacks=[lambda end: answer])) == 3


def test_training_may_be_left_to_run_until_a_callback_stops_it() -> None:
    net, X, Y = problem()
    assert len(net.fit(X, Y, epochs=10**12, callbacks=[lambda end: end.epoch == 3])) == 3


def test_callback_sees_the_network_at_the_end_of_the_epoch_and_may_use_it() -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    seen: list[bytes] = []

    def use(end: nncore.EpochEnd) -> None:
        seen.append(end.network.parameters.tobytes())
        end.network.predict(X)
        end.network.gradient(X, Y)
        copy.deepcopy(end.network).fit(X, Y, epochs=2)

    optimizers = [nncore.Adam(), nncore.Adam()]
    net.fit(X, Y, epochs=3, optimizer=optimizers[0], shuffle=False, callbacks=[use])
    for parameters in seen:
        other.fit(X, Y, optimizer=optimizers[1], shuffle=False)
        assert other.parameters.tobytes() == parameters
    assert net.equals(other)


def test_callback_may_change_the_network() -> None:
    net, X, Y = problem()

    def reset(end: nncore.EpochEnd) -> None:
        end.network.parameters[:] = 0

    net.fit(X, Y, epochs=3, callbacks=[reset])
    assert (net.parameters == 0).all()


def test_exception_in_a_callback_passes_with_the_network_at_the_end_of_the_epoch() -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    one, two = nncore.Adam(), nncore.Adam()

    def fail(end: nncore.EpochEnd) -> None:
        if end.epoch == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        net.fit(X, Y, epochs=5, optimizer=one, seed=0, callbacks=[fail])
    other.fit(X, Y, epochs=2, optimizer=two, seed=0)
    assert net.equals(other)
    assert snapshot(one) == snapshot(two)
    net.fit(X, Y, optimizer=one, seed=1)
    other.fit(X, Y, optimizer=two, seed=1)
    assert net.equals(other)


# Output


def test_verbose_prints_a_line_after_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    net, X, Y = problem()
    lines: list[str] = []

    def read(end: nncore.EpochEnd) -> None:
        lines.append(capsys.readouterr().out)

    history = net.fit(X, Y, epochs=10, verbose=True, validation_data=(X, Y), callbacks=[read])
    assert capsys.readouterr() == ("", "")
    for epoch, line in enumerate(lines, start=1):
        found = re.fullmatch(
            r"epoch +(\d+)/10  loss ([\d.]+)  validation ([\d.]+)  ([\d.]+) s\n", line
        )
        assert found
        assert int(found[1]) == epoch
        assert float(found[2]) == pytest.approx(history.loss[epoch - 1], abs=1e-6)
        assert float(found[3]) == pytest.approx(history.validation_loss[epoch - 1], abs=1e-6)
    assert len({len(line) for line in lines}) == 1


def test_nothing_is_printed_otherwise(capfd: pytest.CaptureFixture[str]) -> None:
    net, X, Y = problem()
    net.fit(X, Y, epochs=2, validation_data=(X, Y))
    net.fit(X, Y, epochs=2, verbose=True)
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 2
    assert "validation" not in out
    assert err == ""


# Weights


@every_optimizer
def test_batch_without_weight_makes_no_step(create: Callable[[], Optimizer], dtype: DType) -> None:
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
    # Weighted rows are added up one by one, others in one sweep.
    np.testing.assert_allclose(history.loss, expected.loss, rtol=8 * np.finfo(dtype).eps)


def test_weights_all_alike_change_nothing_but_rounding(dtype: DType) -> None:
    (net, X, Y), (other, _, _) = problem(dtype), problem(dtype)
    net.fit(X, Y, batch_size=8, seed=0, sample_weight=np.full(37, 4.0))
    other.fit(X, Y, batch_size=8, seed=0)
    rtol = 1e3 * float(np.finfo(dtype).eps)
    assert_layers_close(Twin(net), net.parameters, other.parameters, rtol)


# Divergence


@every_optimizer
def test_divergence_brings_back_the_end_of_the_last_finite_epoch(
    create: Callable[[], Optimizer], dtype: DType
) -> None:
    (net, X, Y), (other, _, _) = linear(dtype), linear(dtype)
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
def test_divergence_in_the_first_epoch_leaves_everything_as_it_was(
    create: Callable[[], Optimizer], dtype: DType
) -> None:
    net, X, Y = linear(dtype)
    optimizer = create()
    net.fit(X, Y, optimizer=optimizer, seed=0)
    optimizer.learning_rate = 1e30 if dtype == np.float32 else 1e200
    with refused(
        nncore.DivergenceError, "epoch 1", "as it was before", unchanged=(net, optimizer, X, Y)
    ):
        net.fit(X, Y, epochs=3, batch_size=8, optimizer=optimizer)


def test_divergence_in_the_last_step_of_an_epoch_is_seen() -> None:
    """The loss is that before the step: here only the parameters show it."""
    net, X, Y = linear()
    net.parameters *= 1e50
    optimizer = nncore.SGD(1e250)
    with refused(nncore.DivergenceError, "epoch 1", unchanged=(net, optimizer)):
        net.fit(X, Y, batch_size=40, optimizer=optimizer)


def test_divergence_brings_back_state_that_began_during_the_fit() -> None:
    net, X, Y = linear()
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
def test_parameters_that_are_not_finite_are_seen(output: str) -> None:
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


@pytest.mark.parametrize("hidden", ["relu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("bad", ["X", "Y"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_mapped_values_that_are_not_finite_diverge(
    hidden: str, loss: str, bad: str, value: float, dtype: DType, tmp_path: Path
) -> None:
    net = make([5, 6, 3], hidden, loss, dtype=dtype)
    mapped = [as_map(tmp_path / str(i), a) for i, a in enumerate(data_of(net))]
    mapped["XY".index(bad)][33, 2] = value
    optimizer = nncore.SGD(0.1, momentum=0.9)
    if bad == "Y" and loss != "squared_error":
        with refused(ValueError, "Y must hold probabilities", "row 33", unchanged=(net, optimizer)):
            net.fit(*mapped, epochs=2, batch_size=8, optimizer=optimizer)
        return
    with refused(nncore.DivergenceError, "epoch 1", "finite", unchanged=(net, optimizer)):
        # The state begins with zeros, of which the snapshot before knows nothing.
        try:
            net.fit(*mapped, epochs=2, batch_size=8, optimizer=optimizer)
        finally:
            assert (optimizer.state[0] == 0).all()
            optimizer.state = ()


def data_of(net: nncore.Network) -> tuple[Array, Array]:
    return data(net, 37, np.random.default_rng(6))


# train_on_batch


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@every_optimizer
def test_train_on_batch_makes_one_step_and_returns_the_loss_before_it(
    create: Callable[[], Optimizer], weighted: bool
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
    net, X, Y = linear()
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
    net, X, Y = linear()
    optimizer = nncore.SGD(1e250)
    net.parameters *= 1e60
    with refused(nncore.DivergenceError, "a parameter", unchanged=(net, optimizer)):
        net.train_on_batch(X, Y, optimizer)


# Memory


def test_nothing_grows_from_epoch_to_epoch() -> None:
    net, X, Y = problem(n=2000)
    held: list[int] = []

    def measure(end: nncore.EpochEnd) -> None:
        if end.epoch % 100 == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        net.fit(X, Y, epochs=400, batch_size=100, validation_data=(X, Y), callbacks=[measure])
    finally:
        tracemalloc.stop()
    # The history takes three floats with their places in lists, some 100 bytes an epoch.
    assert len(held) == 4
    assert held[-1] - held[0] < 300 * 200


def test_nothing_grows_from_call_to_call() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()

    def calls() -> None:
        for _ in range(100):
            net.train_on_batch(X, Y, optimizer)
            net.fit(X, Y, optimizer=optimizer, validation_data=(X, Y))
            net.predict(X)
            net.gradient(X, Y)
            net.layer_outputs(X)
            with pytest.raises(ValueError, match="finite"):
                net.evaluate(X * np.nan, Y)
        gc.collect()

    calls()
    tracemalloc.start()
    try:
        calls()
        before = tracemalloc.get_traced_memory()[0]
        calls()
        calls()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("classes", [False, True], ids=["rows", "classes"])
def test_data_of_the_networks_dtype_are_never_copied(classes: bool) -> None:
    net = make([100, 10, 50], loss="cross_entropy", dtype="float32")
    n = 20_000
    X = np.zeros((n, 100), dtype=np.float32)
    Y = np.zeros(n, dtype=np.intp) if classes else np.full((n, 50), 1 / 50, dtype=np.float32)
    calls: list[Callable[[], object]] = [
        lambda: net.fit(X, Y, epochs=2, batch_size=100, seed=0, validation_data=(X, Y)),
        lambda: net.evaluate(X, Y),
        lambda: net.gradient(X, Y),
    ]
    # The order of the examples, a mask or two on Y, and the batch on its way; class indices are
    # copied, since they become addresses, here for training and for validation.
    allowed = 16 * n + (16 * n if classes else 4 * Y.size) + 1_200_000
    for call in calls:
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < allowed < X.nbytes


# Mapped files


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
    assert peak < 2**22


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    # NaN is met in the fourth batch: nothing before or after may have read the whole file.
    net.fit(X, Y, batch_size=32, shuffle=False)
except nncore.DivergenceError:
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
        file.seek(4 * 1024 * 100)
        file.write(np.full(1024, np.nan, dtype=np.float32).tobytes())
    process = child(TOUCH, path, n)
    out, err = process.communicate(timeout=60)
    assert err == ""
    grown = [int(word) for word in out.split()]
    assert path.stat().st_size == 2**31
    assert len(grown) == 2
    assert max(grown) < 2**26


# Ctrl-C

INTERRUPT = """
import json
import threading
import time
import numpy as np
import nncore

rng = np.random.default_rng(0)
n, batch_size = 100_000, 16
X = rng.random((n, 16), dtype=np.float32)
Y = X[:, :1].copy()
create = lambda: nncore.Network([16, 1024, 1024, 1], seed=0)
net, optimizer = create(), nncore.Adam(1e-4)
before = net.parameters.copy()

def tell():
    while not optimizer.state:
        time.sleep(0.01)
    time.sleep(0.2)  # parameters show from outside at the end of an epoch only
    print("training", flush=True)

teller = threading.Thread(target=tell)
teller.start()
try:
    net.fit(X, Y, epochs=10**6, batch_size=batch_size, optimizer=optimizer, shuffle=False)
except KeyboardInterrupt:
    teller.join()
    steps = optimizer.step_count
    twin, its = create(), nncore.Adam(1e-4)
    twin.fit(X[: steps * batch_size], Y[: steps * batch_size], batch_size=batch_size,
             optimizer=its, shuffle=False)
    print(json.dumps({
        "steps": steps,
        "in the first epoch": steps * batch_size < n,
        "finite": bool(np.isfinite(net.parameters).all()),
        "changed": bool((net.parameters != before).any()),
        "whole steps": net.equals(twin) and all(
            (a == b).all() for a, b in zip(optimizer.state, its.state)),
        "usable": net.predict(X[:3]).shape == (3, 1),
        "goes on": len(net.fit(X[:64], Y[:64], epochs=2, optimizer=optimizer)) == 2,
    }), flush=True)
    raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_training_after_a_whole_step() -> None:
    process = child(INTERRUPT)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    # Left alone it would train for days.
    out, err = process.communicate(timeout=30)
    told = json.loads(out)
    assert told.pop("steps") > 0
    assert all(told.values()), told
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


def interrupt_after(begun: threading.Event) -> threading.Thread:
    """Press Ctrl-C in this process when it has computed for a while from `begun` on."""

    def press() -> None:
        begun.wait()
        begin = time.process_time()
        while time.process_time() < begin + 0.1:
            pass
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("call", ["predict", "evaluate", "gradient"])
def test_ctrl_c_ends_calls_over_many_rows(call: str) -> None:
    net = nncore.Network([1, 1000, 1000, 1], seed=0)
    # One number seen as very many rows: no memory, but hours of work.
    source: Any = np.memmap
    X = np.broadcast_to(np.ones((1, 1), dtype=np.float32), (2**26, 1)).view(source)
    Y = np.broadcast_to(np.ones((1, 1), dtype=np.float32), (2**26, 1)).view(source)
    before = net.parameters.tobytes()
    arguments = (X,) if call == "predict" else (X, Y)
    begun = threading.Event()
    pressing = interrupt_after(begun)
    begun.set()
    with pytest.raises(KeyboardInterrupt):
        getattr(net, call)(*arguments)
    pressing.join()
    assert net.parameters.tobytes() == before
    assert np.isfinite(net.predict([[1.0]])).all()
