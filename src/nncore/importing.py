"""Networks from the layers of other libraries' models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._arrays import check_finite
from ._checks import one_of
from .architecture import ACTIVATIONS, FLOATS, Architecture, default_loss
from .enums import Activation
from .typing import ActivationName, CustomLoss, LossLike

if TYPE_CHECKING:
    from .network import Network

__all__ = ["ImportedLayers"]

Array = npt.NDArray[Any]


@dataclass
class _Layer:
    where: str
    W: Array
    b: Array | None = None
    activation: Activation = Activation.IDENTITY
    slope: float | None = None

    @property
    def given_activation(self) -> Any:
        """σ as `nncore.Network` takes it."""
        name = self.activation.name.lower()
        return name if self.slope is None else (name, self.slope)


class ImportedLayers:
    """The layers of a model, collected part by part in the order in which data pass through it.

    In each method `where` names the part, for messages. Parts that do not fit raise ValueError.
    """

    def __init__(self) -> None:
        self._layers: list[_Layer] = []
        # Which part expects how many columns after how many layers, and which dtype.
        self._columns: list[tuple[str, int, int]] = []
        self._dtypes: list[tuple[str, np.dtype[Any]]] = []

    def multiply(self, where: str, W: Array) -> None:
        """Begin a layer with A^{l-1} W, for W of shape (n_{l-1}, n_l)."""
        if W.ndim != 2 or W.size == 0 or W.dtype not in FLOATS:
            raise ValueError(
                f"{where} must have weights of shape (n_inputs, n_units) in float32 or float64, "
                f"got shape {W.shape} in {W.dtype}"
            )
        if self._layers and self._layers[-1].activation is Activation.SOFTMAX:
            raise ValueError(f"{where} follows a softmax, which only the output layer may have")
        self.expect_columns(where, W.shape[0])
        self.expect_dtype(where, W.dtype)
        self._layers.append(_Layer(where, W))

    def add(self, where: str, b: Array) -> None:
        """Add b of shape (n_l,) or (1, n_l), or with a single element, to the product."""
        layer = self._open_layer(where)
        n = layer.W.shape[1]
        if layer.b is not None:
            raise ValueError(f"{where} follows a layer that has a bias")
        if b.shape not in {(), (1,), (1, 1), (n,), (1, n)}:
            raise ValueError(f"{where} must have a bias of shape ({n},), got {b.shape}")
        self.expect_dtype(where, b.dtype)
        layer.b = b

    def activate(self, where: str, activation: Activation, slope: float | None = None) -> None:
        """Apply σ other than the identity, with its slope if it has one."""
        layer = self._open_layer(where)
        layer.activation, layer.slope = activation, slope

    def _open_layer(self, where: str) -> _Layer:
        """Return the last layer if it has no activation yet."""
        if not self._layers or self._layers[-1].activation is not Activation.IDENTITY:
            raise ValueError(f"{where} does not directly follow a matrix product")
        return self._layers[-1]

    def expect_columns(self, where: str, n: int) -> None:
        """Note that the data must have n columns here."""
        self._columns.append((where, len(self._layers), n))

    def expect_dtype(self, where: str, dtype: np.dtype[Any]) -> None:
        """Note that the data must have this dtype here."""
        self._dtypes.append((where, dtype))

    def as_network(
        self,
        loss: LossLike | CustomLoss | None = None,
        output_activation: ActivationName | None = None,
    ) -> Network:
        """Return a network with copies of the parameters.

        Parameters
        ----------
        loss : str or object, optional
            By default the one whose default outputs the network has, otherwise squared error.
        output_activation : str, optional
            Applied to outputs that have no activation.
        """
        from .network import Network  # which imports this module

        if not self._layers:
            raise ValueError("it has no matrix product")
        sizes = [self._layers[0].W.shape[0], *(layer.W.shape[1] for layer in self._layers)]
        dtype = self._layers[0].W.dtype
        for where, l, n in self._columns:
            if sizes[l] != n:
                raise ValueError(f"{where} is for {n} columns, not {sizes[l]}")
        for where, expected in self._dtypes:
            if expected != dtype:
                raise ValueError(f"{where} must be in {dtype} like the first layer, got {expected}")
        output = self._layers[-1].activation
        names = [layer.given_activation for layer in self._layers]
        if output_activation is not None:
            if output is not Activation.IDENTITY:
                raise ValueError(
                    "output_activation must be None unless the outputs have no activation, got "
                    f"{output_activation!r} and {names[-1]!r} outputs"
                )
            output = one_of("output_activation", output_activation, ACTIVATIONS)
            names[-1] = output_activation
        loss = default_loss(output) if loss is None else loss
        architecture = Architecture.from_names(sizes, names, loss, dtype)
        parts = []
        for layer in self._layers:
            check_finite(f"the weights of {layer.where}", layer.W, dtype)
            bias = np.zeros(1, dtype) if layer.b is None else layer.b.reshape(-1)
            b = np.broadcast_to(bias, layer.W.shape[1])
            check_finite(f"the bias of {layer.where}", b[np.newaxis], dtype)
            parts += [layer.W.reshape(-1), b]
        network = Network.from_architecture(architecture)
        network.parameters = np.concatenate(parts)
        return network
