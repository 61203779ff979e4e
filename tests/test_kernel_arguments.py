"""Arguments that the compiled kernels reject, and the memory for vectors."""

from typing import Any

import numpy as np
import pytest
from kernel_cases import DType, copies
from numpy.testing import assert_array_equal

from nncore import _kernels, _layout
from nncore._kernel_calls import CALLS, Call
from nncore.enums import Activation, Loss


def every_array(calls: list[Call]) -> list[Any]:
    return [
        pytest.param(call, position, id=f"{call}-{position}")
        for call in calls
        for position in range(len(call.shapes.split()))
    ]


def floating_arrays(calls: list[Call]) -> list[Any]:
    return [case for case in every_array(calls) if case.values[1] != case.values[0].classes]


# One call per kernel: checks do not depend on the other arguments.
FIRST_CALLS = list({call.kernel: call for call in reversed(CALLS)}.values())
SEVERAL_ARRAYS = [call for call in FIRST_CALLS if " " in call.shapes]


@pytest.mark.parametrize(
    ("call", "position", "axis"),
    [
        pytest.param(call, position, axis, id=f"{call}-{position}-{axis}")
        for call in SEVERAL_ARRAYS
        for position, word in enumerate(call.shapes.split())
        for axis in (0, -1)
        if call.shapes.count(word[axis]) > 1  # otherwise any size fits
    ],
)
@pytest.mark.parametrize("size", [0, 11])
def test_wrong_shape_is_refused_naming_it(
    rng: np.random.Generator, call: Call, position: int, axis: int, size: int
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    shape = list(arrays[position].shape)
    shape[axis] = size
    arrays[position] = np.full(shape, 0.5).astype(arrays[position].dtype)
    before = copies(arrays)
    with pytest.raises(ValueError, match=rf"needs .* got .*\b{size}\b"):
        call.run(_kernels, arrays)
    for array, old in zip(arrays, before, strict=True):
        assert_array_equal(array, old)


@pytest.mark.parametrize(("call", "position"), floating_arrays(SEVERAL_ARRAYS))
def test_mixed_dtypes_are_refused_naming_them(
    dtype: DType, rng: np.random.Generator, call: Call, position: int
) -> None:
    arrays = call.arrays(rng, dtype, 3, 5, 7)
    other = np.float32 if dtype == np.float64 else np.float64
    arrays[position] = arrays[position].astype(other)
    with pytest.raises((TypeError, ValueError), match=r"float.*double|double.*float"):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(("call", "position"), every_array(FIRST_CALLS))
def test_non_contiguous_arrays_are_refused(
    rng: np.random.Generator, call: Call, position: int
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    arrays[position] = np.repeat(arrays[position], 2, axis=-1)[..., ::2]
    with pytest.raises((TypeError, ValueError), match="contiguous"):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(
    ("call", "position"),
    [case for case in every_array(FIRST_CALLS) if case.values[1] < case.values[0].n_outputs],
)
def test_read_only_outputs_are_refused(rng: np.random.Generator, call: Call, position: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    arrays[position].flags.writeable = False
    with pytest.raises((TypeError, ValueError), match="read-only"):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(("call", "position"), floating_arrays(FIRST_CALLS))
@pytest.mark.parametrize("other", ["int64", "float16", "complex128", "object"])
def test_other_types_are_refused(
    rng: np.random.Generator, call: Call, position: int, other: str
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    arrays[position] = arrays[position].astype(other)
    with pytest.raises((TypeError, ValueError)):
        call.run(_kernels, arrays)


@pytest.mark.parametrize(("call", "position"), every_array(FIRST_CALLS))
def test_foreign_byte_order_is_refused(rng: np.random.Generator, call: Call, position: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float32), 3, 5, 7)
    arrays[position] = arrays[position].astype(arrays[position].dtype.newbyteorder())
    with pytest.raises((TypeError, ValueError), match="endian"):
        call.run(_kernels, arrays)


NUMBERED = [call for call in FIRST_CALLS if any(isinstance(s, Activation) for s in call.scalars)]
LOSSES = [call for call in FIRST_CALLS if any(isinstance(s, Loss) for s in call.scalars)]


@pytest.mark.parametrize("call", NUMBERED, ids=str)
@pytest.mark.parametrize("unknown", [len(Activation), 1000, -1, 2**40])
def test_unknown_activation_is_refused(rng: np.random.Generator, call: Call, unknown: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    with pytest.raises(ValueError, match=f"Activation.*{unknown}"):
        getattr(_kernels, call.kernel)(*arrays, *call.scalars[:-1], unknown)


@pytest.mark.parametrize("call", LOSSES, ids=str)
@pytest.mark.parametrize("unknown", [len(Loss), 1000, -1, 2**40])
def test_unknown_loss_is_refused(rng: np.random.Generator, call: Call, unknown: int) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    with pytest.raises(ValueError, match=f"Loss.*{unknown}"):
        getattr(_kernels, call.kernel)(*arrays, unknown, *call.scalars[1:])


@pytest.mark.parametrize("call", NUMBERED, ids=str)
@pytest.mark.parametrize("wrong", ["sigmoid", 1.5, None])
def test_activation_that_is_no_integer_is_refused(
    rng: np.random.Generator, call: Call, wrong: object
) -> None:
    arrays = call.arrays(rng, np.dtype(np.float64), 3, 5, 7)
    with pytest.raises(TypeError):
        getattr(_kernels, call.kernel)(*arrays, *call.scalars[:-1], wrong)


def test_sizes_beyond_the_integers_of_blas_are_refused() -> None:
    """Empty arrays have such sizes without the memory; BLAS would see a negative number."""
    n_prev = 2**31
    A, b = np.empty((0, 0)), np.empty(0)
    with pytest.raises(ValueError, match=str(n_prev)):
        _kernels.forward(A, np.empty((0, n_prev)), np.empty((n_prev, 0)), b, Activation.SIGMOID)


# Memory


@pytest.mark.parametrize("count", [1, 1000, 1_000_000])
def test_aligned_zeros_begin_at_a_cache_line(dtype: DType, count: int) -> None:
    x = _layout.aligned_zeros(count, dtype)
    assert x.shape == (count,)
    assert x.dtype == dtype
    assert x.ctypes.data % 64 == 0
    assert not x.any()
    x[:] = 1
