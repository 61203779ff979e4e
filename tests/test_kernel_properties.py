"""What holds for every kernel: NaN passes, and nothing but the outputs is written."""

import inspect
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kernel_cases import COUNTS, Array, Close, DType, copies, each, every_call, normal
from numpy.testing import assert_array_equal

from nncore import _kernels, reference
from nncore._kernel_calls import CALLS, ELEMENTWISE, KEPT, PAIRS, SHAPES, Call
from nncore.enums import Activation, Loss

# exp, log and first_beyond


@pytest.mark.parametrize("count", COUNTS)
def test_exp_and_log_are_those_of_the_mathematics(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator, count: int
) -> None:
    x, out = normal(rng, dtype, count), np.full(count, np.nan, dtype)
    twin.exp(out, x)
    close(out, each(math.exp, x))
    x = np.abs(x)
    twin.log(out, x)
    close(out, each(math.log, x))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.5, -3.5])
def test_first_beyond_finds_every_place(twin: ModuleType, dtype: DType, bad: float) -> None:
    x = np.zeros(700, dtype)
    for place in range(x.size):
        x[place:] = bad
        assert twin.first_beyond(x, 3.0) == place
        x[place + 1 :] = 0
        assert twin.first_beyond(x, 3.0) == place
        x[place] = 0


def test_first_beyond_of_values_within_is_the_length(twin: ModuleType, dtype: DType) -> None:
    largest = np.full(700, np.finfo(dtype).max, dtype)
    for count in range(largest.size):
        assert twin.first_beyond(largest[:count], float(np.finfo(dtype).max)) == count


# NaN


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("n", [1, 3, 8, 21])
def test_forward_passes_nan_of_an_example_to_all_its_outputs_and_no_others(
    twin: ModuleType, dtype: DType, activation: Activation, n: int
) -> None:
    A_prev = np.ones((5, 3), dtype)
    A_prev[2, 1] = np.nan
    A = np.empty((5, n), dtype)
    twin.forward(A, A_prev, np.ones((3, n), dtype), np.zeros(n, dtype), activation)
    expected = np.zeros((5, n), bool)
    expected[2] = True
    assert_array_equal(np.isnan(A), expected)


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("at", [0, 4, 20])
def test_forward_passes_nan_of_a_bias_on(
    twin: ModuleType, dtype: DType, activation: Activation, at: int
) -> None:
    b = np.zeros(21, dtype)
    b[at] = np.nan
    A = np.empty((2, 21), dtype)
    twin.forward(A, np.ones((2, 3), dtype), np.ones((3, 21), dtype), b, activation)
    expected = np.ones(21, bool) if activation == Activation.SOFTMAX else np.isnan(b)
    assert_array_equal(np.isnan(A), [expected, expected])


@pytest.mark.parametrize("activation", ELEMENTWISE)
def test_delta_passes_nan_of_the_next_delta_on(
    twin: ModuleType, dtype: DType, activation: Activation
) -> None:
    delta = np.ones((3, 2), dtype)
    delta[1, 0] = np.nan
    # Zero activations: relu's slope of 0 must not hide the NaN either.
    delta_prev = np.empty((3, 11), dtype)
    twin.delta(delta_prev, delta, np.ones((11, 2), dtype), np.zeros((3, 11), dtype), activation)
    assert_array_equal(np.isnan(delta_prev).all(axis=1), [False, True, False])


@pytest.mark.parametrize(("loss", "activation"), [p for p in PAIRS if p[0] != Loss.CUSTOM])
@pytest.mark.parametrize("which", [0, 1])
def test_output_delta_passes_nan_on(
    twin: ModuleType, dtype: DType, loss: Loss, activation: Activation, which: int
) -> None:
    arrays = [np.full((3, 11), 0.5, dtype), np.full((3, 11), 0.25, dtype)]
    arrays[which][1, 9] = np.nan
    delta = np.empty((3, 11), dtype)
    derivatives = arrays[0] if activation in KEPT else None
    twin.output_delta(delta, *arrays, None, loss, activation, derivatives)
    assert_array_equal(np.isnan(delta), np.isnan(arrays[which]))


@pytest.mark.parametrize("activation", Activation)
def test_output_delta_passes_nan_of_a_given_derivative_on(
    twin: ModuleType, dtype: DType, activation: Activation
) -> None:
    dA, A = np.ones((3, 11), dtype), np.full((3, 11), 0.5, dtype)
    dA[1, 9] = np.nan
    delta = np.empty((3, 11), dtype)
    derivatives = A if activation in KEPT else None
    twin.output_delta(delta, A, dA, None, Loss.CUSTOM, activation, derivatives)
    expected = np.isnan(dA)
    if activation == Activation.SOFTMAX:
        expected[1] = True
    assert_array_equal(np.isnan(delta), expected)


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("at", [0, 9, 10])
def test_loss_passes_nan_on(
    twin: ModuleType, dtype: DType, loss: Loss, which: int, at: int
) -> None:
    arrays = [np.full((3, 11), 0.5, dtype), np.zeros((3, 11), dtype)]
    arrays[which][1, at] = np.nan
    assert math.isnan(twin.loss(*arrays, None, loss))


def test_loss_passes_nan_of_a_weight_on(twin: ModuleType, dtype: DType) -> None:
    A, Y = np.ones((3, 2), dtype), np.zeros((3, 2), dtype)
    sample_weight = np.array([1, np.nan, 1], dtype)
    assert math.isnan(twin.loss(A, Y, sample_weight, Loss.SQUARED_ERROR))


