"""Shapes, values and calls for the tests of the kernels."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from nncore.enums import Activation, Loss

Array = npt.NDArray[Any]
DType = np.dtype[Any]
Close = Callable[..., None]
Scalar = Callable[[float], float]

ELEMENTWISE = [a for a in Activation if a != Activation.SOFTMAX]
# Those whose sigma' does not follow from sigma: the kernels take it in the place of A.
KEPT = [Activation.SILU, Activation.GELU, Activation.GELU_TANH]
# Those with a slope as their parameter.
SLOPED = [Activation.LEAKY_RELU, Activation.ELU]
ERRORS = [Loss.SQUARED_ERROR, Loss.ABSOLUTE_ERROR, Loss.HUBER]
PAIRS = [
    *((loss, activation) for loss in ERRORS for activation in ELEMENTWISE),
    (Loss.POISSON, Activation.EXPONENTIAL),
    (Loss.BINARY_CROSS_ENTROPY, Activation.SIGMOID),
    (Loss.CROSS_ENTROPY, Activation.SOFTMAX),
    *((Loss.CUSTOM, activation) for activation in Activation),
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


class Call(NamedTuple):
    kernel: str
    shapes: str  # of its arrays, one word each, outputs first
    scalars: tuple[Any, ...] = ()
    n_outputs: int = 1
    overwrites: bool = True  # False where outputs are also inputs
    low: float = -1.0  # the arrays hold values between it and 1
    n_last: int = 0  # arrays that follow the scalars

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
        first, last = arrays[: len(arrays) - self.n_last], arrays[len(arrays) - self.n_last :]
        return getattr(twin, self.kernel)(*first, *self.scalars, *last)


CALLS = [
    *(Call("forward", "Nn Nm mn n", (activation,)) for activation in Activation),
    *(Call("loss", "Nn Nn N", (loss,), n_outputs=0, low=0.01) for loss in Loss),
    *(Call("output_delta", "Nn Nn Nn N", pair, low=0.01) for pair in PAIRS if pair[1] not in KEPT),
    *(
        Call("output_delta", "Nn Nn Nn N Nn", pair, low=0.01, n_last=1)
        for pair in PAIRS
        if pair[1] in KEPT
    ),
    *(Call("delta", "Nm Nn mn Nm", (activation,)) for activation in ELEMENTWISE),
    *(
        Call("delta", "Nm Nn mn Nm", (activation, slope))
        for activation in SLOPED
        for slope in (0.3, 0.0, -0.3)
    ),
    *(
        Call("forward", "Nn Nm mn n", (activation, None, slope))
        for activation in SLOPED
        for slope in (0.3, -0.3)
    ),
    Call("loss", "Nn Nn N", (Loss.HUBER, 0.3), n_outputs=0),
    Call("output_delta", "Nn Nn Nn N", (Loss.HUBER, Activation.ELU, None, 0.3, 0.3)),
    Call("gradient", "mn n Nn Nm", (0.5,), n_outputs=2),
    Call("gradient", "mn n Nn Nm", (0.5, 1.0), n_outputs=2, overwrites=False),
    Call("gradient_descent", "mn n Nn Nm", (0.1,), n_outputs=2, overwrites=False),
    Call("gradient_descent", "mn n Nn Nm", (0.1, 0.01), n_outputs=2, overwrites=False),
    Call("sgd", "n n", (0.1, 0.01), overwrites=False),
    Call("momentum", "n n n", (0.1, 0.9, False, 0.01), n_outputs=2, overwrites=False),
    Call("momentum", "n n n", (0.1, 0.9, True, 0.01), n_outputs=2, overwrites=False),
    Call("momentum", "n n n", (0.1, 0.9, False, 0.01, True), n_outputs=2, overwrites=False),
    Call("momentum", "n n n", (0.1, 0.9, True, 0.01, True), n_outputs=2, overwrites=False),
    Call("adam", "n n n n", (0.1, 0.9, 0.99, 1e-3, 0.01), n_outputs=3, overwrites=False, low=0.01),
    Call(
        "amsgrad",
        "n n n n n",
        (0.1, 0.9, 0.99, 1e-3, 0.01),
        n_outputs=4,
        overwrites=False,
        low=0.01,
    ),
    # v must be larger than the square of the mean.
    Call(
        "rmsprop", "n n n n n", (0.1, 0.5, 0.9, 1.0, 0.01), n_outputs=4, overwrites=False, low=0.8
    ),
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
