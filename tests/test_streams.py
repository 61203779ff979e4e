"""Examples in chunks: one pass per epoch, shuffled in a buffer, with bounded memory."""

import copy
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, assert_no_new_threads, data, make, refused

import nncore
from nncore import reading, streams
from nncore.callbacks import Checkpoint

N = 203


def chunks_of(arrays: Any, size: int) -> Callable[[], Iterator[Any]]:
    def chunks() -> Iterator[Any]:
        for first in range(0, len(arrays[0]), size):
            yield tuple(array[first : first + size] for array in arrays)

    return chunks


def problem(dtype: Any = "f4", loss: str = "squared_error") -> tuple[nncore.Network, Array, Array]:
    net = make([4, 6, 3], "relu", loss, dtype=dtype)
    return net, *data(net, N, np.random.default_rng(3))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1000)


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_a_stream_in_order_has_the_bits_of_arrays(size: int, weighted: bool, dtype: Any) -> None:
    net, X, Y = problem(dtype)
    twin = copy.deepcopy(net)
    # Such that their scaling by a power of two is 1.
    weights = np.random.default_rng(0).uniform(0.5, 1, N) * (np.arange(N) % 5 > 0)
    arrays = (X, Y, weights) if weighted else (X, Y)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "shuffle": False, "dropout": 0.2}
    options |= {"seed": 0, "metrics": ["r2", "mean_absolute_error"], "training_metrics": True}
    expected = net.fit(
        X,
        Y,
        sample_weight=weights if weighted else None,
        validation_data=arrays,
        **options,
    )
    stream = nncore.Stream(chunks_of(arrays, size))
    with assert_no_new_threads():
        history = twin.fit(stream, validation_data=stream, **options)
    assert twin.equals(net)
    assert np.allclose(history.loss, expected.loss, rtol=1e-12)
    assert np.allclose(history.validation_loss, expected.validation_loss, rtol=1e-12)
    for name, values in expected.metrics.items():
        assert np.allclose(history.metrics[name], values, rtol=1e-12)


