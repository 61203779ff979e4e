"""Converts scikit-learn's names to the core's, and an estimator's parameters to a network."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..architecture import Architecture
from ..network import Network
from ..typing import ActivationName, LossName

__all__ = [
    "ACTIVATIONS",
    "OUTPUT_ACTIVATIONS",
    "bare_network",
    "hidden_activations",
    "hidden_sizes",
    "network_of",
]

Array = npt.NDArray[Any]

# The core's name for each of scikit-learn's names, extended by the core's other activations.
ACTIVATIONS: dict[str, ActivationName] = {
    "identity": "identity",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "elu": "elu",
    "softplus": "softplus",
    "silu": "silu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
}
OUTPUT_ACTIVATIONS: dict[str, ActivationName] = {
    **ACTIVATIONS,
    "exp": "exponential",
    "softmax": "softmax",
}


def hidden_sizes(hidden_layer_sizes: int | Sequence[int]) -> list[int]:
    """Return the units of each hidden layer."""
    if isinstance(hidden_layer_sizes, Iterable):
        sizes = list(hidden_layer_sizes)
    else:
        sizes = [hidden_layer_sizes]
    if any(isinstance(size, (bool, np.bool_)) for size in sizes):
        raise ValueError(f"hidden_layer_sizes must hold integers, got {sizes}.")
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [operator.index(size) for size in sizes]


def hidden_activations(activation: str | Sequence[str], n_hidden: int) -> list[str]:
    """Return scikit-learn's name of each hidden layer's activation."""
    if isinstance(activation, str):
        names = [activation] * n_hidden
    else:
        names = list(activation)
        if len(names) != n_hidden:
            raise ValueError(
                f"activation must be one name or one for each of the {n_hidden} hidden layers, "
                f"got {len(names)}: {names}"
            )
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(
                f"activation must hold names among {sorted(ACTIVATIONS)}, got {name!r}"
            )
    return names


def bare_network(
    sizes: Sequence[int], hidden: Sequence[str], output: str, loss: LossName, dtype: np.dtype[Any]
) -> Network:
    """Return a network with parameters of 0."""
    names = [*(ACTIVATIONS[name] for name in hidden), OUTPUT_ACTIVATIONS[output]]
    return Network.from_architecture(Architecture.from_names(sizes, names, loss, dtype))


def network_of(
    coefs: Sequence[Array],
    intercepts: Sequence[Array],
    hidden: Sequence[str],
    output: str,
    loss: LossName,
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
