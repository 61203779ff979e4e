"""A single example of one dimension, and `predict` into a given array."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Array, make, make_lively

DType = np.dtype[Any]


@pytest.fixture(params=["chosen", "blas"])
def any_kernels(request: pytest.FixtureRequest) -> None:
    if request.param == "blas":
        request.getfixturevalue("on_blas")


SINGLE: dict[str, Callable[[Array], Any]] = {
    "array": lambda x: x,
    "integers": lambda x: x.astype(int),
    "list": np.ndarray.tolist,
    "objects": lambda x: x.astype(object),
}


@pytest.mark.usefixtures("any_kernels")
@pytest.mark.parametrize("convert", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("sizes", [[5, 4, 3], [1, 4, 1], [1, 1], [700, 300, 5]], ids=str)
def test_an_array_of_one_dimension_is_a_single_example(
    sizes: list[int], convert: Callable[[Array], Any], dtype: DType, rng: np.random.Generator
) -> None:
    net = make(sizes, dtype=dtype)
    x = rng.integers(-2, 3, sizes[0]).astype(dtype)
    outputs = net.layer_outputs(x[np.newaxis])
    single = net.layer_outputs(convert(x))
    assert [A.shape for A in single] == [(n,) for n in sizes[1:]]
    assert [A.tobytes() for A in single] == [A.tobytes() for A in outputs]
    assert net.predict(convert(x)).shape == (sizes[-1],)
    assert net.predict(convert(x)).tobytes() == outputs[-1].tobytes()


@pytest.mark.usefixtures("any_kernels")
@pytest.mark.parametrize("shape", [(5,), (0, 5), (1, 5), (3, 5), (100, 5)], ids=str)
@pytest.mark.parametrize("kind", ["f4", "f8", "list", "fortran"])
def test_outputs_are_stored_in_the_given_array(
    shape: tuple[int, ...], kind: str, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], dtype=dtype)
    X = np.asfortranarray(rng.standard_normal(shape).astype("f4"))
    given = X if kind == "fortran" else X.tolist() if kind == "list" else X.astype(kind, order="C")
    if shape[0] == 0:
        given = np.zeros(shape, dtype)
    out = np.full((*shape[:-1], 3), np.nan, dtype)
    assert net.predict(given, out=out) is out
    assert out.tobytes() == net.predict(given).tobytes()


@pytest.mark.usefixtures("any_kernels")
@pytest.mark.parametrize("sizes", [[4, 4], [4, 70, 4], [4, 3, 5, 4]], ids=str)
@pytest.mark.parametrize("n", [1, 16, 100])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_outputs_may_overlap_with_inputs(
    sizes: list[int], n: int, shift: int, dtype: DType, rng: np.random.Generator
) -> None:
    net = make(sizes, dtype=dtype)
    memory = rng.standard_normal(4 * n + shift).astype(dtype)
    X, out = memory[: 4 * n].reshape(n, 4), memory[shift:].reshape(n, 4)
    expected = net.predict(X.copy())
    assert net.predict(X, out=out).tobytes() == expected.tobytes()


@pytest.mark.usefixtures("any_kernels")
def test_outputs_may_be_stored_in_the_parameters(dtype: DType) -> None:
    net = make_lively([5, 70], dtype=dtype)
    x = np.ones(5)
    expected = net.predict(x)
    assert net.predict(x, out=net.biases[0]).tobytes() == expected.tobytes()
    assert net.predict(x).tobytes() != expected.tobytes()


UNFIT: dict[str, tuple[Any, type[Exception], str]] = {
    "list": ([[0.0] * 3] * 2, TypeError, "be a NumPy array, got list"),
    "too few rows": (np.zeros((1, 3), "f4"), ValueError, r"have shape \(2, 3\) .*, got \(1, 3\)"),
    "too many columns": (
        np.zeros((2, 4), "f4"),
        ValueError,
        r"have shape \(2, 3\) .*, got \(2, 4\)",
    ),
    "one dimension": (np.zeros(3, "f4"), ValueError, r"have shape \(2, 3\) .*, got \(3,\)"),
    "another type": (np.zeros((2, 3)), ValueError, ".*dtype float32, got .* float64"),
    "big-endian": (np.zeros((2, 3), ">f4"), ValueError, ".*dtype float32, got .* >f4"),
    "Fortran order": (np.zeros((3, 2), "f4").T, ValueError, "be C-contiguous .*, got strides"),
    "every other": (np.zeros((2, 6), "f4")[:, ::2], ValueError, "be C-contiguous .*, got strides"),
    "read-only": (np.broadcast_to(np.float32(0), (2, 3)), ValueError, "be C-contiguous"),
    "frozen": (np.frombuffer(bytes(24), "f4").reshape(2, 3), ValueError, ".*got a read-only"),
}


@pytest.mark.usefixtures("any_kernels")
@pytest.mark.parametrize(("out", "error", "message"), UNFIT.values(), ids=UNFIT)
def test_arrays_that_do_not_fit_the_outputs_are_refused(
    out: Any, error: type[Exception], message: str
) -> None:
    net = make([5, 4, 3], dtype="float32")
    before = np.array(out)
    for X in (np.ones((2, 5), "f4"), [[1] * 5] * 2):
        with pytest.raises(error, match=f"out must {message}"):
            net.predict(X, out=out)
    assert np.array(out).tobytes() == before.tobytes()


@pytest.mark.usefixtures("any_kernels")
@pytest.mark.parametrize("n", [1, 100])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_an_error_leaves_the_array_for_the_outputs_alone(n: int, kind: str) -> None:
    net = make([5, 4, 3], dtype="float32")
    X, out = np.ones((n, 5), kind), np.ones((n, 3), "f4")
    X[-1, -1] = np.nan
    with pytest.raises(ValueError, match=f"X must be finite, got nan in row {n - 1}"):
        net.predict(X, out=out)
    assert (out == 1).all()
