"""Callbacks of `Network.fit`.

A callback is any function that takes an `nncore.EpochEnd`; training stops if it returns True. One
with a state may also have the methods ``state()``, which returns it as a dict of JSON values and
arrays, and ``set_state(dict)``, so that a resumed run continues with it. That is the whole
protocol.

The classes here start afresh with the first epoch of each fit, so an instance can be used again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ._checks import as_bool, as_integer, as_real
from .history import Callback, EpochEnd
from .optimizers import Optimizer

__all__ = ["EarlyStopping", "Mode", "Monitor", "any_stops", "as_callbacks"]

Mode = Literal["min", "max"]

# Which values of a monitored number are better; with or without the prefix "validation_".
_MODES: dict[str, Mode] = {"loss": "min"}


class Monitor:
    """The best value of a loss or metric so far: the base of callbacks that act on it.

    Parameters
    ----------
    monitor : str
        A name in ``EpochEnd.values``: "loss", "validation_loss", "accuracy",
        "validation_accuracy", ...
    mode : {"min", "max"}, optional
        Whether smaller or larger values are better; by default "min" for losses and errors and
        "max" for scores. Metrics of your own need it.
    min_delta : float, default 0
        A value is better than the best one only if it differs by more.

    Attributes
    ----------
    best_value : float or None
        None if no value was a number.
    best_epoch : int
        The epoch of `best_value`, 0 for None.

    Raises
    ------
    TypeError, ValueError
        An argument is invalid. As a callback, before training: the fit has no `monitor`.
    """

    def __init__(self, monitor: str, mode: Mode | None, min_delta: float) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a name such as 'validation_loss', got {monitor!r}")
        if mode is None:
            mode = _MODES.get(monitor.removeprefix("validation_"))
        if mode not in ("min", "max"):
            own = "" if mode else f" for the metric {monitor!r}"
            raise ValueError(f"mode must be 'min' or 'max'{own}, got {mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = as_real("min_delta", min_delta)
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta must be >= 0 and finite, got {min_delta!r}")
        self._restart()

    def _restart(self) -> None:
        """Forget earlier fits."""
        self.best_value: float | None = None
        self.best_epoch = 0

    def check(self, names: Collection[str], optimizer: Optimizer | None) -> None:
        """Raise ValueError if a fit with these losses and metrics and this optimizer is no use."""
        if self.monitor not in names:
            raise ValueError(
                f"{type(self).__name__} monitors {self.monitor!r}, but this fit has {list(names)}; "
                "validation_data or validation_split and metrics=[...] add more"
            )

    def improves(self, end: EpochEnd) -> bool:
        """Return whether the epoch's value is the best so far; if so, note it."""
        if end.epoch == 1:
            self._restart()
        self.check(end.values, end.optimizer)
        value = end.values[self.monitor]
        sign = 1 if self.mode == "max" else -1
        is_better = (
            not math.isnan(value)
            if self.best_value is None
            else sign * (value - self.best_value) > self.min_delta
        )
        if is_better:
            self.best_value, self.best_epoch = value, end.epoch
        return is_better

    def state(self) -> dict[str, Any]:
        """Return the state."""
        return {"best_value": self.best_value, "best_epoch": self.best_epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]


class EarlyStopping(Monitor):
    """Stop when a loss or metric has not improved for some epochs, and keep the best network.

    Parameters
    ----------
    monitor : str, default "validation_loss"
        As in `Monitor`.
    patience : int, default 10
        Training stops after this many epochs without improvement.
    min_delta : float, default 0
        An improvement is larger than this.
    restore_best : bool, default True
        Whether the network gets the parameters of the best epoch when training ends, whatever ended
        it: this callback, another one, or the last epoch. After Ctrl-C and other exceptions it
        keeps the last ones; ``network.parameters = stopping.best_parameters`` restores the best.
    mode : {"min", "max"}, optional
        As in `Monitor`.

    Attributes
    ----------
    best_value : float or None
    best_epoch : int
    best_parameters : ndarray of shape (n_parameters,) or None
        Of the best epoch, with `restore_best`.

    Raises
    ------
    TypeError, ValueError
        As in `Monitor`.

    Examples
    --------
    >>> import nncore
    >>> images, labels = nncore.datasets.load_digits()
    >>> net = nncore.Network([64, 30, 10], loss="cross_entropy", seed=0)
    >>> stopping = nncore.callbacks.EarlyStopping(patience=3)
    >>> history = net.fit(
    ...     images[:500], labels[:500], validation_data=(images[500:], labels[500:]),
    ...     epochs=1000, optimizer=nncore.Adam(0.01), callbacks=[stopping], seed=0)
    >>> len(history) == stopping.best_epoch + 3
    True
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
        *,
        mode: Mode | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = as_integer("patience", patience, high=None)
        self.restore_best = as_bool("restore_best", restore_best)

    def _restart(self) -> None:
        super()._restart()
        self.best_parameters: npt.NDArray[Any] | None = None

    def __call__(self, end: EpochEnd) -> bool:
        """Note the epoch; return whether to stop."""
        if self.improves(end) and self.restore_best:
            self.best_parameters = end.network.copy_parameters()
        best = self.best_parameters
        if best is not None and self.best_epoch < end.epoch:
            end.when_last(lambda: setattr(end.network, "parameters", best))
        return end.epoch - self.best_epoch >= self.patience

    def state(self) -> dict[str, Any]:  # noqa: D102 - described in the base class
        return {**super().state(), "best_parameters": self.best_parameters}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().set_state(state)
        self.best_parameters = state["best_parameters"]


def as_callbacks(
    callbacks: Iterable[Callback], names: Collection[str], optimizer: Optimizer | None
) -> list[Callback]:
    """Return the callbacks of a fit as a list.

    Parameters
    ----------
    callbacks : sequence of callables
    names : collection of str
        The losses and metrics that the fit reports.
    optimizer : Optimizer or None
        The optimizer that the fit reports.

    Raises
    ------
    TypeError, ValueError
        `callbacks` is not a sequence of callables, or one of them is no use in this fit.
    """
    try:
        checked = list(callbacks)
    except TypeError:
        raise TypeError(f"callbacks must be a sequence of callables, got {callbacks!r}") from None
    for callback in checked:
        if not callable(callback):
            raise TypeError(f"callbacks must be callables, got {callback!r}")
        if isinstance(callback, Monitor):
            callback.check(names, optimizer)
    return checked


def any_stops(callbacks: Iterable[Callable[[Any], object]], end: object) -> bool:
    """Call every callback with `end`; return whether one of them returned True."""
    answers = [callback(end) for callback in callbacks]
    return any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)
