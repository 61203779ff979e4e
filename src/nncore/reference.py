"""The mathematics in NumPy: backpropagation on one page, and its kernels.

`backprop` and `step` are the complete algorithm, `backward` is a part of it for other functions of
the outputs than the loss. The kernels below them are the specification of `nncore.kernels`: same
names, same signatures, same order.

Each row is an example: activations ``A`` of layer l have shape (N, n_l), weights ``W``
(n_{l-1}, n_l), biases ``b`` (n_l,) and deltas (N, n_l). Each kernel takes its outputs first and
overwrites them. Numbers in parentheses are the equations in the README's table, from T. Zollner,
"Matrizen in Neuronalen Netzen".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .architecture import OUTPUT_ACTIVATIONS, Architecture
from .enums import SLOPES, Activation, Loss

__all__ = [
    "adam",
    "amsgrad",
    "backprop",
    "backward",
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
    "step",
]

Array = npt.NDArray[Any]
Sloped = Callable[[Array, float], Array]
LossOf = Callable[[Array, Array, float], Array]


def backprop(
    architecture: Architecture,
    parameters: Array,
    X: Array,
    Y: Array,
    sample_weight: Array | None = None,
) -> tuple[float, Array]:
    """Return the mean loss of a batch and its gradient, equations (1) to (5).

    Parameters
    ----------
    architecture : Architecture
    parameters : ndarray of shape (n_parameters,)
    X : ndarray of shape (N, n_0)
    Y : ndarray of shape (N, n_L)
    sample_weight : ndarray of shape (N,), optional

    Returns
    -------
    loss : float
    gradient : ndarray of shape (n_parameters,)
    """
    A, D = _activations(architecture, parameters, X)  # (1)
    total = float(len(X) if sample_weight is None else sample_weight.sum())
    mean = loss(A[-1], Y, sample_weight, architecture.loss, architecture.threshold) / total  # (2)
    d = np.empty_like(A[-1])
    output_delta(  # (3)
        d,
        A[-1],
        Y,
        sample_weight,
        architecture.loss,
        architecture.activations[-1],
        D[-1],
        architecture.slopes[-1],
        architecture.threshold,
    )
    result, _ = _gradients(architecture, parameters, A, D, d, 1 / total)  # (4), (5)
    return mean, result


def backward(
    architecture: Architecture, parameters: Array, X: Array, dA: Array
) -> tuple[Array, Array]:
    """Return the derivatives of any function f of the outputs, equations (4) and (5).

    Parameters
    ----------
    architecture, parameters, X
        As in `backprop`.
    dA : ndarray of shape (N, n_L)
        ∂f/∂A^L.

    Returns
    -------
    gradient : ndarray of shape (n_parameters,)
        ∂f/∂W^1, ∂f/∂b^1, ..., summed over the examples.
    dX : ndarray of shape (N, n_0)
        ∂f/∂X = δ^0 = δ^1 W^1ᵀ.
    """
    A, D = _activations(architecture, parameters, X)
    d = np.empty_like(A[-1])
    output_delta(
        d,
        A[-1],
        dA,
        None,
        Loss.CUSTOM,
        architecture.activations[-1],
        D[-1],
        architecture.slopes[-1],
    )
    return _gradients(architecture, parameters, A, D, d, 1.0)


def _activations(
    architecture: Architecture, parameters: Array, X: Array
) -> tuple[list[Array], list[Array]]:
    """Return A^0, ..., A^L, and for each what σ' follows from: A^l, or σ'(Z^l) itself."""
    A = [X.astype(parameters.dtype)]
    D = A.copy()
    weights, biases = architecture.views(parameters)
    for layer, W, b in zip(architecture.layers, weights, biases, strict=True):
        sigma = layer.activation, layer.slope
        A.append(np.empty((len(X), layer.n), parameters.dtype))
        D.append(np.empty_like(A[-1]) if keeps_derivatives(*sigma) else A[-1])
        forward(A[-1], A[-2], W, b, layer.activation, D[-1], layer.slope)  # (1)
    return A, D


def _gradients(
    architecture: Architecture,
    parameters: Array,
    A: list[Array],
    D: list[Array],
    d: Array,
    scale: float,
) -> tuple[Array, Array]:
    """Return `scale` times the gradient, and δ^0, from the output delta d."""
    W, _ = architecture.views(parameters)
    result = np.empty_like(parameters)
    dW, db = architecture.views(result)
    # The inputs are not the outputs of a σ.
    sigma = [Activation.IDENTITY, *architecture.activations]
    slopes = [1.0, *architecture.slopes]
    for l in reversed(range(len(W))):
        gradient(dW[l], db[l], d, A[l], scale)  # (5)
        d_prev = np.empty_like(A[l])
        delta(d_prev, d, W[l], D[l], sigma[l], slopes[l])  # (4)
        d = d_prev
    return result, d


def step(
    architecture: Architecture, parameters: Array, X: Array, Y: Array, learning_rate: float
) -> float:
    """Make a step of gradient descent in place, equations (1) to (6).

    Parameters
    ----------
    architecture, parameters, X, Y
        As in `backprop`.
    learning_rate : float

    Returns
    -------
    float
        The mean loss before the step.
    """
    mean, g = backprop(architecture, parameters, X, Y)
    sgd(parameters, g, learning_rate, 0.0)  # (6)
    return mean


def _sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    a: Array = np.where(z < 0, e, 1) / (1 + e)
    return a


def _softplus(z: Array) -> Array:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    a: Array = e / e.sum(axis=1, keepdims=True)
    return a


def _elu(z: Array, slope: float) -> Array:
    return np.where(z < 0, slope * np.expm1(np.minimum(z, 0)), z)


def _inside(z: Array) -> Array:
    """Return z without infinities; beyond ±1000, SiLU and GELU are at their limits."""
    return z.clip(-1000, 1000)


def _silu(z: Array) -> Array:
    a: Array = np.maximum(z, -1000) * _sigmoid(z)
    return a


def _silu_derivative(z: Array) -> Array:
    derivative: Array = _sigmoid(z) * (1 + _inside(z) * _sigmoid(-z))
    return derivative


# SciPy's would double the time of importing nncore.
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_distribution(z: Array) -> Array:
    distribution: Array = _erfc(-z / math.sqrt(2)) / 2
    return distribution


def _gelu(z: Array) -> Array:
    a: Array = np.maximum(z, -1000) * _normal_distribution(z)
    return a


def _gelu_derivative(z: Array) -> Array:
    z = _inside(z)
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    derivative: Array = _normal_distribution(z) + z * density
    return derivative


# gelu_tanh is z sigmoid(w) with w = c z + c_3 z³.
_C = 2 * math.sqrt(2 / math.pi)
_C_3 = 0.044715 * _C


def _gelu_tanh(z: Array) -> Array:
    inside = _inside(z)
    a: Array = np.maximum(z, -1000) * _sigmoid(inside * (_C + _C_3 * inside * inside))
    return a


def _gelu_tanh_derivative(z: Array) -> Array:
    z = _inside(z)
    w = z * (_C + _C_3 * z * z)
    derivative: Array = _sigmoid(w) * (1 + z * _sigmoid(-w) * (_C + 3 * _C_3 * z * z))
    return derivative


# σ of z and the slope, and σ' of a = σ(z) and the slope: (7).
ACTIVATIONS: dict[Activation, tuple[Sloped, Sloped]] = {
    Activation.IDENTITY: (lambda z, s: z, lambda a, s: np.ones_like(a)),
    Activation.SIGMOID: (lambda z, s: _sigmoid(z), lambda a, s: a * (1 - a)),
    Activation.TANH: (lambda z, s: np.tanh(z), lambda a, s: 1 - a * a),
    Activation.RELU: (lambda z, s: np.maximum(z, 0), lambda a, s: np.where(a > 0, 1, 0)),
    Activation.LEAKY_RELU: (
        lambda z, s: np.where(z < 0, s * z, z),
        lambda a, s: np.where(a > 0, 1, s),
    ),
    Activation.ELU: (_elu, lambda a, s: np.where(a > 0, 1, a + s)),
    Activation.SOFTPLUS: (lambda z, s: _softplus(z), lambda a, s: -np.expm1(-a)),
    Activation.EXPONENTIAL: (lambda z, s: np.exp(z), lambda a, s: a),
    # D. Hendrycks, K. Gimpel, Gaussian error linear units (2016).
    Activation.SILU: (lambda z, s: _silu(z), lambda d, s: d),
    Activation.GELU: (lambda z, s: _gelu(z), lambda d, s: d),
    Activation.GELU_TANH: (lambda z, s: _gelu_tanh(z), lambda d, s: d),
    # `output_delta` has its derivative, a matrix for each example.
    Activation.SOFTMAX: (lambda z, s: _softmax(z), lambda a, s: np.ones_like(a)),
}

# σ' of z and the slope, where it does not follow from σ(z): `forward` writes it to an array, which
# takes the place of A in (3) and (4). The first two do so only if the slope is negative.
KEPT_DERIVATIVES: dict[Activation, Sloped] = {
    Activation.LEAKY_RELU: lambda z, s: np.where(z > 0, 1, s),
    Activation.ELU: lambda z, s: np.where(z > 0, 1, _elu(np.minimum(z, 0), s) + s),
    Activation.SILU: lambda z, s: _silu_derivative(z),
    Activation.GELU: lambda z, s: _gelu_derivative(z),
    Activation.GELU_TANH: lambda z, s: _gelu_tanh_derivative(z),
}


def _slope(activation: Activation, slope: float) -> float:
    """Return the slope, or the default for an infinite one."""
    return SLOPES.get(activation, 1.0) if math.isinf(slope) else slope


def keeps_derivatives(activation: Activation, slope: float = math.inf) -> bool:
    """Return whether σ' does not follow from σ."""
    return activation in KEPT_DERIVATIVES and not (activation in SLOPES and slope >= 0)


