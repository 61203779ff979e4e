"""Equations (1) to (5) in the kernels of both twins."""

import itertools
import math
from types import ModuleType

import numpy as np
import pytest
from kernel_cases import (
    SIGMA,
    Array,
    Close,
    DType,
    each,
    normal,
    outputs_and_targets,
    source,
    weights_or_none,
    wide,
)
from numpy.testing import assert_allclose, assert_array_equal

from nncore._kernel_calls import ELEMENTWISE, ERRORS, KEPT, PAIRS, SHAPES
from nncore.enums import Activation, Loss

# (1)


@pytest.mark.parametrize("activation", ELEMENTWISE)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_sigma_of_the_weighted_sum(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    activation: Activation,
) -> None:
    N, n_prev, n = shape
    A_prev, W, b = (
        normal(rng, dtype, N, n_prev),
        normal(rng, dtype, n_prev, n),
        normal(rng, dtype, n),
    )
    W /= np.sqrt(n_prev, dtype=dtype)
    A = np.full((N, n), np.nan, dtype)
    twin.forward(A, A_prev, W, b, activation)
    Z = np.einsum("kj,ji->ki", wide(A_prev), wide(W)) + wide(b)
    sigma, _ = SIGMA[activation]
    close(A, each(sigma, Z))


@pytest.mark.parametrize("activation", KEPT)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_writes_the_derivatives_that_do_not_follow_from_sigma(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    activation: Activation,
) -> None:
    N, n_prev, n = shape
    A_prev, W = normal(rng, dtype, N, n_prev), normal(rng, dtype, n_prev, n)
    b = normal(rng, dtype, n)
    W /= np.sqrt(n_prev, dtype=dtype)
    A, expected_A = np.full((N, n), np.nan, dtype), np.full((N, n), np.nan, dtype)
    derivatives = np.full((N, n), np.nan, dtype)
    twin.forward(A, A_prev, W, b, activation, derivatives)
    Z = np.einsum("kj,ji->ki", wide(A_prev), wide(W)) + wide(b)
    _, derivative = SIGMA[activation]
    close(derivatives, each(derivative, Z))
    twin.forward(expected_A, A_prev, W, b, activation)
    assert_array_equal(A, expected_A)


@pytest.mark.parametrize("activation", [a for a in Activation if a not in KEPT])
def test_forward_writes_no_derivatives_that_follow_from_sigma(
    twin: ModuleType, dtype: DType, activation: Activation
) -> None:
    A, derivatives = np.empty((3, 5), dtype), np.full((3, 5), 7, dtype)
    parts = np.ones((3, 2), dtype), np.ones((2, 5), dtype), np.zeros(5, dtype)
    twin.forward(A, *parts, activation, derivatives)
    assert_array_equal(derivatives, np.full((3, 5), 7, dtype))


@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_is_each_exponential_over_their_sum(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
) -> None:
    N, n_prev, n = shape
    A_prev, W, b = (
        normal(rng, dtype, N, n_prev),
        normal(rng, dtype, n_prev, n),
        normal(rng, dtype, n),
    )
    W /= np.sqrt(n_prev, dtype=dtype)
    A = np.full((N, n), np.nan, dtype)
    twin.forward(A, A_prev, W, b, Activation.SOFTMAX)
    for k in range(N):
        e = [math.exp(z) for z in wide(A_prev[k]) @ wide(W) + wide(b)]
        close(A[k], [e_i / math.fsum(e) for e_i in e])


@pytest.mark.parametrize("level", [-1e30, -1000.0, 1000.0, 1e30])
@pytest.mark.parametrize("n", [1, 3, 8, 13])
def test_softmax_does_not_depend_on_the_level_of_its_input(
    twin: ModuleType, dtype: DType, level: float, n: int
) -> None:
    A = np.full((2, n), np.nan, dtype)
    twin.forward(
        A,
        np.full((2, 1), level, dtype),
        np.ones((1, n), dtype),
        np.zeros(n, dtype),
        Activation.SOFTMAX,
    )
    assert_allclose(A, np.full((2, n), 1 / n), rtol=8 * np.finfo(dtype).eps)


