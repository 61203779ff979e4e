"""A network's architecture, and the one place that knows how parameters lie in a flat vector."""

from __future__ import annotations

import itertools
import math
import numbers
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ._checks import as_custom_loss, as_integer, as_real, one_of, suggestion
from .enums import SLOPES, Activation, Loss
from .typing import ActivationLike, CustomLoss, DType, LossLike, LossName

__all__ = [
    "ACTIVATIONS",
    "FLOATS",
    "OUTPUT_ACTIVATIONS",
    "Architecture",
    "Layer",
    "default_loss",
]

Array = npt.NDArray[Any]
E = TypeVar("E", Activation, Loss)

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

ACTIVATIONS = {member.name.lower(): member for member in Activation}
LOSSES = {member.name.lower(): member for member in Loss if member is not Loss.CUSTOM}

# The default of Huber's parameter, and the parameter of what has none.
_THRESHOLDS = {Loss.HUBER: 1.0}
_NONE = 1.0

# All but softmax, the identity first.
_ELEMENTWISE = tuple(member for member in Activation if member is not Activation.SOFTMAX)

# The activations of the output layer that each loss allows, its default first. With a single one,
# that pair's output delta (3) is A - Y; otherwise σ' of the activation is a factor of it.
OUTPUT_ACTIVATIONS: dict[Loss, tuple[Activation, ...]] = {
    Loss.SQUARED_ERROR: _ELEMENTWISE,
    Loss.ABSOLUTE_ERROR: _ELEMENTWISE,
    Loss.HUBER: _ELEMENTWISE,
    Loss.POISSON: (Activation.EXPONENTIAL,),
    Loss.BINARY_CROSS_ENTROPY: (Activation.SIGMOID,),
    Loss.CROSS_ENTROPY: (Activation.SOFTMAX,),
    Loss.CUSTOM: tuple(Activation),
}


def default_loss(output: Activation) -> LossName:
    """Return the loss that has this default output activation, otherwise squared error."""
    defaults = {allowed[0]: loss for loss, allowed in reversed(OUTPUT_ACTIVATIONS.items())}
    return cast(LossName, defaults.get(output, Loss.SQUARED_ERROR).name.lower())


class Layer(NamedTuple):
    """A layer: n units with n_prev inputs each, and where W and b begin in a flat vector."""

    n_prev: int
    n: int
    activation: Activation
    slope: float
    W: int
    b: int


