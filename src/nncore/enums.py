"""The names of activations and losses, numbered as in csrc/nncore.h."""

from enum import IntEnum

__all__ = ["Activation", "Loss"]


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
    SOFTMAX = 8


class Loss(IntEnum):
    """The loss of an example."""

    SQUARED_ERROR = 0
    BINARY_CROSS_ENTROPY = 1
    CROSS_ENTROPY = 2
    POISSON = 3
    ABSOLUTE_ERROR = 4
    HUBER = 5
