"""A call of each kernel, with everything that its branches depend on, for the tests."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .enums import Activation, Loss

__all__ = ["CALLS", "ELEMENTWISE", "ERRORS", "KEPT", "PAIRS", "SHAPES", "SLOPED", "Call"]

Array = npt.NDArray[Any]
DType = np.dtype[Any]

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


class Call(NamedTuple):
    """A kernel with the arguments to call it with, drawn by `arrays`."""

    kernel: str
    shapes: str  # of its arrays, one word each, outputs first
    scalars: tuple[Any, ...] = ()
    n_outputs: int = 1
    overwrites: bool = True  # False where outputs are also inputs
    low: float = -1.0  # the arrays hold values between it and 1
    n_last: int = 0  # arrays that follow the scalars
    classes: int | None = None  # the place of the array of class indices

    def __str__(self) -> str:
        names = [s.name if isinstance(s, Activation | Loss) else str(s) for s in self.scalars]
        return "-".join([self.kernel, *names]).lower()

    def arrays(
        self, rng: np.random.Generator, dtype: DType, N: int, n_prev: int, n: int
    ) -> list[Array]:
        """Return arrays for N examples of a layer with n units and n_prev inputs."""
        sizes = {"N": N, "m": n_prev, "n": n}
        arrays: list[Array] = [
            rng.uniform(self.low, 1, [sizes[letter] for letter in word]).astype(dtype)
            for word in self.shapes.split()
        ]
        if self.classes is not None:
            arrays[self.classes] = rng.integers(n, size=N, dtype=np.intp)
        return arrays

    def run(self, twin: ModuleType, arrays: list[Array]) -> Any:
        """Call the kernel of `nncore._kernels` or of `nncore.reference`."""
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
    Call("class_loss", "Nn N N", n_outputs=0, low=0.01, classes=1),
    Call("class_delta", "Nn Nn N N", low=0.01, classes=2),
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
