"""What callbacks are told: nncore's after each epoch, scikit-learn's where it has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..training import EpochEnd

try:  # from scikit-learn 1.9 on
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""


__all__ = ["CallbackSupportMixin", "Reports"]


class Reports:
    """Both kinds of callbacks of one fit.

    scikit-learn's see a task "fit" with a subtask per iteration; partial_fit is none of its tasks.
    """

    def __init__(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any, *, incremental: bool
    ) -> None:
        self._estimator = estimator
        self._callbacks = list(estimator.callbacks or ())
        for callback in self._callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks must hold callables, got {callback!r}")
        self._data = {
            "X": X,
            "y": y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        self._context: Any = None
        if not incremental and hasattr(estimator, "_init_callback_context"):
            # L-BFGS may end with one iteration more than it was to make.
            self._context = estimator._init_callback_context(max_subtasks=estimator.max_iter + 1)
            self._context.call_on_fit_task_begin(estimator=estimator, **self._data)

    def is_wanted(self) -> bool:
        """Whether anybody looks at the network after an iteration."""
        return bool(self._callbacks) or hasattr(self._estimator, "_skl_callbacks")

    def iteration(
        self, epoch: int, loss: float, validation_loss: float | None, seconds: float, network: Any
    ) -> bool:
        """Tell of the end of an iteration; return whether a callback wants it to be the last."""
        end = EpochEnd(epoch, loss, validation_loss, seconds, network)
        answers = [callback(end) for callback in self._callbacks]
        stop = any(isinstance(answer, (bool, np.bool_)) and answer for answer in answers)
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
        """Tell scikit-learn's callbacks that the fit has ended."""
        if self._context is not None:
            self._context.call_on_fit_task_end(
                estimator=self._estimator,
                reconstruction_attributes=self._parameters,
                **self._data,
            )