def _derivative(A: Array, activation: Activation, slope: float) -> Array:
    """(7): Return σ'(Z) from A = σ(Z), or from itself."""
    if keeps_derivatives(activation, slope):
        return A
    return ACTIVATIONS[activation][1](A, _slope(activation, slope))


def _log_clipped(p: Array) -> Array:
    eps = np.finfo(p.dtype).eps
    clipped: Array = np.clip(p, eps, 1 - eps)
    return np.log(clipped)


def _poisson(A: Array, Y: Array) -> Array:
    a = np.maximum(A, np.finfo(A.dtype).tiny)
    log_ratio = np.log(np.where(Y > 0, Y, 1)) - np.log(a)
    deviance: Array = Y * log_ratio * (Y > 0) - Y + A
    return deviance


def _huber(r: Array, threshold: float) -> Array:
    return np.where(r <= threshold, 0.5 * r * r, threshold * (r - 0.5 * threshold))


# The loss of each example: (2), or another loss in its place; t is Huber's threshold.
LOSSES: dict[Loss, LossOf] = {
    Loss.SQUARED_ERROR: lambda A, Y, t: 0.5 * ((Y - A) ** 2).sum(axis=1),
    Loss.BINARY_CROSS_ENTROPY: lambda A, Y, t: (
        -(Y * _log_clipped(A) + (1 - Y) * _log_clipped(1 - A)).sum(axis=1)
    ),
    Loss.CROSS_ENTROPY: lambda A, Y, t: -(Y * _log_clipped(A)).sum(axis=1),
    Loss.POISSON: lambda A, Y, t: _poisson(A, Y).sum(axis=1),
    Loss.ABSOLUTE_ERROR: lambda A, Y, t: np.abs(A - Y).sum(axis=1),
    Loss.HUBER: lambda A, Y, t: _huber(np.abs(A - Y), t).sum(axis=1),
    Loss.CUSTOM: lambda A, Y, t: (Y * A).sum(axis=1),
}

