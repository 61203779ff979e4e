"""Time of every kernel, compiled beside its NumPy twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array

from nncore import _kernels, reference
from nncore.enums import Activation, Loss

TWINS = {"compiled": _kernels, "numpy": reference}
KERNELS = [n for n, f in vars(_kernels).items() if type(f).__name__ == "fused_cython_function"]
# N, n_prev, n: a layer whose calls cost as much as its arithmetic, and one that is all arithmetic.
SHAPES = [(10, 784, 30), (128, 512, 512)]


def arguments(N: int, n_prev: int, n: int, dtype: str) -> dict[str, tuple[Any, ...]]:
    """Return random arguments for each kernel, named as in `nncore.reference`."""
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Array:
        return rng.uniform(0.1, 0.9, shape).astype(dtype)

    A, Y, delta, b, db = random(N, n), random(N, n), random(N, n), random(n), random(n)
    A_prev, delta_prev = random(N, n_prev), random(N, n_prev)
    W, dW = random(n_prev, n), random(n_prev, n)
    W *= 1e-3
    w, g, m, v, v_max = (random((n_prev + 1) * n) for _ in range(5))
    classes = rng.integers(n, size=N, dtype=np.intp)
    # However many rounds there are, so small a step and no dropout leave everything as it is.
    step_size, rate, seed, step, l = 1e-12, 0.0, 1, 2, 3
    return {
        "adam": (w, m, v, g, step_size, 0.9, 0.999, 1e-8, 1e-4),
        "amsgrad": (w, m, v, v_max, g, step_size, 0.9, 0.999, 1e-8, 1e-4),
        "class_delta": (delta, A, classes, None),
        "class_loss": (A, classes, None),
        "delta": (delta_prev, delta, W, A_prev, Activation.SIGMOID),
        "dropout": (A, rate, seed, step, l),
        "dropout_derivative": (delta, A, rate, seed, step, l, 0, Activation.IDENTITY),
        "exp": (w, g),
        "first_beyond": (w, 3.0),
        "forward": (A, A_prev, W, b, Activation.SIGMOID),
        "gradient": (dW, db, delta, A_prev, 0.1),
        "gradient_descent": (W, b, delta, A_prev, step_size),
        "log": (w, g),
        "loss": (A, Y, None, Loss.SQUARED_ERROR),
        "momentum": (w, v, g, step_size, 0.9, True, 1e-4),
        "output_delta": (delta, A, Y, None, Loss.SQUARED_ERROR, Activation.SIGMOID),
        "rmsprop": (w, v, m, v_max, g, step_size, 0.99, 0.9, 1e-8, 1e-4),
        "sgd": (w, g, step_size, 1e-4),
        "square_sum": (w,),
    }


def test_every_kernel_has_arguments() -> None:
    assert set(arguments(1, 1, 1, "float32")) == set(KERNELS)


# All but identity, ReLU and its leaky form cost more than the product that they follow.
ACTIVATIONS = [
    *(Activation.SIGMOID, Activation.TANH, Activation.ELU, Activation.SOFTPLUS),
    *(Activation.SILU, Activation.GELU, Activation.GELU_TANH),
]


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.name)
def test_activation(benchmark: Any, activation: Activation, dtype: str, twin: str) -> None:
    """The outputs of a layer with a single input, and σ′(Z) where it is kept."""
    A, A_prev, W, b, _ = arguments(128, 1, 512, dtype)["forward"]
    derivatives = np.empty_like(A)
    benchmark.group = f"{activation.name.lower()}, {A.shape}, {dtype}"
    benchmark(TWINS[twin].forward, A, A_prev, W, b, activation, derivatives)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel(
    benchmark: Any, kernel: str, shape: tuple[int, int, int], dtype: str, twin: str
) -> None:
    benchmark.group = f"{kernel}, (N, n_prev, n) = {shape}, {dtype}"
    benchmark(getattr(TWINS[twin], kernel), *arguments(*shape, dtype)[kernel])
