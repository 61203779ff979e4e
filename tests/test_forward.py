"""Predictions of a few rows, computed on plain arrays, and of many rows."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from helpers import HIDDEN, Array

import nncore
from nncore import reference
from nncore._forward import ForwardPass
from nncore._kernels import KERNELS
from nncore.typing import ActivationName, LossName

DType = np.dtype[Any]

MOST_ROWS = 16


def make(sizes: list[int], **options: Any) -> nncore.Network:
    """Return a network whose biases are not 0 and whose outputs are not saturated."""
    net = nncore.Network(sizes, init="normal", seed=0, **options)
    net.parameters *= 0.3
    return net


def forward_pass(net: nncore.Network) -> ForwardPass:
    return ForwardPass(net.architecture, net.parameters)


def expected(net: nncore.Network, X: Array) -> Array:
    A = X
    for W, b, layer in zip(net.weights, net.biases, net.architecture.layers, strict=True):
        Z = np.empty((len(X), b.size), net.dtype)
        reference.forward(Z, A, W, b, layer.activation, slope=layer.slope)
        A = Z
    return A


@pytest.mark.parametrize("n_rows", [0, 1, 2, 3, MOST_ROWS])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 131])
def test_a_few_rows_agree_with_numpy_whatever_the_width(
    dtype: DType, rng: np.random.Generator, n: int, n_rows: int
) -> None:
    net = make([n + 2, n, 2], dtype=dtype, activation=["tanh", "sigmoid"])
    X = rng.standard_normal((n_rows, n + 2)).astype(dtype)
    outputs = forward_pass(net).predict(X)
    assert outputs is not None
    assert outputs.dtype == dtype
    tolerance = 64 * np.finfo(dtype).eps * np.sqrt(n)
    np.testing.assert_allclose(outputs, expected(net, X), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("output", [*HIDDEN, "softmax"])
def test_every_activation_is_applied(dtype: DType, rng: np.random.Generator, output: str) -> None:
    loss: LossName = "cross_entropy" if output == "softmax" else "squared_error"
    net = make([5, 6, 11], dtype=dtype, activation=["elu", output], loss=loss)
    X = rng.standard_normal((3, 5)).astype(dtype)
    outputs = forward_pass(net).predict(X)
    assert outputs is not None
    tolerance = 64 * np.finfo(dtype).eps
    np.testing.assert_allclose(outputs, expected(net, X), rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("sizes", [[784, 30, 10], [3, 1], [17, 40, 33, 9, 1], [300, 300, 5]])
def test_a_row_has_the_same_bits_among_few_and_among_many(
    dtype: DType, rng: np.random.Generator, sizes: list[int]
) -> None:
    net = make(sizes, dtype=dtype)
    X = rng.standard_normal((101, sizes[0])).astype(dtype)
    many = net.predict(X)
    assert net.predict(X[:1]).tobytes() == many[:1].tobytes()
    assert net.predict(X[50:63]).tobytes() == many[50:63].tobytes()
    assert net.predict(X[50:63], n_threads=1).tobytes() == many[50:63].tobytes()


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("output", ["softmax", "sigmoid", "softplus"])
def test_saturated_outputs_have_the_same_bits_among_few_and_among_many(
    dtype: DType, rng: np.random.Generator, output: ActivationName
) -> None:
    """Subnormal numbers are 0 in both."""
    loss: LossName = "cross_entropy" if output == "softmax" else "squared_error"
    net = nncore.Network([5, 7], output_activation=output, loss=loss, dtype=dtype, seed=0)
    smallest = np.log(np.finfo(dtype).smallest_subnormal)
    X = (rng.uniform(0.5, 1.1, (400, 5)) * rng.choice([-1, 1], (400, 5)) * -smallest).astype(dtype)
    many = net.predict(X)
    assert np.concatenate([net.predict(x[np.newaxis]) for x in X]).tobytes() == many.tobytes()


@pytest.mark.parametrize("n_rows", [3, 400])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_doubles_that_are_not_finite_floats_are_found(n_rows: int, bad: float) -> None:
    net = nncore.Network([6, 4], dtype="float32", seed=0)
    X = np.ones((n_rows, 6))
    X[-2, 3] = bad
    with pytest.raises(ValueError, match=f"X must be finite, got .* in row {n_rows - 2}"):
        net.predict(X)


# Types as NumPy writes them, and layouts.
TYPES = [*"efdgbBhHiIlLqQ?", ">e", ">f", ">d", ">i", ">Q"]
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "backwards": lambda a: a[::-1, ::-1],
    "fortran": np.asfortranarray,
    "every other": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "broadcast": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "unaligned": lambda a: (
        np.frombuffer(b"x" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


def numbers(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return numbers from the whole range of a type, as far as float32 has it."""
    dtype = np.dtype(kind)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        native = dtype.newbyteorder("=")
        values = rng.integers(limits.min, limits.max, shape, native, endpoint=True)
    elif dtype.kind == "b":
        values = rng.integers(0, 2, shape)
    else:
        low, high = (-7, 4) if dtype.itemsize == 2 else (-45, 38)
        values = rng.choice([-1, 1], shape) * 10 ** rng.uniform(low, high, shape)
    converted: Array = values.astype(dtype)
    return converted


