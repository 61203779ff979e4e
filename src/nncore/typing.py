"""Types for annotations: the names and the kinds of values that arguments accept.

>>> import nncore
>>> from nncore.typing import ActivationName
>>> def regression(n_inputs: int, activation: ActivationName = "relu") -> nncore.Network:
...     return nncore.Network([n_inputs, 50, 1], activation=activation)
>>> regression(3).activation
('relu', 'identity')
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat

import numpy as np
import numpy.typing as npt

__all__ = [
    "ActivationName",
    "DType",
    "DTypeName",
    "InitName",
    "LearningRate",
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
    "softmax",
]

LossName = Literal[
    "squared_error",
    "absolute_error",
    "huber",
    "poisson",
    "binary_cross_entropy",
    "cross_entropy",
]

InitName = Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal"]

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]

# A number, or a function of the number of steps made before, such as a schedule.
LearningRate = float | Callable[[int], float]

DTypeName = Literal["float32", "float64"]
DType = DTypeName | type[np.float32] | type[np.float64] | np.dtype[Any]

MetricName = Literal["accuracy", "mean_absolute_error", "r2"]
MetricFunction = Callable[[npt.NDArray[Any], npt.NDArray[Any]], SupportsFloat]
Metrics = Sequence[MetricName | MetricFunction] | Mapping[str, MetricName | MetricFunction]

Mode = Literal["min", "max"]
