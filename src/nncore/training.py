"""The training loop: it shuffles, cuts batches, and reports each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._checks import as_bool, as_dropout, as_generator, as_integer, as_real, first_nonfinite
from ._layout import Examples
from ._step import Workspace
from .optimizers import Optimizer, as_optimizer

if TYPE_CHECKING:
    from .network import Network

__all__ = ["Callback", "DivergenceError", "EpochEnd", "History", "fit", "train_on_batch"]


class DivergenceError(ArithmeticError):
    """The loss became NaN or infinite.

    Attributes
    ----------
    epoch : int or None
        The epoch, counted from 1, in which it did; None outside `Network.fit`.
    learning_rate : float
    """

    def __init__(self, epoch: int | None, learning_rate: float, state: str) -> None:
        super().__init__(epoch, learning_rate, state)
        self.epoch = epoch
        self.learning_rate = learning_rate
        self._state = state

    def __str__(self) -> str:
        where = "" if self.epoch is None else f" in epoch {self.epoch}"
        return (
            f"the loss became NaN or infinite{where} with learning_rate={self.learning_rate:g}; "
            f"{self._state}; a smaller learning_rate may help, and X and Y must be finite"
        )


@dataclass(frozen=True)
class EpochEnd:
    """What a callback is told after an epoch.

    Attributes
    ----------
    epoch : int
        Counted from 1 in each call of `Network.fit`.
    loss : float
        The mean loss of the epoch's examples, each before the step that it took part in.
    validation_loss : float or None
        The mean loss of the validation data after the epoch.
    seconds : float
        The time that the epoch's steps took.
    network : Network
    """

    epoch: int
    loss: float
    validation_loss: float | None
    seconds: float
    network: Network


Callback = Callable[[EpochEnd], object]


@dataclass
class History:
    """Losses and times of a call of `Network.fit`, an entry per epoch.

    Attributes
    ----------
    loss : list of float
        As in `EpochEnd`.
    validation_loss : list of float
        Empty without validation data.
    seconds : list of float
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)

    def _append(self, end: EpochEnd) -> None:
        self.loss.append(end.loss)
        self.seconds.append(end.seconds)
        if end.validation_loss is not None:
            self.validation_loss.append(end.validation_loss)


class _Checkpoint:
    """A copy of everything that a step changes."""

    def __init__(self, network: Network, optimizer: Optimizer) -> None:
        self._network, self._optimizer = network, optimizer
        self._copies: list[npt.NDArray[Any]] = []

    def take(self) -> None:
        live = (self._network.parameters, *self._optimizer.state)
        del self._copies[len(live) :]  # a callback may have begun the state anew
        self._copies += [np.empty_like(vector) for vector in live[len(self._copies) :]]
        for copy, vector in zip(self._copies, live, strict=True):
            np.copyto(copy, vector)
        self._step_count = self._optimizer.step_count

    def restore(self) -> None:
        # Vectors of state that have begun since then go.
        self._optimizer.state = self._optimizer.state[: len(self._copies) - 1]
        live = (self._network.parameters, *self._optimizer.state)
        for copy, vector in zip(self._copies, live, strict=True):
            np.copyto(vector, copy)
        self._optimizer.step_count = self._step_count


def _is_finite(network: Network) -> bool:
    return first_nonfinite(network.parameters) is None


def train_on_batch(
    network: Network,
    examples: Examples,
    weight: float,
    optimizer: Optimizer,
    n_threads: int | None,
) -> float:
    """Make one step with all the examples; see `Network.train_on_batch`."""
    with _workspace(network, examples.n, examples.n, n_threads) as workspace:
        total = _train(network, workspace, examples, None, examples.n, optimizer)
    if not math.isfinite(total):
        raise DivergenceError(None, optimizer.learning_rate, "the network is unchanged")
    return total / weight


def _workspace(
    network: Network, n_examples: int, batch_size: int, n_threads: int | None
) -> AbstractContextManager[Workspace]:
    team = network._team_size(n_threads, n_examples, batch_size)
    return network._workspace(batch_size, team)


def _train(
    network: Network,
    workspace: Workspace,
    examples: Examples,
    order: npt.NDArray[np.intp] | None,
    batch_size: int,
    optimizer: Optimizer,
    **options: Any,
) -> float:
    """Run the steps of an epoch; return the sum of the losses, not finite if they diverge."""
    update = optimizer._update(network, **options)
    workspace.load(update)
    try:
        return workspace.train(examples, order, batch_size)
    finally:
        optimizer.step_count = update.step_count
        workspace.store()


