"""`nncore.check_loss`."""

from typing import Any

import numpy as np
import pytest
from custom_losses import Array, ClassLoss, Custom, residual, squared_error

import nncore
from nncore import reference
from nncore._kernel_calls import ERRORS
from nncore.architecture import ACTIVATIONS
from nncore.enums import Activation, Loss


@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_right_derivatives_pass(output: Any, n_outputs: int) -> None:
    loss = Custom(
        lambda A, Y: np.cos(A * Y).prod(axis=1),
        lambda A, Y: -np.tan(A * Y) * Y * np.cos(A * Y).prod(axis=1, keepdims=True),
    )
    assert nncore.check_loss(loss, n_outputs, output_activation=output) < 1e-8


@pytest.mark.parametrize("loss", ERRORS)
def test_losses_of_nncore_pass(loss: Loss) -> None:
    def delta(A: Array, Y: Array) -> Array:
        d = np.empty_like(A)
        reference.output_delta(d, A, Y, None, loss, Activation.IDENTITY)
        return d

    nncore.check_loss(Custom(lambda A, Y: reference.LOSSES[loss](A, Y, 1.0), delta), 3)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_a_derivative_off_by_one_in_a_hundred_thousand_is_found(factor: float) -> None:
    loss = Custom(
        lambda A, Y: factor * squared_error(A, Y), lambda A, Y: factor * 1.00001 * residual(A, Y)
    )
    with pytest.raises(AssertionError, match=r"Custom\.delta deviates"):
        nncore.check_loss(loss, 3)
    nncore.check_loss(loss, 3, tolerance=1e-4)


@pytest.mark.parametrize("wrong", [7.5, np.nan, np.inf])
def test_the_message_says_where_and_by_how_much(wrong: float) -> None:
    def delta(A: Array, Y: Array) -> Array:
        dA = residual(A, Y)
        dA[3, 1] = wrong
        return dA

    with pytest.raises(AssertionError, match=rf"in row 3, column 1: it is {wrong}, the difference"):
        nncore.check_loss(Custom(delta=delta), 2, n_examples=5)


def test_targets_may_be_given() -> None:
    nncore.check_loss(ClassLoss(), 4, Y=[0, 3, 1, 1, 2], output_activation="softmax")
    wrong = Custom(ClassLoss().value, lambda A, Y: -ClassLoss().delta(A, Y))
    with pytest.raises(AssertionError, match="the target is 1"):
        nncore.check_loss(wrong, 4, Y=[1, 1], output_activation="softmax")


@pytest.mark.parametrize("loss", ["squared_error", Custom, None, squared_error])
def test_only_objects_with_both_methods_are_losses(loss: Any) -> None:
    with pytest.raises(TypeError, match="loss must be an"):
        nncore.check_loss(loss)


def test_results_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Custom\.value must return"):
        nncore.check_loss(Custom(value=residual), 2)
    with pytest.raises(ValueError, match=r"Custom\.delta must return"):
        nncore.check_loss(Custom(delta=squared_error), 2)


@pytest.mark.parametrize(
    "options",
    [
        {"n_outputs": 0},
        {"n_examples": 0},
        {"output_activation": "softmx"},
        {"seed": -1},
        {"tolerance": "small"},
        {"Y": np.empty((0, 2))},
    ],
    ids=str,
)
def test_impossible_arguments_are_refused(options: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        nncore.check_loss(Custom(), **options)
