"""Callbacks: nncore's, and those of scikit-learn 1.9 and newer."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from ..callbacks import any_stops, as_callbacks
from ..history import EpochEnd
from ..network import Network

try:  # from scikit-learn 1.9 on
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Empty, since this scikit-learn has no callbacks."""


__all__ = ["CallbackSupportMixin", "Reports"]


class Reports:
    """Both kinds of callbacks of one fit.

    scikit-learn's callbacks get a task "fit" with a subtask per iteration. partial_fit does not
    call them. nncore's get no optimizer, since the estimator's parameters determine it.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        incremental: bool,
        validates: bool,
    ) -> None:
        self._estimator = estimator
        names = ["loss", "validation_loss"] if validates else ["loss"]
        self._callbacks = as_callbacks(estimator.callbacks or (), names, None)
        self._epochs = 1 if incremental else estimator.max_iter
        self._n_examples = X.shape[0]
        self._last: EpochEnd | None = None
        self._data = {
            "X": X,
            "y": y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        self._context: Any = None
        if not incremental and hasattr(estimator, "_init_callback_context"):
            # L-BFGS may make one iteration more than its limit.
            self._context = estimator._init_callback_context(max_subtasks=estimator.max_iter + 1)
            self._context.call_on_fit_task_begin(estimator=estimator, **self._data)

    def is_wanted(self) -> bool:
        """Return whether there is a callback to call after an iteration."""
        return bool(self._callbacks) or hasattr(self._estimator, "_skl_callbacks")

    def iteration(
        self,
        epoch: int,
        loss: float,
        validation_loss: float | None,
        seconds: float,
        network: Network,
    ) -> bool:
        """Report the end of an iteration; return whether a callback stops the fit."""
        self._last = EpochEnd(
            epoch=epoch,
            epochs=self._epochs,
            loss=loss,
            validation_loss=validation_loss,
            seconds=seconds,
            n_examples=self._n_examples,
            network=network,
        )
        stop = any_stops(self._callbacks, self._last)
        if self._context is not None and hasattr(self._estimator, "_skl_callbacks"):
            context = self._context.subcontext(task_name="iteration")
            context.call_on_fit_task_begin(estimator=self._estimator, **self._data)
            stop |= bool(
                context.call_on_fit_task_end(
                    estimator=self._estimator,
                    reconstruction_attributes=self._parameters,
                    **self._data,
                )
            )
        return stop

    def _parameters(self) -> dict[str, Any]:
        return {
            "coefs_": [W.copy() for W in self._estimator.coefs_],
            "intercepts_": [b.copy() for b in self._estimator.intercepts_],
        }

    def end(self) -> None:
        """Report the end of the fit."""
        if self._last is not None:
            self._last.finish()
        if self._context is not None:
            self._context.call_on_fit_task_end(
                estimator=self._estimator,
                reconstruction_attributes=self._parameters,
                **self._data,
            )
