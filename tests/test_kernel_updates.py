"""Equation (6) in the kernels of both twins."""

import math
from types import ModuleType

import numpy as np
import pytest
from kernel_cases import COUNTS, Close, DType, normal, wide
from numpy.testing import assert_array_equal

from nncore._kernel_calls import SHAPES

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


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_amsgrad_divides_by_the_largest_root_mean_square_so_far(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    count: int,
    weight_decay: float,
) -> None:
    beta_1, beta_2, epsilon = 0.9, 0.6, 1e-3
    parameters = normal(rng, dtype, count)
    m, v, v_max = (np.zeros(count, dtype) for _ in range(3))
    w = parameters.tolist()
    mean, square, largest = [0.0] * count, [0.0] * count, [0.0] * count
    # Gradients that become smaller, so that the largest mean is not always the last one.
    for scale in (1, 3, 0.2, 0.1):
        gradient = (scale * normal(rng, dtype, count)).astype(dtype)
        twin.amsgrad(parameters, m, v, v_max, gradient, 0.01, beta_1, beta_2, epsilon, weight_decay)
        for i, partial in enumerate(gradient.tolist()):
            g = partial + weight_decay * w[i]
            mean[i] = beta_1 * mean[i] + (1 - beta_1) * g
            square[i] = beta_2 * square[i] + (1 - beta_2) * g**2
            largest[i] = max(largest[i], square[i])
            w[i] -= 0.01 * mean[i] / (math.sqrt(largest[i]) + epsilon)
    assert count < 7 or (v_max > v).any()
    close(m, mean)
    close(v, square)
    close(v_max, largest)
    close(parameters, w)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop_divides_the_gradient_by_its_root_mean_square(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    count: int,
    weight_decay: float,
    momentum: float,
    centered: bool,
) -> None:
    rho, epsilon = 0.8, 1e-2
    parameters, v = normal(rng, dtype, count), np.zeros(count, dtype)
    mean = np.zeros(count, dtype) if centered else None
    velocity = np.zeros(count, dtype) if momentum else None
    w = parameters.tolist()
    square, average, speed = [0.0] * count, [0.0] * count, [0.0] * count
    for _ in range(3):
        gradient = normal(rng, dtype, count)
        twin.rmsprop(
            parameters, v, mean, velocity, gradient, 0.01, rho, momentum, epsilon, weight_decay
        )
        for i, partial in enumerate(gradient.tolist()):
            g = partial + weight_decay * w[i]
            square[i] = rho * square[i] + (1 - rho) * g**2
            average[i] = rho * average[i] + (1 - rho) * g
            variance = square[i] - average[i] ** 2 if centered else square[i]
            speed[i] = momentum * speed[i] + g / (math.sqrt(variance) + epsilon)
            w[i] -= 0.01 * speed[i]
    close(v, square)
    if mean is not None:
        close(mean, average)
    if velocity is not None:
        # Up to 1 / (1 - momentum) gradients, each divided by as little as epsilon.
        close(velocity, speed, magnitude=1 / epsilon)
    close(parameters, w)


def test_rmsprop_takes_a_variance_that_is_negative_by_rounding_for_zero(
    twin: ModuleType, dtype: DType
) -> None:
    """Equal gradients have none, whatever their squares round to."""
    gradient = np.linspace(0.1, 3, 37).astype(dtype)
    parameters, v, mean = (np.zeros(37, dtype) for _ in range(3))
    for _ in range(200):
        twin.rmsprop(parameters, v, mean, None, gradient, 0.1, 0.5, 0.0, 1.0, 0.0)
    assert (v - mean * mean < 0).any()
    assert np.isfinite(parameters).all()
    assert (parameters < 0).all()
