"""`Network.fit`: its arguments, checked; then the epochs of its run and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ._checks import as_bool, as_dropout, as_generator, as_integer, as_real
from ._files import FilePath
from ._threads import as_n_threads
from .architecture import Architecture
from .callbacks import any_stops, as_callbacks, exclusive
from .checkpoints import check_storable, split_checkpoint, writing
from .distributed import ALONE, Alone, as_ranks
from .evaluation import UNKNOWN_N, Evaluation, Part, as_part
from .hints import hint_at_data
from .history import Callback, EpochEnd, History
from .metrics import as_metrics
from .optimizers import Optimizer, as_optimizer
from .reports import verbose_callback
from .resuming import (
    Record,
    draw_order,
    draw_orders,
    fingerprints,
    optimizer_settings,
    orders_as_they_lie,
)
from .schedules import Schedule
from .session import StepOptions
from .streams import Stream
from .training import DivergenceError, Epoch, Run
from .typing import ExamplesLike, Metrics, OptimizerName

if TYPE_CHECKING:
    from .network import Network

__all__ = ["Fit", "as_step_options", "as_validation", "fit"]


def fit(
    network: Network,
    X: ExamplesLike | Stream,
    Y: ExamplesLike | None,
    *,
    sample_weight: ExamplesLike | None,
    validation_data: Sequence[ExamplesLike] | Stream | None,
    comm: Any,
    **options: Any,
) -> History:
    """Train a network; `Network.fit` describes parameters, result and errors."""
    architecture, ranks = network.architecture, as_ranks(comm)
    with ranks.together():
        training = as_part(X, Y, sample_weight, architecture, is_shard=ranks.n_shards > 1)
        validation = as_validation(validation_data, architecture)
        checked = Fit(network, training, validation, ranks=ranks, **options)
        if ranks.is_first:
            hint_at_data(training.examples, architecture)
    with ranks.together():
        return checked.run()


class Fit:
    """A call of `Network.fit` whose arguments are checked, and which has changed nothing so far.

    Parameters
    ----------
    network : Network
    training : Part
    validation : Part or None
    epochs, batch_size, ...
        As in `Network.fit`.
    ranks : Alone, optional
        The processes that make the same call.

    Attributes
    ----------
    network : Network
    history : History
        The epochs so far.
    divergence : DivergenceError or None
        What `run` raised if it was the training that diverged, and no callback that raised.

    Raises
    ------
    TypeError, ValueError
        As in `Network.fit`.
    OSError
        The file to resume from could not be read, or that of a checkpoint has no directory.
    """

    def __init__(
        self,
        network: Network,
        training: Part,
        validation: Part | None,
        *,
        epochs: int,
        batch_size: int,
        optimizer: Optimizer | OptimizerName,
        shuffle: bool,
        seed: Any,
        validation_split: float | None,
        metrics: Metrics,
        training_metrics: bool,
        dropout: float | Sequence[float],
        gradient_clipping: float | None,
        callbacks: Sequence[Callback],
        verbose: bool,
        n_threads: int | None,
        resume: FilePath | None,
        ranks: Alone = ALONE,
    ) -> None:
        architecture = network.architecture
        self.network = network
        self.divergence: DivergenceError | None = None
        self._ranks = ranks
        self._epochs = as_integer("epochs", epochs, high=None)
        batch_size = as_integer("batch_size", batch_size)
        self._optimizer = optimizer = as_optimizer(optimizer)
        optimizer.check(architecture)
        network.check_writeable()
        if n_threads is not None:
            as_n_threads(n_threads, 0, 0)
        self._n_threads = n_threads
        self._shuffle = as_bool("shuffle", shuffle)
        self._rng = rng = as_generator(seed)
        given_rows = training.rows
        if validation_split is not None:
            if validation is not None:
                raise ValueError("validation_data and validation_split must not be given together")
            training, validation = training.split(validation_split, shuffled=shuffle)
        self._training = training
        checked_metrics = as_metrics(metrics, architecture)
        self._evaluation = Evaluation(
            network,
            training if as_bool("training_metrics", training_metrics) else None,
            validation,
            checked_metrics,
            n_threads,
            ranks,
        )
        self._given = as_callbacks(callbacks, ["loss", *self._evaluation.names], optimizer)
        self._callbacks, self._checkpoint = split_checkpoint(self._given)
        if not ranks.is_first:
            self._checkpoint = None
        if as_bool("verbose", verbose):
            self._callbacks.insert(0, verbose_callback())
        # The seed of dropout is drawn once nothing can be refused any more.
        options = as_step_options(dropout, gradient_clipping, architecture.n_hidden, lambda: 0)
        n, batch_size = training.n, ranks.share_of(batch_size)
        self._batch_size = batch_size if n is None else min(batch_size, n)
        settings: dict[str, Any] = {}
        if ranks.size > 1 or self._checkpoint is not None or resume is not None:
            settings = {
                "batch_size": self._batch_size * ranks.n_shards,
                "shuffle": shuffle,
                "seed": seed if isinstance(seed, (int, np.integer)) else None,
                "dropout": options.dropout,
                "gradient_clipping": options.max_norm or None,
                "validation_split": validation_split,
                "metrics": tuple(metric.name for metric in checked_metrics) or None,
                "training_metrics": training_metrics or None,
                "reduction": ranks.reduction or None,
                **optimizer_settings(optimizer),
                **ranks.merged(fingerprints("", training.examples, architecture.dtype, given_rows)),
            }
            if validation is not None:
                prints = fingerprints("validation ", validation.examples, architecture.dtype)
                settings |= ranks.merged(prints) if validation.is_shard else prints
        n_batches = None if n is None else -(-n // self._batch_size)
        self._record = Record(settings, rng, options, self._callbacks, n_batches)
        if self._checkpoint is not None:
            check_storable(self._checkpoint, self._record, optimizer, architecture)
        self._restore = None
        if resume is not None:
            self._restore = self._record.read(resume, network, optimizer, self._epochs)
        if seed is None:
            rng.bit_generator.state = ranks.on_first(lambda: rng.bit_generator.state)
        if ranks.size > 1:
            states = {
                "rows": training.n,
                "epochs": epochs,
                "state of seed": repr(rng.bit_generator.state),
            }
            resumes = {"a file to resume from": self._restore is not None}
            ranks.check_equal(network, optimizer, {**settings, **states, **resumes})

    @property
    def history(self) -> History:  # noqa: D102 - described in the class docstring
        return self._record.history

    @property
    def work(self) -> int:
        """A measure of the time that `run` takes."""
        n = self._training.n or UNKNOWN_N
        return self.network.architecture.n_parameters * n * self._epochs

    @property
    def exclusive(self) -> list[tuple[str, object]]:
        """What only one fit at a time may use, each with the name of its argument."""
        owned = [("callbacks", one) for callback in self._given for one in exclusive(callback)]
        return [("optimizer", self._optimizer), ("seeds", self._rng.bit_generator), *owned]

    def run(self, check: Callable[[], object] | None = None) -> History:
        """Train, on the calling thread; once only.

        Parameters
        ----------
        check : callable, optional
            Called after each epoch and about every 50 ms in between. What it raises ends training
            as Ctrl-C does.

        Raises
        ------
        DivergenceError, KeyboardInterrupt
            As in `Network.fit`; or what a callback raised.
        """
        network, optimizer, record = self.network, self._optimizer, self._record
        training, checkpoint, ranks = self._training, self._checkpoint, self._ranks
        callbacks = self._callbacks
        # Keeping the generator's state takes longer than a small epoch.
        draw = record.draw_order if checkpoint else draw_order
        with (
            network.session(
                training.n or UNKNOWN_N,
                batch_size=ranks.rows_of(self._batch_size),
                n_threads=self._n_threads,
            ) as session,
            writing(checkpoint, record, session, optimizer) as writer,
        ):
            session.watch(check)
            # What may fail for lack of memory comes before anything changes.
            session.reserve(optimizer.rule())
            if ranks.is_first:
                self._evaluation.reserve()
            # An epoch's order, the rows in that order, and the sums of the batches.
            n = training.n or 0
            n_orders = 1 if training.rows is None else 2
            room = np.empty((n_orders, n), np.intp), np.empty((-(-n // self._batch_size), 3))
            if self._restore is None:
                optimizer.vectors(network.architecture)
            del room
            if self._restore is None:
                record.begin()
            else:
                self._restore()
            several = None
            # Only if no code of the user's runs in between: epochs may be repeated.
            is_watched = callbacks or writer or self._evaluation.names or ranks.size > 1
            if self._epochs > 1 and not is_watched:
                rate = optimizer.learning_rate
                is_known = not callable(rate) or isinstance(rate, Schedule)
                if is_known and network.architecture.custom_loss is None:
                    several = draw_orders if self._shuffle else orders_as_they_lie
            run = Run(
                ranks.steps(session),
                optimizer,
                training.data if ranks.size == 1 else training.data_of(ranks.places),
                self._batch_size,
                draw_order=draw if self._shuffle else None,
                position=record.position,
                options=record.options,
                chunk=writer.chunk if writer else None,
                on_chunk=writer.end_chunk if writer else None,
                draw_orders=several,
            )
            for epoch in self._epochs_of(run):
                metrics: dict[str, float] = {}
                if self._evaluation.names:
                    metrics = self._evaluation.report(check)
                validation_loss = metrics.pop("validation_loss", None)
                own_weight = training.weight if ranks.n_shards == 1 else None
                loss = epoch.loss / (own_weight or epoch.weight)
                record.history.append(loss, validation_loss, metrics, epoch.seconds)
                end = None
                if callbacks or ranks.size > 1:  # to create it takes a quarter of a small epoch
                    end = EpochEnd(
                        epoch=epoch.number,
                        epochs=self._epochs,
                        loss=loss,
                        validation_loss=validation_loss,
                        metrics=metrics,
                        seconds=epoch.seconds,
                        n_examples=epoch.n * ranks.n_shards,
                        network=network,
                        optimizer=optimizer,
                    )
                    record.is_finished = ranks.on_first(partial(any_stops, callbacks, end))
                    ranks.follow_first(network, optimizer)
                is_last = record.is_finished or epoch.number == self._epochs
                if writer:
                    writer.end_epoch(is_last=is_last)
                if is_last:
                    if end is not None:
                        end.finish()
                        ranks.follow_first(network, optimizer)
                    break
                if check is not None:
                    check()
        return record.history

    def _epochs_of(self, run: Run) -> Iterator[Epoch]:
        try:
            yield from run.epochs(0 if self._record.is_finished else self._epochs)
        except DivergenceError as error:
            self.divergence = error
            raise


def as_validation(
    validation_data: Sequence[ExamplesLike] | Stream | None, architecture: Architecture
) -> Part | None:
    """Return the part of examples of its own."""
    if validation_data is None:
        return None
    if isinstance(validation_data, Stream):
        return as_part(validation_data, None, None, architecture)
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise TypeError(
            "validation_data must be a tuple (X, Y) or (X, Y, sample_weight), "
            f"got {type(validation_data).__name__}"
            + (f" of {len(validation_data)}" if hasattr(validation_data, "__len__") else "")
        )
    X, Y, *rest = validation_data
    names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
    return as_part(X, Y, rest[0] if rest else None, architecture, names)


def as_step_options(
    dropout: float | Sequence[float],
    gradient_clipping: float | None,
    n_hidden: int,
    draw_seed: Callable[[], int],
) -> StepOptions:
    """Return the checked options; only with dropout is its seed drawn."""
    rates = as_dropout(dropout, n_hidden)
    max_norm = 0.0
    if gradient_clipping is not None:
        max_norm = as_real("gradient_clipping", gradient_clipping)
        if not max_norm > 0:
            raise ValueError(f"gradient_clipping must be > 0, got {gradient_clipping!r}")
    if not any(rates):
        return StepOptions(max_norm)
    return StepOptions(max_norm, rates, draw_seed())
