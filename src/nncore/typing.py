"""Types for annotations: the names and the kinds of values that arguments accept.

>>> import nncore
>>> from nncore.typing import ActivationName
>>> def regression(n_inputs: int, activation: ActivationName = "relu") -> nncore.Network:
...     return nncore.Network([n_inputs, 50, 1], activation=activation)
>>> regression(3).activation
('relu', 'identity')
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, SupportsFloat

import numpy as np
import numpy.typing as npt

__all__ = [
    "ActivationLike",
    "ActivationName",
    "CustomLoss",
    "DType",
    "DTypeName",
    "ExamplesLike",
    "InitName",
    "LearningRate",
    "LossLike",
    "LossName",
    "MetricFunction",
    "MetricName",
    "Metrics",
    "Mode",
    "OptimizerName",
]

ActivationName = Literal[
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
    "exponential",
    "silu",
    "gelu",
    "gelu_tanh",
    "softmax",
]

# A name, or one with its parameter: the slope below 0, or ELU's α.
ActivationLike = ActivationName | tuple[Literal["leaky_relu", "elu"], float]

LossName = Literal[
    "squared_error",
    "absolute_error",
    "huber",
    "poisson",
    "binary_cross_entropy",
    "cross_entropy",
]

# A name, or one with its parameter: where Huber's loss becomes linear.
LossLike = LossName | tuple[Literal["huber"], float]


class CustomLoss(Protocol):
    """A loss of your own, the argument `loss` of `nncore.Network`.

    Both methods are called once per batch. They get A, the outputs of shape (N, n_L) in the
    network's dtype, and Y, the batch's rows of the targets as you passed them; both arrays are
    read-only. An example's loss must not depend on the other examples.

    `nncore.check_loss` compares `delta` with `value`. docs/custom.md has examples.
    """

    def value(self, A: npt.NDArray[Any], Y: npt.NDArray[Any], /) -> npt.ArrayLike:
        """Return the loss of each example, of shape (N,)."""

    def delta(self, A: npt.NDArray[Any], Y: npt.NDArray[Any], /) -> npt.ArrayLike:
        """Return the derivative of each example's loss by its outputs, of shape (N, n_L)."""


InitName = Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal"]

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]

# A number, or a function of the number of steps made before, such as a schedule.
LearningRate = float | Callable[[int], float]

# An array, the path of a .npy file, or a list of both: shards, which are read as one long array.
ExamplesLike = npt.ArrayLike | os.PathLike[str] | Sequence[Any]

DTypeName = Literal["float32", "float64"]
DType = DTypeName | type[np.float32] | type[np.float64] | np.dtype[Any]

MetricName = Literal["accuracy", "mean_absolute_error", "r2"]
MetricFunction = Callable[[npt.NDArray[Any], npt.NDArray[Any]], SupportsFloat]
Metrics = Sequence[MetricName | MetricFunction] | Mapping[str, MetricName | MetricFunction]

Mode = Literal["min", "max"]
