"""The training loop: one generator of epochs, over which every way to train iterates."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ._layout import Examples
from .architecture import Architecture
from .losses import loss_title
from .optimizers import Optimizer, Rule
from .session import NO_OPTIONS, StepOptions

# For how long, in seconds and examples, a call of the session makes several epochs: so long that
# a thread seldom waits for another one's Python, and so short that their orders stay in the cache.
_SECONDS_TOGETHER = 2e-3
_EXAMPLES_TOGETHER = 1 << 16

__all__ = [
    "ArrayData",
    "Data",
    "DivergenceError",
    "Epoch",
    "Piece",
    "Position",
    "Run",
    "Steps",
]

Order = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


class DivergenceError(ArithmeticError):
    """The loss, the parameters or the optimizer's state became NaN or infinite.

    Attributes
    ----------
    epoch : int or None
        The epoch, counted from 1, in which it happened; None outside `Network.fit`.
    learning_rate : float
        That of the last step.
    """

    def __init__(
        self, epoch: int | None, learning_rate: float, state: str, what: str = "the loss"
    ) -> None:
        super().__init__(epoch, learning_rate, state, what)
        self.epoch = epoch
        self.learning_rate = learning_rate
        self._state = state
        self._what = what

    def __str__(self) -> str:
        where = "" if self.epoch is None else f" in epoch {self.epoch}"
        return (
            f"{self._what} became NaN or infinite{where} with "
            f"learning_rate={self.learning_rate:g}; {self._state}; a smaller learning_rate may "
            "help, and X and Y must be finite"
        )


class Piece(NamedTuple):
    """Whole batches of an epoch: the places begin to end of `order` in `examples`.

    `scales` holds, for each of these batches, what scales its summed gradient; by default the
    reciprocal of its weight.
    """

    examples: Examples
    order: Order | None
    begin: int
    end: int
    scales: Floats | None = None


Pieces = Generator[Piece, None, None]


class Steps(Protocol):
    """What makes the steps of a `Run`: a `Session`, or one of several processes.

    `Session` describes the members.
    """

    architecture: Architecture
    done: int

    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    def use(  # noqa: D102
        self, optimizer: Optimizer, rule: Rule, options: StepOptions = NO_OPTIONS
    ) -> None: ...
    def train(  # noqa: D102
        self,
        examples: Examples,
        order: Order | None,
        batch_size: int,
        begin: int,
        end: int,
        sums: Floats,
        *,
        keep_going: bool = False,
        scales: Floats | None = None,
        epoch: int | None = None,
    ) -> None: ...

    # Methods, or attributes that are functions.
    @property
    def write_back(self) -> Callable[[], None]: ...  # noqa: D102
    @property
    def discard(self) -> Callable[[], None]: ...  # noqa: D102
    @property
    def is_finite(self) -> Callable[[], bool]: ...  # noqa: D102


class Data(Protocol):
    """What a `Run` trains on."""

    @property
    def n(self) -> int | None:
        """The number of examples; None if only the end of an epoch shows it."""

    def pieces(self, order: Any, batch_size: int, begin: int) -> Pieces:
        """Yield the examples from the place `begin` of the order on, cut between batches.

        A piece may change as soon as the next one is requested.
        """


class ArrayData:
    """`Data` in memory or in a mapped file.

    Parameters
    ----------
    examples : Examples
    rows : ndarray of intp, optional
        Those to train on; by default all.
    """

    def __init__(self, examples: Examples, rows: Order | None = None) -> None:
        self.n = examples.n if rows is None else len(rows)
        self._examples, self._rows = examples, rows

    def pieces(  # noqa: D102 - described in the protocol
        self, order: Order | None, batch_size: int, begin: int
    ) -> Pieces:
        if self._rows is None:
            yield Piece(self._examples, order, begin, self.n)
        else:
            rows = self._rows[begin:] if order is None else self._rows[order[begin:]]
            yield Piece(self._examples, rows, 0, len(rows))


@dataclass
class Position:
    """Where a run stands. A run resumed from a pickled copy gives the same bits.

    Attributes
    ----------
    epoch : int
        The epochs completed.
    batch : int
        The batches completed of the epoch in progress.
    n_batches : int
        The batches of the epochs completed.
    rng : Generator, RandomState or None
        Draws the orders; None if examples are not shuffled.
    order : ndarray of shape (n,), int or None
        The order of the epoch in progress, or of the last one; the seed of one if `Data.n` is None.
    n_orders : int
        The orders drawn.
    sums : ndarray of shape (n_batches or more, 3)
        As in `Session.train`, of the epoch in progress.
    seconds : float
        What the epoch in progress has taken so far.
    """

    rng: Any = None
    epoch: int = 0
    batch: int = 0
    n_orders: int = 0
    order: Order | int | None = None
    sums: Floats = field(default_factory=lambda: np.empty((0, 3)))
    seconds: float = 0.0
    n_batches: int = 0

    @property
    def n_steps(self) -> int:
        """The batches completed since the run began."""
        return self.n_batches + self.batch


class Epoch(NamedTuple):
    """A completed epoch.

    Attributes
    ----------
    number : int
        Counted from 1.
    loss : float
        The loss of the examples, each before the step that it took part in, summed.
    sums : ndarray of shape (n_batches, 3)
        As in `Session.train`; valid until the next epoch.
    seconds : float
        What its steps took.
    n : int
        The number of examples.
    """

    number: int
    loss: float
    sums: Floats
    seconds: float
    n: int

    @property
    def weight(self) -> float:
        """The sum of the examples' weights."""
        return float(np.add.reduce(self.sums[:, 1]))


