"""The examples that an estimator works on; sparse ones become dense a few batches at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from .._layout import Examples
from .._step import Workspace
from ..network import Network

__all__ = ["TrainingSet", "outputs_of"]

Array = npt.NDArray[Any]

# How many elements of a sparse matrix are dense at a time, if they are not more in one batch.
_DENSE_ELEMENTS = 2**18

_GRADIENT_BATCH = 256


def _dense_rows(batch_size: int, n_features: int) -> int:
    """Return how many rows, a multiple of the batch size, to densify at a time."""
    return max(1, _DENSE_ELEMENTS // max(1, n_features) // batch_size) * batch_size


class TrainingSet:
    """Inputs, targets and weights in the types that the compiled step takes.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n, n_0), float32 or float64
    Y : ndarray of shape (n, n_L), float32, float64 or uint8, or of shape (n,) and intp: classes
    sample_weight : ndarray of shape (n,), optional
    dtype : dtype of the network
    """

    def __init__(self, X: Any, Y: Array, sample_weight: Array | None, dtype: np.dtype[Any]) -> None:
        self.n = int(X.shape[0])
        self.X, self.Y = X, Y
        self.sample_weight = (
            None if sample_weight is None else np.ascontiguousarray(sample_weight, dtype)
        )
        self.weight = float(
            self.n if sample_weight is None else sample_weight.sum(dtype=np.float64)
        )
        self.is_sparse = scipy.sparse.issparse(X)
        if not self.is_sparse:
            if X.dtype.itemsize > dtype.itemsize:
                # Every epoch reads them all: half the bytes, and no conversions, are worth a copy.
                self.X = X = np.ascontiguousarray(X, dtype)
            self._examples = Examples(X, Y, self.sample_weight)

    def _some(self, rows: Array | slice) -> Examples:
        weights = self.sample_weight
        return Examples(
            self.X[rows].toarray(),
            np.ascontiguousarray(self.Y[rows]),
            None if weights is None else np.ascontiguousarray(weights[rows]),
        )

    def train(
        self, workspace: Workspace, order: Array | None, batch_size: int, batch_losses: Array
    ) -> None:
        """Run the steps of an epoch; `batch_losses` as in `Workspace.train`."""
        if not self.is_sparse:
            workspace.train(self._examples, order, batch_size, batch_losses)
            return
        step = _dense_rows(batch_size, self.X.shape[1])
        for begin in range(0, self.n, step):
            rows = slice(begin, begin + step) if order is None else order[begin : begin + step]
            at = begin // batch_size
            workspace.train(self._some(rows), None, batch_size, batch_losses[at:])

    def gradient(self, network: Network, out: Array, n_threads: int | None) -> float:
        """Set `out` to the gradient of the mean loss; return the mean loss."""
        batch_size = min(self.n, _GRADIENT_BATCH)
        team = network._team_size(n_threads, self.n, batch_size)
        with network._workspace(batch_size, team) as workspace:
            workspace.load()
            if not self.is_sparse:
                return workspace.add_gradient(out, self._examples, 1 / self.weight) / self.weight
            total, part = 0.0, np.empty_like(out)
            out[...] = 0
            step = _dense_rows(batch_size, self.X.shape[1])
            for begin in range(0, self.n, step):
                rows = self._some(slice(begin, begin + step))
                total += workspace.add_gradient(part, rows, 1 / self.weight)
                out += part
            return total / self.weight


def outputs_of(
    network: Network, X: Any, n_threads: int | None, check_rows: bool = False
) -> Array | None:
    """Return the network's outputs for each row of X, which has been checked.

    With `check_rows` it has not been looked through yet: None if it is not finite.
    """
    if not scipy.sparse.issparse(X):
        few_outputs = network._predict_few(X, n_threads)
        if few_outputs is None:
            return network._predict(X, n_threads, check_rows=check_rows)
        return few_outputs
    X = X.tocsr()
    outputs = np.empty((X.shape[0], network.sizes[-1]), dtype=network.dtype)
    step = _dense_rows(64, X.shape[1])
    for begin in range(0, X.shape[0], step):
        rows = X[begin : begin + step].toarray()
        outputs[begin : begin + step] = network._predict(rows, n_threads)
    return outputs
