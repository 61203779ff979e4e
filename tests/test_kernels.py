"""The kernels of both twins: what they compute, and what they leave alone."""

import inspect
import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nncore import _kernels, _layout, reference
from nncore.enums import Activation, Loss

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Close = Callable[..., None]
Scalar = Callable[[float], float]

ELEMENTWISE = [a for a in Activation if a != Activation.SOFTMAX]
ERRORS = [Loss.SQUARED_ERROR, Loss.ABSOLUTE_ERROR, Loss.HUBER]
PAIRS = [
    *((loss, activation) for loss in ERRORS for activation in ELEMENTWISE),
    (Loss.POISSON, Activation.EXPONENTIAL),
    (Loss.BINARY_CROSS_ENTROPY, Activation.SIGMOID),
    (Loss.CROSS_ENTROPY, Activation.SOFTMAX),
]
# N, n_prev, n: an empty batch, single rows and columns, odd sizes, larger ones.
SHAPES = [
    (0, 3, 5),
    (1, 1, 1),
    (1, 7, 13),
    (7, 13, 1),
    (13, 1, 33),
    (17, 33, 7),
    (129, 67, 31),
]

# sigma and sigma' of z as textbooks write them, one number at a time.
SIGMA: dict[Activation, tuple[Scalar, Scalar]] = {
    Activation.IDENTITY: (lambda z: z, lambda z: 1.0),
    Activation.SIGMOID: (
        lambda z: 1 / (1 + math.exp(-z)),
        lambda z: math.exp(-z) / (1 + math.exp(-z)) ** 2,
    ),
    Activation.TANH: (math.tanh, lambda z: 1 / math.cosh(z) ** 2),
    Activation.RELU: (lambda z: z if z > 0 else 0.0, lambda z: 1.0 if z > 0 else 0.0),
    Activation.LEAKY_RELU: (
        lambda z: z if z > 0 else 0.01 * z,
        lambda z: 1.0 if z > 0 else 0.01,
    ),
    Activation.ELU: (
        lambda z: z if z > 0 else math.exp(z) - 1,
        lambda z: 1.0 if z > 0 else math.exp(z),
    ),
    Activation.SOFTPLUS: (
        lambda z: math.log(1 + math.exp(z)),
        lambda z: 1 / (1 + math.exp(-z)),
    ),
    Activation.EXPONENTIAL: (math.exp, math.exp),
}


def each(function: Scalar, x: Array) -> Array:
    return np.array([function(float(value)) for value in x.flat]).reshape(x.shape)


def wide(x: Array) -> Array:
    return x.astype(np.longdouble)


