"""`fit_many`: many networks at once, each on one thread."""

from __future__ import annotations

import copy
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ._arrays import as_row_numbers
from ._checks import as_bool
from ._files import FilePath
from ._layout import Examples
from ._threads import as_n_threads, available_threads, forked, start, wait_for
from .architecture import Architecture
from .evaluation import Part, as_part
from .fitting import Fit, as_validation
from .hints import hint_at_data
from .history import Callback, History
from .network import Network
from .optimizers import Optimizer
from .reports import NetworksReport
from .session import Session
from .shards import Shards
from .streams import Streamed
from .training import DivergenceError
from .typing import Metrics, OptimizerName

__all__ = ["fit_many"]

T = TypeVar("T")

# How many unused sessions a thread keeps for the next networks.
_MOST_IDLE = 4


# One value for all networks, or a list with one for each; as a type, `list` would be invariant.
Each: TypeAlias = T | Sequence[T]


def fit_many(
    networks: Sequence[Network],
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    epochs: Each[int] = 1,
    batch_size: Each[int] = 32,
    optimizer: Each[Optimizer | OptimizerName] = "adam",
    rows: Each[npt.ArrayLike | None] = None,
    seeds: Each[Any] = None,
    shuffle: Each[bool] = True,
    sample_weight: Each[npt.ArrayLike | None] = None,
    validation_data: Each[Sequence[npt.ArrayLike] | None] = None,
    validation_rows: Each[npt.ArrayLike | None] = None,
    validation_split: Each[float | None] = None,
    metrics: Each[Metrics] = (),
    training_metrics: Each[bool] = False,
    dropout: Each[float | Sequence[float]] = 0.0,
    gradient_clipping: Each[float | None] = None,
    callbacks: Each[Sequence[Callback]] = (),
    resume: Each[FilePath | None] = None,
    verbose: bool = False,
    n_threads: int | None = None,
) -> list[History]:
    """Train many networks on the same data, each as `Network.fit` does and with the same bits.

    Each thread trains one network after the other. X and Y are checked once, and no network has a
    copy of them.

    A list has one value for each network, anything else is the value for all: ``epochs=10``,
    ``epochs=[10, 20, 10]``. So the callbacks, metrics or dropout rates of all networks are a tuple,
    and weights or rows for all an array.

    Parameters
    ----------
    networks : sequence of Network
        They may differ in everything but the number of inputs.
    X, Y : array_like
        As in `Network.fit`.
    optimizer : Optimizer or name, or list
        For each network a copy of an instance. Instances in a list are used themselves, and keep
        their state.
    rows : array_like of int or bool, or list, optional
        The rows of X and Y to train on: their numbers, in any order and perhaps repeated, or a
        mask. The result is that of ``network.fit(X[rows], Y[rows], ...)``.
    seeds : None, int or Generator, or list or range
        As `seed` of `Network.fit`. A generator belongs to one network.
    validation_rows : array_like of int or bool, or list, optional
        Rows of X and Y for the loss and the metrics after each epoch, instead of `validation_data`.
    callbacks : tuple of callables, or list of them
        They are called in the thread that trains the network. One that keeps a state, as
        ``EarlyStopping`` does, belongs to one network. If one returns True, its network's training
        stops.
    verbose : bool, default False
        Whether to show which networks have been trained, as `Network.fit` shows epochs: a bar if
        tqdm is installed and the output is a terminal or a notebook, otherwise lines, at most ten a
        second. Callbacks show a network's epochs.
    n_threads : int, optional
        How many networks to train at the same time. By default as many as the affinity mask, the
        cgroup and ``OMP_NUM_THREADS`` allow.
    epochs, batch_size, shuffle, sample_weight, validation_data, validation_split, metrics, \
training_metrics, dropout, gradient_clipping, resume
        As in `Network.fit`, or a list.

    Returns
    -------
    list of History
        In the order of the networks. If a network's training diverges, the attribute ``error`` of
        its history is the `DivergenceError`, and the network is as after the last finite epoch. The
        others go on.

    Raises
    ------
    TypeError, ValueError
        An argument is invalid, or of the wrong length; nothing has changed. A note says for which
        network.
    KeyboardInterrupt
        Ctrl-C was pressed. Each network and its optimizer are as after the last complete step.
        The same holds for an exception of a callback.

    Examples
    --------
    Five folds of a cross-validation:

    >>> import numpy as np
    >>> import nncore
    >>> images, labels = nncore.datasets.load_digits()
    >>> held_out = [np.arange(len(images)) % 5 == fold for fold in range(5)]
    >>> networks = [nncore.Network([64, 30, 10], loss="cross_entropy", seed=0) for _ in held_out]
    >>> histories = nncore.fit_many(
    ...     networks, images, labels, epochs=10, seeds=0, optimizer=nncore.Adam(0.01),
    ...     rows=[~fold for fold in held_out], validation_rows=held_out, metrics=("accuracy",))
    >>> [history.metrics["validation_accuracy"][-1] > 0.9 for history in histories]
    [True, True, True, True, True]
    """
    networks = _as_networks(networks)
    n_threads = as_n_threads(available_threads() if n_threads is None else n_threads, 0, 0)
    as_bool("verbose", verbose)
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(
            f"callbacks must be a tuple for all networks or a list of tuples, got {callbacks!r}"
        )
    if not isinstance(seeds, (list, range)) and np.ndim(seeds) > 0:
        raise TypeError(f"seeds must be one seed, or a list or range of them, got {seeds!r}")
    if isinstance(optimizer, Optimizer):
        optimizer = [copy.copy(optimizer) for _ in networks]
    arguments = _each(
        len(networks),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        rows=rows,
        seeds=list(seeds) if isinstance(seeds, range) else seeds,
        shuffle=shuffle,
        sample_weight=sample_weight,
        validation_data=validation_data,
        validation_rows=validation_rows,
        validation_split=validation_split,
        metrics=metrics,
        training_metrics=training_metrics,
        dropout=dropout,
        gradient_clipping=gradient_clipping,
        callbacks=callbacks,
        resume=resume,
    )
    parts = _Parts(X, Y)
    fits = []
    for i, network in enumerate(networks):
        try:
            fits.append(
                _checked(network, parts, **{name: arguments[name][i] for name in arguments})
            )
        except Exception as error:
            error.add_note(f"for networks[{i}]")
            raise
    _check_exclusive(fits)
    parts.hint()
    _run(fits, n_threads, NetworksReport(len(fits)) if verbose else None)
    return [fit.history for fit in fits]