def test_softmax_of_far_apart_inputs_is_one_and_zeros(twin: ModuleType, dtype: DType) -> None:
    A = np.full((1, 3), np.nan, dtype)
    twin.forward(
        A,
        np.ones((1, 1), dtype),
        np.array([[-1e30, 2000, 1e30]], dtype),
        np.zeros(3, dtype),
        Activation.SOFTMAX,
    )
    assert_array_equal(A, [[0, 0, 1]])


# (2)


def explicit_loss(A: Array, Y: Array, sample_weight: Array | None, loss: Loss) -> float:
    def of_one(a: float, y: float) -> float:
        if loss == Loss.SQUARED_ERROR:
            return 0.5 * (y - a) ** 2
        if loss == Loss.ABSOLUTE_ERROR:
            return abs(y - a)
        if loss == Loss.HUBER:
            return 0.5 * (y - a) ** 2 if abs(y - a) <= 1 else abs(y - a) - 0.5
        if loss == Loss.CUSTOM:
            return y * a
        if loss == Loss.POISSON:
            return (y * math.log(y / a) if y > 0 else 0) - y + a
        if loss == Loss.BINARY_CROSS_ENTROPY:
            return -(y * math.log(a) + (1 - y) * math.log(1 - a))
        return -y * math.log(a)

    N, n = A.shape
    return math.fsum(
        (1.0 if sample_weight is None else float(sample_weight[k]))
        * of_one(float(A[k, j]), float(Y[k, j]))
        for k in range(N)
        for j in range(n)
    )


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("N", "n"), [(0, 3), (1, 1), (1, 13), (13, 1), (7, 17), (129, 67)])
def test_loss_is_the_weighted_sum_over_examples_of_the_sum_over_outputs(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    loss: Loss,
    weighted: bool,
    N: int,
    n: int,
) -> None:
    A, Y = outputs_and_targets(rng, dtype, loss, N, n)
    sample_weight = weights_or_none(rng, dtype, N, weighted)
    total = twin.loss(A, Y, sample_weight, loss)
    assert isinstance(total, float)
    close(total, explicit_loss(A, Y, sample_weight, loss))


@pytest.mark.parametrize(
    ("loss", "a", "y", "distance"),
    [
        # ln a and ln(1 - a) are taken at the clip's edge, eps or 1 - eps away from 0.
        (Loss.CROSS_ENTROPY, 0.0, 1.0, "eps"),
        (Loss.CROSS_ENTROPY, 1e-30, 1.0, "eps"),
        (Loss.CROSS_ENTROPY, 1.0, 1.0, "1 - eps"),
        (Loss.BINARY_CROSS_ENTROPY, 0.0, 1.0, "eps"),
        (Loss.BINARY_CROSS_ENTROPY, 1.0, 0.0, "eps"),
        (Loss.BINARY_CROSS_ENTROPY, 1.0, 1.0, "1 - eps"),
        (Loss.BINARY_CROSS_ENTROPY, 0.0, 0.0, "1 - eps"),
    ],
)
@pytest.mark.parametrize("n", [1, 11])
def test_saturated_probabilities_are_clipped_at_eps_of_the_dtype(
    twin: ModuleType, dtype: DType, loss: Loss, a: float, y: float, distance: str, n: int
) -> None:
    eps = float(np.finfo(dtype).eps)
    expected = -n * (math.log(eps) if distance == "eps" else math.log1p(-eps))
    total = twin.loss(np.full((1, n), a, dtype), np.full((1, n), y, dtype), None, loss)
    assert_allclose(total, expected, rtol=1e-6)


@pytest.mark.parametrize("loss", [Loss.BINARY_CROSS_ENTROPY, Loss.CROSS_ENTROPY])
def test_probabilities_inside_the_clip_are_not_changed(
    twin: ModuleType, dtype: DType, loss: Loss
) -> None:
    a = np.array([[2 * np.finfo(dtype).eps]], dtype)
    total = twin.loss(a, np.ones((1, 1), dtype), None, loss)
    assert_allclose(total, -math.log(float(a[0, 0])), rtol=1e-6)