def normal(rng: np.random.Generator, dtype: DType, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def outputs_and_targets(
    rng: np.random.Generator, dtype: DType, loss: Loss, N: int, n: int
) -> tuple[Array, Array]:
    """A and Y as a network with this loss would have them."""
    if loss in ERRORS:
        return normal(rng, dtype, N, n), normal(rng, dtype, N, n)
    if loss == Loss.POISSON:
        counts = rng.poisson(2.0, (N, n)).astype(dtype)
        return np.exp(normal(rng, dtype, N, n)), counts
    A = rng.uniform(0.01, 0.99, (N, n))
    Y = rng.uniform(0, 1, (N, n))
    if loss == Loss.CROSS_ENTROPY:
        A /= A.sum(axis=1, keepdims=True)
        Y = np.eye(n)[rng.integers(n, size=N)]
    return A.astype(dtype), Y.astype(dtype)


def weights_or_none(rng: np.random.Generator, dtype: DType, N: int, weighted: bool) -> Array | None:
    return rng.uniform(0, 2, N).astype(dtype) if weighted else None


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
    expected = wide(A) - wide(Y)
    if loss in ERRORS:
        Z = rng.standard_normal((N, n))
        sigma, derivative = SIGMA[activation]
        A = each(sigma, Z).astype(dtype)
        residual = wide(A) - wide(Y)
        if loss == Loss.ABSOLUTE_ERROR:
            residual = np.sign(residual)
        if loss == Loss.HUBER:
            residual = residual.clip(-1, 1)
        expected = residual * each(derivative, Z)
    if sample_weight is not None:
        expected *= wide(sample_weight)[:, np.newaxis]
    delta = np.full((N, n), np.nan, dtype)
    twin.output_delta(delta, A, Y, sample_weight, loss, activation)
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
    twin.output_delta(part, A[others], Y[others], sample_weight[others], loss, activation)
    expected[others] = part
    expected_loss = twin.loss(A[others], Y[others], sample_weight[others], loss)
    for bad_a, bad_y in itertools.product([0.5, np.nan, np.inf, -np.inf], repeat=2):
        A[1], Y[1] = bad_a, bad_y
        delta = np.full((3, n), np.nan, dtype)
        twin.output_delta(delta, A, Y, sample_weight, loss, activation)
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
    sigma, derivative = SIGMA[activation]
    delta_prev = np.full((N, n_prev), np.nan, dtype)
    twin.delta(delta_prev, delta, W, each(sigma, Z_prev).astype(dtype), activation)
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


@pytest.mark.parametrize("first", [1, 5, 16])
def test_dropout_of_a_part_of_a_batch_equals_the_rows_of_the_whole(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, first: int
) -> None:
    A, delta = normal(rng, dtype, 17, 70), normal(rng, dtype, 17, 70)
    A_part, delta_part = A[first:].copy(), delta[first:].copy()
    twin.dropout(A, 0.4, 5, 6, 7)
    twin.dropout(A_part, 0.4, 5, 6, 7, first)
    assert_array_equal(A_part, A[first:])
    twin.dropout_derivative(delta, A, 0.4, 5, 6, 7, 0, Activation.TANH)
    twin.dropout_derivative(delta_part, A_part, 0.4, 5, 6, 7, first, Activation.TANH)
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


# (6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_gradient_descent_equals_gradient_then_sgd(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    weight_decay: float,
) -> None:
    N, n_prev, n = shape
    batch = max(N, 1)
    learning_rate = 0.3
    delta, A_prev = normal(rng, dtype, N, n), normal(rng, dtype, N, n_prev)
    W, b = normal(rng, dtype, n_prev, n), normal(rng, dtype, n)
    dW, db = np.empty_like(W), np.empty_like(b)
    expected_W, expected_b = W.copy(), b.copy()
    twin.gradient(dW, db, delta, A_prev, 1 / batch)
    twin.sgd(expected_W.ravel(), dW.ravel(), learning_rate, weight_decay)
    twin.sgd(expected_b, db, learning_rate, 0.0)
    twin.gradient_descent(W, b, delta, A_prev, learning_rate / batch, learning_rate * weight_decay)
    close(W, expected_W)
    close(b, expected_b)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_gradient_descent_decays_weights_but_not_biases(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    decay: float,
) -> None:
    N, n_prev, n = shape
    delta, A_prev = normal(rng, dtype, N, n), normal(rng, dtype, N, n_prev)
    W, b = normal(rng, dtype, n_prev, n), normal(rng, dtype, n)
    step_size = 0.1 / max(N, 1)
    expected_W = (1 - decay) * wide(W) - step_size * np.einsum(
        "kj,ki->ji", wide(A_prev), wide(delta)
    )
    expected_b = wide(b) - step_size * np.einsum("ki->i", wide(delta))
    twin.gradient_descent(W, b, delta, A_prev, step_size, decay)
    close(W, expected_W)
    close(b, expected_b)


COUNTS = [0, 1, 7, 13, 33, 1000]


