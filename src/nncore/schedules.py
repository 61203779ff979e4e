"""Learning rates that change from step to step: ``Adam(learning_rate=cosine(0.01, steps=1000))``.

Any function of the step number will do, too: ``SGD(learning_rate=lambda step: 1 / (10 + step))``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._checks import as_coefficient, as_integer, as_real

__all__ = [
    "MOST_STEPS",
    "SCHEDULES",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "one_cycle",
    "rates_of",
    "step",
]

Rates = npt.NDArray[np.float64]

# How many steps the compiled step can count.
MOST_STEPS = 2**62


@dataclass(frozen=True)
class Schedule(ABC):
    """The base class of the schedules: functions of the step number that return a learning rate η.

    A step's number t is the number of steps before it: the first one is 0, and an optimizer's next
    one is its ``step_count``. Schedules are immutable; equal ones have equal parameters.
    """

    def __call__(self, step: int) -> float:
        """Return the rate of a step."""
        return float(self.rates(as_integer("step", step, low=0, high=MOST_STEPS), 1)[0])

    def rates(self, begin: int, count: int) -> Rates:
        """Return the rates of consecutive steps, each the same as that of the step alone.

        Parameters
        ----------
        begin : int
            The number of the first step.
        count : int

        Returns
        -------
        ndarray of shape (count,)

        Raises
        ------
        TypeError, ValueError
            A number is not an integer >= 0.
        """
        begin = as_integer("begin", begin, low=0, high=MOST_STEPS)
        count = as_integer("count", count, low=0, high=MOST_STEPS)
        with np.errstate(under="ignore"):
            return self._evaluate(np.arange(begin, begin + count, dtype=np.float64))

    @abstractmethod
    def _evaluate(self, t: Rates) -> Rates:
        """Return the rates of the steps t."""

    def _set(self, **values: float) -> None:
        """Set parameters that were checked."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


def rates_of(schedule: Callable[[int], float], begin: int, count: int) -> Rates:
    """Return the rates of consecutive steps by a schedule or any other function.

    Parameters
    ----------
    schedule : callable
    begin : int
        The number of the first step.
    count : int

    Returns
    -------
    ndarray of shape (count,)

    Raises
    ------
    TypeError, ValueError
        A rate is not a number, or it is negative or not finite.
    """
    if isinstance(schedule, Schedule):
        return schedule.rates(begin, count)
    steps = range(begin, begin + count)
    rates = (as_coefficient(f"learning_rate({step})", schedule(step)) for step in steps)
    return np.fromiter(rates, np.float64, count)


def _as_factor(name: str, value: float) -> float:
    """Return `value` as a float from 0 to 1."""
    factor = as_real(name, value)
    if not 0 <= factor <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return factor


@dataclass(frozen=True)
class constant(Schedule):
    """The same rate in every step, η.

    Parameters
    ----------
    rate : float
        η >= 0.

    Examples
    --------
    >>> from nncore.schedules import constant
    >>> constant(0.1)(1000)
    0.1
    """

    rate: float

    def __post_init__(self) -> None:
        self._set(rate=as_coefficient("rate", self.rate))

    def _evaluate(self, t: Rates) -> Rates:
        return np.full_like(t, self.rate)