# ∂E/∂A in (3). Where the loss allows a single activation, its σ' is included.
_DERIVATIVES: dict[Loss, LossOf] = {
    Loss.SQUARED_ERROR: lambda A, Y, t: A - Y,
    Loss.BINARY_CROSS_ENTROPY: lambda A, Y, t: A - Y,
    Loss.CROSS_ENTROPY: lambda A, Y, t: A - Y,
    Loss.POISSON: lambda A, Y, t: A - Y,
    Loss.ABSOLUTE_ERROR: lambda A, Y, t: np.sign(A - Y),
    Loss.HUBER: lambda A, Y, t: (A - Y).clip(-t, t),
    Loss.CUSTOM: lambda A, Y, t: Y,
}


def forward(
    A: Array,
    A_prev: Array,
    W: Array,
    b: Array,
    activation: Activation,
    derivatives: Array | None = None,
    slope: float = math.inf,
) -> None:
    """(1): A = σ(A_prev W + b).

    With silu, gelu and gelu_tanh, whose σ′ does not follow from σ, derivatives = σ′(Z), unless it
    is None; likewise with a negative slope. The slope is that of leaky_relu below 0 or elu's α; an
    infinite one stands for the default, 0.01 or 1.
    """
    sigma, _ = ACTIVATIONS[activation]
    Z = A_prev @ W + b
    A[...] = sigma(Z, _slope(activation, slope))
    if derivatives is not None and keeps_derivatives(activation, slope):
        derivatives[...] = KEPT_DERIVATIVES[activation](Z, slope)