def _as_networks(networks: Sequence[Network]) -> list[Network]:
    checked = list(networks)
    for i, network in enumerate(checked):
        if not isinstance(network, Network):
            raise TypeError(f"networks must hold nncore.Network objects, got {network!r} at {i}")
    if len({*map(id, checked)}) < len(checked):
        raise ValueError("networks must hold different objects, got one of them twice")
    return checked


def _each(n: int, **arguments: Any) -> dict[str, list[Any]]:
    """Return each argument as a list with one value for each of n networks."""
    for name, value in arguments.items():
        if not isinstance(value, list):
            arguments[name] = [value] * n
        elif len(value) != n:
            raise ValueError(
                f"{name} must be a list with one value for each of the {n} networks, or one value "
                f"for all that is no list, got a list of {len(value)}"
            )
    return arguments


def _checked(
    network: Network,
    parts: _Parts,
    *,
    rows: npt.ArrayLike | None,
    seeds: Any,
    sample_weight: npt.ArrayLike | None,
    validation_data: Sequence[npt.ArrayLike] | None,
    validation_rows: npt.ArrayLike | None,
    **options: Any,
) -> Fit:
    """Return the fit of a network, with its own arguments."""
    architecture = network.architecture
    training = parts.part(architecture, sample_weight, "rows", rows)
    validation = parts.validation(architecture, validation_data)
    if validation_rows is not None:
        if validation is not None or options["validation_split"] is not None:
            raise ValueError(
                "validation_rows must not be given with validation_data or validation_split"
            )
        validation = parts.part(architecture, sample_weight, "validation_rows", validation_rows)
    return Fit(network, training, validation, seed=seeds, verbose=False, n_threads=1, **options)


