"""Examples that arrive in chunks, from a database, a dataset of files or a generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._arrays import LEAST_WEIGHT, as_matrix, as_targets, as_vector, check_not_negative
from ._checks import as_integer
from ._layout import Examples
from .architecture import Architecture
from .enums import Loss
from .reading import ahead, rows_of_a_block
from .training import Piece, Pieces

__all__ = ["Stream", "StreamData", "Streamed"]

Array = npt.NDArray[Any]
Chunk: TypeAlias = tuple[npt.ArrayLike, npt.ArrayLike] | tuple[npt.ArrayLike, ...]

_NAMES = ("X", "Y", "sample_weight")


class Stream:
    """Examples in chunks, read anew in every epoch, for `Network.fit` and `Network.evaluate`.

    Memory is bounded by the buffer and the chunks, however many examples there are; their number
    need not be known.

    Parameters
    ----------
    chunks : callable
        Called without arguments once per epoch. Returns an iterable of chunks: tuples (X, Y) or
        (X, Y, sample_weight) of arrays as `Network.fit` takes them, with any number of rows. A
        thread calls it and takes the chunks, while training uses those before.
    buffer : int, default 10000
        How many examples are kept in memory to shuffle them: a block of batches is drawn from the
        buffer at random, and the next examples take their places. So examples move by about so many
        places. Chunks that are sorted, by class for example, need a buffer larger than such a run.

    Raises
    ------
    TypeError, ValueError
        An argument is invalid.

    Notes
    -----
    `shuffle` and `seed` of `Network.fit` say whether and how to shuffle. The result depends on the
    sequence of the examples and the size of the buffer, not on where chunks end. Weights count as
    they are, so those below 2^-100, in float64 2^-900, count as 0.

    Examples
    --------
    >>> import numpy as np
    >>> import nncore
    >>> def chunks():
    ...     rng = np.random.default_rng(0)
    ...     for _ in range(10):
    ...         X = rng.random((500, 2), dtype=np.float32)
    ...         yield X, X.sum(axis=1)
    >>> net = nncore.Network([2, 1], seed=0)
    >>> stream = nncore.Stream(chunks, buffer=1000)
    >>> history = net.fit(stream, epochs=5, optimizer=nncore.Adam(0.01), seed=0)
    >>> net.evaluate(stream) < 1e-3
    True
    """

    def __init__(self, chunks: Callable[[], Iterable[Chunk]], buffer: int = 10_000) -> None:
        if not callable(chunks):
            raise TypeError(
                "chunks must be a callable that returns an iterator of chunks, for each epoch a "
                f"new one, got {type(chunks).__name__}"
            )
        self.chunks = chunks
        self.buffer = as_integer("buffer", buffer)

    def __repr__(self) -> str:
        return f"Stream({self.chunks!r}, buffer={self.buffer})"


class Streamed:
    """What `Examples` are for arrays in memory.

    Parameters
    ----------
    stream : Stream
    architecture : Architecture

    Attributes
    ----------
    n : None
        The number of examples is not known.
    """

    def __init__(self, stream: Stream, architecture: Architecture) -> None:
        self.stream, self.architecture = stream, architecture
        self.n = None

    def __str__(self) -> str:
        return f"a stream with a buffer of {self.stream.buffer} examples"


class StreamData:
    """`training.Data` of a stream; an order is the seed of a shuffled epoch."""

    def __init__(self, streamed: Streamed) -> None:
        self.n = None
        self._stream, self._architecture = streamed.stream, streamed.architecture

    def pieces(self, order: int | None, batch_size: int, begin: int) -> Pieces:
        """See the protocol."""
        stop = bytearray(1)
        return ahead(self._pieces(order, batch_size, begin), stop)

    def _pieces(self, order: int | None, batch_size: int, begin: int) -> Pieces:
        """Yield the pieces from the example `begin` on; the ones before are read, too."""
        n, weight = 0, 0.0
        is_custom = self._architecture.loss == Loss.CUSTOM
        for X, Y, *rest in self._blocks(order, batch_size):
            weight += float(rest[0].sum(dtype=np.float64)) if rest else len(X)
            first, n = n, n + len(X)
            if is_custom:
                Y.flags.writeable = False  # functions of users read it
            if n > begin:
                yield Piece(Examples(X, Y, *rest), None, max(begin - first, 0), len(X))
        if weight == 0:
            got = "zeros only" if n else "no example"
            raise ValueError(
                f"the stream must have examples whose weights have a sum above 0, got {got}; each "
                "call of chunks must return a new iterator"
            )

    def _blocks(self, order: int | None, batch_size: int) -> Iterator[list[Array]]:
        """Yield whole batches of X, Y and perhaps weights, every second time in the same memory."""
        feed = _Feed(self._checked_chunks())
        try:
            row_bytes = sum(array.itemsize * math.prod(array.shape[1:]) for array in feed.first)
            m = rows_of_a_block(row_bytes, batch_size)
            if order is not None:
                m = min(m, max(1, self._stream.buffer // 2 // batch_size) * batch_size)
            blocks = [feed.memory(m) for _ in range(2)]
            source = (
                _in_order(feed, m)
                if order is None
                else _shuffled(feed, m, max(self._stream.buffer, m), np.random.default_rng(order))
            )
            for arrays, rows in source:
                block = [memory[: len(rows)] for memory in blocks[0]]
                for out, array in zip(block, arrays, strict=True):
                    np.take(array, rows, axis=0, out=out, mode="clip")
                yield block
                blocks.reverse()
        finally:
            feed.chunks.close()

    def _checked_chunks(self) -> Generator[list[Array], None, None]:
        """Yield the arrays of each chunk, as an `Examples` accepts them."""
        number = 0
        iterator: Iterator[Any] = iter(())
        first: list[Array] = []
        try:
            iterator = iter(self._stream.chunks())
            for chunk in iterator:
                arrays = self._checked(chunk, [f"{name} of chunk {number}" for name in _NAMES])
                if len(arrays[0]):
                    first = first or [array[:0].copy() for array in arrays]
                    _check_alike(arrays, first, number)
                    yield arrays
                number += 1
        except Exception as error:
            error.add_note(f"nncore was reading chunk {number} of the stream")
            raise
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    def _checked(self, chunk: Any, names: Sequence[str]) -> list[Array]:
        if not isinstance(chunk, (tuple, list)) or len(chunk) not in (2, 3):
            raise TypeError(
                "a chunk must be a tuple (X, Y) or (X, Y, sample_weight), got "
                f"{type(chunk).__name__}"
                + (f" of {len(chunk)}" if isinstance(chunk, (tuple, list)) else "")
            )
        architecture = self._architecture
        # Plain arrays: rows of a mapped file are checked, too.
        X, Y, *rest = (np.asarray(part) if hasattr(part, "dtype") else part for part in chunk)
        arrays = [as_matrix(names[0], X, architecture.sizes[0], architecture.dtype)]
        n = len(arrays[0])
        arrays.append(as_targets(names[1], Y, architecture))
        if len(arrays[1]) != n:
            raise ValueError(f"{names[1]} must have as many rows as X, {n}, got {len(arrays[1])}")
        if rest:
            weights = as_vector(names[2], rest[0], n, architecture.dtype)
            check_not_negative(names[2], weights)
            arrays.append(np.where(weights < LEAST_WEIGHT[architecture.dtype.name], 0, weights))
        return arrays


class _Feed:
    """Takes any number of rows at a time from chunks.

    Parameters
    ----------
    chunks : generator of lists of arrays, which is not empty
    """

    def __init__(self, chunks: Generator[list[Array], None, None]) -> None:
        self.chunks = chunks
        self._left = next(chunks, [])
        # Copies, which do not keep the chunk in memory.
        self.first = [array[:0].copy() for array in self._left]

    def memory(self, n: int) -> list[Array]:
        """Return arrays for n rows."""
        return [np.empty((n, *array.shape[1:]), array.dtype) for array in self.first]

    def take(self, out: list[Array], places: npt.NDArray[np.intp]) -> int:
        """Copy the next rows to these places of `out`, and return how many there were."""
        done = 0
        while done < len(places) and self._left:
            n = min(len(places) - done, len(self._left[0]))
            for memory, array in zip(out, self._left, strict=True):
                memory[places[done : done + n]] = array[:n]
            done += n
            self._left = [array[n:] for array in self._left]
            if len(self._left[0]) == 0:
                self._left = next(self.chunks, [])
        return done


_Blocks: TypeAlias = Iterator[tuple[list[Array], npt.NDArray[np.intp]]]


def _in_order(feed: _Feed, m: int) -> _Blocks:
    """Yield arrays and which of their rows come next, m at a time."""
    memory, places = feed.memory(m), np.arange(m)
    while n := feed.take(memory, places):
        yield memory, places[:n]


def _shuffled(feed: _Feed, m: int, size: int, rng: np.random.Generator) -> _Blocks:
    """Yield likewise rows that are drawn from a buffer, in which the next ones replace them."""
    memory = feed.memory(size)
    filled = np.arange(size)
    filled = filled[: feed.take(memory, filled)]
    while len(filled) == size:
        drawn = rng.choice(size, m, replace=False)
        yield memory, drawn
        n = feed.take(memory, drawn)
        if n < m:
            filled = np.delete(filled, drawn[n:])
    filled = rng.permutation(filled)
    for first in range(0, len(filled), m):
        yield memory, filled[first : first + m]


def _check_alike(arrays: list[Array], first: list[Array], number: int) -> None:
    """Raise ValueError if chunks differ in their shapes or dtypes."""
    kinds = [[(array.dtype.name, array.shape[1:]) for array in each] for each in (arrays, first)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"chunk {number} must have arrays like those of the first one, with dtypes and shapes "
            f"of rows {kinds[1]}, got {kinds[0]}"
        )
