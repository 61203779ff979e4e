"""The names of activations and losses, numbered as in csrc/nncore.h, and the range of each σ."""

import math
from enum import IntEnum

__all__ = ["SLOPES", "Activation", "Loss", "range_of"]


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


# The default of what σ has as a parameter: the slope below 0, or for ELU α, the slope at 0 from
# below.
SLOPES: dict[Activation, float] = {Activation.LEAKY_RELU: 0.01, Activation.ELU: 1.0}

# From which limit to which σ maps the real numbers, unless it reaches all of them or has a slope.
_RANGES: dict[Activation, tuple[float, float]] = {
    Activation.SIGMOID: (0, 1),
    Activation.TANH: (-1, 1),
    Activation.RELU: (0, math.inf),
    Activation.SOFTPLUS: (0, math.inf),
    Activation.EXPONENTIAL: (0, math.inf),
    Activation.SILU: (-0.278465, math.inf),
    Activation.GELU: (-0.169972, math.inf),
    Activation.GELU_TANH: (-0.170041, math.inf),
    Activation.SOFTMAX: (0, 1),
}


def range_of(activation: Activation, slope: float) -> tuple[float, float]:
    """Return from which limit to which σ maps the real numbers."""
    if activation == Activation.ELU:
        return min(-slope, 0), math.inf
    if activation == Activation.LEAKY_RELU and slope <= 0:
        return 0, math.inf
    return _RANGES.get(activation, (-math.inf, math.inf))


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