class Run:
    """Epochs of mini-batch steps.

    After each epoch the network and the optimizer are up to date. If an epoch ends with a loss,
    parameter or state that is not finite, they remain as they were after the epoch before.

    Parameters
    ----------
    session : Session or other Steps
        For batches of at least `batch_size`, within its ``with`` block.
    optimizer : Optimizer
    data : Data
    batch_size : int
    draw_order : callable, optional
        Returns an epoch's order, from the position's generator, the last order and `Data.n`. By
        default examples are taken as they lie. An exception meanwhile, Ctrl-C included, may leave
        the generator advanced.
    position : Position, optional
        Where to begin.
    options : StepOptions, optional
    rule : callable, optional
        Returns the rule of the next epoch; by default the optimizer's.
    chunk : int or callable, optional
        The most batches until the next call of `on_chunk`, or a function of the position that
        returns this number. It does not change the result.
    on_chunk : callable, optional
        Called with the position after each chunk but an epoch's last.
    keep_going : bool, default False
        Whether to accept epochs that are not finite.
    draw_orders : callable, optional
        Returns the orders of several epochs, from the position's generator, their number and that
        of the examples. If it is given, a call of the session makes as many short epochs as take
        about 2 ms: the network is up to date after the last of them only, and an exception may
        leave the position at the first one. Data other than `ArrayData` are not affected.
    """

    def __init__(
        self,
        session: Steps,
        optimizer: Optimizer,
        data: Data,
        batch_size: int,
        *,
        draw_order: Callable[[Any, Any, Any], Order | int] | None = None,
        position: Position | None = None,
        options: StepOptions = NO_OPTIONS,
        rule: Callable[[], Rule] | None = None,
        chunk: int | Callable[[Position], int] | None = None,
        on_chunk: Callable[[Position], object] | None = None,
        keep_going: bool = False,
        draw_orders: Callable[[Any, int, int], Order] | None = None,
    ) -> None:
        self._session = session
        self._optimizer = optimizer
        self._data = data
        self._batch_size = batch_size
        self._draw_order = draw_order
        self._options = options
        self._rule = optimizer.rule if rule is None else rule
        self._chunk = chunk
        self._on_chunk = on_chunk
        self._keep_going = keep_going
        self._draw_orders = draw_orders if isinstance(data, ArrayData) else None
        # What an epoch takes, and orders that are drawn already.
        self._seconds = math.inf
        self._orders: deque[Order] = deque()
        self.position = Position() if position is None else position

    def epochs(self, n_epochs: int) -> Iterator[Epoch]:
        """Train until `n_epochs` are completed, and yield each.

        Raises
        ------
        DivergenceError
            An epoch was not finite.
        KeyboardInterrupt
            Network and optimizer are as after the last whole step.
        """
        position, n = self.position, self._data.n
        while position.epoch < n_epochs:
            if self._draw_orders is not None and n is not None:
                count = self._n_together(n_epochs, n)
                if count > 1:
                    yield from self._train_together(count, n)
                    continue
            if position.n_orders == position.epoch:
                if self._orders:
                    position.order = self._orders.popleft()
                elif self._draw_order is not None:
                    position.order = self._draw_order(position.rng, position.order, n)
                position.n_orders += 1
                if n is not None:
                    self._make_room(-(-n // self._batch_size))
            self._begin, first_batch = time.perf_counter() - position.seconds, position.batch
            self._session.use(self._optimizer, self._rule(), self._options)
            try:
                self._train()
                sums = position.sums[: position.batch]
                # Added up once, so that the sum does not depend on chunks.
                loss = float(np.add.reduce(sums[:, 0]))
                if not self._keep_going:
                    self._check(loss, first_batch)
                self._session.write_back()
            except BaseException as error:
                # Whole steps stay, but only if they led to numbers.
                diverged = isinstance(error, DivergenceError) or not self._session.is_finite()
                if diverged and not self._keep_going:
                    self._session.discard()
                    position.batch = first_batch
                else:
                    self._session.write_back()
                raise
            position.epoch += 1
            position.n_batches += position.batch
            position.batch, position.seconds = 0, 0.0
            self._seconds = time.perf_counter() - self._begin
            yield Epoch(position.epoch, loss, sums, self._seconds, self._n)

    def _n_together(self, n_epochs: int, n: int) -> int:
        """Return how many epochs to make in one call of the session."""
        position = self.position
        if self._orders or position.n_orders > position.epoch:
            return 1
        most = min(int(_SECONDS_TOGETHER / self._seconds), _EXAMPLES_TOGETHER // n)
        return min(most, n_epochs - position.epoch)

    def _train_together(self, count: int, n: int) -> Iterator[Epoch]:
        """Make epochs in one call and yield each; if they diverge, yield none and keep the orders.

        Numbers that are not finite stay so from step to step.
        """
        position, size, session = self.position, self._batch_size, self._session
        assert self._draw_orders is not None
        begin = time.perf_counter()
        orders = self._draw_orders(position.rng, count, n)
        n_batches = -(-n // size)
        sums = np.zeros((count * n_batches, 3))
        with closing(self._data.pieces(orders, size, 0)) as pieces:
            examples, order, *_ = next(pieces)
        session.use(self._optimizer, self._rule(), self._options)
        try:
            session.train(examples, order, size, 0, count * n, sums, epoch=n)
        except BaseException:
            # Whole steps stay, but only if they led to numbers.
            if session.is_finite():
                session.write_back()
            raise
        by_epoch = sums.reshape(count, n_batches, 3)
        losses = [float(np.add.reduce(its_sums[:, 0])) for its_sums in by_epoch]
        if not (all(map(math.isfinite, losses)) and session.is_finite()):
            session.discard()
            self._orders.extend(orders.reshape(count, n))
            return
        session.write_back()
        position.order = orders[-n:]
        self._seconds = (time.perf_counter() - begin) / count
        for loss, its_sums in zip(losses, by_epoch, strict=True):
            position.epoch += 1
            position.n_orders += 1
            position.n_batches += n_batches
            yield Epoch(position.epoch, loss, its_sums, self._seconds, n)

    def _train(self) -> None:
        """Make the steps of an epoch from the position on, in chunks of the pieces of the data."""
        position, size = self.position, self._batch_size
        self._n = position.batch * size
        left: int | None = None  # of the chunk in progress
        # Data may have a thread, which ends as soon as this does.
        with closing(self._data.pieces(position.order, size, position.batch * size)) as pieces:
            for piece in pieces:
                begin = piece.begin
                while begin < piece.end:
                    if left == 0 and self._on_chunk is not None:
                        position.seconds = time.perf_counter() - self._begin
                        self._on_chunk(position)
                    if not left:
                        chunk = self._chunk(position) if callable(self._chunk) else self._chunk
                        left = sys.maxsize if chunk is None else chunk
                    end = min(begin + left * size, piece.end)
                    left -= self._train_on(piece, begin, end)
                    self._n += end - begin
                    begin = end
                    if not (
                        self._keep_going or math.isfinite(position.sums[position.batch - 1, 0])
                    ):
                        return

    def _train_on(self, piece: Piece, begin: int, end: int) -> int:
        """Make the steps of whole batches of a piece; return how many."""
        position, size = self.position, self._batch_size
        n_batches = -(-(end - begin) // size)
        first = (begin - piece.begin) // size
        self._make_room(position.batch + n_batches)
        self._session.done = begin
        try:
            self._session.train(
                piece.examples,
                piece.order,
                size,
                begin,
                end,
                position.sums[position.batch :],
                keep_going=self._keep_going,
                scales=None if piece.scales is None else piece.scales[first:],
            )
        finally:
            position.batch += -(-(self._session.done - begin) // size)
        return n_batches

    def _make_room(self, n_batches: int) -> None:
        """Let `sums` hold that many batches; before the epoch their number may be unknown."""
        sums = self.position.sums
        if len(sums) < n_batches:
            self.position.sums = np.empty((max(n_batches, 2 * len(sums)), 3))
            self.position.sums[: len(sums)] = sums

    def _check(self, loss: float, first_batch: int) -> None:
        """Raise DivergenceError if the epoch in progress led to numbers that are not finite."""
        what = loss_title(self._session.architecture.custom_loss)
        if math.isfinite(loss):
            if self._session.is_finite():
                return
            what = "a parameter or the optimizer's state"
        epoch, state = self.position.epoch, "the network is as it was before"
        if first_batch:
            state = f"the network is as in the middle of epoch {epoch + 1}, where the run resumed"
        elif epoch:
            state = f"the network is back at the end of epoch {epoch}"
        raise DivergenceError(epoch + 1, self._session.learning_rate, state, what)
