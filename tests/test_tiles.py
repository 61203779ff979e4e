"""The step on tiles against the kernels in NumPy, over shapes that fit no panel and no block."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import HIDDEN, PAIRS, Array, Stepper, Twin, assert_layers_close, data, make_lively
from hypothesis import given, settings
from hypothesis import strategies as st

import nncore
from nncore._layout import Examples, FlatVector
from nncore._step import span_of
from nncore.session import Session

DType = np.dtype[Any]

# Coefficients with which no parameter's step hangs on the last digits of a small gradient.
OPTIMIZERS: dict[str, Callable[[], nncore.Optimizer]] = {
    "plain": lambda: nncore.SGD(0.5, weight_decay=0.1),
    "momentum": lambda: nncore.SGD(0.5, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda: nncore.SGD(0.5, momentum=0.9, nesterov=True),
    "adam": lambda: nncore.Adam(0.1, epsilon=0.1, weight_decay=0.1),
    "adamw": lambda: nncore.AdamW(0.1, epsilon=0.1, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda: nncore.RMSprop(0.1, momentum=0.9, centered=True, epsilon=0.1),
}


class Tiles:
    """A network's calls on tiles, whatever NNCORE_KERNELS says, in spans of a chosen length."""

    def __init__(
        self,
        net: nncore.Network,
        batch_size: int,
        span: int,
        n_threads: int = 1,
        most_spans: int = 1,
    ) -> None:
        vector = FlatVector(net.parameters)
        vector.share()
        parts = (net.architecture, vector)
        self.net = net
        self.batch_size = batch_size
        options: dict[str, Any] = {"span": span, "most_spans": most_spans, "blas": False}
        self.steps = Session(*parts, batch_size, n_threads, **options)
        self.forward = Session(*parts, 0, n_threads, **options)

    def predict(self, X: Array) -> Array:
        with self.forward as session:
            outputs = session.outputs(Examples(X))
        assert outputs is not None
        return outputs

    def total_loss(self, X: Array, Y: Array, weights: Array | None = None) -> float:
        with self.forward as session:
            return session.total_loss(Examples(X, Y, weights))

    def gradient(self, X: Array, Y: Array, weights: Array | None = None) -> Array:
        total = len(X) if weights is None else float(weights.sum())
        out = np.full_like(self.net.parameters, np.nan)
        with self.steps as session:
            session.gradient(out, Examples(X, Y, weights), 1 / total)
        return out

    def epoch(
        self,
        X: Array,
        Y: Array,
        optimizer: nncore.Optimizer,
        order: Array | None = None,
        weights: Array | None = None,
    ) -> float:
        sums = np.zeros((-(-len(X) // self.batch_size), 3))
        with self.steps as session:
            session.use(optimizer, optimizer.rule())
            session.train(Examples(X, Y, weights), order, self.batch_size, 0, len(X), sums)
            session.write_back()
        return float(sums[:, 0].sum())


def tolerance(dtype: DType) -> float:
    """Half the digits, for small numbers left over from long sums; one wrong element shows more."""
    return float(np.sqrt(np.finfo(dtype).eps))


def check_forward(net: nncore.Network, tiles: Tiles, X: Array, Y: Array) -> None:
    twin, close = Twin(net), tolerance(net.dtype)
    expected = twin.outputs(X)[-1]
    np.testing.assert_allclose(tiles.predict(X), expected, rtol=close, atol=close)
    assert tiles.total_loss(X, Y) == pytest.approx(twin.total_loss(X, Y), rel=close)


def check_gradient(net: nncore.Network, tiles: Tiles, X: Array, Y: Array) -> None:
    twin = Twin(net)
    assert_layers_close(twin, tiles.gradient(X, Y), twin.gradient(X, Y), tolerance(net.dtype))


def check_epoch(
    net: nncore.Network, tiles: Tiles, X: Array, Y: Array, optimizer: nncore.Optimizer
) -> None:
    stepper = Stepper(Twin(net), optimizer)
    expected = stepper.epoch(X, Y, tiles.batch_size)
    close = tolerance(net.dtype)
    assert tiles.epoch(X, Y, optimizer) / len(X) == pytest.approx(expected, rel=close)
    assert optimizer.step_count == stepper.step_count
    assert_layers_close(stepper.twin, net.parameters, stepper.twin.parameters, close)
    for vector, wanted in zip(optimizer.state, stepper.state, strict=False):
        assert_layers_close(stepper.twin, vector, wanted, close)


def problem(
    sizes: list[int], n: int, dtype: Any, **options: Any
) -> tuple[nncore.Network, Array, Array]:
    net = make_lively(sizes, dtype=dtype, **options)
    # Outputs that do not saturate, however many inputs they have.
    for W in net.weights:
        W /= max(1, np.sqrt(len(W)) / 4)
    return net, *data(net, n, np.random.default_rng(sum(sizes) + n))


def check(sizes: list[int], batch_size: int, span: int, dtype: Any, **options: Any) -> None:
    """Compare all that a workspace can do, with a last batch that is shorter."""
    n = batch_size + (batch_size + 1) // 2
    net, X, Y = problem(sizes, n, dtype, **options)
    tiles = Tiles(net, batch_size, span)
    check_forward(net, tiles, X, Y)
    check_gradient(net, tiles, X, Y)
    before = net.parameters.copy()
    for create in OPTIMIZERS.values():
        net.parameters = before
        check_epoch(net, tiles, X, Y, create())


# Against the reference


@pytest.mark.parametrize("n", range(1, 41))
def test_every_width_of_a_layer_equals_the_reference(n: int, dtype: DType) -> None:
    check([n, 41 - n, n], 19, 7, dtype)


@pytest.mark.parametrize("batch_size", [*range(1, 20), 31, 32, 33, 63, 65, 127, 128, 129, 140, 257])
@pytest.mark.parametrize("n_parameters", [426, 1_000_000])
def test_every_size_of_a_batch_equals_the_reference(
    batch_size: int, n_parameters: int, dtype: DType
) -> None:
    check([13, 21, 6], batch_size, span_of(batch_size, n_parameters, False), dtype)


@pytest.mark.parametrize("n", [63, 64, 65, 127, 128, 129, 255, 256, 257, 300, 511, 513, 1025])
def test_every_length_of_the_inner_sums_equals_the_reference(n: int, dtype: DType) -> None:
    """In (1) of the first layer, in (4) through the last, and in the tiles of (5)."""
    check([n, 9, n], 11, 11, dtype, output="identity")


@pytest.mark.parametrize(("loss", "output"), PAIRS)
@pytest.mark.parametrize("sizes", [[11, 18, 17, 5], [1, 19, 1, 37, 1, 1], [21, 1]], ids=str)
def test_every_activation_and_loss_equals_the_reference(
    sizes: list[int], loss: str, output: str, dtype: DType
) -> None:
    """In layers of a single unit, too, whose products are formed along the other layer."""
    hidden = HIDDEN[(HIDDEN.index(output) + 1) % len(HIDDEN)] if output in HIDDEN else "tanh"
    if loss == "cross_entropy":
        sizes = [*sizes[:-1], max(2, sizes[-1])]  # of a single class the loss is 0
    check(sizes, 23, 9, dtype, hidden=hidden, loss=loss, output=output)


edges = st.sampled_from([1, 4, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 127, 128, 129, 255, 256, 257])
widths = st.integers(1, 40) | edges


@given(
    sizes=st.lists(widths, min_size=2, max_size=4),
    batch_size=st.integers(1, 140),
    span=st.integers(1, 140),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_shape_equals_the_reference(
    sizes: list[int], batch_size: int, span: int, dtype: str
) -> None:
    check(sizes, batch_size, min(span, batch_size), dtype)


# What the result does not depend on


@given(
    sizes=st.lists(widths, min_size=2, max_size=4),
    n=st.integers(1, 140),
    spans=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_spans_do_not_change_a_bit(
    sizes: list[int], n: int, spans: tuple[int, int], dtype: str
) -> None:
    """An example's row never meets another's, and (5) adds examples up in their order."""
    net, X, Y = problem(sizes, n, dtype)
    before = net.parameters.copy()
    results = []
    for span in spans:
        net.parameters = before
        tiles = Tiles(net, n, min(span, n))
        bits = [tiles.predict(X).tobytes(), tiles.gradient(X, Y).tobytes()]
        optimizer = nncore.Adam()
        tiles.epoch(X, Y, optimizer)
        results.append([*bits, net.parameters.tobytes(), *map(bytes, optimizer.state)])
    assert results[0] == results[1]


@given(
    sizes=st.lists(widths, min_size=2, max_size=4),
    n=st.integers(1, 140),
    span=st.integers(1, 40),
    most_spans=st.integers(2, 9),
    n_threads=st.integers(1, 3),
    weighted=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_spans_taken_at_a_time_change_no_bit_and_no_sum(
    sizes: list[int], n: int, span: int, most_spans: int, n_threads: int, weighted: bool
) -> None:
    net, X, Y = problem(sizes, n, "float32")
    weights = np.linspace(0, 2, n, dtype="float32") + 0.5 if weighted else None
    before = net.parameters.copy()
    results = []
    for many, threads in ((1, 1), (most_spans, n_threads)):
        net.parameters = before
        tiles = Tiles(net, n, min(span, n), threads, many)
        bits = [tiles.predict(X).tobytes(), tiles.gradient(X, Y, weights).tobytes()]
        losses = [tiles.total_loss(X, Y, weights)]
        with tiles.steps as session:  # also in the workspace of a batch
            losses.append(session.total_loss(Examples(X, Y, weights)))
            session.use(nncore.SGD(0.1), nncore.SGD(0.1).rule())
            sums = np.empty((1, 3))
            session.train(Examples(X, Y, weights), None, n, 0, n, sums)
        results.append([*bits, *losses, *sums[0, :2]])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "sizes", [[3, 5, 1], [17, 9, 33], [16, 32, 8], [1, 1], [1, 9, 1], [21, 1, 33]]
)
def test_calls_do_not_depend_on_earlier_ones(sizes: list[int], dtype: DType) -> None:
    """Not in the padding of the panels either, and not of a longer batch."""

    def results(tiles: Tiles) -> list[bytes]:
        optimizer = nncore.Adam()
        net.parameters = before
        return [
            tiles.predict(X).tobytes(),
            tiles.gradient(X, Y).tobytes(),
            np.float64(tiles.epoch(X, Y, optimizer)).tobytes(),
            net.parameters.tobytes(),
            *map(bytes, optimizer.state),
        ]

    net, X, Y = problem(sizes, 21, dtype)
    before = net.parameters.copy()
    expected = results(Tiles(net, 29, 6))
    used = Tiles(net, 29, 6)
    bad = np.full((29, sizes[0]), np.nan, dtype)
    targets = np.zeros((29, sizes[-1]), dtype)
    assert np.isnan(used.predict(bad)).all()
    assert np.isnan(used.gradient(bad, targets)).any()
    assert np.isnan(used.epoch(bad, targets, nncore.Adam()))
    assert results(used) == expected


# Sources of other types and layouts


def packed(array: Array) -> Array:
    """Return the array within records of an odd length, so that its elements are not aligned."""
    records = np.zeros(array.shape, dtype=[("before", "u1"), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


def between(array: Array) -> Array:
    """Return the array as every third row and every second column of another."""
    other = np.zeros((3 * array.shape[0], 2 * array.shape[1]), dtype=array.dtype)
    other[::3, ::2] = array
    return other[::3, ::2]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C order": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "between others": between,
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
    "unaligned": packed,
    "beside others": lambda array: np.hstack([array, array])[:, : array.shape[1]],
}


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("source", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("n_in", [1, 7, 37])
def test_examples_of_any_type_and_layout_give_the_bits_of_plain_ones(
    change: Callable[[Array], Array], source: str, n_in: int, dtype: DType, rng: np.random.Generator
) -> None:
    def results(X: Array, Y: Array) -> list[bytes]:
        net = make_lively([n_in, 9, 3], dtype=dtype)
        tiles = Tiles(net, 13, 5)
        bits = [tiles.predict(X).tobytes(), tiles.gradient(X, Y).tobytes()]
        tiles.epoch(X, Y, nncore.SGD(0.01), order)
        return [*bits, net.parameters.tobytes()]

    X, Y = (rng.uniform(0, 4, (31, n)).astype(source) for n in (n_in, 3))
    order = rng.permutation(31)
    expected = results(X.astype(dtype), Y.astype(dtype))
    assert results(change(X), change(Y)) == expected


def test_one_row_may_stand_for_many(rng: np.random.Generator) -> None:
    row = rng.uniform(size=(1, 7)).astype(np.float32)
    many = np.broadcast_to(row, (31, 7))
    tiles = Tiles(make_lively([7, 9, 3], dtype="float32"), 13, 5)
    assert (tiles.predict(many) == tiles.predict(row)).all()


@pytest.mark.parametrize("source", ["float64", "uint8"])
def test_training_on_another_type_gives_the_bits_of_the_converted_data(
    source: str, rng: np.random.Generator
) -> None:
    def result(X: Array) -> bytes:
        net = make_lively([37, 9, 3], dtype="float32")
        net.fit(X, Y, batch_size=53, epochs=2, seed=0, optimizer=nncore.SGD(0.01))
        return net.parameters.tobytes()

    X = rng.uniform(0, 9, (211, 37)).astype(source)
    Y = rng.uniform(size=(211, 3)).astype(np.float32)
    assert result(X) == result(X.astype(np.float32))


@pytest.mark.parametrize("source", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("call", ["fit", "predict", "evaluate", "gradient"])
def test_data_of_these_types_are_not_copied(call: str, source: str) -> None:
    n = 2**15
    X = np.ones((n, 128), dtype=source)
    Y = np.ones((n, 1), dtype=np.float32)
    net = nncore.Network([128, 8, 1], seed=0)
    arguments = (X,) if call == "predict" else (X, Y)
    tracemalloc.start()
    try:
        getattr(net, call)(*arguments)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside workspaces an order of the rows at most, and never a row itself.
    assert peak < X.nbytes / 4
    assert peak < 8 * n + 2**19
