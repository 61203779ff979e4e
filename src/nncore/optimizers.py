"""Optimizers turn a gradient into a step, equation (6), and own their state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ._arrays import as_vector, is_plain
from ._checks import Strict, as_bool, as_integer, as_real, one_of
from ._layout import Counter, FlatVector
from .architecture import FLOATS, Architecture
from .typing import OptimizerName

__all__ = ["OPTIMIZERS", "SGD", "Adam", "Optimizer", "Rule", "as_optimizer"]

Array = npt.NDArray[Any]

_Kind = Literal["gradient_descent", "momentum", "adam"]

# How many steps the compiled step can count.
_MOST_STEPS = 2**62


@dataclass(frozen=True)
class Rule:
    """The form of (6) and its coefficients, which the compiled step needs from an optimizer.

    The L2 term of the weights has two forms. `weight_decay` λ adds λ W to the mean gradient of each
    batch. `penalty` α adds ½ α ‖W‖² to the summed loss of a batch, and so α W / N to the mean
    gradient. With `epsilon_uncorrected`, Adam adds ε to √v instead of √v̂, as in section 2 of the
    paper.
    """

    kind: _Kind
    learning_rate: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.0
    beta_2: float = 0.0
    epsilon: float = 0.0
    epsilon_uncorrected: bool = False
    penalty: float = 0.0


# The smallest normal number of each dtype.
_TINY = {dtype: float(np.finfo(dtype).tiny) for dtype in FLOATS}

# The number of running vectors of each form.
_N_VECTORS = {"gradient_descent": 0, "momentum": 1, "adam": 2}


class _Coefficient:
    """A coefficient of an optimizer, checked whenever it is set."""

    def __init__(self, low: float = 0.0, below: float = math.inf, *, above: bool = False) -> None:
        self._low, self._below, self._above = low, below, above

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Optimizer, owner: type | None = None) -> float:
        if instance is None:
            return self  # hasattr on the class needs it
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
        instance._rule = instance._ready = None


class Optimizer(Strict, ABC):
    """The base class of `SGD` and `Adam`.

    An optimizer belongs to the first network that it trains: its state has that network's shape
    and dtype, and lasts from call to call. Coefficients may be changed at any time, for example in
    a callback; a change takes effect in the next epoch.

    Attributes
    ----------
    step_count : int
        The number of steps made.
    state : tuple of ndarray of shape (n_parameters,)
        The running vectors of the rule, in the layout of ``Network.parameters``; empty before the
        first step.
    """

    learning_rate = _Coefficient()
    weight_decay = _Coefficient()

    # The names of the coefficients, in the order of the constructor.
    _names: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._steps = Counter()
        self._vectors: list[FlatVector] = []
        self._owner: Architecture | None = None
        self._rule: Rule | None = None
        # Cache of `vectors`; None if the state must be checked first.
        self._ready: list[FlatVector] | None = None

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.coefficients.items())
        return f"{type(self).__name__}({values})"

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_rule": None, "_ready": None, "_steps": self.step_count}
        state["_vectors"] = [vector.array for vector in self._vectors]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._steps = Counter()
        self.step_count = state["_steps"]
        # Copies: vectors from a mapped file are read-only, those of a copied optimizer not ours.
        arrays = [np.array(array, order="C") for array in state["_vectors"]]
        if self._owner is None:
            self.state = arrays
        else:
            self._vectors = [FlatVector(self._checked(array, self._owner)) for array in arrays]

    @property
    def coefficients(self) -> dict[str, Any]:
        """The arguments of the constructor, in its order, with their current values."""
        return {name: getattr(self, name) for name in self._names}

    @property
    def step_count(self) -> int:  # noqa: D102 - described in the class docstring
        return self._steps.value

    @step_count.setter
    def step_count(self, value: int) -> None:
        self._steps.value = as_integer("optimizer.step_count", value, low=0, high=_MOST_STEPS)

    @property
    def steps(self) -> Counter:
        """The counter behind `step_count`, for a `Session`."""
        return self._steps

    @property
    def state(self) -> tuple[Array, ...]:  # noqa: D102
        self._ready = None
        return tuple(vector.share() for vector in self._vectors)

    @state.setter
    def state(self, vectors: Sequence[npt.ArrayLike]) -> None:
        if not isinstance(vectors, (tuple, list)):
            raise TypeError(
                f"optimizer.state must be a tuple of vectors, got {type(vectors).__name__}"
            )
        arrays = [np.array(vector) for vector in vectors]
        if self._owner is not None:
            arrays = [self._checked(array, self._owner) for array in arrays]
        self._vectors = [FlatVector(array) for array in arrays]
        self._ready = None
        for vector in self._vectors:
            vector.share()

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The running vectors, for reading only; `state` is for reading and writing."""
        return tuple(vector.array for vector in self._vectors)

    def restore(
        self,
        architecture: Architecture,
        coefficients: Mapping[str, Any],
        step_count: int,
        vectors: Sequence[Array],
    ) -> None:
        """Become an optimizer with these coefficients and this state.

        Parameters
        ----------
        architecture : Architecture
            Of the network that the state belongs to.
        coefficients : dict
            As `coefficients`; others keep their values.
        step_count : int
        vectors : sequence of ndarray of shape (n_parameters,)
            The running vectors; the optimizer keeps them.

        Raises
        ------
        TypeError, ValueError
            A coefficient is unknown or out of range, or a vector does not fit the architecture.
        """
        unknown = coefficients.keys() - set(self._names)
        if unknown:
            raise ValueError(f"{type(self).__name__} has no coefficients {sorted(unknown)}")
        checked = [FlatVector(self._checked(vector, architecture)) for vector in vectors]
        for name, value in coefficients.items():
            setattr(self, name, value)
        self.step_count = step_count
        self._vectors = checked
        self.owner = architecture

    @property
    def owner(self) -> Architecture | None:
        """The architecture of the network trained last; only its sizes and dtype matter."""
        return self._owner

    @owner.setter
    def owner(self, architecture: Architecture | None) -> None:
        self._owner = architecture
        self._ready = None

    @abstractmethod
    def rule(self) -> Rule:
        """Return the form of (6) and its coefficients."""

    def check(self, architecture: Architecture) -> None:
        """Raise ValueError if the state belongs to a network of another shape or dtype."""
        owner = self._owner or architecture
        if owner is not architecture and (owner.sizes, owner.dtype) != (
            architecture.sizes,
            architecture.dtype,
        ):
            raise ValueError(
                f"optimizer has the state of a network of sizes {list(owner.sizes)} and dtype "
                f"{owner.dtype}, got a network of sizes {list(architecture.sizes)} and dtype "
                f"{architecture.dtype}; give each network its own optimizer"
            )
        for i, vector in enumerate(self._vectors):
            if vector.is_shared:
                array = self._checked(vector.array, architecture)
                if array is not vector.array:
                    self._vectors[i] = FlatVector(array)
        rule = self.rule()
        if rule.kind == "adam" and rule.epsilon < _TINY[architecture.dtype]:
            raise ValueError(
                f"epsilon must be a normal number in {architecture.dtype}, got {rule.epsilon!r}"
            )

    @staticmethod
    def _checked(array: Array, architecture: Architecture) -> Array:
        count, dtype = architecture.n_parameters, architecture.dtype
        if array.shape == (count,) and is_plain(array, dtype) and array.flags.writeable:
            return array
        return np.array(as_vector("optimizer.state", array, count, dtype))

    def vectors(self, architecture: Architecture) -> list[FlatVector]:
        """Return the running vectors; they start at 0.

        Parameters
        ----------
        architecture : Architecture
            The architecture of the network to train.

        Raises
        ------
        ValueError
            The state belongs to a network of another shape or dtype.
        """
        if self._ready is not None and self._owner is architecture:
            return self._ready
        self.check(architecture)
        self._owner = architecture
        n_vectors = _N_VECTORS[self.rule().kind]
        while len(self._vectors) < n_vectors:
            self._vectors.append(FlatVector.zeros(architecture))
        ready = self._vectors[:n_vectors]
        if not any(vector.is_shared for vector in ready):
            self._ready = ready
        return ready