def _mix(state: Array, counter: Array) -> Array:
    """Return SplitMix64's hash of 64-bit numbers; the overflow is intended."""
    with np.errstate(over="ignore"):
        x = state + (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ x >> np.uint64(31)
    return mixed


def _dropout_factors(
    A: Array, rate: float, seed: int, step: int, l: int, first_example: int
) -> Array:
    key = np.zeros(1, np.uint64)
    for counter in (seed, step, l):
        key = _mix(key, np.array([counter], np.uint64))
    N, n = A.shape
    examples = _mix(key, np.arange(first_example, first_example + N, dtype=np.uint64))
    units = np.arange(n, dtype=np.uint64)
    both = _mix(examples[:, np.newaxis], units // np.uint64(2))
    numbers = np.where(
        units % np.uint64(2) == 0, both & np.uint64(2**32 - 1), both >> np.uint64(32)
    )
    kept = A.dtype.type(1 / (1 - rate))
    factors: Array = np.where(numbers < np.uint64(rate * 2**32), A.dtype.type(0), kept)
    return factors


def dropout(A: Array, rate: float, seed: int, step: int, l: int, first_example: int = 0) -> None:
    """Set the units of layer l that the step drops to 0, and divide the others by 1 - rate.

    N. Srivastava and others, Dropout: a simple way to prevent neural networks from overfitting
    (2014). The arguments alone determine which units: SplitMix64 hashes the seed, the step, the
    layer, the example's index in the batch (first_example for the first row) and half the unit's
    index, one after the other.
    """
    A *= _dropout_factors(A, rate, seed, step, l, first_example)


def dropout_derivative(
    delta: Array,
    A: Array,
    rate: float,
    seed: int,
    step: int,
    l: int,
    first_example: int,
    activation: Activation,
    slope: float = math.inf,
) -> None:
    """Compute the factors of (4) with dropout: δ ⊙ σ′(Z) / (1 - rate), 0 for dropped units.

    A is the result of `dropout`, where `forward` writes derivatives that of σ′(Z); the slope is
    that of `forward`.
    """
    factors = _dropout_factors(A, rate, seed, step, l, first_example)
    delta *= _derivative(A * A.dtype.type(1 - rate), activation, slope) * factors


def loss(
    A: Array, Y: Array, sample_weight: Array | None, loss: Loss, threshold: float = 1.0
) -> float:
    """(2): the sum of weight times loss over the examples of nonzero weight.

    Huber's loss is linear beyond the threshold.
    """
    if sample_weight is None:
        return float(LOSSES[loss](A, Y, threshold).astype(np.float64).sum())
    used = sample_weight != 0
    losses = LOSSES[loss](A[used], Y[used], threshold)
    return float(sample_weight[used] @ losses.astype(np.float64))


def output_delta(
    delta: Array,
    A: Array,
    Y: Array,
    sample_weight: Array | None,
    loss: Loss,
    activation: Activation,
    derivatives: Array | None = None,
    slope: float = math.inf,
    threshold: float = 1.0,
) -> None:
    """(3): δ = ∂E/∂A ⊙ σ′(Z), times the example's weight; A - Y for matching pairs.

    derivatives and slope are those of `forward`, threshold that of `loss`. With softmax and a
    custom loss, a row is ∂E/∂a times the Jacobian of softmax, ∂a_j/∂z_k = a_j (1 - a_k) for j = k
    and -a_j a_k otherwise. An example of weight 0 has a delta of 0, even if A or Y is not finite
    there.
    """
    used = slice(None) if sample_weight is None else sample_weight != 0
    a, y = A[used], Y[used]
    part = _DERIVATIVES[loss](a, y, threshold)
    if len(OUTPUT_ACTIVATIONS[loss]) > 1:
        kept = derivatives if keeps_derivatives(activation, slope) else A
        assert kept is not None
        part = part * _derivative(kept[used], activation, slope)
        if activation == Activation.SOFTMAX:
            part = a * (part - (a * part).sum(axis=1, keepdims=True))
    delta[...] = 0
    delta[used] = part if sample_weight is None else part * sample_weight[used, np.newaxis]


def class_loss(A: Array, classes: Array, sample_weight: Array | None) -> float:
    """(2) for CROSS_ENTROPY, with targets of 1 in the column of an example's class, 0 elsewhere.

    Examples of weight 0 do not count.
    """
    losses = -_log_clipped(A[np.arange(len(A)), classes]).astype(np.float64)
    if sample_weight is None:
        return float(losses.sum())
    used = sample_weight != 0
    return float(sample_weight[used] @ losses[used])


def class_delta(delta: Array, A: Array, classes: Array, sample_weight: Array | None) -> None:
    """(3) for the targets of `class_loss`: A - 1 in the column of an example's class, A elsewhere.

    Both are multiplied by the example's weight. An example of weight 0 has a delta of 0, even if A
    is not finite there.
    """
    delta[...] = A
    delta[np.arange(len(A)), classes] -= 1
    if sample_weight is not None:
        delta[sample_weight == 0] = 0
        delta *= sample_weight[:, np.newaxis]


def delta(
    delta_prev: Array,
    delta: Array,
    W: Array,
    A_prev: Array,
    activation: Activation,
    slope: float = math.inf,
) -> None:
    """(4): δ_prev = δ Wᵀ ⊙ σ′(Z_prev), with σ′ from A_prev = σ(Z_prev).

    Where `forward` writes derivatives, A_prev is σ′(Z_prev); the slope is that of `forward`.
    """
    delta_prev[...] = (delta @ W.T) * _derivative(A_prev, activation, slope)


def gradient(
    dW: Array, db: Array, delta: Array, A_prev: Array, scale: float, beta: float = 0.0
) -> None:
    """(5): dW = scale A_prevᵀ δ + beta dW, db = scale 1ᵀ δ + beta db."""
    # With beta = 0 the old contents do not matter, not even NaN.
    dW[...] = scale * (A_prev.T @ delta) + (beta * dW if beta else 0)
    db[...] = scale * delta.sum(axis=0) + (beta * db if beta else 0)


def gradient_descent(
    W: Array, b: Array, delta: Array, A_prev: Array, step_size: float, decay: float = 0.0
) -> None:
    """(5) and (6) at once: W -= step_size A_prevᵀ δ + decay W, b -= step_size 1ᵀ δ."""
    W -= step_size * (A_prev.T @ delta) + decay * W
    b -= step_size * delta.sum(axis=0)


def sgd(parameters: Array, gradient: Array, learning_rate: float, weight_decay: float) -> None:
    """(6): w -= η g, with g = ∂E/∂w + λ w."""
    parameters -= learning_rate * (gradient + weight_decay * parameters)


def momentum(
    parameters: Array,
    velocity: Array,
    gradient: Array,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    accumulates: bool = False,
) -> None:
    """(6) with momentum: v = μ v - η g, w += v; Nesterov's form w += μ v - η g.

    With `accumulates` v adds up gradients instead: v = μ v + g, w -= η v, or w -= η (μ v + g). I.
    Sutskever, J. Martens, G. Dahl, G. Hinton, On the importance of initialization and momentum in
    deep learning (2013).
    """
    g = gradient + weight_decay * parameters
    into, out = (1, -learning_rate) if accumulates else (-learning_rate, 1)
    velocity[...] = momentum * velocity + into * g
    parameters += out * (momentum * velocity + into * g if nesterov else velocity)


def adam(
    parameters: Array,
    m: Array,
    v: Array,
    gradient: Array,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """(6) by Adam: m and v are running means of g and g², w -= step_size m / (√v + ε).

    D. P. Kingma, J. Ba, Adam: a method for stochastic optimization (2015). The caller includes the
    bias corrections of the means in step_size and epsilon.
    """
    g = gradient + weight_decay * parameters
    m[...] = beta_1 * m + (1 - beta_1) * g
    v[...] = beta_2 * v + (1 - beta_2) * g * g
    parameters -= step_size * m / (np.sqrt(v) + epsilon)


def amsgrad(
    parameters: Array,
    m: Array,
    v: Array,
    v_max: Array,
    gradient: Array,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """(6) by AMSGrad: `adam` with v_max, the largest v so far, in place of v.

    S. J. Reddi, S. Kale, S. Kumar, On the convergence of Adam and beyond (2018).
    """
    g = gradient + weight_decay * parameters
    m[...] = beta_1 * m + (1 - beta_1) * g
    v[...] = beta_2 * v + (1 - beta_2) * g * g
    np.maximum(v_max, v, out=v_max)
    parameters -= step_size * m / (np.sqrt(v_max) + epsilon)


def rmsprop(
    parameters: Array,
    v: Array,
    mean: Array | None,
    velocity: Array | None,
    gradient: Array,
    learning_rate: float,
    rho: float,
    momentum: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """(6) by RMSprop: v is a running mean of g², w -= η s with the step s = g / (√v + ε).

    With `mean`, a running mean of g, the variance v - mean² takes the place of v; with `velocity`,
    velocity = μ velocity + s that of s. T. Tieleman, G. Hinton, Lecture 6.5: rmsprop (2012);
    A. Graves, Generating sequences with recurrent neural networks (2013).
    """
    g = gradient + weight_decay * parameters
    v[...] = rho * v + (1 - rho) * g * g
    variance = v
    if mean is not None:
        mean[...] = rho * mean + (1 - rho) * g
        variance = np.maximum(v - mean * mean, 0)  # rounding may take it below 0
    s = g / (np.sqrt(variance) + epsilon)
    if velocity is not None:
        velocity[...] = momentum * velocity + s
        s = velocity
    parameters -= learning_rate * s


def square_sum(x: Array) -> float:
    """Return Σ x²."""
    return float((x.astype(np.float64) ** 2).sum())


def exp(out: Array, x: Array) -> None:
    """Write eˣ to out."""
    np.exp(x, out=out)


def log(out: Array, x: Array) -> None:
    """Write ln x to out, for normal x > 0."""
    np.log(x, out=out)


def first_beyond(x: Array, limit: float) -> int:
    """Return the index of the first element outside ±limit, or the length."""
    within = np.abs(x) <= limit
    return x.size if within.all() else int(np.argmin(within))
