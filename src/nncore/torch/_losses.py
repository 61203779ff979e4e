"""PyTorch's losses as nncore's: what is summed, what weighs it, and what scales its gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .._arrays import as_training_examples
from .._layout import Examples
from ..architecture import ACTIVATIONS, Architecture, default_loss
from ..typing import ActivationLike, CustomLoss, LossLike
from ._modules import ADVICE, Chain

__all__ = ["Problem", "TorchLoss", "as_torch_loss", "loss_of_outputs"]

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Problem:
    """Examples, and what makes nncore's sum of losses PyTorch's loss of a batch.

    Attributes
    ----------
    examples : Examples
    factor : float
        PyTorch's summed loss over nncore's.
    counts : ndarray of shape (n,) or None
        What each example adds to the divisor of a batch's sum; None for a sum.
    """

    examples: Examples
    factor: float
    counts: Array | None

    def loss(self, total: float, order: Order | None, n: int) -> float:
        """Return PyTorch's loss of n examples from nncore's sum; NaN if none of them counts."""
        divisor = float(self._divisors(order, n, n)[0])
        return self.factor * total / divisor if divisor else math.nan

    def scales(self, order: Order | None, n: int, batch_size: int) -> Array:
        """Return the factor of each batch's gradient, for n examples in this order.

        It is 0 for a batch in which nothing counts, as in PyTorch if all targets are ignored.
        """
        divisors = self._divisors(order, n, batch_size)
        return np.divide(self.factor, divisors, out=np.zeros_like(divisors), where=divisors > 0)

    def _divisors(self, order: Order | None, n: int, batch_size: int) -> Array:
        """Return what the sum of each batch's losses is divided by."""
        starts = np.arange(0, n, batch_size)
        if self.counts is None:
            return np.ones(len(starts))
        counts = self.counts[:n] if order is None else self.counts[order]
        return np.add.reduceat(counts, starts)


@dataclass(frozen=True)
class TorchLoss:
    """A loss of PyTorch's.

    Attributes
    ----------
    name : str or tuple
        nncore's loss.
    output : str or tuple
        The output activation of a network with this loss.
    mean : bool
        Whether a batch's loss is a mean, and not a sum.
    factor : float
        PyTorch's summed loss over nncore's.
    per_output : bool
        Whether the mean is over outputs, too.
    encode : callable or None
        Returns targets, and for each example its weight and what it counts in the divisor, or None
        for 1, from the targets and the number of outputs.
    trained : tuple or None
        A loss of its own, with its output activation, that training needs in the place of `name`.
    """

    name: LossLike
    output: ActivationLike
    mean: bool
    factor: float = 1.0
    per_output: bool = True
    encode: Callable[[Array, int], tuple[Array, Array | None, Array | None]] | None = None
    trained: tuple[CustomLoss, ActivationLike] | None = None

    @property
    def takes_classes(self) -> bool:
        """Whether targets may be class indices."""
        return self.name == "cross_entropy"

    def architecture(self, chain: Chain) -> Architecture:
        """Return the architecture to train."""
        return chain.architecture(*(self.trained or (self.name, self.output)))

    def problem(
        self, X: Array, y: Array, architecture: Architecture, names: tuple[str, str, str]
    ) -> Problem:
        """Return the examples, checked.

        Raises
        ------
        ValueError
            X or y has another shape, or values that do not fit the loss.
        """
        n_out, weights, counts = architecture.sizes[-1], None, None
        if self.encode is not None:
            y, weights, counts = self.encode(y, n_out)
        examples, _ = as_training_examples(X, y, None, architecture, names=names)
        if weights is not None:
            # Unlike those of `Network.fit`, not only their ratios count.
            inputs, targets, _ = examples.arrays
            examples = Examples(inputs, targets, weights.astype(architecture.dtype))
        if not self.mean:
            counts = None
        elif counts is None:
            counts = np.ones(examples.n)
        return Problem(
            examples, self.factor / (n_out if self.mean and self.per_output else 1), counts
        )


