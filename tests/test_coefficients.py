"""The coefficients of optimizers: their ranges, types and order."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import OPTIMIZERS, problem, refused

import nncore
from nncore import schedules

CLASSES = list(nncore.optimizers.OPTIMIZERS.values())

# Each range with values in it and others.
AT_LEAST_ZERO = ([0, 1e-9, 3, 1e6], [-1e-9, -1, np.nan, np.inf])
BELOW_ONE = ([0, 0.5, 0.999], [-0.1, 1, 2, np.nan])
POSITIVE = ([1e-30, 1], [0, -1e-8, np.nan, np.inf])

RANGES: list[tuple[Callable[..., nncore.Optimizer], str, list[float], list[float]]] = [
    *((create, "learning_rate", *AT_LEAST_ZERO) for create in CLASSES),
    *((create, "weight_decay", *AT_LEAST_ZERO) for create in CLASSES),
    (nncore.SGD, "momentum", *BELOW_ONE),
    (nncore.Adam, "beta_1", *BELOW_ONE),
    (nncore.Adam, "beta_2", *BELOW_ONE),
    (nncore.Adam, "epsilon", *POSITIVE),
    (nncore.RMSprop, "rho", *BELOW_ONE),
    (nncore.RMSprop, "momentum", *BELOW_ONE),
    (nncore.RMSprop, "epsilon", *POSITIVE),
]

FLAGS: list[tuple[Callable[..., nncore.Optimizer], str]] = [
    (nncore.SGD, "nesterov"),
    (nncore.Adam, "amsgrad"),
    (nncore.RMSprop, "centered"),
]


@pytest.mark.parametrize(
    ("create", "name", "value"),
    [(create, name, value) for create, name, good, _ in RANGES for value in good],
)
def test_coefficients_in_their_range_are_taken(
    create: Callable[..., nncore.Optimizer], name: str, value: float
) -> None:
    for kind in (float, np.float32, np.array):
        optimizer = create(**{name: kind(value)})
        assert getattr(optimizer, name) == float(kind(value))
        assert type(getattr(optimizer, name)) is float
        assert f"{name}={float(kind(value))!r}" in repr(optimizer)


@pytest.mark.parametrize(
    ("create", "name", "value"),
    [(create, name, value) for create, name, _, bad in RANGES for value in bad],
)
def test_coefficients_out_of_their_range_are_refused(
    create: Callable[..., nncore.Optimizer], name: str, value: float
) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be >=? 0 and .*, got {value}"):
        create(**{name: value})
    optimizer = create()
    with refused(ValueError, name, unchanged=[optimizer]):
        setattr(optimizer, name, value)


def test_integers_beyond_every_float_are_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate must be >= 0 and finite, got"):
        nncore.SGD(10**400)


@pytest.mark.parametrize("value", ["0.1", b"0.1", None, True, 1j, [0.1], np.array([0.1]), object()])
@pytest.mark.parametrize(("create", "name"), [row[:2] for row in RANGES])
def test_coefficients_of_another_type_are_refused(
    create: Callable[..., nncore.Optimizer], name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a real number.* got"):
        create(**{name: value})


@pytest.mark.parametrize("value", [1, "yes", None])
@pytest.mark.parametrize(("create", "name"), FLAGS)
def test_flags_of_another_type_are_refused(
    create: Callable[..., nncore.Optimizer], name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a bool, got"):
        create(**{name: value})
    optimizer = create()
    with refused(TypeError, f"{name} must be a bool", unchanged=[optimizer]):
        setattr(optimizer, name, value)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match=r"nesterov=True needs momentum > 0, got momentum=0\.0"):
        nncore.SGD(0.1, nesterov=True)


@pytest.mark.parametrize("value", [schedules.cosine, nncore.Adam, "cosine", [0.1], {}])
def test_what_is_neither_a_rate_nor_a_function_is_refused(value: Any) -> None:
    expected = r"learning_rate must be a real number, or a function of the step number such as "
    with pytest.raises(TypeError, match=expected):
        nncore.Adam(learning_rate=value)


def test_the_centered_form_may_be_chosen_until_there_is_a_state() -> None:
    net, X, Y = problem()
    optimizer = nncore.RMSprop(momentum=0.5)
    optimizer.centered = True
    net.fit(X, Y, optimizer=optimizer)
    with refused(ValueError, "centered cannot change", "got False", unchanged=[optimizer]):
        optimizer.centered = False
    optimizer.centered = True


def test_repr_gives_the_optimizer_back() -> None:
    for create in OPTIMIZERS.values():
        text = repr(create())
        assert repr(eval(text, {**vars(nncore), **vars(schedules)})) == text
    assert repr(nncore.Adam()) == (
        "Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-08, weight_decay=0.0, "
        "amsgrad=False)"
    )


def test_coefficients_are_the_constructors_arguments_in_its_order() -> None:
    for create in CLASSES:
        parameters = inspect.signature(create).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        assert list(create().coefficients.items()) == list(defaults.items())