@dataclass(frozen=True)
class Architecture:
    """Sizes, activations, loss and dtype of a network: everything but its parameters.

    A flat vector of `n_parameters` numbers holds W^1, b^1, W^2, b^2, ..., each in C order. So do
    gradients, the state of optimizers, and files.

    Parameters
    ----------
    sizes : tuple of int
        n_0, n_1, ..., n_L.
    activations : tuple of L Activation
    loss : Loss
    dtype : numpy.dtype
        float32 or float64.
    custom_loss : CustomLoss, optional
        The object whose methods are the loss, if `loss` is CUSTOM.
    slopes : tuple of L float, optional
        The parameter of each leaky ReLU, its slope below 0, and of each ELU, α; by default 0.01
        and 1.
    threshold : float, default 1
        From which |y - a| on Huber's loss is linear.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type or out of range, or loss and output layer do not fit.
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss
    dtype: np.dtype[Any]
    custom_loss: CustomLoss | None = field(default=None, hash=False)
    slopes: tuple[float, ...] = ()
    threshold: float = _NONE

    @classmethod
    def from_names(
        cls,
        sizes: Sequence[int],
        activation: ActivationLike | Sequence[ActivationLike],
        loss: LossLike | CustomLoss,
        dtype: DType,
        output_activation: ActivationLike | None = None,
    ) -> Architecture:
        """Return the architecture that the arguments of `nncore.Network` describe."""
        checked = _as_sizes(sizes)
        known_loss, threshold, custom_loss = _as_loss(loss)
        sigma = _as_activations(activation, output_activation, known_loss, len(checked) - 1)
        activations, slopes = zip(*sigma, strict=True)
        return cls(
            checked, activations, known_loss, _as_dtype(dtype), custom_loss, slopes, threshold
        )

    def __post_init__(self) -> None:
        if not self.slopes:
            slopes = tuple(SLOPES.get(activation, _NONE) for activation in self.activations)
            object.__setattr__(self, "slopes", slopes)
        if (self.loss == Loss.CUSTOM) != (self.custom_loss is not None):
            raise ValueError(
                f"custom_loss must be an object for the loss CUSTOM and None for others, "
                f"got {self.custom_loss!r} for {self.loss.name}"
            )
        output, allowed = self.activations[-1], OUTPUT_ACTIVATIONS[self.loss]
        if output not in allowed:
            names = sorted(activation.name.lower() for activation in allowed)
            raise ValueError(
                f"loss {self.loss_name!r} needs an output layer with activation "
                f"{' or '.join(names)}, got {output.name.lower()!r}; "
                f"output_activation=None makes it {allowed[0].name.lower()!r}"
            )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Shape, activation and place of each of the layers 1, ..., L."""
        layers, begin = [], 0
        for (n_prev, n), activation, slope in zip(
            itertools.pairwise(self.sizes), self.activations, self.slopes, strict=True
        ):
            layers.append(Layer(n_prev, n, activation, slope, begin, begin + n_prev * n))
            begin += (n_prev + 1) * n
        return tuple(layers)

    @cached_property
    def n_parameters(self) -> int:
        """The length of a flat vector."""
        return self.layers[-1].b + self.layers[-1].n

    @property
    def n_hidden(self) -> int:
        """How many hidden layers there are."""
        return len(self.sizes) - 2

    @property
    def given_activations(self) -> tuple[ActivationLike, ...]:
        """The activation of each layer as `nncore.Network` takes it."""
        return tuple(
            cast(ActivationLike, _named(activation, slope, SLOPES))
            for activation, slope in zip(self.activations, self.slopes, strict=True)
        )

    @property
    def loss_name(self) -> LossName:
        """The name of the loss."""
        return cast(LossName, self.loss.name.lower())

    @property
    def given_loss(self) -> LossLike | CustomLoss:
        """The loss as `nncore.Network` takes it: its name, or the object."""
        if self.custom_loss is not None:
            return self.custom_loss
        return cast(LossLike, _named(self.loss, self.threshold, _THRESHOLDS))

    def with_dtype(self, dtype: DType) -> Architecture:
        """Return the same architecture in another dtype."""
        return replace(self, dtype=_as_dtype(dtype))

    def views(self, vector: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Return the weights and the biases in a flat vector, as views.

        Parameters
        ----------
        vector : ndarray of shape (n_parameters,)

        Returns
        -------
        weights : tuple of L ndarray of shape (n_{l-1}, n_l)
        biases : tuple of L ndarray of shape (n_l,)
        """
        weights = tuple(
            vector[layer.W : layer.b].reshape(layer.n_prev, layer.n) for layer in self.layers
        )
        biases = tuple(vector[layer.b : layer.b + layer.n] for layer in self.layers)
        return weights, biases


def _as_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes n_0, ..., n_L, at least two of them."""
    try:
        checked = tuple(as_integer(f"sizes[{l}]", size) for l, size in enumerate(sizes))
    except TypeError as error:
        if str(error).startswith("sizes["):
            raise
        raise TypeError(f"sizes must be a sequence of integers, got {sizes!r}") from None
    if len(checked) < 2:
        raise ValueError(f"sizes must list at least an input and an output layer, got {sizes!r}")
    n_parameters = sum((n_prev + 1) * n for n_prev, n in itertools.pairwise(checked))
    if n_parameters > sys.maxsize // 64:
        raise ValueError(
            f"sizes must describe a network that fits in memory, got {list(checked)} with "
            f"{n_parameters} parameters"
        )
    return checked


def _named(member: E, parameter: float, defaults: Mapping[E, float]) -> str | tuple[str, float]:
    """Return what `_as_member` accepts for a member with its parameter."""
    name = member.name.lower()
    return name if parameter == defaults.get(member, parameter) else (name, parameter)


def _is_pair(value: object) -> bool:
    """Whether a value is a name with its parameter, and not a sequence of names."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], (numbers.Real, np.floating))
    )


def _as_member(
    name: str, value: object, table: Mapping[str, E], defaults: Mapping[E, float]
) -> tuple[E, float]:
    """Return what a name, or a name with its parameter, means, and the parameter."""
    if not _is_pair(value):
        member = one_of(name, value, table)
        return member, defaults.get(member, _NONE)
    given, parameter = cast(tuple[str, float], value)
    member = one_of(name, given, table)
    if member not in defaults:
        pairs = " or ".join(repr((known.name.lower(), defaults[known])) for known in defaults)
        raise ValueError(f"{name} with a parameter must be like {pairs}, got {value!r}")
    number = as_real(f"the parameter of {name} {given!r}", parameter)
    if not math.isfinite(number):
        raise ValueError(f"the parameter of {name} {given!r} must be finite, got {parameter!r}")
    return member, number


def _as_loss(loss: LossLike | CustomLoss) -> tuple[Loss, float, CustomLoss | None]:
    """Return the loss and its parameter, and the object if it is one of the user's."""
    if isinstance(loss, str) or _is_pair(loss):
        member, threshold = _as_member("loss", loss, LOSSES, _THRESHOLDS)
        if member in _THRESHOLDS and not threshold > 0:
            raise ValueError(f"the parameter of loss 'huber' must be > 0, got {threshold!r}")
        return member, threshold, None
    return Loss.CUSTOM, _NONE, as_custom_loss(loss, f"one of {sorted(LOSSES)} or ")


def _as_activations(
    activation: ActivationLike | Sequence[ActivationLike],
    output_activation: ActivationLike | None,
    loss: Loss,
    n_layers: int,
) -> tuple[tuple[Activation, float], ...]:
    """Return the activation of each layer and its slope."""
    if isinstance(activation, str) or _is_pair(activation):
        # Without hidden layers the name is checked all the same.
        sigma = _as_member("activation", activation, ACTIVATIONS, SLOPES)
        hidden = [sigma] * max(1, n_layers - 1)
        output = OUTPUT_ACTIVATIONS[loss][0], _NONE
        if output_activation is not None:
            output = _as_member("output_activation", output_activation, ACTIVATIONS, SLOPES)
    else:
        try:
            names = list(activation)
        except TypeError:
            raise TypeError(
                f"activation must be a name or a sequence of names, got {activation!r}"
            ) from None
        if output_activation is not None:
            raise ValueError(
                "output_activation must be None if activation lists the names of all layers, "
                f"got {output_activation!r} and {names}"
            )
        if len(names) != n_layers:
            raise ValueError(
                "activation must be one name for the hidden layers or one for each of the "
                f"{n_layers} layers after the input, got {len(names)} names"
            )
        *hidden, output = (_as_member("activation", name, ACTIVATIONS, SLOPES) for name in names)
    if any(kind == Activation.SOFTMAX for kind, _ in hidden):
        raise ValueError(
            "activation softmax is for the output layer only, as output_activation='softmax', "
            f"got {activation!r}"
        )
    return (*hidden[: n_layers - 1], output)


def _as_dtype(dtype: DType) -> np.dtype[Any]:
    """Return float32 or float64."""
    try:
        checked = np.dtype(dtype)
    except (SyntaxError, TypeError, ValueError):
        checked = None
    # NumPy reads None as float64, also in comparisons.
    if dtype is None or checked is None or checked not in FLOATS:
        names = [known.name for known in FLOATS]
        raise ValueError(
            f"dtype must be {' or '.join(names)}, got {dtype!r}{suggestion(dtype, names)}"
        )
    return checked