def as_torch_loss(loss: nn.Module, chain: Chain) -> TorchLoss:
    """Return what a loss means for the outputs of a chain.

    Raises
    ------
    TypeError, ValueError
        The loss, or one of its options, is not supported, or it does not fit the outputs.
    """
    kind = type(loss)
    if kind not in _LOSSES:
        known = ", ".join(sorted(known.__name__ for known in _LOSSES))
        raise TypeError(f"loss must be one of {known}, got {loss!r}{ADVICE}")
    if loss.reduction not in ("mean", "sum"):
        raise ValueError(f"loss must have reduction 'mean' or 'sum', got {loss.reduction!r}")
    if chain.drops_column and kind in (nn.CrossEntropyLoss, nn.NLLLoss):
        raise ValueError(f"loss {kind.__name__} needs outputs of two dimensions, got a flat vector")
    return _LOSSES[kind](loss, chain)


def loss_of_outputs(chain: Chain) -> TorchLoss:
    """Return the loss that fits a chain's outputs best, for a network that is not trained."""
    if chain.final == "log_softmax":
        raise ValueError("loss must be given for a module that ends with LogSoftmax, got None")
    output: ActivationLike = chain.final or chain.activations[-1]  # type: ignore[assignment]
    name = output if isinstance(output, str) else output[0]
    return TorchLoss(default_loss(ACTIVATIONS[name]), output, mean=True)


def _plain_output(loss: nn.Module, chain: Chain) -> ActivationLike:
    """Return the activation of outputs that are compared with targets as they are."""
    if chain.final:
        raise ValueError(
            f"loss {type(loss).__name__} after {chain.final} outputs is not supported{ADVICE}"
        )
    return chain.activations[-1]


def _need_output(loss: nn.Module, chain: Chain, final: Sequence[str], hint: str) -> None:
    """Raise ValueError unless the module ends with one of these."""
    activation = chain.final or chain.activations[-1]
    if activation not in final:
        name = activation if isinstance(activation, str) else activation[0]
        raise ValueError(
            f"loss {type(loss).__name__} needs a module that ends with {hint}, got {name} outputs"
        )


def _refuse(loss: nn.Module, **options: object) -> None:
    """Raise ValueError unless these options have the value given."""
    for name, value in options.items():
        got = getattr(loss, name)
        if got is not value:
            raise ValueError(
                f"loss {type(loss).__name__} must have {name}={value}, got {got}{ADVICE}"
            )


def _mean(loss: Any) -> bool:
    return bool(loss.reduction == "mean")


def _distance(name: LossLike, factor: float) -> Callable[[Any, Chain], TorchLoss]:
    return lambda loss, chain: TorchLoss(name, _plain_output(loss, chain), _mean(loss), factor)


def _huber(loss: Any, chain: Chain) -> TorchLoss:
    return TorchLoss(("huber", loss.delta), _plain_output(loss, chain), _mean(loss))


def _smooth_l1(loss: Any, chain: Chain) -> TorchLoss:
    output = _plain_output(loss, chain)
    if loss.beta == 0:
        return TorchLoss("absolute_error", output, _mean(loss))
    return TorchLoss(("huber", loss.beta), output, _mean(loss), 1 / loss.beta)


def _poisson(loss: Any, chain: Chain) -> TorchLoss:
    _refuse(loss, log_input=True, full=False)
    _need_output(loss, chain, ["identity"], "a Linear layer")
    return TorchLoss("poisson", "exponential", _mean(loss))


def _binary_cross_entropy(loss: Any, chain: Chain) -> TorchLoss:
    _refuse(loss, weight=None)
    _need_output(loss, chain, ["sigmoid"], "Sigmoid")
    return TorchLoss("binary_cross_entropy", "sigmoid", _mean(loss))


def _binary_cross_entropy_with_logits(loss: Any, chain: Chain) -> TorchLoss:
    _refuse(loss, weight=None)
    _need_output(loss, chain, ["identity"], "a Linear layer")
    plain = TorchLoss("binary_cross_entropy", "sigmoid", _mean(loss))
    if loss.pos_weight is None:
        return plain
    n_out = chain.linears[-1].out_features
    weights = _as_weights("pos_weight", loss.pos_weight, n_out)
    if n_out > 1:
        return replace(plain, trained=(_WeightedLogits(weights), "identity"))
    p = float(weights[0])

    def encode(y: Array, n_out: int) -> tuple[Array, Array | None, Array | None]:
        weight = p * y + (1 - y)
        targets = np.divide(p * y, weight, out=np.zeros(y.shape), where=weight > 0)
        return targets.astype(y.dtype), weight.reshape(-1), None

    return replace(plain, encode=encode)