def lean(sizes: list[int], dtype: DType) -> nncore.Network:
    """Return a network that keeps inputs of any magnitude apart and finite."""
    return nncore.Network(sizes, activation="identity", dtype=dtype, init="he_normal", seed=0)


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("n", [1, 7, 12, 32, 33])
@pytest.mark.parametrize("kind", TYPES)
def test_a_few_rows_of_any_type_have_the_bits_of_many(
    dtype: DType, rng: np.random.Generator, kind: str, n: int
) -> None:
    net = lean([n, 3], dtype)
    X = numbers(kind, (40, n), rng)
    many = net.predict(X)
    for begin, end in ((0, 1), (5, 7), (20, 36)):
        few = forward_pass(net).predict(X[begin:end])
        assert few is not None
        assert few.tobytes() == many[begin:end].tobytes()


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", ["f", "d", "B", "i", ">d"])
def test_a_few_rows_of_any_layout_have_the_bits_of_many(
    dtype: DType, rng: np.random.Generator, kind: str, change: Callable[[Array], Array]
) -> None:
    net = make([13, 5, 2], dtype=dtype)
    X = numbers(kind, (MOST_ROWS, 13), rng)
    few = forward_pass(net).predict(change(X))
    assert few is not None
    many = net.predict(np.tile(change(X), (2, 1)))
    assert few.tobytes() == many[:MOST_ROWS].tobytes()


