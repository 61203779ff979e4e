"""`Network.fit`: its arguments, the epochs of its run, and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._arrays import as_examples, as_training_examples
from ._checks import as_bool, as_dropout, as_generator, as_integer, as_real
from ._layout import Examples
from .architecture import Architecture
from .callbacks import any_stops, as_callbacks
from .hints import hint_at_large_inputs, hint_at_unreachable_targets
from .history import Callback, EpochEnd, History
from .optimizers import Optimizer, as_optimizer
from .session import StepOptions
from .training import ArrayData, Position, Run
from .typing import OptimizerName

if TYPE_CHECKING:
    from .network import Network

__all__ = ["as_step_options", "fit"]


def fit(
    network: Network,
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    optimizer: Optimizer | OptimizerName,
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
    """Train a network; `Network.fit` describes parameters, result and errors."""
    architecture = network.architecture
    epochs = as_integer("epochs", epochs, high=None)
    batch_size = as_integer("batch_size", batch_size)
    optimizer = as_optimizer(optimizer)
    optimizer.check(architecture)
    network.check_writeable()
    shuffle = as_bool("shuffle", shuffle)
    rng = as_generator(seed)
    reported = ["loss"] if validation_data is None else ["loss", "validation_loss"]
    checked_callbacks = as_callbacks(callbacks, reported, optimizer)
    if as_bool("verbose", verbose):
        checked_callbacks.insert(0, _print)
    examples, weight = as_training_examples(X, Y, sample_weight, architecture)
    validation = _as_validation(validation_data, architecture)
    options = as_step_options(
        dropout, gradient_clipping, architecture.n_hidden, lambda: int(rng.integers(2**63))
    )
    hint_at_large_inputs(examples)
    hint_at_unreachable_targets(examples, architecture)

    batch_size = min(batch_size, examples.n)
    history = History()
    with network.session(examples.n, batch_size=batch_size, n_threads=n_threads) as session:
        run = Run(
            session,
            optimizer,
            ArrayData(examples),
            batch_size,
            draw_order=_draw_order if shuffle else None,
            position=Position(rng),
            options=options,
        )
        for epoch in run.epochs(epochs):
            validation_loss = None
            if validation is not None:
                validation_loss = network.mean_loss(*validation, n_threads)
            end = EpochEnd(
                epoch=epoch.number,
                epochs=epochs,
                loss=epoch.loss / weight,
                validation_loss=validation_loss,
                seconds=epoch.seconds,
                n_examples=examples.n,
                network=network,
                optimizer=optimizer,
            )
            history.append(end)
            if any_stops(checked_callbacks, end) or end.epoch == epochs:
                end.finish()
                break
    return history


def _as_validation(
    validation_data: Sequence[npt.ArrayLike] | None, architecture: Architecture
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
    return as_examples(X, Y, rest[0] if rest else None, architecture, names=names)


def _draw_order(
    rng: np.random.Generator, last: npt.NDArray[np.intp] | None, n: int
) -> npt.NDArray[np.intp]:
    return rng.permutation(n)


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


def _print(end: EpochEnd) -> None:
    validation = "" if end.validation_loss is None else f"  validation {end.validation_loss:.6f}"
    print(
        f"epoch {end.epoch:{len(str(end.epochs))}}/{end.epochs}  loss {end.loss:.6f}{validation}  "
        f"{end.seconds:.3f} s",
        flush=True,
    )
