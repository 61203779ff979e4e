"""Metrics: what `Network.fit` computes after an epoch besides the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._checks import as_real, one_of
from .architecture import Architecture
from .enums import Activation, Loss
from .typing import MetricFunction, Metrics, Mode

__all__ = ["BLOCK_BYTES", "METRICS", "VALIDATION", "Metric", "as_metrics"]

Array = npt.NDArray[Any]

# Of targets, outputs and the examples' weights.
_Function = Callable[[Array, Array, Array | None], object]

# How many outputs a metric takes at a time, and what that takes: up to four arrays of float64.
_BLOCK = 1 << 16
BLOCK_BYTES = 4 * 8 * _BLOCK

# What the names of losses and metrics of the validation data begin with.
VALIDATION = "validation_"

# The names of other columns of a history.
_TAKEN = ("epoch", "loss", "seconds")


class Metric(NamedTuple):
    """A function of targets and outputs under its name."""

    name: str
    function: _Function

    def __call__(self, Y: Array, outputs: Array, sample_weight: Array | None) -> float:
        """Return the metric of some examples.

        Parameters
        ----------
        Y : ndarray of shape (n, n_L), or of shape (n,): class indices
        outputs : ndarray of shape (n, n_L)
        sample_weight : ndarray of shape (n,) or None
            Functions of users do not get it.
        """
        return as_real(f"the metric {self.name!r}", self.function(Y, outputs, sample_weight))


def _mean(
    function: Callable[[Array, Array], Any], Y: Array, outputs: Array, weights: Array | None
) -> Any:
    """Return the mean of a function's values; examples without weight may have any values."""
    total: Any = 0.0
    total_weight = 0.0
    step = max(1, _BLOCK // outputs.shape[1])
    for begin in range(0, len(Y), step):
        rows = slice(begin, begin + step)
        values = function(Y[rows], outputs[rows])
        if weights is None:
            total = total + values.sum(axis=0)
            total_weight += len(values)
        else:
            used = weights[rows] > 0
            shares = weights[rows][used]
            total = total + (values[used].T * shares).T.sum(axis=0)
            total_weight += shares.sum()
    return total / total_weight


def _class_accuracy(Y: Array, outputs: Array, sample_weight: Array | None) -> object:
    """Return the share of examples whose largest output is that of their class."""

    def is_right(Y: Array, outputs: Array) -> Any:
        classes = Y if Y.ndim == 1 else Y.argmax(axis=1)
        return outputs.argmax(axis=1) == classes

    return _mean(is_right, Y, outputs, sample_weight)


def _label_accuracy(Y: Array, outputs: Array, sample_weight: Array | None) -> object:
    """Return the share of examples all of whose outputs are on the right side of 1/2."""

    def is_right(Y: Array, outputs: Array) -> Any:
        return ((outputs > 0.5) == (Y > 0.5)).all(axis=1)

    return _mean(is_right, Y, outputs, sample_weight)


def _accuracy(architecture: Architecture) -> _Function:
    output = architecture.activations[-1]
    if output not in (Activation.SIGMOID, Activation.SOFTMAX):
        raise ValueError(
            "metrics must suit the network: 'accuracy' needs sigmoid or softmax outputs, "
            f"got {output.name.lower()}"
        )
    has_labels = output == Activation.SIGMOID and (
        architecture.sizes[-1] == 1 or architecture.loss == Loss.BINARY_CROSS_ENTROPY
    )
    return _label_accuracy if has_labels else _class_accuracy


def _as_numbers(Y: Array, n_outputs: int) -> Array:
    if Y.ndim == 1:
        Y = Y[:, np.newaxis] == np.arange(n_outputs)
    return Y.astype(np.float64)


def _mean_absolute_error(Y: Array, outputs: Array, sample_weight: Array | None) -> object:
    """Return the mean of |y - a| over examples and outputs."""

    def errors(Y: Array, outputs: Array) -> Any:
        return np.abs(outputs - _as_numbers(Y, outputs.shape[1])).mean(axis=1)

    return _mean(errors, Y, outputs, sample_weight)


def _r2(Y: Array, outputs: Array, sample_weight: Array | None) -> object:
    """Return 1 - Σ (y - a)² / Σ (y - mean of y)², averaged over the outputs.

    Outputs with a constant target count as 1 if they equal it, else as 0.
    """
    n_outputs = outputs.shape[1]

    def squares(Y: Array, values: Array) -> Any:
        return (_as_numbers(Y, n_outputs) - values) ** 2

    # The variance of a constant is not 0 if its mean is rounded.
    first = 0 if sample_weight is None else int((sample_weight > 0).argmax())
    constant = _as_numbers(Y[first : first + 1], n_outputs)
    changes = _mean(lambda Y, _: _as_numbers(Y, n_outputs) != constant, Y, outputs, sample_weight)
    mean = _mean(lambda Y, _: _as_numbers(Y, n_outputs), Y, outputs, sample_weight)
    unexplained = _mean(squares, Y, outputs, sample_weight)
    variance = _mean(lambda Y, _: squares(Y, mean), Y, outputs, sample_weight)
    shares = np.where(unexplained == 0, 0.0, 1.0)
    np.divide(unexplained, variance, out=shares, where=(changes > 0) & (variance > 0))
    return 1 - shares.mean()


class _BuiltIn(NamedTuple):
    """Which values are better, and the function for an architecture."""

    mode: Mode
    choose: Callable[[Architecture], _Function]


# The metrics that have a name.
METRICS = {
    "accuracy": _BuiltIn("max", _accuracy),
    "mean_absolute_error": _BuiltIn("min", lambda _: _mean_absolute_error),
    "r2": _BuiltIn("max", lambda _: _r2),
}


def as_metrics(metrics: Metrics, architecture: Architecture) -> list[Metric]:
    """Return the checked metrics of a network.

    Raises
    ------
    TypeError, ValueError
        `metrics` is neither a sequence nor a dict of names and callables, a metric does not suit
        the network, or its own name is missing, taken or used twice.
    """
    if isinstance(metrics, str) or not isinstance(metrics, (Sequence, Mapping)):
        raise TypeError(
            "metrics must be a list of names and functions of (Y, outputs), or a dict of them, "
            f"got {metrics!r}"
        )
    named = metrics.items() if isinstance(metrics, Mapping) else ((None, m) for m in metrics)
    checked: dict[str, Metric] = {}
    for name, metric in named:
        if isinstance(metric, str):
            function = one_of("metrics", metric, METRICS).choose(architecture)
            if architecture.loss == Loss.CUSTOM:
                function = _with_checked_targets(metric, function)
            name = metric if name is None else name
        elif callable(metric):
            function = _without_weights(metric)
            name = getattr(metric, "__name__", "<none>") if name is None else name
        else:
            raise TypeError(f"metrics must be names or functions of (Y, outputs), got {metric!r}")
        if not isinstance(name, str):
            raise TypeError(f"metrics must have names that are strings, got {name!r}")
        if not name or name.startswith("<"):
            raise ValueError(
                f"metrics must have names, got {metric!r}; use a dict such as {{'error': function}}"
            )
        if name in checked or name in _TAKEN or name.startswith(VALIDATION):
            raise ValueError(
                f"metrics must have names that differ from each other, from {', '.join(_TAKEN)} "
                f"and from '{VALIDATION}...', got {name!r}"
            )
        checked[name] = Metric(name, function)
    return list(checked.values())


def _with_checked_targets(name: str, function: _Function) -> _Function:
    """Return the function for targets of any shape, which only the user's loss understands."""

    def checked(Y: Array, outputs: Array, sample_weight: Array | None) -> object:
        n_outputs = outputs.shape[1]
        if Y.ndim == 1 and n_outputs == 1:
            Y = Y[:, np.newaxis]
        is_classes = Y.ndim == 1 and Y.dtype.kind in "iu" and Y.min() >= 0 and Y.max() < n_outputs
        if Y.shape != outputs.shape and not is_classes:
            raise ValueError(
                f"the metric {name!r} needs targets of shape (n_samples, {n_outputs}) or class "
                f"indices, got {Y.shape} of {Y.dtype}; use a function of (Y, outputs)"
            )
        return function(Y, outputs, sample_weight)

    return checked


def _without_weights(function: MetricFunction) -> _Function:
    return lambda Y, outputs, sample_weight: function(Y, outputs)