ROWS: dict[str, Any] = {
    "floats": [0.1, -2.5, 1e-300],
    "tuple": (0.1, -2.5, 1e-300),
    "integers": [1, -2, 2**53],
    "booleans": [True, False, True],
    "mixed": [1, 0.1, True],
    "scalars": [np.float16(0.1), np.float32(0.1), np.float64(0.1)],
    "long doubles": [np.longdouble(1) / 3, np.longdouble(0.1), 2],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_lists_of_numbers_have_the_bits_of_their_array(dtype: DType, row: Any) -> None:
    few = forward_pass(make([3, 4, 2], dtype=dtype))
    expected = few.predict(np.asarray(row))
    assert expected is not None
    given = row, [row, row], (tuple(row),), [np.asarray(row)]
    for X, shape in zip(given, [(2,), (2, 2), (1, 2), (1, 2)], strict=True):
        outputs = few.predict(X)
        assert outputs is not None
        assert outputs.shape == shape
        assert (outputs == expected).all()


def test_a_list_that_shrinks_while_it_is_read_is_an_error() -> None:
    class Shrinking(np.float32):
        def __float__(self) -> float:
            row.clear()
            return 1.0

    row = [Shrinking(1), 1.0, 1.0]
    with pytest.raises(IndexError):
        forward_pass(make([3, 2])).predict(row)


class Row(list[float]):
    pass


UNSUITABLE: dict[str, Callable[[Array], Any]] = {
    "NaN": lambda X: X * np.nan,
    "infinite": lambda X: X * np.inf,
    "infinite in both types": lambda X: X.astype("g") * np.longdouble("1e4000"),
    "too few columns": lambda X: X[:, :3],
    "a short row": lambda X: X[0, :3],
    "no dimension": lambda X: np.array(1.0),
    "three dimensions": lambda X: X[np.newaxis],
    "many rows": lambda X: np.ones((MOST_ROWS + 1, 4)),
    "masked": np.ma.masked_array,
    "matrix": lambda X: X.view(np.matrix),
    "objects": lambda X: X.astype(object),
    "complex": lambda X: X.astype(complex),
    "strings": lambda X: X.astype(str),
    "datetime": lambda X: X.astype("M8[s]"),
    "timedelta": lambda X: X.astype("m8[s]"),
    "None": lambda X: None,
    "no rows": lambda X: [],
    "empty row": lambda X: [[]],
    "a short list": lambda X: [1.0] * 3,
    "a long list": lambda X: [1.0] * 5,
    "ragged": lambda X: [[1.0] * 4, [1.0] * 3],
    "a number among rows": lambda X: [[1.0] * 4, 1.0],
    "a row among numbers": lambda X: [1.0, 1.0, 1.0, [1.0]],
    "many lists": lambda X: [[1.0] * 4] * (MOST_ROWS + 1),
    "a list of NaN": lambda X: [1.0, 1.0, 1.0, np.nan],
    "large integers": lambda X: [1, 2, 3, 2**53 + 1],
    "huge integers": lambda X: [1, 2, 3, 10**400],
    "a list of strings": lambda X: ["1"] * 4,
    "a list of complex numbers": lambda X: [1j] * 4,
    "decimals": lambda X: [Decimal(1)] * 4,
    "a list of timedeltas": lambda X: [np.timedelta64(1, "s")] * 4,
    "a subclass of list": lambda X: Row([1.0] * 4),
    "a list of a matrix": lambda X: [X],
    "a list of arrays": list,
}


@pytest.mark.parametrize("change", UNSUITABLE.values(), ids=UNSUITABLE)
def test_the_fast_path_leaves_everything_else_alone(
    dtype: DType, change: Callable[[Array], Any]
) -> None:
    few = forward_pass(make([4, 3], dtype=dtype))
    X = np.ones((2, 4))
    unsuitable = change(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert few.predict(unsuitable) is None
    assert few.predict(X) is not None


@pytest.mark.parametrize("kind", ["d", ">d", "g"])
def test_doubles_beyond_float32_do_not_qualify(kind: str) -> None:
    few = forward_pass(make([4, 3], dtype="float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert few.predict(np.full(4, 1e39).astype(kind)) is None
        assert few.predict([1e39] * 4) is None


def test_concurrent_predictions_do_not_disturb_each_other(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([12, 64, 64, 4], dtype=dtype)
    X = rng.standard_normal((4, 12))
    expected = [net.predict(x).tobytes() for x in X]

    def predict(i: int) -> set[bytes]:
        out = np.empty(4, dtype)
        given = (X[i], X[i].tolist(), X[i, ::-1].copy()[::-1])
        return {net.predict(x, out=out).tobytes() for _ in range(100) for x in given}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predict, range(4))) == [{bits} for bits in expected]


def test_every_call_reads_the_current_parameters(dtype: DType) -> None:
    net = nncore.Network([2, 1], dtype=dtype)
    net.parameters = np.array([1, 2, 3])
    X = np.ones((1, 2), dtype)
    assert net.predict(X).item() == 6
    net.biases[0][:] = 4
    assert net.predict(X).item() == 7


@pytest.mark.parametrize("row", [0, 31, 32, 500, 998])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_fast_path_finds_numbers_that_are_not_finite(
    dtype: DType, rng: np.random.Generator, row: int, value: float, n_threads: int
) -> None:
    net = make([7, 5, 2], dtype=dtype)
    X = rng.standard_normal((999, 7)).astype(dtype)
    good = net.predict(X, n_threads=n_threads)
    X[row, -1], kept = value, X[row, -1]
    with pytest.raises(ValueError, match=rf"X must be finite, got {value} in row {row}$"):
        net.predict(X, n_threads=n_threads)
    X[row, -1] = kept
    assert net.predict(X, n_threads=n_threads).tobytes() == good.tobytes()


@pytest.mark.parametrize("count", [1, 3, 31, 32, 33, 100])
def test_any_single_flaw_in_a_few_rows_is_found(dtype: DType, count: int) -> None:
    few = forward_pass(nncore.Network([count, 2], dtype=dtype, seed=0))
    X = np.zeros((1, count), dtype)
    assert few.predict(X) is not None
    for j in range(count):
        X[0, j] = np.nan
        assert few.predict(X) is None
        X[0, j] = np.finfo(dtype).max
        assert few.predict(X) is not None
        X[0, j] = 0