@pytest.mark.parametrize("count", COUNTS)
def test_square_sum_is_that_of_the_elements_squares(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator, count: int
) -> None:
    x = normal(rng, dtype, count)
    close(twin.square_sum(x), math.fsum(float(value) ** 2 for value in x))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_steps_against_the_gradient(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    count: int,
    weight_decay: float,
) -> None:
    parameters, gradient = normal(rng, dtype, count), normal(rng, dtype, count)
    expected = [
        w - 0.3 * (g + weight_decay * w)
        for w, g in zip(parameters.tolist(), gradient.tolist(), strict=True)
    ]
    twin.sgd(parameters, gradient, 0.3, weight_decay)
    close(parameters, expected)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_momentum_keeps_a_decaying_sum_of_steps(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    count: int,
    nesterov: bool,
    weight_decay: float,
) -> None:
    parameters, velocity = normal(rng, dtype, count), np.zeros(count, dtype)
    w, v = parameters.tolist(), velocity.tolist()
    for _ in range(3):
        gradient = normal(rng, dtype, count)
        twin.momentum(parameters, velocity, gradient, 0.3, 0.9, nesterov, weight_decay)
        for i, partial in enumerate(gradient.tolist()):
            g = partial + weight_decay * w[i]
            v[i] = 0.9 * v[i] - 0.3 * g
            w[i] += 0.9 * v[i] - 0.3 * g if nesterov else v[i]
    close(velocity, v)
    close(parameters, w)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_momentum_of_zero_equals_sgd(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    weight_decay: float,
) -> None:
    parameters, gradient = normal(rng, dtype, 33), normal(rng, dtype, 33)
    expected = parameters.copy()
    twin.sgd(expected, gradient, 0.3, weight_decay)
    twin.momentum(parameters, np.zeros(33, dtype), gradient, 0.3, 0.0, False, weight_decay)
    close(parameters, expected)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_divides_the_mean_gradient_by_its_root_mean_square(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    count: int,
    weight_decay: float,
) -> None:
    """Kingma and Ba's algorithm 1 as printed, corrections of the bias outside."""
    learning_rate, beta_1, beta_2, epsilon = 0.01, 0.9, 0.999, 1e-3
    parameters = normal(rng, dtype, count)
    m, v = np.zeros(count, dtype), np.zeros(count, dtype)
    w = parameters.tolist()
    mean, square = [0.0] * count, [0.0] * count
    for t in (1, 2, 3):
        gradient = normal(rng, dtype, count)
        correction_1, correction_2 = 1 - beta_1**t, math.sqrt(1 - beta_2**t)
        twin.adam(
            parameters,
            m,
            v,
            gradient,
            learning_rate * correction_2 / correction_1,
            beta_1,
            beta_2,
            epsilon * correction_2,
            weight_decay,
        )
        for i, partial in enumerate(gradient.tolist()):
            g = partial + weight_decay * w[i]
            mean[i] = beta_1 * mean[i] + (1 - beta_1) * g
            square[i] = beta_2 * square[i] + (1 - beta_2) * g**2
            mean_hat, square_hat = mean[i] / (1 - beta_1**t), square[i] / (1 - beta_2**t)
            w[i] -= learning_rate * mean_hat / (math.sqrt(square_hat) + epsilon)
    close(m, mean)
    close(v, square)
    close(parameters, w)


def test_adam_stands_still_where_the_gradient_has_always_been_zero(
    twin: ModuleType, dtype: DType
) -> None:
    parameters, zeros = np.ones(9, dtype), np.zeros(9, dtype)
    twin.adam(parameters, zeros.copy(), zeros.copy(), zeros, 1e-3, 0.9, 0.999, 1e-8, 0.0)
    assert_array_equal(parameters, np.ones(9))


# exp, log and first_beyond


@pytest.mark.parametrize("count", COUNTS)
def test_exp_and_log_are_those_of_the_mathematics(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator, count: int
) -> None:
    x, out = normal(rng, dtype, count), np.full(count, np.nan, dtype)
    twin.exp(out, x)
    close(out, each(math.exp, x))
    x = np.abs(x)
    twin.log(out, x)
    close(out, each(math.log, x))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.5, -3.5])
def test_first_beyond_finds_every_place(twin: ModuleType, dtype: DType, bad: float) -> None:
    x = np.zeros(700, dtype)
    for place in range(x.size):
        x[place:] = bad
        assert twin.first_beyond(x, 3.0) == place
        x[place + 1 :] = 0
        assert twin.first_beyond(x, 3.0) == place
        x[place] = 0


def test_first_beyond_of_values_within_is_the_length(twin: ModuleType, dtype: DType) -> None:
    largest = np.full(700, np.finfo(dtype).max, dtype)
    for count in range(largest.size):
        assert twin.first_beyond(largest[:count], float(np.finfo(dtype).max)) == count


