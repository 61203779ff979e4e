"""The examples of an estimator. Sparse ones are converted a few batches at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from .._layout import Examples
from ..network import Network
from ..resuming import fingerprints
from ..session import GRADIENT_BATCH
from ..training import Piece, Pieces

__all__ = ["TrainingSet", "outputs_of"]

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]

# The number of elements of a sparse matrix to convert at a time, unless one batch has more.
_DENSE_ELEMENTS = 2**18

# `outputs_of` converts a multiple of this number of rows at a time.
_OUTPUT_ROWS = 64


def _dense_rows(batch_size: int, n_features: int) -> int:
    """Return the number of rows, a multiple of the batch size, to convert at a time."""
    return max(1, _DENSE_ELEMENTS // max(1, n_features) // batch_size) * batch_size


class TrainingSet:
    """A `training.Data` of inputs, targets and weights in the types that the compiled step reads.

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
        self._examples: Examples | None = None
        if not scipy.sparse.issparse(X):
            if X.dtype.itemsize > dtype.itemsize:
                # Copy once, since each epoch would read and convert all of X.
                self.X = np.ascontiguousarray(X, dtype)
            self._examples = Examples(self.X, Y, self.sample_weight)

    def _dense(self, rows: Array | slice) -> Examples:
        weights = self.sample_weight
        return Examples(
            self.X[rows].toarray(),
            np.ascontiguousarray(self.Y[rows]),
            None if weights is None else np.ascontiguousarray(weights[rows]),
        )

    def pieces(self, order: Order | None, batch_size: int, begin: int) -> Pieces:
        if self._examples is not None:
            yield Piece(self._examples, order, begin, self.n)
            return
        step = _dense_rows(batch_size, self.X.shape[1])
        for first in range(begin, self.n, step):
            rows = slice(first, min(first + step, self.n))
            examples = self._dense(rows if order is None else order[rows])
            yield Piece(examples, None, 0, examples.n)

    def described(self) -> dict[str, str | None]:
        """Return a short description of each array, to tell it from others."""
        examples = self._examples
        if examples is None:
            examples = self._dense(np.linspace(0, self.n - 1, min(self.n, 64)).astype(np.intp))
        return fingerprints("", examples, np.dtype(np.float64))

    def gradient(self, network: Network, out: Array, n_threads: int | None) -> float:
        """Set `out` to the gradient of the mean loss; return the mean loss."""
        batch_size = min(self.n, GRADIENT_BATCH)
        total, part = 0.0, np.empty_like(out)
        out[...] = 0
        with network.session(self.n, batch_size=batch_size, n_threads=n_threads) as session:
            for piece in self.pieces(None, batch_size, 0):
                total += session.gradient(part, piece.examples, 1 / self.weight)
                out += part
        return total / self.weight


def outputs_of(network: Network, X: Any, n_threads: int | None) -> Array:
    """Return the network's outputs for each row of X."""
    if not scipy.sparse.issparse(X):
        return network.predict(X, n_threads=n_threads)
    X = X.tocsr()
    outputs = np.empty((X.shape[0], network.sizes[-1]), dtype=network.dtype)
    step = _dense_rows(_OUTPUT_ROWS, X.shape[1])
    for begin in range(0, X.shape[0], step):
        rows = X[begin : begin + step].toarray()
        outputs[begin : begin + step] = network.predict(rows, n_threads=n_threads)
    return outputs
