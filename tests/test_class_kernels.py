"""(2) and (3) of cross entropy from class indices, in the kernels of both twins."""

import math
from types import ModuleType

import numpy as np
import pytest
from kernel_cases import Close, DType, normal, outputs_and_targets, weights_or_none
from numpy.testing import assert_allclose, assert_array_equal

from nncore import _kernels
from nncore.enums import Activation, Loss

SHAPES = [(0, 3), (1, 1), (1, 13), (13, 1), (7, 17), (129, 67)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("N", "n"), SHAPES)
def test_loss_of_classes_is_that_of_targets_of_one_in_their_columns(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    weighted: bool,
    N: int,
    n: int,
) -> None:
    A, Y = outputs_and_targets(rng, dtype, Loss.CROSS_ENTROPY, N, n)
    sample_weight = weights_or_none(rng, dtype, N, weighted)
    total = twin.class_loss(A, Y.argmax(axis=1), sample_weight)
    assert isinstance(total, float)
    close(total, twin.loss(A, Y, sample_weight, Loss.CROSS_ENTROPY))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("N", "n"), SHAPES)
def test_delta_of_classes_is_that_of_targets_of_one_in_their_columns(
    twin: ModuleType,
    dtype: DType,
    rng: np.random.Generator,
    weighted: bool,
    N: int,
    n: int,
) -> None:
    A, Y = outputs_and_targets(rng, dtype, Loss.CROSS_ENTROPY, N, n)
    sample_weight = weights_or_none(rng, dtype, N, weighted)
    expected, delta = np.empty_like(A), np.full_like(A, np.nan)
    twin.output_delta(expected, A, Y, sample_weight, Loss.CROSS_ENTROPY, Activation.SOFTMAX)
    twin.class_delta(delta, A, Y.argmax(axis=1), sample_weight)
    assert_array_equal(delta, expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_class_delta_equals_central_differences_of_the_class_loss(
    twin: ModuleType, rng: np.random.Generator, weighted: bool
) -> None:
    dtype, h = np.dtype(np.float64), 1e-5
    Z, classes = normal(rng, dtype, 5, 7), rng.integers(7, size=5)
    sample_weight = weights_or_none(rng, dtype, 5, weighted)
    A, delta, differences = np.empty_like(Z), np.empty_like(Z), np.empty_like(Z)

    def loss(z: float, at: tuple[int, ...]) -> float:
        moved = Z.copy()
        moved[at] = z
        twin.forward(A, moved, np.eye(7), np.zeros(7), Activation.SOFTMAX)
        total: float = twin.class_loss(A, classes, sample_weight)
        return total

    for at, z in np.ndenumerate(Z):
        differences[at] = (loss(z + h, at) - loss(z - h, at)) / (2 * h)
    twin.forward(A, Z, np.eye(7), np.zeros(7), Activation.SOFTMAX)
    twin.class_delta(delta, A, classes, sample_weight)
    assert_allclose(delta, differences, atol=1e-8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_example_of_weight_zero_has_no_loss_and_no_delta(
    twin: ModuleType, dtype: DType, bad: float
) -> None:
    A, delta = np.full((3, 11), 0.5, dtype), np.full((3, 11), np.nan, dtype)
    A[1] = bad
    classes, sample_weight = np.array([0, 5, 10]), np.array([1, 0, 2], dtype)
    total = twin.class_loss(A, classes, sample_weight)
    twin.class_delta(delta, A, classes, sample_weight)
    assert_allclose(total, 3 * math.log(2), rtol=1e-6)
    assert_array_equal(delta[1], np.zeros(11))


@pytest.mark.parametrize("at", [0, 9, 10])
def test_nan_passes_on(twin: ModuleType, dtype: DType, at: int) -> None:
    A, delta = np.full((3, 11), 0.5, dtype), np.empty((3, 11), dtype)
    A[1, at] = np.nan
    assert math.isnan(twin.class_loss(A, np.full(3, at), None))
    twin.class_delta(delta, A, np.zeros(3, np.intp), None)
    assert_array_equal(np.isnan(delta), np.isnan(A))


@pytest.mark.parametrize("a", [0.0, 1e-30])
def test_saturated_probabilities_are_clipped(twin: ModuleType, dtype: DType, a: float) -> None:
    total = twin.class_loss(np.full((1, 3), a, dtype), np.array([1]), None)
    assert_allclose(total, -math.log(np.finfo(dtype).eps), rtol=1e-6)


def test_delta_may_overwrite_the_outputs(
    twin: ModuleType, dtype: DType, rng: np.random.Generator
) -> None:
    A, expected = rng.uniform(size=(13, 35)).astype(dtype), np.empty((13, 35), dtype)
    classes = rng.integers(35, size=13)
    twin.class_delta(expected, A, classes, None)
    twin.class_delta(A, A, classes, None)
    assert_array_equal(A, expected)


@pytest.mark.parametrize("kernel", ["class_loss", "class_delta"])
@pytest.mark.parametrize("wrong", [-1, 4, 2**40])
def test_classes_outside_the_columns_are_refused(
    dtype: DType, rng: np.random.Generator, kernel: str, wrong: int
) -> None:
    delta, A, classes = normal(rng, dtype, 3, 4), normal(rng, dtype, 3, 4), np.array([0, wrong, 3])
    arrays = [delta, A] if kernel == "class_delta" else [A]
    before = delta.copy()
    with pytest.raises(ValueError, match=rf"needs .* in \[0, n\).* got .*\(3,\) from .*{wrong}"):
        getattr(_kernels, kernel)(*arrays, classes, None)
    assert_array_equal(delta, before)
