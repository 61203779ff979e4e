"""The names of activations and losses, numbered as in csrc/nncore.h, and the range of each σ."""

import math
from enum import IntEnum

__all__ = ["RANGES", "Activation", "Loss"]


class Activation(IntEnum):
    """σ of a layer."""

    IDENTITY = 0
    SIGMOID = 1
    TANH = 2
    RELU = 3
    LEAKY_RELU = 4
    ELU = 5
    SOFTPLUS = 6
    EXPONENTIAL = 7
    SILU = 8
    GELU = 9
    GELU_TANH = 10
    SOFTMAX = 11


# From which limit to which σ maps the real numbers, unless it reaches all of them.
RANGES: dict[Activation, tuple[float, float]] = {
    Activation.SIGMOID: (0, 1),
    Activation.TANH: (-1, 1),
    Activation.RELU: (0, math.inf),
    Activation.ELU: (-1, math.inf),
    Activation.SOFTPLUS: (0, math.inf),
    Activation.EXPONENTIAL: (0, math.inf),
    Activation.SILU: (-0.278465, math.inf),
    Activation.GELU: (-0.169972, math.inf),
    Activation.GELU_TANH: (-0.170041, math.inf),
    Activation.SOFTMAX: (0, 1),
}


class Loss(IntEnum):
    """The loss of an example.

    CUSTOM is Σ y a, for losses computed elsewhere: Y is their derivative ∂E/∂A.
    """

    SQUARED_ERROR = 0
    BINARY_CROSS_ENTROPY = 1
    CROSS_ENTROPY = 2
    POISSON = 3
    ABSOLUTE_ERROR = 4
    HUBER = 5
    CUSTOM = 6
