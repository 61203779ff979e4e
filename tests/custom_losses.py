"""Losses of users, for tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def squared_error(A: Array, Y: Array) -> Array:
    losses: Array = 0.5 * ((A - Y) ** 2).sum(axis=1)
    return losses


def residual(A: Array, Y: Array) -> Array:
    return A - Y


@dataclass(frozen=True)
class Custom:
    """A loss of any two functions; by default as "squared_error", to the last bit."""

    value: Callable[[Array, Array], Any] = squared_error
    delta: Callable[[Array, Array], Any] = residual


class ClassLoss:
    """Cross entropy of class indices, for softmax outputs."""

    def value(self, A: Array, Y: Array) -> Array:
        losses: Array = -np.log(A[np.arange(len(A)), Y])
        return losses

    def delta(self, A: Array, Y: Array) -> Array:
        rows = np.arange(len(A))
        dA = np.zeros_like(A)
        dA[rows, Y] = -1 / A[rows, Y]
        return dA


class Recorder:
    """Returns losses that remember what their methods get."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[Array, Array]]] = {"value": [], "delta": []}

    def loss(self, on_call: Callable[[str, int], object] = lambda name, count: None) -> Custom:
        """Return a squared error that calls `on_call` with the method and how often it ran."""

        def recorded(
            name: str, function: Callable[[Array, Array], Array]
        ) -> Callable[[Array, Array], Array]:
            def method(A: Array, Y: Array) -> Array:
                self.calls[name].append((A, Y))
                on_call(name, len(self.calls[name]))
                return function(A, Y)

            return method

        return Custom(recorded("value", squared_error), recorded("delta", residual))
