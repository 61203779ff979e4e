"""Validation data, held out or given, and their loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from .. import _kernels
from ..enums import Loss

__all__ = ["ValidationSet", "split"]

Array = npt.NDArray[Any]


class ValidationSet:
    """Examples that are not trained on.

    Parameters
    ----------
    X : ndarray or sparse matrix of shape (n, n_0)
    Y : targets for the core
    y : targets for a score
    sample_weight : ndarray of shape (n,), optional
    """

    def __init__(self, X: Any, Y: Array, y: Array, sample_weight: Array | None) -> None:
        self.X, self.Y, self.y, self.sample_weight = X, Y, y, sample_weight

    def mean_loss(self, outputs: Array, loss: Loss) -> float:
        """Return the mean loss of the outputs for X."""
        if self.Y.ndim == 1:
            targets = np.zeros_like(outputs)
            targets[np.arange(len(self.Y)), self.Y] = 1
        else:
            targets = np.ascontiguousarray(self.Y, outputs.dtype)
        weights, total = None, float(len(self.Y))
        if self.sample_weight is not None:
            weights = np.ascontiguousarray(self.sample_weight, outputs.dtype)
            total = float(self.sample_weight.sum(dtype=np.float64))
        return _kernels.loss(outputs, targets, weights, loss) / total


def split(
    X: Any,
    Y: Array,
    labels: Array,
    sample_weight: Array | None,
    *,
    fraction: float,
    stratify: Array | None,
    random_state: Any,
) -> tuple[Any, Array, Array | None, ValidationSet]:
    """Hold out a fraction of the examples, of each stratum if there are strata."""
    rows, held_out = train_test_split(
        np.arange(X.shape[0]), random_state=random_state, test_size=fraction, stratify=stratify
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
