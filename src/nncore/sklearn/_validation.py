"""Validation data: set aside or given, their loss and their score."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split

from .. import _kernels
from ..network import Network

__all__ = ["ValidationSet", "split"]

Array = npt.NDArray[Any]


class ValidationSet:
    """Examples that are not trained on.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, n_0)
    Y : targets as the core takes them
    y : targets as a score takes them
    sample_weight : ndarray of shape (n,), optional
    """

    def __init__(self, X: Any, Y: Array, y: Array, sample_weight: Array | None) -> None:
        self.X, self.Y, self.y, self.sample_weight = X, Y, y, sample_weight

    def evaluate(self, estimator: Any, network: Network) -> tuple[float, float]:
        """Return the mean loss, and the score that early stopping goes by."""
        outputs = estimator._outputs_of_checked(self.X)
        loss = self._loss(estimator, network, outputs)
        if estimator.scoring is None:
            return loss, estimator._score(self.y, outputs, self.sample_weight)
        if estimator.scoring == "loss":
            return loss, -loss
        scorer = check_scoring(estimator, scoring=estimator.scoring)
        weights = {} if self.sample_weight is None else {"sample_weight": self.sample_weight}
        estimator._checked_X = self.X
        try:
            return loss, float(scorer(estimator, self.X, self.y, **weights))
        finally:
            del estimator._checked_X

    def _loss(self, estimator: Any, network: Network, outputs: Array) -> float:
        if self.Y.ndim == 1:
            targets = np.zeros_like(outputs)
            targets[np.arange(len(self.Y)), self.Y] = 1
        else:
            targets = np.ascontiguousarray(self.Y, outputs.dtype)
        weights, total = None, float(len(self.Y))
        if self.sample_weight is not None:
            weights = np.ascontiguousarray(self.sample_weight, outputs.dtype)
            total = float(self.sample_weight.sum(dtype=np.float64))
        summed = _kernels.loss(outputs, targets, weights, network._loss)
        return summed * float(estimator._loss_factor) / total


def split(
    estimator: Any, X: Any, Y: Array, labels: Array, sample_weight: Array | None
) -> tuple[Any, Array, Array | None, ValidationSet]:
    """Set `validation_fraction` of the examples aside, in each class for two classes."""
    stratify = estimator._strata(Y)
    rows, held_out = train_test_split(
        np.arange(X.shape[0]),
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=stratify,
    )
    if len(held_out) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your "
            "dataset."
        )
    weights, weights_val = None, None
    if sample_weight is not None:
        weights, weights_val = sample_weight[rows], sample_weight[held_out]
    validation = ValidationSet(X[held_out], Y[held_out], labels[held_out], weights_val)
    return X[rows], Y[rows], weights, validation