# NaN


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("n", [1, 3, 8, 21])
def test_forward_passes_nan_of_an_example_to_all_its_outputs_and_no_others(
    twin: ModuleType, dtype: DType, activation: Activation, n: int
) -> None:
    A_prev = np.ones((5, 3), dtype)
    A_prev[2, 1] = np.nan
    A = np.empty((5, n), dtype)
    twin.forward(A, A_prev, np.ones((3, n), dtype), np.zeros(n, dtype), activation)
    expected = np.zeros((5, n), bool)
    expected[2] = True
    assert_array_equal(np.isnan(A), expected)


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("at", [0, 4, 20])
def test_forward_passes_nan_of_a_bias_on(
    twin: ModuleType, dtype: DType, activation: Activation, at: int
) -> None:
    b = np.zeros(21, dtype)
    b[at] = np.nan
    A = np.empty((2, 21), dtype)
    twin.forward(A, np.ones((2, 3), dtype), np.ones((3, 21), dtype), b, activation)
    expected = np.ones(21, bool) if activation == Activation.SOFTMAX else np.isnan(b)
    assert_array_equal(np.isnan(A), [expected, expected])


@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_delta_passes_nan_of_the_next_delta_on(
    twin: ModuleType, dtype: DType, activation: Activation
) -> None:
    delta = np.ones((3, 2), dtype)
    delta[1, 0] = np.nan
    # Zero activations: relu's slope of 0 must not hide the NaN either.
    delta_prev = np.empty((3, 11), dtype)
    twin.delta(delta_prev, delta, np.ones((11, 2), dtype), np.zeros((3, 11), dtype), activation)
    assert_array_equal(np.isnan(delta_prev).all(axis=1), [False, True, False])


@pytest.mark.parametrize(("loss", "activation"), PAIRS)
@pytest.mark.parametrize("which", [0, 1])
def test_output_delta_passes_nan_on(
    twin: ModuleType, dtype: DType, loss: Loss, activation: Activation, which: int
) -> None:
    arrays = [np.full((3, 11), 0.5, dtype), np.full((3, 11), 0.25, dtype)]
    arrays[which][1, 9] = np.nan
    delta = np.empty((3, 11), dtype)
    twin.output_delta(delta, *arrays, None, loss, activation)
    assert_array_equal(np.isnan(delta), np.isnan(arrays[which]))


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("at", [0, 9, 10])
def test_loss_passes_nan_on(
    twin: ModuleType, dtype: DType, loss: Loss, which: int, at: int
) -> None:
    arrays = [np.full((3, 11), 0.5, dtype), np.zeros((3, 11), dtype)]
    arrays[which][1, at] = np.nan
    assert math.isnan(twin.loss(*arrays, None, loss))


def test_loss_passes_nan_of_a_weight_on(twin: ModuleType, dtype: DType) -> None:
    A, Y = np.ones((3, 2), dtype), np.zeros((3, 2), dtype)
    sample_weight = np.array([1, np.nan, 1], dtype)
    assert math.isnan(twin.loss(A, Y, sample_weight, Loss.SQUARED_ERROR))


def test_gradient_passes_nan_to_the_weights_it_belongs_to(twin: ModuleType, dtype: DType) -> None:
    delta, A_prev = np.ones((4, 5), dtype), np.ones((4, 3), dtype)
    delta[2, 1] = np.nan
    dW, db = np.empty((3, 5), dtype), np.empty(5, dtype)
    twin.gradient(dW, db, delta, A_prev, 1.0)
    column = [False, True, False, False, False]
    assert_array_equal(np.isnan(dW), [column] * 3)
    assert_array_equal(np.isnan(db), column)


@pytest.mark.parametrize("at", [0, 5, 20])
def test_updates_pass_nan_to_the_parameter_it_belongs_to(
    twin: ModuleType, dtype: DType, at: int
) -> None:
    gradient = np.ones(21, dtype)
    gradient[at] = np.nan
    for update, n_states, scalars in (
        (twin.sgd, 0, (0.1, 0.0)),
        (twin.momentum, 1, (0.1, 0.9, False, 0.0)),
        (twin.adam, 2, (0.1, 0.9, 0.999, 1e-8, 0.0)),
    ):
        parameters = np.ones(21, dtype)
        states = [np.zeros(21, dtype) for _ in range(n_states)]
        update(parameters, *states, gradient, *scalars)
        for changed in (parameters, *states):
            assert_array_equal(np.isnan(changed), np.isnan(gradient))