@pytest.mark.parametrize("buffer", [1, 30, 100, 10_000])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("read_ahead", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_a_shuffled_stream_depends_on_the_seed_and_the_buffer_alone(
    buffer: int, n_threads: int, read_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, X, Y = problem()
    networks = [copy.deepcopy(net) for _ in range(4)]
    for other, size, seed in zip(networks, (10, 17, 203, 10), (0, 0, 0, 1), strict=True):
        if not read_ahead and size > 10:
            monkeypatch.setattr(streams, "ahead", lambda items, stop: items)
        stream = nncore.Stream(chunks_of((X, Y), size), buffer=buffer)
        other.fit(stream, epochs=2, batch_size=8, seed=seed, n_threads=n_threads)
    assert networks[0].equals(networks[1])
    assert networks[0].equals(networks[2])
    assert not networks[0].equals(networks[3])


class Log:
    """A loss that notes the examples of each batch."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []

    def value(self, A: Array, Y: Array) -> Any:
        return A[:, 0] * 0

    def delta(self, A: Array, Y: Array) -> Array:
        self.batches.append(Y[:, 0].tolist())
        return A * 0


def order_of(n: int, buffer: int, batch_size: int, epochs: int, **options: Any) -> list[Any]:
    log = Log()
    net = nncore.Network([1, 1], loss=log)
    Y = np.arange(n, dtype=float)[:, np.newaxis]
    stream = nncore.Stream(chunks_of((Y, Y), 13), buffer=buffer)
    net.fit(stream, batch_size=batch_size, epochs=epochs, optimizer="sgd", **options)
    return log.batches


@pytest.mark.parametrize(
    ("n", "buffer", "batch_size"),
    [(1, 5, 3), (12, 5, 3), (100, 10, 7), (101, 20, 5), (1000, 100, 16), (37, 1000, 8), (9, 1, 4)],
)
def test_each_epoch_has_every_example_once(n: int, buffer: int, batch_size: int) -> None:
    batches = order_of(n, buffer, batch_size, 3, seed=0)
    per_epoch = -(-n // batch_size)
    assert len(batches) == 3 * per_epoch
    epochs = [batches[i : i + per_epoch] for i in range(0, 3 * per_epoch, per_epoch)]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == list(range(n))
        assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (per_epoch - 1)
    if n > 10:
        assert epochs[0] != epochs[1] != epochs[2]


def test_examples_move_by_about_the_size_of_the_buffer() -> None:
    order = np.concatenate(order_of(10_000, 500, 10, 1, seed=0))
    moved = order - np.arange(10_000)
    assert 200 < np.abs(moved).mean() < 600
    # An example enters the buffer early, and may stay there.
    assert moved.max() <= 500
    assert np.abs(np.corrcoef(order[:-1], order[1:])[0, 1] - 1) < 0.05


def test_events_report_the_number_of_examples() -> None:
    net, X, Y = problem()
    seen = []

    def note(end: nncore.EpochEnd) -> None:
        seen.append(end.n_examples)

    net.fit(nncore.Stream(chunks_of((X, Y), 50)), epochs=2, callbacks=[note])
    assert seen == [N, N]


def test_the_number_of_examples_may_change_from_epoch_to_epoch() -> None:
    net, X, Y = problem()
    sizes, seen = iter([50, 203, 10]), []

    def chunks() -> Iterator[Any]:
        n = next(sizes)
        yield X[:n], Y[:n]

    def note(end: nncore.EpochEnd) -> None:
        seen.append(end.n_examples)

    history = net.fit(nncore.Stream(chunks), epochs=3, batch_size=8, callbacks=[note])
    assert seen == [50, 203, 10]
    assert len(history) == 3


@pytest.mark.parametrize("kind", ["classes", "vector", "uint8", "lists"])
def test_chunks_may_hold_what_fit_takes(kind: str) -> None:
    net, X, Y = problem(loss="cross_entropy" if kind == "classes" else "squared_error")
    if kind == "classes":
        Y = np.arange(N) % 3
    elif kind == "vector":
        net, Y = make([4, 1], dtype="float32"), Y[:, 0]
    elif kind == "uint8":
        X = np.random.default_rng(0).integers(0, 255, X.shape, np.uint8)
    twin = copy.deepcopy(net)
    chunks = chunks_of((X.tolist(), Y.tolist()) if kind == "lists" else (X, Y), 20)
    twin.fit(nncore.Stream(chunks), shuffle=False)
    net.fit(X, Y, shuffle=False)
    assert twin.equals(net)
    assert np.isclose(net.evaluate(nncore.Stream(chunks)), net.evaluate(X, Y), rtol=1e-12)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("every_steps", [17, 26, 30])
@pytest.mark.usefixtures("small_blocks")
def test_a_run_on_a_stream_resumes_with_the_same_bits(
    shuffle: bool, every_steps: int, tmp_path: Path
) -> None:
    net, X, Y = problem()
    twin, path = copy.deepcopy(net), tmp_path / "run.safetensors"
    options: dict[str, Any] = {"epochs": 4, "batch_size": 8, "shuffle": shuffle, "dropout": 0.1}
    stream = nncore.Stream(chunks_of((X, Y), 50), buffer=100)
    seed = np.random.default_rng(5)
    expected = net.fit(stream, seed=seed, **options)

    def stop(end: nncore.EpochEnd) -> None:
        if end.epoch == 3:
            raise StoppedError

    checkpoint = Checkpoint(path, every_steps=every_steps)
    with pytest.raises(StoppedError):
        twin.fit(stream, seed=np.random.default_rng(5), callbacks=[checkpoint, stop], **options)
    for _ in range(2):
        again, rng = make([4, 6, 3], "relu", dtype="float32", seed=9), np.random.default_rng()
        callbacks = [Checkpoint(path, every_steps=every_steps)]
        history = again.fit(stream, seed=rng, resume=path, callbacks=callbacks, **options)
        assert again.equals(net)
        assert history.loss == expected.loss
        assert rng.bit_generator.state == seed.bit_generator.state
    other = nncore.Stream(stream.chunks, buffer=99)
    with refused(ValueError, "X must be 'a stream", "buffer of 99", unchanged=[twin]):
        twin.fit(other, seed=seed, resume=path, **options)
    with refused(ValueError, "X must be 'a stream", unchanged=[twin]):
        twin.fit(X, Y, seed=seed, resume=path, **options)


# Errors


@pytest.mark.parametrize("where", ["call", "first", "chunk 3"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_exceptions_of_the_chunks_reach_the_caller(where: str, shuffle: bool) -> None:
    net, X, Y = problem()

    def chunks() -> Iterator[Any]:
        def rows() -> Iterator[Any]:
            for i in range(10):
                if i == {"first": 0, "chunk 3": 3}[where]:
                    raise StoppedError("the disk is gone")
                yield X[i * 20 : i * 20 + 20], Y[i * 20 : i * 20 + 20]

        if where == "call":
            raise StoppedError("the disk is gone")
        return rows()

    optimizer = nncore.Adam()
    with assert_no_new_threads(), pytest.raises(StoppedError, match="the disk is gone") as raised:
        net.fit(
            nncore.Stream(chunks, buffer=16), batch_size=8, optimizer=optimizer, shuffle=shuffle
        )
    number = 3 if where == "chunk 3" else 0
    assert raised.value.__notes__ == [f"nncore was reading chunk {number} of the stream"]
    assert np.isfinite(net.parameters).all()
    assert optimizer.step_count <= 60 // 8
    if where == "chunk 3":
        assert optimizer.step_count > 0


def bad(arrays: Any, i: int, change: Callable[[list[Any]], Any]) -> nncore.Stream:
    def chunks() -> Iterator[Any]:
        for number, chunk in enumerate(chunks_of(arrays, 50)()):
            yield change(list(chunk)) if number == i else chunk

    return nncore.Stream(chunks)


BAD: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "NaN": (lambda c: [c[0] * np.nan, c[1]], "X of chunk 2 must be finite, got nan in row 0"),
    "columns": (lambda c: [c[0][:, 1:], c[1]], r"X of chunk 2 must have shape \(n_samples, 4\)"),
    "targets": (lambda c: [c[0], c[1][:, 1:]], r"Y of chunk 2 must have shape \(n_samples, 3\)"),
    "rows": (lambda c: [c[0], c[1][1:]], "Y of chunk 2 must have as many rows as X, 50, got 49"),
    "weights": (lambda c: [*c, np.ones(50)], "chunk 2 must have arrays like those of the first"),
    "dtype": (lambda c: [c[0].astype("f8"), c[1]], "chunk 2 must have arrays like those"),
    "negative": (lambda c: [*c, -np.ones(50)], "sample_weight of chunk 2 must not be negative"),
    "array": (lambda c: c[0], "a chunk must be a tuple"),
    "one": (lambda c: c[:1], "a chunk must be a tuple .* of 1"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_chunks_that_are_wrong_are_named(change: Any, message: str) -> None:
    net, X, Y = problem()
    with assert_no_new_threads(), pytest.raises((ValueError, TypeError), match=message):
        net.fit(bad((X, Y), 2, change))


def test_arguments_beside_a_stream_are_refused(tmp_path: Path) -> None:
    net, X, Y = problem()
    stream = nncore.Stream(chunks_of((X, Y), 50))
    with refused(TypeError, "Y must come in the chunks", unchanged=[net]):
        net.fit(stream, Y)
    with refused(TypeError, "sample_weight must come in the chunks", unchanged=[net]):
        net.fit(stream, sample_weight=np.ones(N))
    with refused(ValueError, "validation_split needs", "validation_data", unchanged=[net]):
        net.fit(stream, validation_split=0.1)
    with refused(ValueError, "buffer must be", unchanged=[]):
        nncore.Stream(chunks_of((X, Y), 50), buffer=0)
    with refused(TypeError, "chunks must be a callable", "generator", unchanged=[]):
        nncore.Stream(chunks_of((X, Y), 50)())  # type: ignore[arg-type]
    for given in (stream.chunks, stream.chunks()):
        with refused(TypeError, "X must be an array", "nncore.Stream(chunks)", unchanged=[net]):
            net.fit(given)  # type: ignore[arg-type]
    with refused(TypeError, "X must hold real numbers", unchanged=[]):
        net.predict(stream)  # type: ignore[arg-type]


def test_a_stream_without_examples_is_refused() -> None:
    net, X, Y = problem()
    iterator = chunks_of((X, Y), 50)()
    with pytest.raises(ValueError, match=r"got no example; each call .* new iterator"):
        net.fit(nncore.Stream(lambda: iterator), epochs=2)
    with refused(ValueError, "sum above 0, got zeros only", unchanged=[]):
        net.fit(nncore.Stream(chunks_of((X, Y, np.zeros(N)), 50)))


def test_the_iterator_is_closed_in_its_thread_whatever_happens() -> None:
    net, X, Y = problem()
    threads: list[tuple[int, int]] = []

    def chunks() -> Iterator[Any]:
        opened = threading.get_ident()
        try:
            while True:
                yield X, Y
        finally:
            threads.append((opened, threading.get_ident()))

    def fail(step: int) -> float:
        if step == 100:
            raise StoppedError
        return 0.1

    def diverge(step: int) -> float:
        return 1e38

    net = make([4, 3], output="identity", dtype="float32")
    for rate, error in ((diverge, nncore.DivergenceError), (fail, StoppedError)):
        optimizer = nncore.SGD(rate)
        with assert_no_new_threads(), pytest.raises(error):
            net.fit(nncore.Stream(chunks), optimizer=optimizer)
    assert len(threads) == 2
    assert all(opened == closed != threading.get_ident() for opened, closed in threads)