class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum.

    Without momentum, w <- w - η g with g = ∂E/∂w + λ w (6), and the gradient is never stored.
    With momentum, v <- μ v - η g and w <- w + v, or w <- w + μ v - η g in Nesterov's form.

    Parameters
    ----------
    learning_rate : float, default 0.01
        η >= 0.
    momentum : float, default 0
        0 <= μ < 1.
    nesterov : bool, default False
        Nesterov's form; needs momentum > 0.
    weight_decay : float, default 0
        λ >= 0, the L2 term of the weights; biases have none.

    Raises
    ------
    TypeError, ValueError
        A coefficient is not a number, or is out of range.

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
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum > 0, got momentum=0.0")

    @property
    def nesterov(self) -> bool:
        """Whether to use Nesterov's form."""
        return self._nesterov

    @nesterov.setter
    def nesterov(self, value: bool) -> None:
        self._nesterov = as_bool("nesterov", value)
        self._rule = self._ready = None

    def rule(self) -> Rule:  # noqa: D102 - described in the base class
        if self._rule is None:
            kind: _Kind = "momentum" if self.momentum else "gradient_descent"
            self._rule = Rule(
                kind,
                self.learning_rate,
                self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
            )
        return self._rule


class Adam(Optimizer):
    """Adam: steps along the running mean of the gradient, scaled by the mean of its square.

    m <- β₁ m + (1 - β₁) g and v <- β₂ v + (1 - β₂) g², with g = ∂E/∂w + λ w; then
    w <- w - η m̂ / (√v̂ + ε) with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) in step t.

    Parameters
    ----------
    learning_rate : float, default 0.001
        η >= 0.
    beta_1, beta_2 : float, default 0.9 and 0.999
        In [0, 1).
    epsilon : float, default 1e-8
        ε, a normal number > 0 in the network's dtype.
    weight_decay : float, default 0
        λ >= 0, the L2 term of the weights; biases have none.

    Raises
    ------
    TypeError, ValueError
        A coefficient is not a number, or is out of range.

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
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def rule(self) -> Rule:  # noqa: D102 - described in the base class
        if self._rule is None:
            self._rule = Rule(
                "adam",
                self.learning_rate,
                self.weight_decay,
                beta_1=self.beta_1,
                beta_2=self.beta_2,
                epsilon=self.epsilon,
            )
        return self._rule


# The name of each optimizer, for `Network.fit` and in files.
OPTIMIZERS: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam}


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
        "optimizer must be an instance of nncore.SGD or nncore.Adam or a name, "
        f"got {type(optimizer).__name__} {optimizer!r}"
    )
