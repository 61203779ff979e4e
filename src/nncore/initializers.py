"""How initial weights and biases are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["INITIALIZERS"]

Array = npt.NDArray[Any]

# Draws the weights of a layer with n_prev inputs and n units.
_Draw = Callable[[np.random.Generator, int, int], Array]


def _uniform(variance: Callable[[int, int], float]) -> _Draw:
    def draw(rng: np.random.Generator, n_prev: int, n: int) -> Array:
        bound = math.sqrt(3 * variance(n_prev, n))
        return rng.uniform(-bound, bound, (n_prev, n))

    return draw


def _normal(variance: Callable[[int, int], float]) -> _Draw:
    def draw(rng: np.random.Generator, n_prev: int, n: int) -> Array:
        return rng.normal(0.0, math.sqrt(variance(n_prev, n)), (n_prev, n))

    return draw


def _glorot(n_prev: int, n: int) -> float:
    return 2 / (n_prev + n)


def _he(n_prev: int, n: int) -> float:
    return 2 / n_prev


# Biases start at 0, except with "normal", which draws them like the weights of one input.
INITIALIZERS: dict[str, _Draw] = {
    "glorot_uniform": _uniform(_glorot),
    "glorot_normal": _normal(_glorot),
    "he_uniform": _uniform(_he),
    "he_normal": _normal(_he),
    "normal": _normal(lambda n_prev, n: 1.0),
}
