"""Checkpoints of `Network.fit`: when to write them, and the thread that does."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import are_equal
from ._checks import as_integer, as_real
from ._files import Contents, FilePath, as_path, write
from ._threads import start, wait_for
from ._values import encode
from .architecture import Architecture
from .history import Callback
from .optimizers import Optimizer
from .persistence import Stored, encode_optimizer, encode_stored
from .resuming import Record
from .session import Session
from .training import Position

__all__ = ["Checkpoint", "Writer", "check_storable", "split_checkpoint", "writing"]

Array = npt.NDArray[Any]

# How long the chunks of steps are between which a checkpoint can be due.
_CHUNK_SECONDS = 0.15


class Checkpoint:
    """A callback of `Network.fit` that writes checkpoints, from which an interrupted run continues.

    ``net.fit(..., callbacks=[Checkpoint(path)], resume=path)`` starts from the beginning if there
    is no file, otherwise from the file, also in the middle of an epoch. The result has the same
    bits as that of a run that was never interrupted, so the same command can be repeated until it
    is done.

    A checkpoint is due whenever one of the conditions is met. Parameters and state are then copied,
    and a thread writes the copy while training continues. If a checkpoint is due before the last
    one is written, it waits until then. The last one is written when training ends. At any moment
    the path leads to a complete file.

    Parameters
    ----------
    path : str or path
        As in `Network.save`. `nncore.load` returns the network in a checkpoint.
    every_epochs : int, optional
        Due after each epoch with a multiple of this number; 1 if no condition is given.
    every_steps : int, optional
        Due after each multiple of this number of steps, counted over all epochs.
    every_seconds : float, optional
        Due after so much time since the last one.

    Raises
    ------
    TypeError, ValueError
        An argument is not a number of this kind.

    Notes
    -----
    A checkpoint holds the network, the optimizer, the generator of `seed`, the history, and the
    state of callbacks that have ``state`` and ``set_state``. Errors while writing are raised from
    `Network.fit`, soon after. The copy takes as much memory as what it holds.

    Examples
    --------
    >>> import nncore, os, tempfile
    >>> images, labels = nncore.datasets.load_digits()
    >>> net = nncore.Network([64, 30, 10], loss="cross_entropy", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.safetensors")
    ...     checkpoint = nncore.callbacks.Checkpoint(path, every_seconds=30)
    ...     history = net.fit(images, labels, epochs=3, seed=0, callbacks=[checkpoint], resume=path)
    ...     again = net.fit(images, labels, epochs=3, seed=0, resume=path)
    >>> again.loss == history.loss
    True
    """

    def __init__(
        self,
        path: FilePath,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        every_seconds: float | None = None,
    ) -> None:
        self.path = as_path(path)
        if every_epochs is None and every_steps is None and every_seconds is None:
            every_epochs = 1
        for name, value in (("every_epochs", every_epochs), ("every_steps", every_steps)):
            if value is not None:
                as_integer(name, value, high=None)
        if every_seconds is not None and not as_real("every_seconds", every_seconds) > 0:
            raise ValueError(f"every_seconds must be > 0, got {every_seconds!r}")
        self.every_epochs, self.every_steps = every_epochs, every_steps
        self.every_seconds = every_seconds

    def __call__(self, end: object) -> None:
        """Raise TypeError, since only `Network.fit` can write checkpoints."""
        raise TypeError("Checkpoint works in Network.fit only")


def split_checkpoint(
    callbacks: Iterable[Callback],
) -> tuple[list[Callback], Checkpoint | None]:
    """Return the other callbacks, and the Checkpoint among them if there is one."""
    others, checkpoints = [], []
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            checkpoints.append(callback)
        else:
            others.append(callback)
    if len(checkpoints) > 1:
        raise ValueError(f"callbacks must hold at most one Checkpoint, got {len(checkpoints)}")
    return others, checkpoints[0] if checkpoints else None


def check_storable(
    checkpoint: Checkpoint, record: Record, optimizer: Optimizer, architecture: Architecture
) -> None:
    """Raise an error if a checkpoint of the fit could not be written, before it begins.

    Raises
    ------
    OSError
        The path has no directory.
    TypeError
        The optimizer or the state of a callback cannot be stored in a file.
    """
    os.stat(os.path.dirname(os.path.realpath(checkpoint.path)))
    encode_optimizer(optimizer, architecture, {})
    encode("checkpoint", record.values(), {})


class Writer:
    """Writes the checkpoints of one fit, each in a thread of its own.

    It is a context manager around the run, and gives it the length of its chunks. At the end it
    waits for the thread, and writes the last checkpoint unless an exception ended the run.

    Parameters
    ----------
    checkpoint : Checkpoint
    record : Record
    session : Session
        The run's.
    optimizer : Optimizer
    """

    def __init__(
        self, checkpoint: Checkpoint, record: Record, session: Session, optimizer: Optimizer
    ) -> None:
        self._checkpoint = checkpoint
        self._record = record
        self._session = session
        self._optimizer = optimizer
        self._architecture = session.architecture
        # Copies of the parameters and the state, which belong to the thread while it lives.
        self._vectors: list[Array] = []
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # The copy after the last epoch.
        self._last: Optimizer | None = None
        self._is_due = False
        self._last_time = time.monotonic()
        self._last_place: tuple[int, int] | None = None
        # Steps per second, and time and batch at the beginning of the chunk.
        self._pace = 0.0
        self._begin = 0.0, 0

    def __enter__(self) -> Writer:
        # The memory of the first copy, before anything has changed.
        self.reserve(1 + self._optimizer.rule().n_vectors)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            if self._thread is not None:
                wait_for(self._thread)
            return
        self._wait()
        last_place = self._last_place or self._record.place_in(self._checkpoint.path)
        if last_place == self._record.place:
            return
        if self._last is None:
            self._last = self._copy()
        elif not are_equal(self._session.parameters, self._vectors[0]):
            self._record.parameters = self._vectors[0]
        self._write(self._contents(self._session.parameters, self._last))
        self._wait()

    def chunk(self, position: Position) -> int:
        """Return how many steps to make before the next call of `end_chunk`."""
        self._begin = time.monotonic(), position.batch
        limits = [sys.maxsize]
        every_steps = self._checkpoint.every_steps
        if every_steps is not None:
            limits.append(every_steps - position.n_steps % every_steps)
        if self._is_due or self._checkpoint.every_seconds is not None:
            limits.append(max(1, int(self._pace * _CHUNK_SECONDS)))
        return min(limits)

    def end_chunk(self, position: Position) -> None:
        """Begin to write a checkpoint in the middle of an epoch if one is due.

        Raises
        ------
        OSError
            The last checkpoint could not be written.
        """
        begin, batch = self._begin
        self._pace = (position.batch - batch) / max(time.monotonic() - begin, 1e-9)
        self._write_if_due()

    def end_epoch(self, *, is_last: bool) -> None:
        """Begin to write a checkpoint after an epoch and its callbacks if one is due.

        After the last epoch the end of the ``with`` block writes it, since the network may get
        other parameters before.

        Raises
        ------
        OSError
            The last checkpoint could not be written.
        """
        if is_last:
            self._wait()
            self._last = self._copy()
            return
        every_epochs = self._checkpoint.every_epochs
        if every_epochs is not None and self._record.position.epoch % every_epochs == 0:
            self._is_due = True
        self._write_if_due()

    def _write_if_due(self) -> None:
        every_steps, every_seconds = self._checkpoint.every_steps, self._checkpoint.every_seconds
        now = time.monotonic()
        n_steps = self._record.position.n_steps
        if (every_steps is not None and n_steps % every_steps == 0) or (
            every_seconds is not None and now - self._last_time >= every_seconds
        ):
            self._is_due = True
        if self._thread is not None and self._thread.is_alive():
            return
        self._wait()
        # Numbers that are not finite end the run soon.
        if self._is_due and self._session.is_finite():
            self._is_due, self._last_time, self._last_place = False, now, self._record.place
            optimizer = self._copy()
            contents = self._contents(self._vectors[0], optimizer)
            for name, array in contents.tensors.items():
                if name.startswith("checkpoint."):  # of the run or a callback
                    contents.tensors[name] = array.copy()
            self._thread = threading.Thread(target=self._write, args=(contents,))
            if not start(self._thread):
                self._write(contents)

    def _wait(self) -> None:
        """Wait until the last checkpoint is written."""
        if self._thread is not None:
            wait_for(self._thread)
            self._thread = None
        if self._error is not None:
            raise self._error

    def _copy(self) -> Optimizer:
        """Copy the parameters and the state; return an optimizer with the copy of the state."""
        # A callback may change the number of running vectors.
        count = 1 + len(self._optimizer.arrays)
        del self._vectors[count:]
        self.reserve(count)
        n_steps = self._session.copy_to(self._vectors, self._optimizer)
        copy = type(self._optimizer)()
        coefficients = self._optimizer.coefficients
        copy.restore(self._architecture, coefficients, n_steps, self._vectors[1:])
        return copy

    def reserve(self, n_vectors: int) -> None:
        """Allocate the copies of the parameters and the state."""
        n, dtype = self._architecture.n_parameters, self._architecture.dtype
        while len(self._vectors) < n_vectors:
            self._vectors.append(np.empty(n, dtype=dtype))

    def _contents(self, parameters: Array, optimizer: Optimizer) -> Contents:
        sections = {"checkpoint": self._record.values()}
        return encode_stored(Stored(self._architecture, parameters, optimizer, sections))

    def _write(self, contents: Contents) -> None:
        try:
            write(self._checkpoint.path, contents)
        except BaseException as error:
            self._error = error


def writing(
    checkpoint: Checkpoint | None, record: Record, session: Session, optimizer: Optimizer
) -> Writer | AbstractContextManager[None]:
    """Return the writer for a fit with or without a checkpoint."""
    if checkpoint is None:
        return nullcontext()
    return Writer(checkpoint, record, session, optimizer)
