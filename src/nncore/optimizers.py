"""Optimizers: each turns a gradient into a step, equation (6), and owns its state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ._checks import as_bool, as_integer, as_real, as_vector, is_plain
from ._layout import Update, aligned_zeros

if TYPE_CHECKING:
    from .network import Network

__all__ = ["SGD", "Adam", "Optimizer", "as_optimizer"]


_Rule = Literal["gradient_descent", "momentum", "adam"]


class _Coefficient:
    """A number of an optimizer, checked whenever it is set."""

    def __init__(self, low: float = 0.0, below: float = math.inf, *, above: bool = False) -> None:
        self._low, self._below, self._above = low, below, above

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Optimizer, owner: type | None = None) -> float:
        value: float = instance.__dict__[self._name]
        return value

    def __set__(self, instance: Optimizer, value: float) -> None:
        number = as_real(self._name, value)
        enough = number > self._low if self._above else number >= self._low
        if not (enough and number < self._below):
            sign = ">" if self._above else ">="
            bound = "finite" if self._below == math.inf else f"< {self._below:g}"
            raise ValueError(
                f"{self._name} must be {sign} {self._low:g} and {bound}, got {value!r}"
            )
        instance.__dict__[self._name] = number


class Optimizer(ABC):
    """What `SGD` and `Adam` share.

    An optimizer belongs to the first network that it trains: its state has that network's shape
    and dtype, and it is kept from call to call. Coefficients may be changed at any time, by a
    callback say; a change holds from the next epoch on.

    Attributes
    ----------
    step_count : int
        The steps made so far.
    state : tuple of ndarray of shape (n_parameters,)
        The running vectors of the rule, in the layout of ``Network.parameters``; empty before the
        first step.
    """

    learning_rate = _Coefficient()
    weight_decay = _Coefficient()

    # The names of the coefficients, in the order of the constructor.
    _names: ClassVar[tuple[str, ...]]

    def __init__(self, learning_rate: float, weight_decay: float) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.step_count = 0
        self.state: tuple[npt.NDArray[Any], ...] = ()
        self._owner: tuple[tuple[int, ...], np.dtype[Any]] | None = None

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({values})"

    @abstractmethod
    def _rule(self) -> tuple[_Rule, int, dict[str, Any]]:
        """Return the compiled rule's name, its number of state vectors and its coefficients."""

    def _check(self, network: Network) -> None:
        """Refuse a network of another shape than the one that the state belongs to."""
        if self._owner not in (None, (network.sizes, network.dtype)):
            sizes, dtype = self._owner
            raise ValueError(
                f"optimizer has the state of a network of sizes {list(sizes)} and dtype {dtype}, "
                f"got a network of sizes {list(network.sizes)} and dtype {network.dtype}; "
                "give each network an optimizer of its own"
            )
        if not network.parameters.flags.writeable:
            raise ValueError("network.parameters must be writeable, got a read-only vector")
        self.step_count = as_integer("optimizer.step_count", self.step_count, low=0, high=None)
        size, dtype = network.parameters.size, network.dtype
        self.state = tuple(
            vector
            if isinstance(vector, np.ndarray)
            and vector.shape == (size,)
            and is_plain(vector, dtype)
            and vector.flags.writeable
            else np.array(as_vector("optimizer.state", vector, size, dtype))
            for vector in self.state
        )

    def _update(self, network: Network, **options: Any) -> Update:
        """Return the rule and its state for the compiled step, with options of `Update`."""
        self._check(network)
        self._owner = (network.sizes, network.dtype)
        rule, n_vectors, coefficients = self._rule()
        while len(self.state) < n_vectors:
            self.state += (aligned_zeros(network.parameters.size, network.dtype),)
        return Update(
            rule,
            self.state,
            self.step_count,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            **coefficients,
            **options,
        )


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted.

    Without momentum, w <- w - η g with g = ∂E/∂w + λ w (6); the gradient is then never stored.
    With it, v <- μ v - η g and w <- w + v, or w <- w + μ v - η g in Nesterov's form.

    Parameters
    ----------
    learning_rate : float, default 0.01
        η >= 0.
    momentum : float, default 0
        0 <= μ < 1.
    nesterov : bool, default False
        Nesterov's form; needs momentum > 0.
    weight_decay : float, default 0
        λ >= 0, an L2 term on the weights, not on the biases.

    Raises
    ------
    TypeError, ValueError
        A coefficient is no number or out of its range.

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

    momentum = _Coefficient(below=1.0)

    _names = ("learning_rate", "momentum", "nesterov", "weight_decay")

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = momentum
        self.nesterov = nesterov
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, got momentum=0.0")

    @property
    def nesterov(self) -> bool:
        """Whether the step takes Nesterov's form."""
        return self._nesterov

    @nesterov.setter
    def nesterov(self, value: bool) -> None:
        self._nesterov = as_bool("nesterov", value)

    def _rule(self) -> tuple[_Rule, int, dict[str, Any]]:
        if self.momentum == 0:
            return "gradient_descent", 0, {}
        return "momentum", 1, {"momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Adam: steps along the running mean of the gradient, scaled by that of its square.

    m <- β₁ m + (1 - β₁) g and v <- β₂ v + (1 - β₂) g², with g = ∂E/∂w + λ w; then
    w <- w - η m̂ / (√v̂ + ε) with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) in step t.

    Parameters
    ----------
    learning_rate : float, default 0.001
        η >= 0.
    beta_1, beta_2 : float, default 0.9 and 0.999
        In [0, 1).
    epsilon : float, default 1e-8
        ε > 0.
    weight_decay : float, default 0
        λ >= 0, an L2 term on the weights, not on the biases.

    Raises
    ------
    TypeError, ValueError
        A coefficient is no number or out of its range.

    References
    ----------
    D. P. Kingma, J. Ba, Adam: a method for stochastic optimization (2015), algorithm 1.

    Examples
    --------
    >>> import nncore
    >>> nncore.Adam().learning_rate
    0.001
    """

    beta_1 = _Coefficient(below=1.0)
    beta_2 = _Coefficient(below=1.0)
    epsilon = _Coefficient(above=True)

    _names = ("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay")

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _rule(self) -> tuple[_Rule, int, dict[str, Any]]:
        return (
            "adam",
            2,
            {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon},
        )


_BY_NAME: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam}


def as_optimizer(optimizer: Optimizer | str) -> Optimizer:
    """Return the optimizer itself, or a new one with the defaults of the name."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer not in _BY_NAME:
            raise ValueError(f"optimizer must be one of {sorted(_BY_NAME)}, got {optimizer!r}")
        return _BY_NAME[optimizer]()
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        name = optimizer.__name__
        raise TypeError(f"optimizer must be an instance, {name}() say, got the class {name}")
    raise TypeError(
        "optimizer must be an instance of nncore.SGD or nncore.Adam or a name, "
        f"got {type(optimizer).__name__} {optimizer!r}"
    )