class _WeightedLogits:
    """Binary cross entropy of logits whose positive targets weigh p."""

    def __init__(self, p: Array) -> None:
        self._p = p

    def value(self, A: Array, Y: Array) -> Array:
        cost = self._p * Y * np.logaddexp(0, -A) + (1 - Y) * np.logaddexp(0, A)
        return np.asarray(cost.sum(axis=1))

    def delta(self, A: Array, Y: Array) -> Array:
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-A))
        return np.asarray(probability * (self._p * Y + 1 - Y) - self._p * Y)


def _cross_entropy(loss: Any, chain: Chain) -> TorchLoss:
    if isinstance(loss, nn.CrossEntropyLoss):
        # The logarithm of softmax is its own softmax's logarithm.
        hint = "a Linear layer; it applies softmax itself"
        _need_output(loss, chain, ["identity", "log_softmax"], hint)
    else:
        _need_output(loss, chain, ["log_softmax"], "LogSoftmax")
    smoothing = getattr(loss, "label_smoothing", 0.0)
    takes_probabilities = isinstance(loss, nn.CrossEntropyLoss)
    n_classes = chain.linears[-1].out_features
    w = np.ones(n_classes)
    if loss.weight is not None:
        w = _as_weights("weight", loss.weight, n_classes)

    def encode(y: Array, n_out: int) -> tuple[Array, Array | None, Array | None]:
        if y.dtype.kind == "f" and y.ndim == 2 and takes_probabilities:
            costs = (y * (1 - smoothing) + smoothing / n_out) * w
            return *_normalized(costs, y.dtype), None
        if y.ndim != 1 or y.dtype.kind not in "iu":
            also = " or class probabilities of shape (n_samples, n_classes)" * takes_probabilities
            raise ValueError(
                f"y must hold class indices of shape (n_samples,){also}, got shape {y.shape} and "
                f"dtype {y.dtype}"
            )
        counted = y != loss.ignore_index
        classes = np.where(counted, y, 0)
        if classes.size and (classes.min() < 0 or classes.max() >= n_out):
            return y, None, None  # which `as_training_examples` refuses
        counts = w[classes] * counted
        if not smoothing:
            is_plain = loss.weight is None and counted.all()
            return classes, None if is_plain else counts, None if is_plain else counts
        costs = np.tile(smoothing / n_out * w, (len(y), 1))
        costs[np.arange(len(y)), classes] += (1 - smoothing) * w[classes]
        return *_normalized(costs * counted[:, np.newaxis], np.float64), counts

    return TorchLoss("cross_entropy", "softmax", _mean(loss), per_output=False, encode=encode)


def _normalized(costs: Array, dtype: npt.DTypeLike) -> tuple[Array, Array]:
    """Return the costs of each class as probabilities, and their sums as weights."""
    total = costs.sum(axis=1)
    uniform = np.full_like(costs, 1 / costs.shape[1])
    used = total[:, np.newaxis] > 0
    targets = np.divide(costs, total[:, np.newaxis], out=uniform, where=used)
    return targets.astype(dtype), total


def _as_weights(name: str, tensor: torch.Tensor, n: int) -> Array:
    """Return an option of a loss with a weight per output, as float64."""
    weights = np.asarray(tensor.detach().numpy(), np.float64)
    if weights.size not in (1, n) or not (weights >= 0).all():
        raise ValueError(f"loss must have a {name} >= 0 for each of {n} outputs, got {weights}")
    return np.broadcast_to(weights.reshape(-1), (n,))


_LOSSES: dict[type[nn.Module], Callable[[Any, Chain], TorchLoss]] = {
    nn.BCELoss: _binary_cross_entropy,
    nn.BCEWithLogitsLoss: _binary_cross_entropy_with_logits,
    nn.CrossEntropyLoss: _cross_entropy,
    nn.HuberLoss: _huber,
    nn.L1Loss: _distance("absolute_error", 1.0),
    nn.MSELoss: _distance("squared_error", 2.0),
    nn.NLLLoss: _cross_entropy,
    nn.PoissonNLLLoss: _poisson,
    nn.SmoothL1Loss: _smooth_l1,
}
