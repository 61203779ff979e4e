"""Equations (1) to (5) through a network's methods."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import (
    HIDDEN,
    PAIRS,
    SIZES,
    Array,
    Twin,
    assert_layers_close,
    data,
    is_near_a_kink,
    make,
    make_lively,
    rtol,
)

import nncore
from nncore._layout import Examples
from nncore.selftest import central_differences

DType = np.dtype[Any]

# (1) and (2)


@pytest.mark.parametrize("blas", [False, True], ids=["chosen", "blas"])
@pytest.mark.parametrize("sizes", [[5, 4, 6, 3], [37, 300, 70, 1], [300, 500, 33]], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 255, 256, 257, 700])
def test_predict_is_the_last_of_the_layer_outputs(
    n: int,
    sizes: list[int],
    blas: bool,
    dtype: DType,
    rng: np.random.Generator,
    request: pytest.FixtureRequest,
) -> None:
    if blas:
        request.getfixturevalue("on_blas")
    net = make(sizes, hidden="softplus", loss="binary_cross_entropy", dtype=dtype)
    X, _ = data(net, n, rng)
    outputs = net.layer_outputs(X)
    assert [A.shape for A in outputs] == [(n, size) for size in sizes[1:]]
    assert all(A.dtype == dtype for A in outputs)
    for n_threads in (None, 1, 3):
        prediction = net.predict(X, n_threads=n_threads)
        assert prediction.dtype == dtype
        assert prediction.tobytes() == outputs[-1].tobytes()


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_one_pass_gives_the_loss_and_the_outputs_of_some_rows(
    loss: str, n_out: int, n_threads: int, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 20, n_out], loss=loss, dtype=dtype)
    X, Y = data(net, 700, rng)
    weights = rng.uniform(size=700).astype(dtype)
    rows = rng.permutation(700)[:301]
    out = np.empty((301, n_out), dtype)
    with net.session(700, n_threads=n_threads) as session:
        total = session.total_loss(Examples(X, Y, weights), rows, out)
        assert total == session.total_loss(Examples(X[rows], Y[rows], weights[rows]))
    assert out.tobytes() == net.predict(X[rows]).tobytes()


def test_softmax_outputs_are_the_last_of_the_layer_outputs(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 6, 3], loss="cross_entropy", dtype=dtype)
    for n in (1, 2, 17, 300):
        X, _ = data(net, n, rng)
        assert net.predict(X).tobytes() == net.layer_outputs(X)[-1].tobytes()


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("loss", "output"), PAIRS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_network_equals_the_reference(
    hidden: str, loss: str, output: str, weighted: bool, dtype: DType, rng: np.random.Generator
) -> None:
    net = make_lively([5, 4, 6, 3], hidden, loss, output, dtype=dtype)
    X, Y = data(net, 300, rng)
    weights = rng.uniform(0.5, 2, 300).astype(dtype) if weighted else None
    # In float64 for both types, so that only the compiled float32 rounds.
    twin = Twin(net)
    for A, expected in zip(net.layer_outputs(X), twin.outputs(X), strict=True):
        np.testing.assert_allclose(A, expected, rtol=rtol(dtype), atol=rtol(dtype))
    loss_ = net.evaluate(X, Y, sample_weight=weights)
    assert type(loss_) is float
    assert loss_ == pytest.approx(twin.mean_loss(X, Y, weights), rel=rtol(dtype))
    gradient = net.gradient(X, Y, sample_weight=weights)
    assert gradient.dtype == dtype
    assert_layers_close(twin, gradient, twin.gradient(X, Y, weights), rtol(dtype))


def test_outputs_and_gradients_are_new_arrays_each_time(rng: np.random.Generator) -> None:
    net = make([3, 4, 2])
    X, Y = data(net, 5, rng)
    for results in (
        [net.predict(X), net.predict(X)],
        [net.gradient(X, Y), net.gradient(X, Y)],
        [net.layer_outputs(X)[0], net.layer_outputs(X)[0]],
    ):
        assert not np.shares_memory(results[0], results[1])
        assert results[0].tobytes() == results[1].tobytes()
        assert not np.shares_memory(results[0], net.parameters)
    before = net.gradient(X, Y)
    kept = before.copy()
    net.gradient(2 * X, Y)
    assert before.tobytes() == kept.tobytes()


def test_no_rows_give_no_outputs(dtype: DType) -> None:
    net = make([3, 4, 2], dtype=dtype)
    empty = np.empty((0, 3))
    assert net.predict(empty).shape == (0, 2)
    assert net.predict(empty).dtype == dtype
    assert [A.shape for A in net.layer_outputs(empty)] == [(0, 4), (0, 2)]


def test_predictions_of_a_row_depend_on_other_rows_only_by_rounding(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 7, 3], dtype=dtype)
    X, _ = data(net, 600, rng)
    one_by_one = np.concatenate([net.predict(row[np.newaxis]) for row in X])
    np.testing.assert_allclose(net.predict(X), one_by_one, rtol=rtol(dtype))


# (3) to (5)


CASES = [
    pytest.param(sizes, hidden, loss, output, id=f"{loss}-{output}-{hidden}-{len(sizes) - 1}")
    for loss, output in PAIRS
    for sizes in SIZES
    for hidden in HIDDEN
    # For the squared error, test only equal hidden and output activations.
    if (hidden == output if loss == "squared_error" else len(sizes) > 2 or hidden == "tanh")
]


def away_from_kinks(net: nncore.Network, seed: int) -> tuple[Array, Array]:
    """Return data for which no unit with a kink at 0 comes near it."""
    for attempt in range(1000):
        X, Y = data(net, 7, np.random.default_rng([seed, attempt]))
        near = is_near_a_kink(net, X)
        if net.loss in ("absolute_error", "huber"):
            residual = np.abs(net.predict(X) - Y) - (net.loss == "huber")
            near = near or np.abs(residual).min() <= 0.01
        if not near:
            return X, Y
    raise AssertionError("no data away from the kinks")


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("sizes", "hidden", "loss", "output"), CASES)
def test_gradient_equals_central_differences(
    sizes: list[int], hidden: str, loss: str, output: str, weighted: bool
) -> None:
    net = make_lively(sizes, hidden, loss, output, seed=12)
    X, Y = away_from_kinks(net, seed=2)
    weights = np.random.default_rng(8).uniform(0.2, 3, len(X)) if weighted else None
    gradient = net.gradient(X, Y, sample_weight=weights)
    differences = central_differences(
        lambda: net.evaluate(X, Y, sample_weight=weights), net.parameters
    )
    assert_layers_close(Twin(net), gradient, differences, 1e-7)
    assert np.linalg.norm(gradient) > 1e-3


@pytest.mark.parametrize(("sizes", "hidden", "loss", "output"), CASES)
def test_gradient_in_float32_equals_that_in_float64(
    sizes: list[int], hidden: str, loss: str, output: str
) -> None:
    single = make_lively(sizes, hidden, loss, output, dtype="float32", seed=12)
    double = make(sizes, hidden, loss, output)
    double.parameters = single.parameters
    X, Y = away_from_kinks(double, seed=2)
    X, Y = X.astype("f4"), Y.astype("f4")
    if loss == "cross_entropy":
        Y[:, -1] = 1 - Y[:, :-1].sum(axis=1)
    gradient = single.gradient(X, Y)
    assert gradient.dtype == np.float32
    assert_layers_close(Twin(double), gradient, double.gradient(X, Y), 1e-5)


@pytest.mark.parametrize("n", [255, 256, 257, 512, 1000])
def test_gradient_and_loss_are_means_however_many_rows_there_are(
    n: int, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], loss="cross_entropy", dtype=dtype)
    X, Y = data(net, n, rng)
    rows = [(X[i : i + 1], Y[i : i + 1]) for i in range(n)]
    losses = [net.evaluate(*row) for row in rows]
    mean: Array = np.stack([net.gradient(*row) for row in rows]).mean(axis=0, dtype=np.float64)
    assert_layers_close(Twin(net), net.gradient(X, Y), mean, rtol(dtype))
    assert net.evaluate(X, Y) == pytest.approx(np.mean(losses), rel=rtol(dtype))


# Threads


@pytest.mark.parametrize("n", [3, 700])
def test_threads_can_use_one_network_at_once(n: int, rng: np.random.Generator) -> None:
    net = make([20, 50, 40, 3], loss="cross_entropy")
    inputs = [data(net, n, rng) for _ in range(4)]

    def results(X: Array, Y: Array) -> list[bytes]:
        return [
            net.predict(X).tobytes(),
            np.float64(net.evaluate(X, Y)).tobytes(),
            net.gradient(X, Y).tobytes(),
            net.layer_outputs(X)[1].tobytes(),
        ]

    expected = [results(*each) for each in inputs]
    together = threading.Barrier(len(inputs))

    def work(i: int) -> bool:
        together.wait()
        return all(results(*inputs[i]) == expected[i] for _ in range(8))

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(work, range(len(inputs))))


def test_prediction_inside_another_threads_training_of_another_network(
    rng: np.random.Generator,
) -> None:
    net, other = make([20, 50, 3]), make([20, 50, 3])
    X, Y = data(net, 700, rng)
    expected = net.predict(X).tobytes()
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(other.fit, X, Y, epochs=20, batch_size=4, seed=0)
        assert net.predict(X).tobytes() == expected
        while not training.done():
            assert net.predict(X).tobytes() == expected
        assert len(training.result()) == 20