def test_poisson_loss_of_a_zero_prediction_is_finite_and_large(
    twin: ModuleType, dtype: DType
) -> None:
    A, Y = np.zeros((1, 5), dtype), np.ones((1, 5), dtype)
    assert 100 < twin.loss(A, Y, None, Loss.POISSON) < math.inf


@pytest.mark.parametrize("loss", Loss)
def test_loss_of_nan_is_nan(twin: ModuleType, dtype: DType, loss: Loss) -> None:
    A, Y = np.full((2, 3), 0.5, dtype), np.full((2, 3), 0.5, dtype)
    A[1, 2] = np.nan
    assert math.isnan(twin.loss(A, Y, None, loss))


# (3)


@pytest.mark.parametrize(("loss", "activation"), PAIRS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("N", "n"), [(0, 3), (1, 1), (1, 13), (13, 1), (7, 17), (129, 67)])
def test_output_delta_is_the_derivative_of_the_loss_by_z(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    loss: Loss,
    activation: Activation,
    weighted: bool,
    N: int,
    n: int,
) -> None:
    A, Y = outputs_and_targets(rng, dtype, loss, N, n)
    sample_weight = weights_or_none(rng, dtype, N, weighted)
    expected, derivatives = wide(A) - wide(Y), None
    if activation == Activation.SOFTMAX and loss == Loss.CUSTOM:
        A = np.exp(A) / np.exp(A).sum(axis=1, keepdims=True)
        jacobians = [np.diag(wide(a)) - np.outer(wide(a), wide(a)) for a in A]
        expected = np.array([J @ wide(y) for J, y in zip(jacobians, Y, strict=True)]).reshape(N, n)
    elif loss in (*ERRORS, Loss.CUSTOM):
        Z = rng.standard_normal((N, n))
        sigma, derivative = SIGMA[activation]
        A = each(sigma, Z).astype(dtype)
        derivatives = each(derivative, Z).astype(dtype)
        residual = wide(A) - wide(Y)
        if loss == Loss.ABSOLUTE_ERROR:
            residual = np.sign(residual)
        if loss == Loss.HUBER:
            residual = residual.clip(-1, 1)
        if loss == Loss.CUSTOM:
            residual = wide(Y)
        expected = residual * each(derivative, Z)
    if sample_weight is not None:
        expected *= wide(sample_weight)[:, np.newaxis]
    delta = np.full((N, n), np.nan, dtype)
    twin.output_delta(delta, A, Y, sample_weight, loss, activation, derivatives)
    close(delta, expected)


@pytest.mark.parametrize(("loss", "activation"), PAIRS)
@pytest.mark.parametrize("n", [1, 11])
def test_an_example_of_weight_zero_has_no_loss_and_no_delta(
    twin: ModuleType,
    dtype: DType,
    rng: np.random.Generator,
    loss: Loss,
    activation: Activation,
    n: int,
) -> None:
    A, Y = outputs_and_targets(rng, dtype, loss, 3, n)
    sample_weight = np.array([0.5, 0, 2], dtype)
    others = [0, 2]
    expected = np.zeros((3, n), dtype)
    part = np.empty((2, n), dtype)
    D = A.copy() if activation in KEPT else None
    D_others = None if D is None else D[others]
    twin.output_delta(part, A[others], Y[others], sample_weight[others], loss, activation, D_others)
    expected[others] = part
    expected_loss = twin.loss(A[others], Y[others], sample_weight[others], loss)
    for bad_a, bad_y in itertools.product([0.5, np.nan, np.inf, -np.inf], repeat=2):
        A[1], Y[1] = bad_a, bad_y
        if D is not None:
            D[1] = bad_a
        delta = np.full((3, n), np.nan, dtype)
        twin.output_delta(delta, A, Y, sample_weight, loss, activation, D)
        assert_array_equal(delta, expected)
        assert twin.loss(A, Y, sample_weight, loss) == expected_loss


# (4)