class _Parts:
    """Parts of X and Y, each converted and checked once, however many networks use it."""

    def __init__(self, X: npt.ArrayLike, Y: npt.ArrayLike) -> None:
        self._X, self._Y = X, Y
        # What was made, by the identity of arguments and what matters of the architecture.
        self._made: dict[Hashable, Any] = {}
        self._pairs: dict[Hashable, tuple[Examples | Shards | Streamed, Architecture]] = {}

    def part(
        self,
        architecture: Architecture,
        sample_weight: npt.ArrayLike | None,
        name: str,
        rows: npt.ArrayLike | None,
    ) -> Part:
        """Return the part of these rows, `name` being that of the argument, or of all rows."""
        kind, weighted = _kind(architecture), id(sample_weight)
        whole: Part = self._once(
            (kind, weighted),
            lambda: self._whole(architecture, sample_weight),
        )
        output = architecture.activations[-1], architecture.slopes[-1]
        self._pairs.setdefault((kind, weighted, output), (whole.examples, architecture))
        if rows is None:
            return whole
        if whole.n is None:
            raise ValueError(f"{name} must be None if X is a stream, got {rows!r}")
        n = whole.n
        part: Part = self._once(
            (kind, weighted, id(rows)),
            lambda: whole.take(as_row_numbers(name, rows, n), name),
        )
        return part

    def validation(
        self, architecture: Architecture, validation_data: Sequence[npt.ArrayLike] | None
    ) -> Part | None:
        """Return the part of examples of its own."""
        part: Part | None = self._once(
            ("validation_data", _kind(architecture), id(validation_data)),
            lambda: as_validation(validation_data, architecture),
        )
        return part

    def hint(self) -> None:
        """Warn once about data that cannot work well."""
        any(hint_at_data(*pair) for pair in self._pairs.values())

    def _whole(self, architecture: Architecture, sample_weight: npt.ArrayLike | None) -> Part:
        # Examples of another loss have X in the same form.
        X = self._made.get(architecture.dtype, self._X)
        whole = as_part(X, self._Y, sample_weight, architecture)
        if isinstance(whole.examples, Examples):
            self._made[architecture.dtype] = whole.examples.arrays[0]
        return whole

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _kind(architecture: Architecture) -> Hashable:
    """Return what the form of examples depends on."""
    sizes = architecture.sizes
    return sizes[0], sizes[-1], architecture.loss, architecture.dtype


def _check_exclusive(fits: Sequence[Fit]) -> None:
    """Raise ValueError if two fits share what only one can use."""
    owners: dict[Hashable, int] = {}
    for i, fit in enumerate(fits):
        for name, owned in fit.exclusive:
            first = owners.setdefault(owned if isinstance(owned, str) else id(owned), i)
            if first != i:
                raise ValueError(
                    f"{name} of networks[{first}] and networks[{i}] must be different, got "
                    f"{owned!r} for both; a list has one value for each network"
                )


class _Stopped(BaseException):
    """Ends a fit because another one failed or Ctrl-C was pressed."""


def _run(fits: Sequence[Fit], n_threads: int, report: NetworksReport | None) -> None:
    """Run fits, each on one of the threads, of which the calling one is the first."""
    # The longest ones first, so that all threads end at about the same time.
    todo = deque(sorted(fits, key=lambda fit: -fit.work))
    stop = threading.Event()
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []
    process = os.getpid()

    def check() -> None:
        if threads and os.getpid() != process:
            raise forked()
        if stop.is_set():
            raise _Stopped

    def fail(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    def work() -> None:
        # Those of the networks trained before: memory for one network per thread.
        idle: deque[Session] = deque(maxlen=_MOST_IDLE)
        try:
            while todo and not stop.is_set():
                fit = todo.popleft()
                try:
                    with fit.network.sessions_from(idle):
                        fit.run(check)
                except DivergenceError as error:
                    if error is not fit.divergence:
                        raise
                    # Without the frames, which would keep the session.
                    fit.history.error = error.with_traceback(None)
                if report is not None:
                    report.add(fit.history)
        except (_Stopped, IndexError):
            pass
        except BaseException as error:
            fail(error)

    try:
        for _ in range(min(n_threads, len(fits)) - 1):
            # First in the list, since a signal's handler may raise in `start`. A thread that begins
            # after that finds `stop` set and ends.
            threads.append(threading.Thread(target=work))
            if not start(threads[-1]):  # fewer do the same work
                break
    except BaseException as error:
        fail(error)
    work()
    for thread in threads:
        while thread.is_alive():
            try:
                wait_for(thread)
            except BaseException as error:
                fail(error)
    if report is not None:
        report.close()
    if failures:
        raise failures[0]
    check()