# What holds for every kernel: one call of each, with everything that its branches depend on.


class Call(NamedTuple):
    kernel: str
    shapes: str  # of its arrays, one word each, outputs first
    scalars: tuple[Any, ...] = ()
    n_outputs: int = 1
    overwrites: bool = True  # False where outputs are also inputs
    low: float = -1.0  # the arrays hold values between it and 1

    def __str__(self) -> str:
        names = [s.name if isinstance(s, Activation | Loss) else str(s) for s in self.scalars]
        return "-".join([self.kernel, *names]).lower()

    def arrays(
        self, rng: np.random.Generator, dtype: DType, N: int, n_prev: int, n: int
    ) -> list[Array]:
        sizes = {"N": N, "m": n_prev, "n": n}
        return [
            rng.uniform(self.low, 1, [sizes[letter] for letter in word]).astype(dtype)
            for word in self.shapes.split()
        ]

    def run(self, twin: ModuleType, arrays: list[Array]) -> Any:
        return getattr(twin, self.kernel)(*arrays, *self.scalars)


CALLS = [
    *(Call("forward", "Nn Nm mn n", (activation,)) for activation in Activation),
    *(Call("loss", "Nn Nn N", (loss,), n_outputs=0, low=0.01) for loss in Loss),
    *(Call("output_delta", "Nn Nn Nn N", pair, low=0.01) for pair in PAIRS),
    *(Call("delta", "Nm Nn mn Nm", (activation,)) for activation in ELEMENTWISE),
    Call("gradient", "mn n Nn Nm", (0.5,), n_outputs=2),
    Call("gradient", "mn n Nn Nm", (0.5, 1.0), n_outputs=2, overwrites=False),
    Call("gradient_descent", "mn n Nn Nm", (0.1,), n_outputs=2, overwrites=False),
    Call("gradient_descent", "mn n Nn Nm", (0.1, 0.01), n_outputs=2, overwrites=False),
    Call("sgd", "n n", (0.1, 0.01), overwrites=False),
    Call("momentum", "n n n", (0.1, 0.9, False, 0.01), n_outputs=2, overwrites=False),
    Call("momentum", "n n n", (0.1, 0.9, True, 0.01), n_outputs=2, overwrites=False),
    Call("adam", "n n n n", (0.1, 0.9, 0.99, 1e-3, 0.01), n_outputs=3, overwrites=False, low=0.01),
    Call("square_sum", "n", n_outputs=0),
    Call("dropout", "Nn", (0.3, 5, 6, 7), overwrites=False),
    Call("dropout", "Nn", (0.3, 5, 6, 7, 8), overwrites=False),
    *(
        Call("dropout_derivative", "Nn Nn", (0.3, 5, 6, 7, 8, activation), overwrites=False)
        for activation in ELEMENTWISE
    ),
    Call("exp", "n n"),
    Call("log", "n n", low=0.01),
    Call("first_beyond", "n", (3.0,), n_outputs=0),
]
every_call = pytest.mark.parametrize("call", CALLS, ids=str)


def copies(arrays: list[Array]) -> list[Array]:
    return [array.copy() for array in arrays]


# `backprop` and `step` are made of the others.
KERNELS = sorted(set(reference.__all__) - {"backprop", "step"})


def test_every_kernel_has_a_call() -> None:
    assert {call.kernel for call in CALLS} == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_twins_have_the_same_parameters(kernel: str) -> None:
    def parameters(twin: ModuleType) -> list[tuple[str, Any]]:
        signature = inspect.signature(getattr(twin, kernel))
        return [(p.name, p.default) for p in signature.parameters.values()]

    assert parameters(_kernels) == parameters(reference)


@every_call
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_reference(
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    call: Call,
    shape: tuple[int, int, int],
) -> None:
    compiled = call.arrays(rng, dtype, *shape)
    expected = copies(compiled)
    result, expected_result = call.run(_kernels, compiled), call.run(reference, expected)
    if not call.n_outputs:
        close(result, expected_result)
    for array, expected_array in zip(compiled, expected, strict=True):
        close(array, expected_array, magnitude=max(shape) / 8)


