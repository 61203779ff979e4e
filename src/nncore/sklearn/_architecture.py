"""From scikit-learn's names to the core's, and from an estimator's parameters to a network."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..network import Network

__all__ = [
    "ACTIVATIONS",
    "OUTPUT_ACTIVATIONS",
    "bare_network",
    "dropout_rates",
    "hidden_activations",
    "hidden_sizes",
    "network_of",
]

Array = npt.NDArray[Any]

# scikit-learn's name of each activation, ours where it has none: the core's.
ACTIVATIONS = {
    "identity": "identity",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "softplus": "softplus",
}
OUTPUT_ACTIVATIONS = {**ACTIVATIONS, "exp": "exponential", "softmax": "softmax"}


def hidden_sizes(hidden_layer_sizes: int | Sequence[int]) -> list[int]:
    """Return the units of each hidden layer."""
    if isinstance(hidden_layer_sizes, Iterable):
        sizes = list(hidden_layer_sizes)
    else:
        sizes = [hidden_layer_sizes]
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [operator.index(size) for size in sizes]


def _per_layer(name: str, value: Any, n_hidden: int) -> list[Any]:
    """Return a value for each hidden layer, from one for all or a sequence."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * n_hidden
    values = list(value)
    if len(values) != n_hidden:
        raise ValueError(
            f"{name} must be one value or one for each of the {n_hidden} hidden layers, "
            f"got {len(values)}: {values}"
        )
    return values


def hidden_activations(activation: str | Sequence[str], n_hidden: int) -> list[str]:
    """Return scikit-learn's name of each hidden layer's activation."""
    names = _per_layer("activation", activation, n_hidden)
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(
                f"activation must hold names among {sorted(ACTIVATIONS)}, got {name!r}"
            )
    return names


def dropout_rates(dropout: float | Sequence[float], n_hidden: int) -> tuple[float, ...]:
    """Return the share of units that each hidden layer drops."""
    rates = _per_layer("dropout", dropout, n_hidden)
    for rate in rates:
        if not 0 <= rate < 1:
            raise ValueError(f"dropout must hold numbers in [0, 1), got {rate!r}")
    return tuple(float(rate) for rate in rates)


def bare_network(
    sizes: Sequence[int], hidden: Sequence[str], output: str, loss: str, dtype: np.dtype[Any]
) -> Network:
    """Return a network whose parameters have no values yet."""
    network = Network.__new__(Network)
    names = [*(ACTIVATIONS[name] for name in hidden), OUTPUT_ACTIVATIONS[output]]
    network._set_architecture(sizes, names, loss, dtype)
    return network


def network_of(
    coefs: Sequence[Array],
    intercepts: Sequence[Array],
    hidden: Sequence[str],
    output: str,
    loss: str,
    dtype: np.dtype[Any] | None = None,
) -> Network:
    """Return a network with copies of these weights and biases."""
    coefs = [np.asarray(W) for W in coefs]
    if dtype is None:
        dtype = np.result_type(*coefs)
    dtype = np.dtype(np.float32) if dtype == np.float32 else np.dtype(np.float64)
    sizes = [coefs[0].shape[0], *(W.shape[1] for W in coefs)]
    network = bare_network(sizes, hidden, output, loss, dtype)
    for W, b, coef, intercept in zip(
        network.weights, network.biases, coefs, intercepts, strict=True
    ):
        W[...], b[...] = coef, intercept
    return network
