"""The compiled kernels, for training loops of your own, in the order of equations (1) to (6).

Each function computes one equation over whole arrays, in place of the same function of
`nncore.reference`, which is its specification in NumPy. A network's layer l has n units and n_prev
inputs, and a batch has N examples, one per row. docs/custom.md shows a whole loop in Python, and
one in Cython, where the same functions are cimported from ``nncore._kernels``.

Arrays
    float32 or float64, one type per call, in C order, of native byte order and aligned; class
    indices are intp. Nothing is converted: other arrays, shapes that do not fit, unknown members
    of an enum and classes without a column raise TypeError or ValueError before anything has
    changed. An empty batch is allowed.
Overlap
    Outputs come first. They must not share memory with another array of the call unless the
    function says so. This is not checked.
Threads
    No function keeps anything between calls, so threads may call at the same time if none writes
    to what another reads or writes. A call from Python holds the GIL; Cython code can call without
    it. The products, in `forward`, `delta`, `gradient` and `gradient_descent`, run in SciPy's BLAS,
    on as many threads as it is set to; threadpoolctl limits them, and one is the fastest for small
    layers.
Numbers
    Their values are not checked: NaN and infinity pass through, probabilities outside [0, 1] and
    negative weights give numbers without a meaning. Subnormal numbers are computed as such, unlike
    in `Network.fit`, which treats them as 0, and may be slow.

Examples
--------
A step of gradient descent for one layer:

>>> import numpy as np
>>> from nncore import kernels
>>> from nncore.kernels import Activation, Loss
>>> X, Y = np.ones((5, 3)), np.zeros((5, 2))
>>> W, b = np.full((3, 2), 0.1), np.zeros(2)
>>> A, delta = np.empty((5, 2)), np.empty((5, 2))
>>> def mean_loss():
...     _ = kernels.forward(A, X, W, b, Activation.SIGMOID)
...     return kernels.loss(A, Y, None, Loss.SQUARED_ERROR) / len(X)
>>> before = mean_loss()
>>> _ = kernels.output_delta(delta, A, Y, None, Loss.SQUARED_ERROR, Activation.SIGMOID)
>>> _ = kernels.gradient_descent(W, b, delta, X, step_size=0.1 / len(X))
>>> mean_loss() < before
True
"""

from ._kernels import (
    KERNELS,
    adam,
    amsgrad,
    available,
    class_delta,
    class_loss,
    delta,
    dropout,
    dropout_derivative,
    exp,
    first_beyond,
    forward,
    gradient,
    gradient_descent,
    log,
    loss,
    momentum,
    output_delta,
    rmsprop,
    sgd,
    square_sum,
)
from .enums import Activation, Loss

__all__ = [
    "KERNELS",
    "Activation",
    "Loss",
    "adam",
    "amsgrad",
    "available",
    "class_delta",
    "class_loss",
    "delta",
    "dropout",
    "dropout_derivative",
    "exp",
    "first_beyond",
    "forward",
    "gradient",
    "gradient_descent",
    "log",
    "loss",
    "momentum",
    "output_delta",
    "rmsprop",
    "sgd",
    "square_sum",
]
