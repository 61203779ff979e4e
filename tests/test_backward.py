"""Reverse mode through a network: `backward`, `jacobian` and `input_gradient`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import (
    HIDDEN,
    SIZES,
    Array,
    Setting,
    Twin,
    assert_layers_close,
    data,
    is_near_a_kink,
    make,
    make_lively,
    refused,
    rtol,
)

import nncore
from nncore.selftest import central_differences

DType = np.dtype[Any]

# An output activation, and a loss that allows it.
OUTPUTS = dict.fromkeys(HIDDEN, "squared_error")
OUTPUTS |= {"exponential": "poisson", "softmax": "cross_entropy"}
CASES = [
    pytest.param(sizes, hidden, output, id=f"{hidden}-{output}-{len(sizes) - 1}")
    for output in OUTPUTS
    for hidden in HIDDEN
    for sizes in SIZES
    if hidden in ("tanh", output) or (output == "softmax" and len(sizes) > 2)
]


def smooth(A: Array) -> Array:
    """Return f of each example: a function of the outputs that couples them."""
    total: Array = np.sin(A).sum(axis=1) + 0.5 * A.sum(axis=1) ** 2
    return total


def smooth_derivative(A: Array) -> Array:
    dA: Array = np.cos(A) + A.sum(axis=1, keepdims=True)
    return dA


def inputs_away_from_kinks(net: nncore.Network, n: int = 5) -> Array:
    for seed in range(1000):
        X, _ = data(net, n, np.random.default_rng(seed))
        if not is_near_a_kink(net, X):
            return X
    raise AssertionError("no inputs away from the kinks")


@pytest.mark.parametrize(("sizes", "hidden", "output"), CASES)
def test_backward_equals_central_differences(sizes: list[int], hidden: str, output: str) -> None:
    net = make_lively(sizes, hidden, OUTPUTS[output], output, seed=12)
    X = inputs_away_from_kinks(net)
    gradient, dX = net.backward(X, smooth_derivative(net.predict(X)))

    by_parameters = central_differences(lambda: smooth(net.predict(X)).sum(), net.parameters)
    assert_layers_close(Twin(net), gradient, by_parameters, 1e-7)
    # Row i of X changes f of example i alone.
    columns = [central_differences(lambda: smooth(net.predict(X)), x) for x in X]
    by_inputs = np.array([column[:, i] for i, column in enumerate(columns)])
    assert np.linalg.norm(dX - by_inputs) <= 1e-7 * np.linalg.norm(by_inputs)
    assert np.linalg.norm(by_inputs) > 1e-4


@pytest.mark.parametrize(("sizes", "hidden", "output"), CASES)
def test_jacobian_equals_central_differences(sizes: list[int], hidden: str, output: str) -> None:
    net = make_lively(sizes, hidden, OUTPUTS[output], output, seed=12)
    X = inputs_away_from_kinks(net)
    for x, J in zip(X, net.jacobian(X), strict=True):
        expected = central_differences(lambda x=x: net.predict(x), x).T  # type: ignore[misc]
        assert np.linalg.norm(J - expected) <= 1e-7 * np.linalg.norm(expected)


WIDE = [[1, 1], [1, 40, 10], [37, 300, 70, 33], [784, 30, 1]]


@pytest.mark.parametrize("blas", [False, True], ids=["chosen", "blas"])
@pytest.mark.parametrize("sizes", WIDE, ids=str)
@pytest.mark.parametrize("n", [1, 2, 17, 257])
def test_backward_equals_the_reference(
    n: int,
    sizes: list[int],
    blas: bool,
    dtype: DType,
    rng: np.random.Generator,
    request: pytest.FixtureRequest,
) -> None:
    if blas:
        request.getfixturevalue("on_blas")
    net = make(sizes, loss="cross_entropy", dtype=dtype)
    X, dA = rng.normal(size=(n, sizes[0])), rng.normal(size=(n, sizes[-1]))
    gradient, dX = net.backward(X, dA)
    assert gradient.dtype == dX.dtype == dtype
    twin = Twin(net)
    expected, expected_dX = twin.backward(X, dA)
    tolerance = 100 * rtol(dtype)
    np.testing.assert_allclose(gradient, expected, atol=tolerance)
    np.testing.assert_allclose(dX, expected_dX, atol=tolerance)


@pytest.mark.parametrize("sizes", WIDE, ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(
    sizes: list[int], dtype: DType, rng: np.random.Generator
) -> None:
    net = make(sizes, dtype=dtype)
    X, dA = rng.normal(size=(300, sizes[0])), rng.normal(size=(300, sizes[-1]))
    results = [
        [*net.backward(X, dA, n_threads=n_threads), net.jacobian(X, n_threads=n_threads)]
        for n_threads in (1, 2, 5)
    ]
    for others in results[1:]:
        assert [a.tobytes() for a in others] == [a.tobytes() for a in results[0]]


def test_backward_of_the_residual_is_the_gradient_of_the_summed_squared_error(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], dtype=dtype)
    X, Y = data(net, 300, rng)
    gradient, _ = net.backward(X, net.predict(X) - Y)
    np.testing.assert_allclose(gradient, 300 * net.gradient(X, Y), rtol=rtol(dtype), atol=1e-2)


def test_jacobian_has_the_input_gradients_of_all_outputs(rng: np.random.Generator) -> None:
    net = make([5, 4, 3])
    X, _ = data(net, 300, rng)
    J = net.jacobian(X)
    assert J.shape == (300, 3, 5)
    for j, unit in enumerate(np.eye(3)):
        _, dX = net.backward(X, np.tile(unit, (300, 1)))
        assert J[:, j].tobytes() == dX.tobytes()


def test_input_gradient_is_the_only_row_of_the_jacobian(rng: np.random.Generator) -> None:
    net = make([5, 4, 1])
    X, _ = data(net, 7, rng)
    slopes = net.input_gradient(X)
    assert slopes.shape == (7, 5)
    assert slopes.tobytes() == net.jacobian(X).tobytes()
    assert net.input_gradient(X[3]).tobytes() == slopes[3].tobytes()


def test_single_examples_have_no_axis_for_examples(rng: np.random.Generator) -> None:
    net = make([5, 4, 3])
    x, dA = rng.normal(size=5), rng.normal(size=3)
    gradient, dX = net.backward(x, dA)
    rows_gradient, rows_dX = net.backward(x[np.newaxis], dA[np.newaxis])
    assert gradient.tobytes() == rows_gradient.tobytes()
    assert dX.shape == (5,)
    assert dX.tobytes() == rows_dX.tobytes()
    assert net.jacobian(x).shape == (3, 5)


def test_no_rows_give_no_derivatives(dtype: DType) -> None:
    net = make([3, 4, 1], dtype=dtype)
    empty = np.empty((0, 3))
    gradient, dX = net.backward(empty, np.empty((0, 1)))
    assert not gradient.any()
    assert dX.shape == net.input_gradient(empty).shape == (0, 3)
    assert net.jacobian(empty).shape == (0, 1, 3)


def test_other_types_and_strides_are_converted(rng: np.random.Generator) -> None:
    net = make([3, 4, 2], dtype="float32")
    X, dA = rng.integers(0, 9, (40, 3)), rng.integers(0, 9, (40, 2))
    expected = [a.tobytes() for a in net.backward(X.astype("f4"), dA.astype("f4"))]
    for like in (X.tolist(), X.astype(">f8"), np.asfortranarray(X.astype("f4")), X.astype("u1")):
        assert [a.tobytes() for a in net.backward(like, dA)] == expected


def test_training_goes_on_as_if_nothing_had_been_asked(rng: np.random.Generator) -> None:
    net, other = (make([20, 30, 3], loss="cross_entropy", dtype="float32") for _ in range(2))
    X, Y = data(net, 32, rng)
    for _ in range(3):
        net.jacobian(X)
        net.backward(X, Y)
        for each in (net, other):
            each.train_on_batch(X, Y, nncore.SGD(0.1))
        assert net.evaluate(X, Y) == other.evaluate(X, Y)
    assert net.equals(other)
    assert net.jacobian(X).tobytes() == other.jacobian(X).tobytes()


@pytest.mark.parametrize("name", ["X", "dA"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a[:, :-1],
        lambda a: a[:-1],
        lambda a: np.where(np.arange(len(a))[:, np.newaxis] == 3, np.nan, a),
        lambda a: a.astype(str),
        lambda a: a[..., np.newaxis],
    ],
    ids=["columns", "rows", "nan", "text", "dimensions"],
)
def test_backward_refuses_what_does_not_fit(
    setting: Setting, name: str, spoil: Callable[[Array], Array]
) -> None:
    arrays = {"X": setting.X, "dA": setting.Y}
    arrays[name] = spoil(arrays[name])
    with refused((TypeError, ValueError), name, unchanged=setting.everything):
        setting.net.backward(arrays["X"], arrays["dA"])


@pytest.mark.parametrize("ask", [nncore.Network.jacobian, nncore.Network.input_gradient])
def test_inputs_that_are_not_finite_are_refused(ask: Callable[..., Array]) -> None:
    net = make([3, 4, 1])
    X = np.zeros((5, 3), net.dtype)
    X[3, 1] = np.inf
    with refused(ValueError, "X must be finite", "row 3", unchanged=[net]):
        ask(net, X)


def test_input_gradient_of_several_outputs_is_refused(setting: Setting) -> None:
    with refused(ValueError, "one output", "jacobian", unchanged=setting.everything):
        setting.net.input_gradient(setting.X)


def test_only_passes_back_to_the_inputs_take_memory_for_them() -> None:
    net = make([400, 30, 3])
    parameters = 401 * 30 + 31 * 3
    with net.session(16, batch_size=16, n_threads=1) as session:
        before = session.n_bytes
        X = np.ones((16, 400))
        session.gradient(np.empty(parameters), nncore._layout.Examples(X, np.ones((16, 3))), 1)
        assert session.n_bytes == before
        session.jacobian(np.empty((16, 3, 400)), nncore._layout.Examples(X))
        assert session.n_bytes > before


def test_dropout_of_earlier_steps_does_not_reach_derivatives() -> None:
    net = make([5, 40, 3], dtype="float32")
    X, Y = data(net, 32, np.random.default_rng(4))
    net.train_on_batch(X, Y, nncore.SGD(0.1), dropout=0.5)
    other = nncore.Network.from_architecture(net.architecture)
    other.parameters = net.parameters
    assert np.array_equal(net.jacobian(X), other.jacobian(X))
    for mine, expected in zip(net.backward(X, Y), other.backward(X, Y), strict=True):
        assert np.array_equal(mine, expected)
