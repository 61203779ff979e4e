"""Optimizers turn a gradient into a step, equation (6), and own their state."""

from __future__ import annotations

from typing import ClassVar

from ._checks import one_of
from ._optimizer import Flag, Kind, Number, Optimizer, Rule
from .typing import LearningRate, OptimizerName

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "Rule", "as_optimizer"]


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum.

    Without momentum, w <- w - η g with g = ∂E/∂w + λ w (6), and the gradient is never stored.
    With momentum, v <- μ v - η g and w <- w + v, or w <- w + μ v - η g in Nesterov's form.

    Parameters
    ----------
    learning_rate : float or callable, default 0.01
        η >= 0, or a function of the step number that returns it, e.g. one of `nncore.schedules`.
    momentum : float, default 0
        0 <= μ < 1.
    nesterov : bool, default False
        Nesterov's form; needs momentum > 0.
    weight_decay : float, default 0
        λ >= 0, the L2 term of the weights; biases have none.

    Raises
    ------
    TypeError, ValueError
        A coefficient has another type, or is out of range.

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, On the importance of initialization and momentum
    in deep learning (2013).

    Examples
    --------
    >>> import nncore
    >>> nncore.SGD(3.0)
    SGD(learning_rate=3.0, momentum=0.0, nesterov=False, weight_decay=0.0)
    """

    momentum = Number(below=1.0)
    nesterov = Flag()

    _names = ("learning_rate", "momentum", "nesterov", "weight_decay")

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, got momentum=0.0")

    def rule(self) -> Rule:  # noqa: D102 - described in the base class
        rules = self._rules
        if not rules:
            kind: Kind = "momentum" if self.momentum else "gradient_descent"
            rule = Rule(
                kind,
                self.learning_rate,
                self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
            )
            rules.append(rule)
        return rules[0]


class Adam(Optimizer):
    """Adam: steps along the running mean of the gradient, scaled by the mean of its square.

    m <- β₁ m + (1 - β₁) g and v <- β₂ v + (1 - β₂) g², with g = ∂E/∂w + λ w; then
    w <- w - η m̂ / (√v̂ + ε) with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) in step t.

    Parameters
    ----------
    learning_rate : float or callable, default 0.001
        η >= 0, or a function of the step number that returns it, e.g. one of `nncore.schedules`.
    beta_1, beta_2 : float, default 0.9 and 0.999
        In [0, 1).
    epsilon : float, default 1e-8
        ε, a normal number > 0 in the network's dtype.
    weight_decay : float, default 0
        λ >= 0, the L2 term of the weights; biases have none.
    amsgrad : bool, default False
        Whether the largest v so far takes the place of v in the last formula, so that steps do not
        grow again. It is the third vector of the state, after m and v.

    Raises
    ------
    TypeError, ValueError
        A coefficient has another type, or is out of range.

    References
    ----------
    D. P. Kingma, J. Ba, Adam: a method for stochastic optimization (2015), algorithm 1. S. J.
    Reddi, S. Kale, S. Kumar, On the convergence of Adam and beyond (2018), algorithm 2.

    Examples
    --------
    >>> import nncore
    >>> nncore.Adam().learning_rate
    0.001
    """

    beta_1 = Number(below=1.0)
    beta_2 = Number(below=1.0)
    epsilon = Number(positive=True)
    amsgrad = Flag()

    _names = ("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay", "amsgrad")
    _decouples: ClassVar[bool] = False

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.amsgrad = amsgrad

    def rule(self) -> Rule:  # noqa: D102 - described in the base class
        rules = self._rules
        if not rules:
            rule = Rule(
                "amsgrad" if self.amsgrad else "adam",
                self.learning_rate,
                0.0 if self._decouples else self.weight_decay,
                self.weight_decay if self._decouples else 0.0,
                beta_1=self.beta_1,
                beta_2=self.beta_2,
                epsilon=self.epsilon,
            )
            rules.append(rule)
        return rules[0]


class AdamW(Adam):
    """Adam with decoupled weight decay: the decay does not pass through the running means.

    w <- w - η λ w, then a step of `Adam` whose gradient has no L2 term. All weights shrink alike;
    with `Adam`'s L2 term those of large gradients shrink less.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon, amsgrad
        As in `Adam`.
    weight_decay : float, default 0.01
        λ >= 0, the decay of the weights; biases have none.

    Raises
    ------
    TypeError, ValueError
        A coefficient has another type, or is out of range.

    References
    ----------
    I. Loshchilov, F. Hutter, Decoupled weight decay regularization (2019), algorithm 2; the
    schedule's factor is part of η here.

    Examples
    --------
    >>> import nncore
    >>> nncore.AdamW(0.01).weight_decay
    0.01
    """

    _decouples = True

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, amsgrad)


class RMSprop(Optimizer):
    """RMSprop: steps along the gradient, divided by the root of its running mean square.

    v <- ρ v + (1 - ρ) g², with g = ∂E/∂w + λ w; then w <- w - η s with s = g / (√v + ε).
    With momentum, u <- μ u + s takes the place of s. In the centered form the running variance
    v - ḡ² takes the place of v, with the running mean ḡ <- ρ ḡ + (1 - ρ) g.

    Parameters
    ----------
    learning_rate : float or callable, default 0.01
        η >= 0, or a function of the step number that returns it, e.g. one of `nncore.schedules`.
    rho : float, default 0.99
        ρ in [0, 1).
    momentum : float, default 0
        0 <= μ < 1.
    centered : bool, default False
        Whether to use the centered form. It cannot change once there is a state.
    epsilon : float, default 1e-8
        ε, a normal number > 0 in the network's dtype.
    weight_decay : float, default 0
        λ >= 0, the L2 term of the weights; biases have none.

    Raises
    ------
    TypeError, ValueError
        A coefficient has another type, or is out of range.

    Notes
    -----
    The state is v, then ḡ in the centered form, then u with momentum.

    References
    ----------
    T. Tieleman, G. Hinton, Lecture 6.5: rmsprop, Neural networks for machine learning (2012).
    A. Graves, Generating sequences with recurrent neural networks (2013), equations (38) to (45).

    Examples
    --------
    >>> import nncore
    >>> nncore.RMSprop(0.001, momentum=0.9).rho
    0.99
    """

    rho = Number(below=1.0)
    momentum = Number(below=1.0)
    centered = Flag(fixed=True)
    epsilon = Number(positive=True)

    _names = ("learning_rate", "rho", "momentum", "centered", "epsilon", "weight_decay")

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        rho: float = 0.99,
        momentum: float = 0.0,
        centered: bool = False,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.rho = rho
        self.momentum = momentum
        self.centered = centered
        self.epsilon = epsilon
        self.weight_decay = weight_decay

    def rule(self) -> Rule:  # noqa: D102 - described in the base class
        rules = self._rules
        if not rules:
            rule = Rule(
                "rmsprop",
                self.learning_rate,
                self.weight_decay,
                momentum=self.momentum,
                rho=self.rho,
                centered=self.centered,
                epsilon=self.epsilon,
            )
            rules.append(rule)
        return rules[0]


# The name of each optimizer, for `Network.fit` and in files.
OPTIMIZERS: dict[str, type[SGD] | type[Adam] | type[RMSprop]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
}


def as_optimizer(optimizer: Optimizer | OptimizerName) -> Optimizer:
    """Return the optimizer itself, or a new one with the defaults of the name."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        return one_of("optimizer", optimizer, OPTIMIZERS)()
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        name = optimizer.__name__
        raise TypeError(f"optimizer must be an instance such as {name}(), got the class {name}")
    raise TypeError(
        f"optimizer must be an instance such as nncore.Adam(), or one of {sorted(OPTIMIZERS)}, "
        f"got {type(optimizer).__name__} {optimizer!r}"
    )
