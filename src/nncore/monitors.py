"""Callbacks that act when a loss or metric improves or does not."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._arrays import as_vector
from ._checks import as_bool, as_integer, as_real, suggestion
from ._files import FilePath, as_path
from .history import EpochEnd
from .metrics import METRICS, VALIDATION
from .optimizers import Optimizer
from .typing import Mode

if TYPE_CHECKING:
    from .network import Network

__all__ = ["BestModel", "EarlyStopping", "Monitor", "ReduceOnPlateau"]

# Which values of a monitored number are better, without the prefix of validation data.
_MODES: dict[str, Mode] = {"loss": "min", **{name: m.mode for name, m in METRICS.items()}}


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
        base = monitor.removeprefix(VALIDATION)
        if mode is None and base not in _MODES:
            raise ValueError(
                f"mode must be 'min' or 'max' for {monitor!r}, a metric that nncore does not know, "
                f"got None{suggestion(base, _MODES)}"
            )
        if mode is None:
            mode = _MODES[base]
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
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

    @property
    def settings(self) -> dict[str, Any]:
        """What a resumed run must have in common with the interrupted one."""
        return {"monitor": self.monitor, "mode": self.mode, "min_delta": self.min_delta}

    def state(self) -> dict[str, Any]:
        """Return the state."""
        return {"best_value": self.best_value, "best_epoch": self.best_epoch}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        value, epoch = state["best_value"], state["best_epoch"]
        self.best_value = None if value is None else as_real("best_value", value)
        self.best_epoch = as_integer("best_epoch", epoch, low=0, high=None)


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
        if self.best_parameters is not None and self.best_epoch < end.epoch:
            end.when_last(lambda: self.finish(end.network))
        return end.epoch - self.best_epoch >= self.patience

    def finish(self, network: Network) -> None:
        """Give the network the parameters of the best epoch, if there are any."""
        if self.best_parameters is not None:
            network.parameters = self.best_parameters

    @property
    def settings(self) -> dict[str, Any]:  # noqa: D102 - described in the base class
        settings = {"patience": self.patience, "restore_best": self.restore_best}
        return {**super().settings, **settings}

    def state(self) -> dict[str, Any]:  # noqa: D102 - described in the base class
        return {**super().state(), "best_parameters": self.best_parameters}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().set_state(state)
        best = state["best_parameters"]
        if best is not None:
            best = np.asarray(best)
            best = as_vector("best_parameters", best, best.size, best.dtype)
        self.best_parameters = best


class BestModel(Monitor):
    """Save the network whenever a loss or metric is the best so far.

    Parameters
    ----------
    path : str or path
        Of the file, as in ``Network.save``; each fit replaces it with its first epoch.
    monitor : str, default "validation_loss"
        As in `Monitor`.
    min_delta : float, default 0
        As in `Monitor`.
    mode : {"min", "max"}, optional
        As in `Monitor`.

    Raises
    ------
    TypeError, ValueError
        As in `Monitor`.
    OSError
        As a callback: the file could not be written.
    """

    def __init__(
        self,
        path: FilePath,
        monitor: str = "validation_loss",
        min_delta: float = 0.0,
        *,
        mode: Mode | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.path = as_path(path)

    def __call__(self, end: EpochEnd) -> None:
        """Save the network if the epoch is the best."""
        if self.improves(end):
            end.network.save(self.path)


class ReduceOnPlateau(Monitor):
    """Reduce the learning rate when a loss or metric has not improved for some epochs.

    Parameters
    ----------
    monitor : str, default "validation_loss"
        As in `Monitor`.
    factor : float, default 0.5
        In (0, 1); multiplies the optimizer's learning rate.
    patience : int, default 5
        The rate is reduced after this many epochs without improvement, and again after as many
        further ones.
    min_rate : float, default 0
        The smallest rate.
    min_delta : float, default 0
        An improvement is larger than this.
    mode : {"min", "max"}, optional
        As in `Monitor`.

    Attributes
    ----------
    best_value : float or None
    best_epoch : int
    reduced_epoch : int
        The epoch after which the rate was reduced last, 0 for none.

    Raises
    ------
    TypeError, ValueError
        As in `Monitor`. As a callback, before training: the optimizer's learning rate is a
        schedule, or an estimator of `nncore.sklearn` is fitted.

    Notes
    -----
    The optimizer keeps the reduced rate after the fit.
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        factor: float = 0.5,
        patience: int = 5,
        min_rate: float = 0.0,
        min_delta: float = 0.0,
        *,
        mode: Mode | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = as_real("factor", factor)
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must be between 0 and 1, got {factor!r}")
        self.patience = as_integer("patience", patience, high=None)
        self.min_rate = as_real("min_rate", min_rate)
        if not 0 <= self.min_rate < math.inf:
            raise ValueError(f"min_rate must be >= 0 and finite, got {min_rate!r}")

    def _restart(self) -> None:
        super()._restart()
        self.reduced_epoch = 0

    def check(self, names: Collection[str], optimizer: Optimizer | None) -> None:  # noqa: D102
        super().check(names, optimizer)
        if optimizer is None:
            raise ValueError(
                "ReduceOnPlateau needs an optimizer, but the parameters of an estimator determine "
                "its learning rate; solver='sgd' has learning_rate='adaptive'"
            )
        if callable(optimizer.learning_rate):
            raise ValueError(
                "ReduceOnPlateau needs an optimizer whose learning_rate is a number, got the "
                f"schedule {optimizer.learning_rate!r}"
            )

    def __call__(self, end: EpochEnd) -> None:
        """Note the epoch; reduce the rate if it is time."""
        self.improves(end)
        if end.epoch - max(self.best_epoch, self.reduced_epoch) >= self.patience:
            self.reduced_epoch = end.epoch
            assert end.optimizer is not None
            rate = end.optimizer.learning_rate
            assert not callable(rate)
            end.optimizer.learning_rate = min(rate, max(rate * self.factor, self.min_rate))

    @property
    def settings(self) -> dict[str, Any]:  # noqa: D102
        settings = {"factor": self.factor, "patience": self.patience, "min_rate": self.min_rate}
        return {**super().settings, **settings}

    def state(self) -> dict[str, Any]:  # noqa: D102
        return {**super().state(), "reduced_epoch": self.reduced_epoch}

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().set_state(state)
        epoch = state["reduced_epoch"]
        self.reduced_epoch = as_integer("reduced_epoch", epoch, low=0, high=None)
