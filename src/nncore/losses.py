"""Losses of users: what they return for a batch, and `check_loss`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from ._checks import as_custom_loss, as_integer, as_real, one_of
from .architecture import ACTIVATIONS
from .enums import SLOPES
from .reference import ACTIVATIONS as SIGMA
from .typing import ActivationName, CustomLoss

__all__ = ["StoredLoss", "batch_loss", "check_loss", "loss_title", "total_loss"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredLoss:
    """The loss of a network that a file was loaded from: its class's name, without the code.

    The network computes outputs and derivatives of outputs, but no losses.
    """

    name: str

    @classmethod
    def of(cls, loss: CustomLoss) -> StoredLoss:
        """Return what a file holds of a loss."""
        return loss if isinstance(loss, StoredLoss) else cls(type(loss).__name__)

    def value(self, A: Array, Y: Array) -> NoReturn:
        """Raise TypeError."""
        raise TypeError(
            f"the network was loaded without the code of its loss {self.name}; "
            f"nncore.load(path, loss={self.name}(...)) gives it"
        )

    delta = value


def loss_title(loss: CustomLoss | None) -> str:
    """Return what messages call the value of a loss, None for one of nncore's."""
    return "the loss" if loss is None else f"the loss, {_method(loss, 'value')},"


def batch_loss(
    loss: CustomLoss, A: Array, Y: Array, sample_weight: Array | None
) -> tuple[float, Array]:
    """Return the loss of a batch and its derivative by the outputs.

    Parameters
    ----------
    loss : CustomLoss
    A : ndarray of shape (N, n_L)
        The outputs; it becomes read-only.
    Y : ndarray of shape (N, ...)
        The targets; the view becomes read-only.
    sample_weight : ndarray of shape (N,), optional

    Returns
    -------
    total : float
        As `total_loss` returns it.
    derivative : ndarray of shape (N, n_L)
        ∂loss/∂A of each example without its weight, in C order and the dtype of A.

    Raises
    ------
    TypeError, ValueError
        A method returned something else than real numbers of its shape, or a derivative that is
        not finite although outputs and loss are.
    """
    total = total_loss(loss, A, Y, sample_weight)
    returned = _returned(loss, "delta", A, Y, A.shape)
    if returned.dtype == A.dtype:
        derivative = np.ascontiguousarray(returned)
    else:
        with np.errstate(over="ignore"):
            derivative = np.ascontiguousarray(returned, dtype=A.dtype)
    if math.isfinite(total) and not np.isfinite(derivative).all():
        _check_derivative(loss, derivative, A, sample_weight)
    return total, derivative


def total_loss(loss: CustomLoss, A: Array, Y: Array, sample_weight: Array | None) -> float:
    """Return the sum of weight times loss over the examples of nonzero weight.

    `batch_loss` describes parameters and errors.
    """
    A.flags.writeable = False
    Y.flags.writeable = False
    values = _returned(loss, "value", A, Y, A.shape[:1]).astype(np.float64)
    if sample_weight is not None:
        used = sample_weight != 0
        values = values[used] * sample_weight[used]
    return float(np.add.reduce(values))


def _method(loss: CustomLoss, name: str) -> str:
    return f"{type(loss).__name__}.{name}"


def _returned(
    loss: CustomLoss, name: Literal["value", "delta"], A: Array, Y: Array, shape: tuple[int, ...]
) -> Array:
    """Return what a method returns, as an array of this shape."""
    returned = getattr(loss, name)(A, Y)
    try:
        array = np.asarray(returned)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        got = type(returned).__name__ if array.dtype.kind == "O" else f"dtype {array.dtype}"
        raise TypeError(
            f"{_method(loss, name)} must return an array of real numbers of shape {shape}, "
            f"got {got}"
        )
    if array.shape != shape:
        what = "the loss of each example" if name == "value" else "∂loss/∂A of each example"
        raise ValueError(
            f"{_method(loss, name)} must return {what}, an array of shape {shape}, "
            f"got shape {array.shape}"
        )
    return array