@every_call
def test_inputs_are_not_changed(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays = call.arrays(rng, dtype, 7, 13, 17)
    before = copies(arrays)
    call.run(twin, arrays)
    for array, old in list(zip(arrays, before, strict=True))[call.n_outputs :]:
        assert_array_equal(array, old)


@every_call
def test_read_only_inputs_are_accepted(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays = call.arrays(rng, dtype, 7, 13, 17)
    writable = copies(arrays)
    for array in arrays[call.n_outputs :]:
        array.flags.writeable = False
    assert call.run(twin, arrays) == call.run(twin, writable)
    for array, expected in zip(arrays, writable, strict=True):
        assert_array_equal(array, expected)


@pytest.mark.parametrize("call", [c for c in CALLS if c.n_outputs and c.overwrites], ids=str)
def test_outputs_are_overwritten_whatever_they_held(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays = call.arrays(rng, dtype, 7, 13, 17)
    expected = copies(arrays)
    for output in arrays[: call.n_outputs]:
        output[...] = np.nan
    call.run(twin, arrays)
    call.run(twin, expected)
    for output, expected_output in zip(arrays, expected, strict=True):
        assert_array_equal(output, expected_output)


@pytest.mark.parametrize(
    "call", [c for c in CALLS if c.kernel in ("loss", "output_delta")], ids=str
)
def test_no_sample_weight_means_ones(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    *arrays, sample_weight = call.arrays(rng, dtype, 7, 13, 17)
    expected = copies(arrays)
    sample_weight[...] = 1
    weighted = getattr(twin, call.kernel)(*expected, sample_weight, *call.scalars)
    unweighted = getattr(twin, call.kernel)(*arrays, None, *call.scalars)
    # A sum over rows that need not be told apart is formed in another order.
    assert unweighted == (weighted and pytest.approx(weighted, rel=8 * float(np.finfo(dtype).eps)))
    assert_array_equal(arrays[0], expected[0])


# Far from everything that the calls compute, so that reading it shows as well as writing over it.
GUARD = 1e30


def between_guards(array: Array) -> tuple[Array, Array]:
    """Return a copy of the array that lies, unaligned to any vector, inside a larger buffer."""
    before, after = 37, 41
    buffer = np.full(before + array.size + after, GUARD, array.dtype)
    inside = buffer[before : before + array.size].reshape(array.shape)
    inside[...] = array
    return inside, buffer


@every_call
@pytest.mark.parametrize("N", [1, 3])
def test_nothing_outside_the_arrays_is_read_or_written(
    dtype: DType, close: Close, rng: np.random.Generator, call: Call, N: int
) -> None:
    for width in range(1, 41):
        expected = call.arrays(rng, dtype, N, 41 - width, width)
        guarded = [between_guards(array) for array in expected]
        inside = [array for array, _ in guarded]
        result, expected_result = call.run(_kernels, inside), call.run(reference, expected)
        if not call.n_outputs:
            close(result, expected_result)
        for (array, buffer), expected_array in zip(guarded, expected, strict=True):
            close(array, expected_array)
            assert np.count_nonzero(buffer == dtype.type(GUARD)) == buffer.size - array.size


# Arguments that the compiled kernels refuse


def every_array(calls: list[Call]) -> list[Any]:
    return [
        pytest.param(call, position, id=f"{call}-{position}")
        for call in calls
        for position in range(len(call.shapes.split()))
    ]


# One call per kernel: checks do not depend on the other arguments.
FIRST_CALLS = list({call.kernel: call for call in reversed(CALLS)}.values())
SEVERAL_ARRAYS = [call for call in FIRST_CALLS if " " in call.shapes]


@pytest.mark.parametrize(("call", "position"), every_array(SEVERAL_ARRAYS))
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("size", [0, 11])
def test_wrong_shape_is_refused_naming_it(
    rng: np.random.Generator, call: Call, position: int, axis: int, size: int
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    shape = list(arrays[position].shape)
    shape[axis] = size
    arrays[position] = np.full(shape, 0.5, np.float32)
    before = copies(arrays)
    with pytest.raises(ValueError, match=rf"needs .* got .*\b{size}\b"):
        call.run(_kernels, arrays)
    for array, old in zip(arrays, before, strict=True):
        assert_array_equal(array, old)


@pytest.mark.parametrize(("call", "position"), every_array(SEVERAL_ARRAYS))
def test_mixed_dtypes_are_refused_naming_them(
    dtype: DType, rng: np.random.Generator, call: Call, position: int
) -> None:
    arrays = call.arrays(rng, dtype, 3, 5, 7)
    other = np.float32 if dtype == np.float64 else np.float64
    arrays[position] = arrays[position].astype(other)
    with pytest.raises((TypeError, ValueError), match=r"float.*double|double.*float"):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(("call", "position"), every_array(FIRST_CALLS))
def test_non_contiguous_arrays_are_refused(
    rng: np.random.Generator, call: Call, position: int
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    arrays[position] = np.repeat(arrays[position], 2, axis=-1)[..., ::2]
    with pytest.raises((TypeError, ValueError), match="contiguous"):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(
    ("call", "position"),
    [case for case in every_array(FIRST_CALLS) if case.values[1] < case.values[0].n_outputs],
)
def test_read_only_outputs_are_refused(rng: np.random.Generator, call: Call, position: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    arrays[position].flags.writeable = False
    with pytest.raises((TypeError, ValueError), match="read-only"):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(("call", "position"), every_array(FIRST_CALLS))
@pytest.mark.parametrize("other", ["int64", "float16", "complex128", "object"])
def test_other_types_are_refused(
    rng: np.random.Generator, call: Call, position: int, other: str
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    arrays[position] = arrays[position].astype(other)
    with pytest.raises((TypeError, ValueError)):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(("call", "position"), every_array(FIRST_CALLS))
def test_foreign_byte_order_is_refused(rng: np.random.Generator, call: Call, position: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    arrays[position] = arrays[position].astype(arrays[position].dtype.newbyteorder())
    with pytest.raises((TypeError, ValueError), match="endian"):
        call.run(_kernels, arrays)


NUMBERED = [call for call in FIRST_CALLS if any(isinstance(s, Activation) for s in call.scalars)]
LOSSES = [call for call in FIRST_CALLS if any(isinstance(s, Loss) for s in call.scalars)]


@pytest.mark.parametrize("call", NUMBERED, ids=str)
@pytest.mark.parametrize("unknown", [len(Activation), 1000, -1, 2**40])
def test_unknown_activation_is_refused(rng: np.random.Generator, call: Call, unknown: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    with pytest.raises(ValueError, match=f"Activation.*{unknown}"):
        getattr(_kernels, call.kernel)(*arrays, *call.scalars[:-1], unknown)


@pytest.mark.parametrize("call", LOSSES, ids=str)
@pytest.mark.parametrize("unknown", [len(Loss), 1000, -1, 2**40])
def test_unknown_loss_is_refused(rng: np.random.Generator, call: Call, unknown: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    with pytest.raises(ValueError, match=f"Loss.*{unknown}"):
        getattr(_kernels, call.kernel)(*arrays, unknown, *call.scalars[1:])


@pytest.mark.parametrize("call", NUMBERED, ids=str)
@pytest.mark.parametrize("wrong", ["sigmoid", 1.5, None])
def test_activation_that_is_no_integer_is_refused(
    rng: np.random.Generator, call: Call, wrong: object
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    with pytest.raises(TypeError):
        getattr(_kernels, call.kernel)(*arrays, *call.scalars[:-1], wrong)


def test_sizes_beyond_the_integers_of_blas_are_refused() -> None:
    """Empty arrays have such sizes without the memory; BLAS would see a negative number."""
    n_prev = 2**31
    A, b = np.empty((0, 0)), np.empty(0)
    with pytest.raises(ValueError, match=str(n_prev)):
        _kernels.forward(A, np.empty((0, n_prev)), np.empty((n_prev, 0)), b, Activation.SIGMOID)


# Memory


@pytest.mark.parametrize("count", [1, 1000, 1_000_000])
def test_aligned_zeros_begin_at_a_cache_line(dtype: DType, count: int) -> None:
    x = _layout.aligned_zeros(count, dtype)
    assert x.shape == (count,)
    assert x.dtype == dtype
    assert x.ctypes.data % 64 == 0
    assert not x.any()
    x[:] = 1