@dataclass(frozen=True)
class step(Schedule):
    """A rate that is multiplied by a factor after each stretch of steps: η fᵏ with k = ⌊t / every⌋.

    Parameters
    ----------
    rate : float
        η >= 0, of the first stretch.
    every : int
        The steps of a stretch.
    factor : float
        f, in [0, 1].

    Examples
    --------
    >>> from nncore.schedules import step
    >>> step(0.5, every=2, factor=0.5).rates(0, 5)
    array([0.5  , 0.5  , 0.25 , 0.25 , 0.125])
    """

    rate: float
    every: int
    factor: float

    def __post_init__(self) -> None:
        self._set(
            rate=as_coefficient("rate", self.rate),
            every=as_integer("every", self.every, high=MOST_STEPS),
            factor=_as_factor("factor", self.factor),
        )

    def _evaluate(self, t: Rates) -> Rates:
        return self.rate * self.factor ** (t // self.every)


@dataclass(frozen=True)
class exponential(Schedule):
    """A rate that is multiplied by a factor after each step: η dᵗ.

    Parameters
    ----------
    rate : float
        η >= 0, of the first step.
    decay : float
        d, in [0, 1].

    Examples
    --------
    >>> from nncore.schedules import exponential
    >>> exponential(0.5, decay=0.5).rates(0, 3)
    array([0.5  , 0.25 , 0.125])
    """

    rate: float
    decay: float

    def __post_init__(self) -> None:
        self._set(
            rate=as_coefficient("rate", self.rate),
            decay=_as_factor("decay", self.decay),
        )

    def _evaluate(self, t: Rates) -> Rates:
        return self.rate * self.decay**t


def _anneal(start: float, end: float, progress: Rates) -> Rates:
    """Return a half cosine from start, with progress 0 or less, to end, with progress 1 or more."""
    share = (1 + np.cos(np.pi * progress.clip(0, 1))) / 2
    rates: Rates = share * start + (1 - share) * end
    return rates


@dataclass(frozen=True)
class cosine(Schedule):
    """A rate that falls along a half cosine, optionally after a linear warm-up.

    In the warm-up of w steps, η (t + 1) / (w + 1). Then, until T steps are made,
    η_T + (η - η_T) (1 + cos(π (t - w) / (T - w))) / 2, and η_T from there on.

    Parameters
    ----------
    peak : float
        η >= 0, the rate of the first step after the warm-up.
    steps : int
        T, the steps until the rate is `final`, warm-up included.
    warmup : int, default 0
        w < T.
    final : float, default 0
        η_T >= 0. After T steps a rate of 0 ends all learning.

    References
    ----------
    I. Loshchilov, F. Hutter, SGDR: stochastic gradient descent with warm restarts (2017),
    equation (5).

    Examples
    --------
    >>> from nncore.schedules import cosine
    >>> cosine(0.8, steps=7, warmup=3).rates(0, 8).round(2)
    array([0.2 , 0.4 , 0.6 , 0.8 , 0.68, 0.4 , 0.12, 0.  ])
    """

    peak: float
    steps: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        steps = as_integer("steps", self.steps, high=MOST_STEPS)
        self._set(
            peak=as_coefficient("peak", self.peak),
            steps=steps,
            warmup=as_integer("warmup", self.warmup, low=0, high=MOST_STEPS),
            final=as_coefficient("final", self.final),
        )
        if self.warmup >= steps:
            raise ValueError(f"warmup must be less than steps={steps}, got {self.warmup}")

    def _evaluate(self, t: Rates) -> Rates:
        rising = self.peak * ((t + 1) / (self.warmup + 1))
        falling = _anneal(self.peak, self.final, (t - self.warmup) / (self.steps - self.warmup))
        return np.where(t < self.warmup, rising, falling)


@dataclass(frozen=True)
class one_cycle(Schedule):
    """A rate that rises to a peak and falls to almost 0, both along half cosines.

    Parameters
    ----------
    peak : float
        η >= 0.
    steps : int
        T, the steps of the cycle; the last one, and all that follow, have the lowest rate.
    warmup_fraction : float, default 0.3
        The part of the T steps in which the rate rises, in [0, 1).
    start_fraction : float, default 0.04
        The first rate as a part of η, in [0, 1].
    end_fraction : float, default 4e-6
        The last rate as a part of η, in [0, 1].

    References
    ----------
    L. N. Smith, N. Topin, Super-convergence: very fast training of neural networks using large
    learning rates (2018).

    Examples
    --------
    >>> from nncore.schedules import one_cycle
    >>> one_cycle(0.5, steps=10).rates(0, 10).round(3)
    array([0.02 , 0.26 , 0.5  , 0.475, 0.406, 0.306, 0.194, 0.094, 0.025, 0.   ])
    """

    peak: float
    steps: int
    warmup_fraction: float = 0.3
    start_fraction: float = 0.04
    end_fraction: float = 4e-6

    def __post_init__(self) -> None:
        self._set(
            peak=as_coefficient("peak", self.peak),
            steps=as_integer("steps", self.steps, high=MOST_STEPS),
            warmup_fraction=as_coefficient("warmup_fraction", self.warmup_fraction, below=1.0),
            start_fraction=_as_factor("start_fraction", self.start_fraction),
            end_fraction=_as_factor("end_fraction", self.end_fraction),
        )

    def _evaluate(self, t: Rates) -> Rates:
        # Where the peak and the end are; before the first step if the cycle is too short to rise.
        top, last = self.warmup_fraction * self.steps - 1, self.steps - 1
        falling = _anneal(self.peak, self.peak * self.end_fraction, (t - top) / (last - top))
        if top <= 0:
            return falling
        rising = _anneal(self.peak * self.start_fraction, self.peak, t / top)
        return np.where(t < top, rising, falling)


# By their names, for files.
SCHEDULES: dict[str, type[Schedule]] = {
    cls.__name__: cls for cls in (constant, step, exponential, cosine, one_cycle)
}
