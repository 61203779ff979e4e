"""Checks of single values that a user passes in: numbers, names, seeds, attributes.

Each function returns the checked value or raises an error that names the argument, what was
expected and what was got.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "LARGEST",
    "Strict",
    "as_bool",
    "as_dropout",
    "as_generator",
    "as_integer",
    "as_real",
    "one_of",
]

T = TypeVar("T")

# The largest matrix dimension: BLAS counts rows and columns in 32-bit integers.
LARGEST = 2**31 - 1


def one_of(name: str, value: object, table: Mapping[str, T]) -> T:
    """Return the entry of the table under the name `value`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {sorted(table)}, got {value!r}")
    if value not in table:
        raise ValueError(f"{name} must be one of {sorted(table)}, got {value!r}")
    return table[value]


def as_integer(name: str, value: object, *, low: int = 1, high: int | None = LARGEST) -> int:
    """Return `value` as an int from `low` to `high`, by default the largest dimension."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        integer = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if integer < low:
        raise ValueError(f"{name} must be at least {low}, got {integer}")
    if high is not None and integer > high:
        hint = ", the largest that BLAS can hold" if high == LARGEST else ""
        raise ValueError(f"{name} must be at most {high}{hint}, got {integer}")
    return integer


def as_bool(name: str, value: object) -> bool:
    """Return `value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return bool(value)


def as_real(name: str, value: object) -> float:
    """Return `value` as a float."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf  # outside every range
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {value!r}") from None


def as_dropout(dropout: float | Sequence[float], n_hidden: int) -> tuple[float, ...]:
    """Return the dropout rate of each hidden layer."""
    if isinstance(dropout, str) or not isinstance(dropout, Iterable):
        rates = [as_real("dropout", dropout)]
        n_rates = n_hidden
    else:
        rates = [as_real(f"dropout[{l}]", rate) for l, rate in enumerate(dropout)]
        n_rates = 1
        if len(rates) != n_hidden:
            raise ValueError(
                f"dropout must be one number or one for each of the {n_hidden} hidden layers, "
                f"got {len(rates)} numbers"
            )
    for rate in rates:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout must be in [0, 1), got {rate!r}")
    return tuple(rates) * n_rates


def as_generator(seed: Any) -> np.random.Generator:
    """Return NumPy's generator for a seed, or the generator itself."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"seed must be None, an integer >= 0 or a numpy.random.Generator, got {seed!r}"
        ) from None


# What users of other libraries call an attribute.
_ALIASES = {"lr": "learning_rate", "eps": "epsilon", "betas": "beta_1", "coefs_": "weights"}


class Strict:
    """A base class whose public attributes are those that the class defines.

    A misspelt attribute raises AttributeError that suggests the intended one. Subclasses outside
    nncore may have attributes of their own.
    """

    def __setattr__(self, name: str, value: object) -> None:
        cls = type(self)
        if (
            not name.startswith("_")
            and not hasattr(cls, name)
            and cls.__module__.partition(".")[0] == "nncore"
        ):
            public = [known for known in dir(cls) if not known.startswith("_")]
            close = difflib.get_close_matches(_ALIASES.get(name, name), public, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}{hint}")
        super().__setattr__(name, value)
