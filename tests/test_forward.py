"""Predictions of a few rows, computed on plain arrays, and of many rows."""

from typing import Any

import numpy as np
import pytest
from helpers import HIDDEN, Array

import nncore
from nncore import reference
from nncore._forward import ForwardPass
from nncore._kernels import KERNELS
from nncore.enums import Activation

DType = np.dtype[Any]

MOST_ROWS = 16


def make(sizes: list[int], **options: Any) -> nncore.Network:
    """Return a network whose biases are not 0 and whose outputs are not saturated."""
    net = nncore.Network(sizes, init="normal", seed=0, **options)
    net.parameters *= 0.3
    return net


def forward_pass(net: nncore.Network) -> ForwardPass:
    return ForwardPass(net.architecture, net.parameters)


def expected(net: nncore.Network, X: Array) -> Array:
    A = X
    for W, b, name in zip(net.weights, net.biases, net.activation, strict=True):
        Z = np.empty((len(X), b.size), net.dtype)
        reference.forward(Z, A, W, b, Activation[name.upper()])
        A = Z
    return A


@pytest.mark.parametrize("n_rows", [0, 1, 2, 3, MOST_ROWS])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 131])
def test_a_few_rows_agree_with_numpy_whatever_the_width(
    dtype: DType, rng: np.random.Generator, n: int, n_rows: int
) -> None:
    net = make([n + 2, n, 2], dtype=dtype, activation=["tanh", "sigmoid"])
    X = rng.standard_normal((n_rows, n + 2)).astype(dtype)
    outputs = forward_pass(net).predict(X)
    assert outputs is not None
    assert outputs.dtype == dtype
    tolerance = 64 * np.finfo(dtype).eps * np.sqrt(n)
    np.testing.assert_allclose(outputs, expected(net, X), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("output", [*HIDDEN, "softmax"])
def test_every_activation_is_applied(dtype: DType, rng: np.random.Generator, output: str) -> None:
    loss = "cross_entropy" if output == "softmax" else "squared_error"
    net = make([5, 6, 11], dtype=dtype, activation=["elu", output], loss=loss)
    X = rng.standard_normal((3, 5)).astype(dtype)
    outputs = forward_pass(net).predict(X)
    assert outputs is not None
    tolerance = 64 * np.finfo(dtype).eps
    np.testing.assert_allclose(outputs, expected(net, X), rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("sizes", [[784, 30, 10], [3, 1], [17, 40, 33, 9, 1], [300, 300, 5]])
def test_a_row_has_the_same_bits_among_few_and_among_many(
    dtype: DType, rng: np.random.Generator, sizes: list[int]
) -> None:
    net = make(sizes, dtype=dtype)
    X = rng.standard_normal((101, sizes[0])).astype(dtype)
    many = net.predict(X)
    assert net.predict(X[:1]).tobytes() == many[:1].tobytes()
    assert net.predict(X[50:63]).tobytes() == many[50:63].tobytes()
    assert net.predict(X[50:63], n_threads=1).tobytes() == many[50:63].tobytes()


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "softplus"])
def test_saturated_outputs_have_the_same_bits_among_few_and_among_many(
    dtype: DType, rng: np.random.Generator, output: str
) -> None:
    """Subnormal numbers are 0 in both."""
    loss = "cross_entropy" if output == "softmax" else "squared_error"
    net = nncore.Network([5, 7], output_activation=output, loss=loss, dtype=dtype, seed=0)
    smallest = np.log(np.finfo(dtype).smallest_subnormal)
    X = (rng.uniform(0.5, 1.1, (400, 5)) * rng.choice([-1, 1], (400, 5)) * -smallest).astype(dtype)
    many = net.predict(X)
    assert np.concatenate([net.predict(x[np.newaxis]) for x in X]).tobytes() == many.tobytes()


@pytest.mark.parametrize("n_rows", [3, 400])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_doubles_that_are_not_finite_floats_are_found(n_rows: int, bad: float) -> None:
    net = nncore.Network([6, 4], dtype="float32", seed=0)
    X = np.ones((n_rows, 6))
    X[-2, 3] = bad
    with pytest.raises(ValueError, match=f"X must be finite, got .* in row {n_rows - 2}"):
        net.predict(X)


def test_the_fast_path_takes_only_few_rows_of_plain_arrays(dtype: DType) -> None:
    net = make([4, 3], dtype=dtype)
    few = forward_pass(net)
    X = np.ones((2, 4), dtype)
    other = np.float64 if dtype == np.float32 else np.float32
    strided, infinite, nan = np.ones((2, 8), dtype)[:, ::2], X.copy(), X.copy()
    infinite[1, 3], nan[0, 0] = np.inf, np.nan
    unaligned = np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view(dtype).reshape(2, 4)
    for unsuitable in (
        [[1.0] * 4],
        X.astype(other),
        X.astype(dtype.newbyteorder("S")),
        strided,
        unaligned,
        np.asfortranarray(X),
        infinite,
        nan,
        X[0],
        X[:, :3].copy(),
        np.ma.masked_array(X),
        np.ones((MOST_ROWS + 1, 4), dtype),
    ):
        assert few.predict(unsuitable) is None  # fmt: skip
    assert few.predict(X) is not None


def test_every_call_reads_the_current_parameters(dtype: DType) -> None:
    net = nncore.Network([2, 1], dtype=dtype)
    net.parameters = np.array([1, 2, 3])
    X = np.ones((1, 2), dtype)
    assert net.predict(X).item() == 6
    net.biases[0][:] = 4
    assert net.predict(X).item() == 7


@pytest.mark.parametrize("row", [0, 31, 32, 500, 998])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_fast_path_finds_numbers_that_are_not_finite(
    dtype: DType, rng: np.random.Generator, row: int, value: float, n_threads: int
) -> None:
    net = make([7, 5, 2], dtype=dtype)
    X = rng.standard_normal((999, 7)).astype(dtype)
    good = net.predict(X, n_threads=n_threads)
    X[row, -1], kept = value, X[row, -1]
    with pytest.raises(ValueError, match=rf"X must be finite, got {value} in row {row}$"):
        net.predict(X, n_threads=n_threads)
    X[row, -1] = kept
    assert net.predict(X, n_threads=n_threads).tobytes() == good.tobytes()


@pytest.mark.parametrize("count", [1, 3, 31, 32, 33, 100])
def test_any_single_flaw_in_a_few_rows_is_found(dtype: DType, count: int) -> None:
    few = forward_pass(nncore.Network([count, 2], dtype=dtype, seed=0))
    X = np.zeros((1, count), dtype)
    assert few.predict(X) is not None
    for j in range(count):
        X[0, j] = np.nan
        assert few.predict(X) is None
        X[0, j] = np.finfo(dtype).max
        assert few.predict(X) is not None
        X[0, j] = 0
