"""Shapes, values and calls for the tests of the kernels."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nncore._kernel_calls import CALLS, ERRORS, KEPT
from nncore.enums import Activation, Loss

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Close = Callable[..., None]
Scalar = Callable[[float], float]

# The lengths of vectors.
COUNTS = [0, 1, 7, 13, 33, 1000]

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
    Activation.SILU: (
        lambda z: z / (1 + math.exp(-z)),
        lambda z: (1 + math.exp(-z) + z * math.exp(-z)) / (1 + math.exp(-z)) ** 2,
    ),
    Activation.GELU: (
        lambda z: z * math.erfc(-z / math.sqrt(2)) / 2,
        lambda z: (
            math.erfc(-z / math.sqrt(2)) / 2 + z * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        ),
    ),
    Activation.GELU_TANH: (
        lambda z: z / 2 * (1 + math.tanh(_gelu_tanh_argument(z))),
        lambda z: (
            (1 + math.tanh(_gelu_tanh_argument(z))) / 2
            + z
            / 2
            * math.sqrt(2 / math.pi)
            * (1 + 3 * 0.044715 * z * z)
            / math.cosh(_gelu_tanh_argument(z)) ** 2
        ),
    ),
}


def _gelu_tanh_argument(z: float) -> float:
    return math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)


def source(activation: Activation, Z: Array, dtype: DType) -> Array:
    """Return what the backward kernels take sigma' from: sigma(Z), or sigma'(Z)."""
    return each(SIGMA[activation][activation in KEPT], Z).astype(dtype)


def each(function: Scalar, x: Array) -> Array:
    return np.array([function(float(value)) for value in x.flat]).reshape(x.shape)


def wide(x: Array) -> Array:
    return x.astype(np.longdouble)


def normal(rng: np.random.Generator, dtype: DType, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def outputs_and_targets(
    rng: np.random.Generator, dtype: DType, loss: Loss, N: int, n: int
) -> tuple[Array, Array]:
    """Return A and Y as they occur in a network with this loss."""
    if loss in (*ERRORS, Loss.CUSTOM):
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


every_call = pytest.mark.parametrize("call", CALLS, ids=str)


def copies(arrays: list[Array]) -> list[Array]:
    return [array.copy() for array in arrays]
