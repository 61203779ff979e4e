"""Inputs, targets and weights that are accepted, and give the bits of plain arrays."""

import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import TAKES_X, Array, N, Setting, make, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

import nncore


class Frame:
    """Data of another library, which NumPy converts with `__array__`."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array if dtype is None else self.array.astype(dtype)


def unaligned(array: Array) -> Array:
    buffer = np.empty(array.nbytes + 1, dtype=np.uint8)
    result = buffer[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


def frozen(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


ACCEPTED: dict[str, Callable[[Array], Any]] = {
    "float16": lambda a: a.astype("f2"),
    "float32": lambda a: a.astype("f4"),
    "float64": lambda a: a.astype("f8"),
    "longdouble": lambda a: a.astype("g"),
    "int8": lambda a: a.astype("i1"),
    "uint64": lambda a: a.astype("u8"),
    "bool": lambda a: a.astype(bool),
    "big-endian float32": lambda a: a.astype(">f4"),
    "big-endian float64": lambda a: a.astype(">f8"),
    "big-endian int16": lambda a: a.astype(">i2"),
    "list": lambda a: a.tolist(),
    "list of rows": list,
    "tuple of tuples": lambda a: tuple(map(tuple, a.tolist())),
    "object": lambda a: a.astype(object),
    "decimal": lambda a: [[Decimal(x) for x in row] for row in a.tolist()],
    "fraction": lambda a: [[Fraction(x) for x in row] for row in a.tolist()],
    "frame": Frame,
    "frame of int": lambda a: Frame(a.astype(int)),
    "matrix": lambda a: a.view(np.matrix),
    "masked": np.ma.array,
    "read-only": frozen,
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "every other": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "unaligned": unaligned,
    "memoryview": lambda a: np.ascontiguousarray(a).data,
}


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("convert", ACCEPTED.values(), ids=ACCEPTED)
def test_every_kind_of_array_gives_the_bits_of_the_plain_one(
    kind: str, convert: Callable[[Array], Any]
) -> None:
    setting = Setting([4, 5, 2], dtype=kind)
    # Numbers that every type holds.
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(0, 2, (N, n)).astype(kind) for n in (4, 2))
    assert setting.net.predict(convert(X)).tobytes() == setting.net.predict(X).tobytes()
    expected = [A.tobytes() for A in setting.net.layer_outputs(X)]
    assert [A.tobytes() for A in setting.net.layer_outputs(convert(X))] == expected
    assert setting.net.evaluate(convert(X), convert(Y)) == setting.net.evaluate(X, Y)
    expected_gradient = setting.net.gradient(X, Y).tobytes()
    assert setting.net.gradient(convert(X), convert(Y)).tobytes() == expected_gradient
    nets = [make([4, 5, 2], dtype=kind) for _ in range(2)]
    for net, pair in zip(nets, [(X, Y), (convert(X), convert(Y))], strict=True):
        optimizer = nncore.SGD(0.1)
        history = net.fit(*pair, batch_size=7, optimizer=optimizer, seed=0, validation_data=pair)
        assert len(history.validation_loss) == 1
        net.train_on_batch(*pair, optimizer)
    assert nets[0].equals(nets[1])


@pytest.mark.parametrize(
    "weights",
    [
        np.arange(1, N + 1).astype(">i4"),
        np.arange(1, N + 1).astype("f2"),
        np.arange(2 * N + 2)[2::2] // 2,
        np.arange(1, N + 1)[::-1].copy()[::-1],
        list(range(1, N + 1)),
        Frame(np.arange(1, N + 1)),
        frozen(np.arange(1.0, N + 1)),
    ],
)
def test_every_kind_of_weights_gives_the_bits_of_the_plain_ones(weights: Any) -> None:
    setting = Setting([4, 5, 2])
    plain = np.arange(1, N + 1, dtype=np.float32)
    given = setting.net.gradient(setting.X, setting.Y, sample_weight=weights)
    expected = setting.net.gradient(setting.X, setting.Y, sample_weight=plain)
    assert given.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", "i4"])
def test_data_are_never_written_to(kind: str) -> None:
    for loss in ("squared_error", "binary_cross_entropy", "cross_entropy"):
        setting = Setting([4, 5, 2], loss)
        X, Y = setting.X.astype(kind), setting.Y.round().astype(kind)
        Y[:, 0] = 1 - Y[:, 1]
        weights = np.ones(N, dtype=kind)
        for array in (X, Y, weights):
            array.flags.writeable = False
        before = snapshot(X, Y, weights)
        for call in TAKES_X:
            options = {} if call in ("predict", "layer_outputs") else {"sample_weight": weights}
            setting.call(call, X, Y, **options)
        assert snapshot(X, Y, weights) == before


def test_numbers_too_small_for_the_networks_type_become_zero(setting: Setting) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny = setting.net.predict(np.full((1, 4), 1e-300))
    assert tiny.tobytes() == setting.net.predict(np.zeros((1, 4))).tobytes()


# Any shape, any strides, any byte order, any type.


@st.composite
def views(draw: st.DrawFn, n: int, columns: int) -> Array:
    """Return an (n, columns) view of small integers, of any type and with any strides."""
    kind = draw(st.sampled_from("bBhHiIlLefdg?"))
    dtype = np.dtype(draw(st.sampled_from("<>")) + kind)
    step = [draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in range(2)]
    transposed = draw(st.booleans())
    shape = (n * abs(step[0]), columns * abs(step[1]))
    values = draw(hnp.arrays(np.dtype(np.uint8), shape, elements=st.integers(0, 9)))
    array = values.astype(dtype)
    if transposed:
        array = np.asfortranarray(array)
    view: Array = array[:: step[0], :: step[1]]
    if draw(st.booleans()):
        view.flags.writeable = False
    return view


@pytest.mark.parametrize("kind", ["f4", "f8"])
@given(draw=st.data())
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_any_layout_gives_the_bits_of_the_plain_array(kind: str, draw: st.DataObject) -> None:
    n = draw.draw(st.integers(1, 12), "n")
    sizes = [draw.draw(st.integers(1, 6), "n_0"), 3, draw.draw(st.integers(1, 4), "n_L")]
    net = make(sizes, output="identity", dtype=kind)
    X, Y = draw.draw(views(n, sizes[0]), "X"), draw.draw(views(n, sizes[-1]), "Y")
    before = X.tobytes(), Y.tobytes()
    plain_X, plain_Y = (np.array(a.tolist(), dtype=kind, ndmin=2) for a in (X, Y))
    assert plain_X.shape == X.shape
    assert net.predict(X).tobytes() == net.predict(plain_X).tobytes()
    assert net.layer_outputs(X)[0].tobytes() == net.layer_outputs(plain_X)[0].tobytes()
    assert net.evaluate(X, Y) == net.evaluate(plain_X, plain_Y)
    assert net.gradient(X, Y).tobytes() == net.gradient(plain_X, plain_Y).tobytes()
    twin = make(sizes, output="identity", dtype=kind)
    batch_size = draw.draw(st.integers(1, 15), "batch_size")
    net.fit(X, Y, batch_size=batch_size, seed=0)
    twin.fit(plain_X, plain_Y, batch_size=batch_size, seed=0)
    assert net.equals(twin)
    assert (X.tobytes(), Y.tobytes()) == before


@given(shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_any_shape_is_predicted_or_refused(shape: tuple[int, ...]) -> None:
    net = make([3, 2])
    if len(shape) in (1, 2) and shape[-1] == 3:
        assert net.predict(np.ones(shape)).shape == (*shape[:-1], 2)
        assert net.layer_outputs(np.ones(shape))[0].shape == (*shape[:-1], 2)
    else:
        with pytest.raises(ValueError, match="X must have shape"):
            net.predict(np.ones(shape))


@given(
    value=st.one_of(
        st.none(),
        st.text(max_size=3),
        st.binary(max_size=3),
        st.complex_numbers(),
        st.floats(),
        st.lists(
            st.one_of(
                st.text(max_size=2),
                st.none(),
                st.floats(),
                st.lists(st.integers(), max_size=2),
            ),
            max_size=2,
        ),
        st.dictionaries(st.integers(), st.integers(), max_size=2),
        st.sets(st.integers(), max_size=3),
    )
)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_values_that_are_not_matrices_are_refused(value: Any) -> None:
    net = make([3, 2])
    with pytest.raises((TypeError, ValueError), match="X must"):
        net.predict(value)