def fit(
    network: Network,
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | str,
    shuffle: bool,
    seed: Any,
    sample_weight: npt.ArrayLike | None,
    validation_data: Sequence[npt.ArrayLike] | None,
    dropout: float | Sequence[float],
    gradient_clipping: float | None,
    callbacks: Sequence[Callback],
    verbose: bool,
    n_threads: int | None,
) -> History:
    """Train a network; see `Network.fit`."""
    epochs = as_integer("epochs", epochs, high=None)
    batch_size = as_integer("batch_size", batch_size)
    optimizer = as_optimizer(optimizer)
    optimizer._check(network)
    shuffle = as_bool("shuffle", shuffle)
    verbose = as_bool("verbose", verbose)
    rng = as_generator(seed)
    try:
        callbacks = list(callbacks)
    except TypeError:
        raise TypeError(f"callbacks must be a sequence of callables, got {callbacks!r}") from None
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be callables, got {callback!r}")
    examples, weight = network._examples(X, Y, sample_weight)
    validation = _validation_examples(network, validation_data)
    options = _step_options(dropout, gradient_clipping, len(network.sizes) - 2, rng)

    batch_size = min(batch_size, examples.n)
    history = History()
    with _workspace(network, examples.n, batch_size, n_threads) as workspace:
        optimizer._update(network)  # begins the state, so that the checkpoint has it
        checkpoint = _Checkpoint(network, optimizer)
        for epoch in range(1, epochs + 1):
            checkpoint.take()
            order = rng.permutation(examples.n) if shuffle else None
            begin = time.perf_counter()
            try:
                total = _train(
                    network, workspace, examples, order, batch_size, optimizer, **options
                )
                seconds = time.perf_counter() - begin
                finite = math.isfinite(total) and _is_finite(network)
            except BaseException:
                # Ctrl-C, say: whole steps stay, but only if they led to numbers.
                if not _is_finite(network):
                    checkpoint.restore()
                raise
            if not finite:
                checkpoint.restore()
                raise DivergenceError(
                    epoch,
                    optimizer.learning_rate,
                    f"the network is back at the end of epoch {epoch - 1}"
                    if epoch > 1
                    else "the network is as it was before",
                )
            end = EpochEnd(
                epoch,
                total / weight,
                network._evaluate(*validation, n_threads) if validation is not None else None,
                seconds,
                network,
            )
            history._append(end)
            if verbose:
                _print(end, epochs)
            answers = [callback(end) for callback in callbacks]
            if any(isinstance(answer, (bool, np.bool_)) and answer for answer in answers):
                break
    return history


def _step_options(
    dropout: float | Sequence[float],
    gradient_clipping: float | None,
    n_hidden: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    rates = as_dropout(dropout, n_hidden)
    if gradient_clipping is not None:
        options["max_norm"] = as_real("gradient_clipping", gradient_clipping)
        if not options["max_norm"] > 0:
            raise ValueError(f"gradient_clipping must be > 0, got {gradient_clipping!r}")
    if any(rates):
        # Without dropout the generator is drawn from for the orders alone.
        options |= {"dropout": rates, "dropout_seed": int(rng.integers(2**63))}
    return options


def _validation_examples(
    network: Network, validation_data: Sequence[npt.ArrayLike] | None
) -> tuple[Examples, float] | None:
    if validation_data is None:
        return None
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise TypeError(
            "validation_data must be a tuple (X, Y) or (X, Y, sample_weight), "
            f"got {type(validation_data).__name__}"
            + (f" of {len(validation_data)}" if hasattr(validation_data, "__len__") else "")
        )
    X, Y, *rest = validation_data
    names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
    return network._examples(X, Y, rest[0] if rest else None, names)


def _print(end: EpochEnd, epochs: int) -> None:
    validation = "" if end.validation_loss is None else f"  validation {end.validation_loss:.6f}"
    print(
        f"epoch {end.epoch:{len(str(epochs))}}/{epochs}  loss {end.loss:.6f}{validation}  "
        f"{end.seconds:.3f} s",
        flush=True,
    )