def _check_derivative(
    loss: CustomLoss, derivative: Array, A: Array, sample_weight: Array | None
) -> None:
    wrong = ~np.isfinite(derivative)
    if sample_weight is not None:
        wrong[sample_weight == 0] = False
    # Outputs that are not finite show in the parameters.
    wrong[~np.isfinite(A).all(axis=1)] = False
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{_method(loss, 'delta')} must be finite where outputs and losses are, got "
            f"{derivative[row, column]} in row {row}, column {column} of a batch, where the "
            f"output is {A[row, column]}"
        )


def check_loss(
    loss: CustomLoss,
    n_outputs: int = 1,
    *,
    output_activation: ActivationName = "identity",
    Y: npt.ArrayLike | None = None,
    n_examples: int = 16,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> float:
    """Compare `delta` of a loss of yours with central differences of `value`, in float64.

    Parameters
    ----------
    loss : CustomLoss
    n_outputs : int, default 1
        n_L of the networks that the loss is for.
    output_activation : str, default "identity"
        Of these networks: the outputs are σ of random numbers from N(0, 1).
    Y : array_like of shape (n_examples, ...), optional
        The targets; by default random numbers drawn as the outputs are.
    n_examples : int, default 16
        How many examples are drawn, unless Y says it.
    tolerance : float, default 1e-6
        The largest deviation, relative to the largest derivative.
    seed : int, default 0
        The source of the random numbers.

    Returns
    -------
    float
        The largest deviation found.

    Raises
    ------
    AssertionError
        A deviation exceeds the tolerance; the message says where and by how much. A kink of the
        loss within 0.0002 of an output can be the cause, too: try another seed.
    TypeError, ValueError
        An argument is invalid, or a method returned something else than real numbers of its shape.

    Examples
    --------
    >>> import numpy as np
    >>> import nncore
    >>> class LogCosh:
    ...     def value(self, A, Y):
    ...         return np.log(np.cosh(A - Y)).sum(axis=1)
    ...     def delta(self, A, Y):
    ...         return np.tanh(A - Y)
    >>> nncore.check_loss(LogCosh(), n_outputs=3) < 1e-8
    True
    """
    as_custom_loss(loss)
    kind = one_of("output_activation", output_activation, ACTIVATIONS)
    sigma, slope = SIGMA[kind][0], SLOPES.get(kind, 1.0)
    rng = np.random.default_rng(as_integer("seed", seed, low=0, high=None))
    n = n_examples if Y is None else len(np.atleast_1d(Y))
    rows = as_integer("n_examples" if Y is None else "the number of Y's rows", n)
    shape = rows, as_integer("n_outputs", n_outputs)
    limit = as_real("tolerance", tolerance)
    A = sigma(rng.standard_normal(shape), slope)
    targets = sigma(rng.standard_normal(shape), slope) if Y is None else np.atleast_1d(Y)

    delta = _returned(loss, "delta", A, targets, shape).astype(np.float64)
    differences, largest = _differences(loss, A, targets)
    deviations = np.abs(delta - differences)
    # Rounding of the losses causes about 1e-10 of the largest one.
    allowed = limit * np.abs(differences).max() + 1e-9 * largest
    if not (deviations <= allowed).all():  # NaN deviates, too
        row, column = np.unravel_index(deviations.argmax(), shape)
        raise AssertionError(
            f"{_method(loss, 'delta')} deviates from the central difference of "
            f"{_method(loss, 'value')} by {deviations[row, column]:.3g} in row {row}, column "
            f"{column}: it is {delta[row, column]:.9g}, the difference "
            f"{differences[row, column]:.9g}, where the outputs are {A[row]} and the target is "
            f"{targets[row]}"
        )
    return float(deviations.max())


def _differences(loss: CustomLoss, A: Array, Y: Array) -> tuple[Array, float]:
    """Return central differences of each example's loss, and the largest loss."""

    def values(outputs: Array) -> Array:
        return _returned(loss, "value", outputs, Y, A.shape[:1]).astype(np.float64)

    differences = np.empty(A.shape)
    for j in range(A.shape[1]):
        h = np.zeros(A.shape)
        h[:, j] = 1e-4 * np.maximum(np.abs(A[:, j]), 0.1)
        # Combine differences of h and 2 h so that their errors of order h² cancel.
        near, far = (values(A + k * h) - values(A - k * h) for k in (1, 2))
        differences[:, j] = (8 * near - far) / (12 * h[:, j])
    return differences, float(np.abs(values(A)).max())
