"""What all optimizers have: coefficients, a rule (6) for the compiled step, and a state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ._arrays import as_vector, is_plain
from ._checks import Strict, as_bool, as_coefficient, as_integer
from ._layout import Counter, FlatVector
from .architecture import FLOATS, Architecture
from .schedules import MOST_STEPS, Schedule, rates_of
from .typing import LearningRate

__all__ = ["Coefficient", "Flag", "Kind", "Number", "Optimizer", "Rate", "Rule"]

T = TypeVar("T")
Array = npt.NDArray[Any]

Kind = Literal["gradient_descent", "momentum", "adam", "amsgrad", "rmsprop"]


@dataclass(frozen=True)
class Rule:
    """The form of (6) and its coefficients, which the compiled step needs from an optimizer.

    The weights decay in three forms. `weight_decay` λ adds λ W to the mean gradient of each batch.
    `penalty` α adds ½ α ‖W‖² to the summed loss of a batch, and so α W / N to the mean gradient.
    `decoupled_decay` λ subtracts η λ W from W before the step of Adam, AMSGrad or RMSprop. Biases
    decay by `bias_decay` and `decoupled_bias_decay` instead. With `epsilon_uncorrected`, Adam adds
    ε to √v instead of √v̂, as in section 2 of the paper. With `accumulates`, momentum's velocity
    adds up gradients instead of steps. `momenta` replaces μ, or Adam's β₁, by a function of the
    step number; it is used together with a learning rate that is one.
    """

    kind: Kind
    learning_rate: LearningRate
    weight_decay: float = 0.0
    decoupled_decay: float = 0.0
    bias_decay: float = 0.0
    decoupled_bias_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    accumulates: bool = False
    beta_1: float = 0.0
    beta_2: float = 0.0
    rho: float = 0.0
    centered: bool = False
    epsilon: float = 0.0
    epsilon_uncorrected: bool = False
    penalty: float = 0.0
    momenta: Schedule | None = None

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The learning rate as a function of the step number; None if it is a number."""
        return self.learning_rate if callable(self.learning_rate) else None

    @property
    def n_vectors(self) -> int:
        """The number of running vectors."""
        if self.kind == "rmsprop":
            return 1 + self.centered + (self.momentum > 0)
        return {"gradient_descent": 0, "momentum": 1, "adam": 2, "amsgrad": 3}[self.kind]


# The rules that divide by ε and the root of a square, and the smallest normal number of each dtype.
_DIVIDING = ("adam", "amsgrad", "rmsprop")
_TINY = {dtype: float(np.finfo(dtype).tiny) for dtype in FLOATS}


class Coefficient(ABC, Generic[T]):
    """A coefficient of an optimizer, checked whenever it is set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Optimizer, owner: type | None = None) -> T:
        if instance is None:
            return self  # hasattr on the class needs it
        value: T = instance.__dict__[self.name]
        return value

    def __set__(self, instance: Optimizer, value: T) -> None:
        instance.__dict__[self.name] = self.checked(instance, value)
        instance.forget_rule()

    @abstractmethod
    def checked(self, instance: Optimizer, value: T) -> T:
        """Return the value to keep, or raise an error."""


class Number(Coefficient[float]):
    """A number from 0 to less than `below`; with `positive`, more than 0."""

    def __init__(self, *, below: float = math.inf, positive: bool = False) -> None:
        self._below, self._positive = below, positive

    def checked(self, instance: Optimizer, value: float) -> float:
        return as_coefficient(self.name, value, below=self._below, positive=self._positive)


class Flag(Coefficient[bool]):
    """A bool; with `fixed`, one that the state depends on."""

    def __init__(self, *, fixed: bool = False) -> None:
        self._fixed = fixed

    def checked(self, instance: Optimizer, value: bool) -> bool:
        flag = as_bool(self.name, value)
        if self._fixed and instance.arrays and flag != getattr(instance, self.name):
            raise ValueError(
                f"{self.name} cannot change once the optimizer has a state, got {flag}; create "
                "another optimizer"
            )
        return flag


class Rate(Coefficient[Any]):
    """A number >= 0, or a function of the step number."""

    def checked(self, instance: Optimizer, value: Any) -> Any:
        if callable(value) and not isinstance(value, type):
            return value
        try:
            return as_coefficient(self.name, value)
        except TypeError:
            raise TypeError(
                f"{self.name} must be a real number, or a function of the step number such as "
                f"nncore.schedules.cosine(0.01, steps=1000), got {value!r}"
            ) from None


class Optimizer(Strict, ABC):
    """The base class of `SGD`, `Adam`, `AdamW` and `RMSprop`.

    An optimizer belongs to the first network that it trains: its state has that network's shape
    and dtype, and lasts from call to call. Coefficients may be changed at any time, for example in
    a callback; a change takes effect in the next epoch.

    Attributes
    ----------
    step_count : int
        The number of steps made, which is the number of the next step.
    current_rate : float
        The learning rate of the next step.
    state : tuple of ndarray of shape (n_parameters,)
        The running vectors of the rule, in the layout of ``Network.parameters``; empty before the
        first step.
    """

    learning_rate = Rate()
    weight_decay = Number()

    # The names of the coefficients, in the order of the constructor.
    _names: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._steps = Counter()
        self._vectors: list[FlatVector] = []
        self._owner: Architecture | None = None
        # Cache of `rule`, which is the first; two threads may both append theirs. A change of a
        # coefficient replaces the list, so that a thread which still reads the coefficients before
        # keeps its rule out of it.
        self._rules: list[Rule] = []
        # Cache of `vectors`; None if the state must be checked first.
        self._ready: list[FlatVector] | None = None

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.coefficients.items())
        return f"{type(self).__name__}({values})"

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_rules": [], "_ready": None, "_steps": self.step_count}
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
    def step_count(self) -> int:
        return self._steps.value

    @step_count.setter
    def step_count(self, value: int) -> None:
        self._steps.value = as_integer("optimizer.step_count", value, low=0, high=MOST_STEPS)

    @property
    def current_rate(self) -> float:
        rate = self.rule().learning_rate
        return float(rates_of(rate, self.step_count, 1)[0]) if callable(rate) else rate

    @property
    def steps(self) -> Counter:
        """The counter behind `step_count`, for a `Session`."""
        return self._steps

    @property
    def state(self) -> tuple[Array, ...]:
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
        self._vectors = []  # the old state must not restrict the coefficients
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

    def forget_rule(self) -> None:
        """Note that a coefficient has changed."""
        self._rules, self._ready = [], None

    def check(self, architecture: Architecture) -> None:
        """Raise an error if the optimizer cannot train a network of that shape and dtype.

        Raises
        ------
        TypeError, ValueError
            The state belongs to a network of another shape or dtype, epsilon is 0 in this dtype,
            or a schedule does not return a learning rate.
        """
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
        _ = self.current_rate  # a function must return a number
        rule = self.rule()
        if rule.kind in _DIVIDING and rule.epsilon < _TINY[architecture.dtype]:
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
        ready = self._ready
        if ready is not None and self._owner is architecture:
            return ready
        self.check(architecture)
        n_vectors = self.rule().n_vectors
        missing = range(len(self._vectors), n_vectors)
        # All at once: without enough memory the optimizer stays as it is.
        self._vectors += [FlatVector.zeros(architecture) for _ in missing]
        self._owner = architecture
        ready = self._vectors[:n_vectors]
        if not any(vector.is_shared for vector in ready):
            self._ready = ready
        return ready
