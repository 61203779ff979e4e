"""Checks of single values that a user passes in: numbers, names, seeds, attributes.

Each function returns the checked value or raises an error that names the argument, what was
expected and what was got.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "LARGEST",
    "Strict",
    "as_bool",
    "as_coefficient",
    "as_custom_loss",
    "as_dropout",
    "as_generator",
    "as_integer",
    "as_real",
    "one_of",
    "suggestion",
]

T = TypeVar("T")

# The largest matrix dimension: BLAS counts rows and columns in 32-bit integers.
LARGEST = 2**31 - 1


# What nncore calls the attributes and names of other libraries.
_ALIASES = {
    # attributes
    "alpha": "rho",
    "betas": "beta_1",
    "coefs_": "weights",
    "eps": "epsilon",
    "lr": "learning_rate",
    # activations
    "exp": "exponential",
    "expit": "sigmoid",
    "linear": "identity",
    "logistic": "sigmoid",
    "swish": "silu",
    # losses
    "bce": "binary_cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "l1": "absolute_error",
    "l2": "squared_error",
    "log_loss": "cross_entropy",
    "mae": "absolute_error",
    "mse": "squared_error",
    "nll": "cross_entropy",
    "quadratic": "squared_error",
    "smooth_l1": "huber",
    "sparse_categorical_crossentropy": "cross_entropy",
    # initial parameters
    "gaussian": "normal",
    "glorot": "glorot_uniform",
    "kaiming": "he_uniform",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier": "glorot_uniform",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    # optimizers
    "amsgrad": "adam",
    "gd": "sgd",
    "momentum": "sgd",
    "rms": "rmsprop",
    "sgdm": "sgd",
    # metrics
    "acc": "accuracy",
    "r2_score": "r2",
    # types
    "bfloat16": "float32",
    "float16": "float32",
    "fp16": "float32",
    "fp32": "float32",
    "fp64": "float64",
}


def suggestion(name: object, known: Collection[str]) -> str:
    """Return the end of a message that suggests one of the known names, "" if none is close."""
    if not isinstance(name, str):
        return ""
    meanings = {alias: meant for alias, meant in _ALIASES.items() if meant in known}
    meanings |= {own: own for own in known}
    close = difflib.get_close_matches(name.lower(), meanings, n=1)
    return f"; did you mean {meanings[close[0]]!r}?" if close else ""


def one_of(name: str, value: object, table: Mapping[str, T]) -> T:
    """Return the entry of the table under the name `value`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {sorted(table)}, got {value!r}")
    if value not in table:
        raise ValueError(
            f"{name} must be one of {sorted(table)}, got {value!r}{suggestion(value, table)}"
        )
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


def as_coefficient(
    name: str, value: object, *, below: float = math.inf, positive: bool = False
) -> float:
    """Return `value` as a float from 0 to less than `below`; with `positive`, more than 0."""
    number = as_real(name, value)
    if not (0 <= number < below) or (positive and number == 0):
        sign = ">" if positive else ">="
        bound = "finite" if below == math.inf else f"< {below:g}"
        raise ValueError(f"{name} must be {sign} 0 and {bound}, got {value!r}")
    return number


def as_custom_loss(loss: object, or_else: str = "") -> Any:
    """Return the object if it has the methods of `nncore.typing.CustomLoss`."""
    if isinstance(loss, type):
        raise TypeError(f"loss must be an instance, e.g. {loss.__name__}(), got the class")
    if not all(callable(getattr(loss, method, None)) for method in ("value", "delta")):
        raise TypeError(
            f"loss must be {or_else}an object with the methods value(A, Y) and delta(A, Y), "
            f"got {loss!r}"
        )
    return loss


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
            raise AttributeError(
                f"{cls.__name__} has no attribute {name!r}{suggestion(name, public)}"
            )
        super().__setattr__(name, value)