def test_gradient_passes_nan_to_the_weights_it_belongs_to(twin: ModuleType, dtype: DType) -> None:
    delta, A_prev = np.ones((4, 5), dtype), np.ones((4, 3), dtype)
    delta[2, 1] = np.nan
    dW, db = np.empty((3, 5), dtype), np.empty(5, dtype)
    twin.gradient(dW, db, delta, A_prev, 1.0)
    column = [False, True, False, False, False]
    assert_array_equal(np.isnan(dW), [column] * 3)
    assert_array_equal(np.isnan(db), column)


@pytest.mark.parametrize("at", [0, 5, 20])
def test_updates_pass_nan_to_the_parameter_it_belongs_to(
    twin: ModuleType, dtype: DType, at: int
) -> None:
    gradient = np.ones(21, dtype)
    gradient[at] = np.nan
    for update, n_states, scalars in (
        (twin.sgd, 0, (0.1, 0.0)),
        (twin.momentum, 1, (0.1, 0.9, False, 0.0)),
        (twin.adam, 2, (0.1, 0.9, 0.999, 1e-8, 0.0)),
        (twin.amsgrad, 3, (0.1, 0.9, 0.999, 1e-8, 0.0)),
        (twin.rmsprop, 3, (0.1, 0.99, 0.9, 1e-8, 0.0)),
    ):
        parameters = np.ones(21, dtype)
        states = [np.zeros(21, dtype) for _ in range(n_states)]
        update(parameters, *states, gradient, *scalars)
        for changed in (parameters, *states):
            assert_array_equal(np.isnan(changed), np.isnan(gradient))


# One call of each kernel, with everything that its branches depend on


# The others are made of kernels.
KERNELS = sorted(set(reference.__all__) - {"backprop", "backward", "step"})


def test_every_kernel_has_a_call() -> None:
    assert {call.kernel for call in CALLS} == set(KERNELS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_twins_have_the_same_parameters(kernel: str) -> None:
    def parameters(twin: ModuleType) -> list[tuple[str, Any]]:
        signature = inspect.signature(getattr(twin, kernel))
        return [(p.name, p.default) for p in signature.parameters.values()]

    assert parameters(_kernels) == parameters(reference)


@every_call
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_reference(
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    call: Call,
    shape: tuple[int, int, int],
) -> None:
    compiled = call.arrays(rng, dtype, *shape)
    expected = copies(compiled)
    result, expected_result = call.run(_kernels, compiled), call.run(reference, expected)
    if not call.n_outputs:
        close(result, expected_result)
    for array, expected_array in zip(compiled, expected, strict=True):
        close(array, expected_array, magnitude=max(shape) / 8)


@every_call
def test_inputs_are_not_changed(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays = call.arrays(rng, dtype, 7, 13, 17)
    before = copies(arrays)
    call.run(twin, arrays)
    for array, old in list(zip(arrays, before, strict=True))[call.n_outputs :]:
        assert_array_equal(array, old)


@every_call
def test_read_only_inputs_are_accepted(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays = call.arrays(rng, dtype, 7, 13, 17)
    writable = copies(arrays)
    for array in arrays[call.n_outputs :]:
        array.flags.writeable = False
    assert call.run(twin, arrays) == call.run(twin, writable)
    for array, expected in zip(arrays, writable, strict=True):
        assert_array_equal(array, expected)


@pytest.mark.parametrize("call", [c for c in CALLS if c.n_outputs and c.overwrites], ids=str)
def test_outputs_are_overwritten_even_if_they_held_nan(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays = call.arrays(rng, dtype, 7, 13, 17)
    expected = copies(arrays)
    for output in arrays[: call.n_outputs]:
        output[...] = np.nan
    call.run(twin, arrays)
    call.run(twin, expected)
    for output, expected_output in zip(arrays, expected, strict=True):
        assert_array_equal(output, expected_output)


@pytest.mark.parametrize(
    "call",
    [c for c in CALLS if c.kernel in ("loss", "output_delta", "class_loss", "class_delta")],
    ids=str,
)
def test_no_sample_weight_means_ones(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, call: Call
) -> None:
    arrays: list[Any] = call.arrays(rng, dtype, 7, 13, 17)
    place = len(arrays) - call.n_last - 1
    arrays[place][...] = 1
    expected = copies(arrays)
    weighted = call.run(twin, expected)
    arrays[place] = None
    unweighted = call.run(twin, arrays)
    # Without weights the rows' bounds do not matter, and the sum is formed in another order.
    assert unweighted == (weighted and pytest.approx(weighted, rel=8 * float(np.finfo(dtype).eps)))
    assert_array_equal(arrays[0], expected[0])


# Far from everything that the calls compute, so that reading it shows as well as writing over it.
GUARD = 2**30


def between_guards(array: Array) -> tuple[Array, Array]:
    """Return a copy of the array that lies, unaligned to any vector, inside a larger buffer."""
    before, after = 37, 41
    buffer = np.full(before + array.size + after, GUARD, array.dtype)
    inside = buffer[before : before + array.size].reshape(array.shape)
    inside[...] = array
    return inside, buffer


@every_call
@pytest.mark.parametrize("N", [1, 3])
def test_nothing_outside_the_arrays_is_read_or_written(
    dtype: DType, close: Close, rng: np.random.Generator, call: Call, N: int
) -> None:
    for width in range(1, 41):
        expected = call.arrays(rng, dtype, N, 41 - width, width)
        guarded = [between_guards(array) for array in expected]
        inside = [array for array, _ in guarded]
        result, expected_result = call.run(_kernels, inside), call.run(reference, expected)
        if not call.n_outputs:
            close(result, expected_result)
        for (array, buffer), expected_array in zip(guarded, expected, strict=True):
            close(array, expected_array)
            assert np.count_nonzero(buffer == GUARD) == buffer.size - array.size