@pytest.mark.parametrize("activation", ELEMENTWISE)
@pytest.mark.parametrize("shape", SHAPES)
def test_delta_is_the_next_delta_through_the_weights_times_the_slope(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    activation: Activation,
) -> None:
    N, n_prev, n = shape
    delta, W = normal(rng, dtype, N, n), normal(rng, dtype, n_prev, n)
    W /= np.sqrt(n, dtype=dtype)
    Z_prev = rng.standard_normal((N, n_prev))
    _, derivative = SIGMA[activation]
    delta_prev = np.full((N, n_prev), np.nan, dtype)
    twin.delta(delta_prev, delta, W, source(activation, Z_prev, dtype), activation)
    back = np.einsum("ki,ji->kj", wide(delta), wide(W))
    close(delta_prev, back * each(derivative, Z_prev))


@pytest.mark.parametrize(
    ("activation", "slope"),
    [(Activation.RELU, 0.0), (Activation.LEAKY_RELU, 0.01), (Activation.ELU, 1.0)],
)
def test_slope_at_the_kink_is_the_one_from_below(
    twin: ModuleType, dtype: DType, activation: Activation, slope: float
) -> None:
    delta_prev = np.full((1, 9), np.nan, dtype)
    delta, W = np.ones((1, 1), dtype), np.ones((9, 1), dtype)
    twin.delta(delta_prev, delta, W, np.zeros((1, 9), dtype), activation)
    assert_array_equal(delta_prev, np.full((1, 9), slope, dtype))


@pytest.mark.parametrize("activation", [Activation.TANH, Activation.GELU])
@pytest.mark.parametrize("first", [1, 5, 16])
def test_dropout_of_a_part_of_a_batch_equals_the_rows_of_the_whole(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, first: int, activation: Activation
) -> None:
    A, delta = normal(rng, dtype, 17, 70), normal(rng, dtype, 17, 70)
    A_part, delta_part = A[first:].copy(), delta[first:].copy()
    twin.dropout(A, 0.4, 5, 6, 7)
    twin.dropout(A_part, 0.4, 5, 6, 7, first)
    assert_array_equal(A_part, A[first:])
    twin.dropout_derivative(delta, A, 0.4, 5, 6, 7, 0, activation)
    twin.dropout_derivative(delta_part, A_part, 0.4, 5, 6, 7, first, activation)
    assert_array_equal(delta_part, delta[first:])


# (5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
def test_gradient_is_the_sum_over_examples_of_delta_times_activation(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    beta: float,
) -> None:
    N, n_prev, n = shape
    delta, A_prev = normal(rng, dtype, N, n), normal(rng, dtype, N, n_prev)
    before_W, before_b = normal(rng, dtype, n_prev, n), normal(rng, dtype, n)
    dW, db = before_W.copy(), before_b.copy()
    scale = 1 / max(N, 1)
    twin.gradient(dW, db, delta, A_prev, scale, beta)
    sums_W = np.einsum("kj,ki->ji", wide(A_prev), wide(delta))
    sums_b = np.einsum("ki->i", wide(delta))
    close(dW, scale * sums_W + beta * wide(before_W))
    close(db, scale * sums_b + beta * wide(before_b))


def test_gradient_of_no_examples_is_zero(twin: ModuleType, dtype: DType) -> None:
    dW, db = np.full((3, 5), np.nan, dtype), np.full(5, np.nan, dtype)
    twin.gradient(dW, db, np.empty((0, 5), dtype), np.empty((0, 3), dtype), 1.0)
    assert_array_equal(dW, np.zeros((3, 5)))
    assert_array_equal(db, np.zeros(5))


def test_gradient_is_added_up_over_batches_with_beta_one(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator
) -> None:
    delta, A_prev = normal(rng, dtype, 17, 5), normal(rng, dtype, 17, 7)
    whole_W, whole_b = np.empty((7, 5), dtype), np.empty(5, dtype)
    parts_W, parts_b = np.empty((7, 5), dtype), np.empty(5, dtype)
    twin.gradient(whole_W, whole_b, delta, A_prev, 1 / 17)
    twin.gradient(parts_W, parts_b, delta[:9], A_prev[:9], 1 / 17)
    twin.gradient(parts_W, parts_b, delta[9:], A_prev[9:], 1 / 17, 1.0)
    close(parts_W, whole_W)
    close(parts_b, whole_b)
