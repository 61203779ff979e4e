"""What a PyTorch module computes, in nncore's terms, and back: layers, dropout, parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..architecture import FLOATS, Architecture
from ..network import Network
from ..typing import ActivationLike, CustomLoss, LossLike

if TYPE_CHECKING:
    from ._losses import TorchLoss

__all__ = ["ADVICE", "Chain", "as_chain", "copy_all", "network", "to_torch"]

Array = npt.NDArray[Any]

ADVICE = "; train this module with PyTorch"

_DTYPES = {getattr(torch, dtype.name): dtype for dtype in FLOATS}

# By exact type, since a subclass may compute anything.
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], ActivationLike]] = {
    nn.ELU: lambda module: ("elu", module.alpha),
    nn.GELU: lambda module: "gelu" if module.approximate == "none" else "gelu_tanh",
    nn.LeakyReLU: lambda module: ("leaky_relu", module.negative_slope),
    nn.ReLU: lambda _: "relu",
    nn.Sigmoid: lambda _: "sigmoid",
    nn.SiLU: lambda _: "silu",
    nn.Softplus: lambda _: "softplus",
    nn.Tanh: lambda _: "tanh",
}

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@dataclass
class Chain:
    """The layers of a module, in the order in which data pass through it.

    Attributes
    ----------
    paths : list of str
        Where each linear layer is in the module.
    linears : list of Linear
    activations : list
        Of each linear layer, as `nncore.Network` takes it; the last one is "identity" where `final`
        names a softmax.
    final : str
        "softmax", "log_softmax" or "".
    dropout : list of float
        The rate after each linear layer.
    flattens : bool
        Whether inputs of more dimensions become rows.
    drops_column : bool
        Whether the outputs, of one column, become a vector.
    """

    paths: list[str] = field(default_factory=list)
    linears: list[nn.Linear] = field(default_factory=list)
    activations: list[ActivationLike] = field(default_factory=list)
    final: str = ""
    dropout: list[float] = field(default_factory=list)
    flattens: bool = False
    drops_column: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters."""
        return self.linears[0].weight.dtype

    @property
    def biases(self) -> tuple[bool, ...]:
        """Whether each layer has a bias."""
        return tuple(linear.bias is not None for linear in self.linears)

    def architecture(
        self, loss: LossLike | CustomLoss, output_activation: ActivationLike
    ) -> Architecture:
        """Return the architecture of a network with that loss and output activation."""
        sizes = [self.linears[0].in_features, *(linear.out_features for linear in self.linears)]
        activations = [*self.activations[:-1], output_activation]
        return Architecture.from_names(sizes, activations, loss, _DTYPES[self.dtype])

    @cached_property
    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The weight of each layer, and its bias if it has one."""
        return {
            _join(path, name): parameter
            for path, linear in zip(self.paths, self.linears, strict=True)
            for name, parameter in (("weight", linear.weight), ("bias", linear.bias))
            if parameter is not None
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The values of `named_parameters`."""
        return list(self.named_parameters.values())

    def views(self, vector: Array, architecture: Architecture) -> list[torch.Tensor]:
        """Return the parts of a flat vector that belong to `parameters`, with their shapes."""
        views: list[torch.Tensor] = []
        for linear, W, b in zip(self.linears, *architecture.views(vector), strict=True):
            views.append(torch.from_numpy(W).T)
            if linear.bias is not None:
                views.append(torch.from_numpy(b))
        return views


def copy_all(into: list[Any], source: list[Any]) -> None:
    """Copy tensors into others of the same shapes."""
    with torch.no_grad():
        torch._foreach_copy_(into, source)


def as_chain(module: nn.Module) -> Chain:
    """Return the layers of a module.

    Raises
    ------
    TypeError, ValueError
        A part of the module is not supported; the message names it.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    chain = Chain()
    for path, part in module.named_modules(remove_duplicate=False):
        for hooks in _HOOKS:
            if getattr(part, hooks):
                raise ValueError(
                    f"{_where(path, part)} has {hooks.strip('_')}, which nncore cannot call{ADVICE}"
                )
        # A subclass of Sequential may override forward.
        if type(part).forward is not nn.Sequential.forward:
            _add(chain, path, part)
    if not chain.linears:
        raise ValueError(f"module must have a Linear layer, got {type(module).__name__}")
    if chain.dropout[-1] > 0:
        raise ValueError(f"Dropout after the last Linear layer is not supported{ADVICE}")
    _check_parameters(chain)
    return chain


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _where(path: str, part: nn.Module) -> str:
    return f"{path!r} ({type(part).__name__})" if path else type(part).__name__


def _add(chain: Chain, path: str, part: nn.Module) -> None:
    """Add a module without children, or refuse it."""
    where = _where(path, part)
    if chain.drops_column or (chain.final and not isinstance(part, nn.Identity)):
        raise ValueError(f"{where} follows what must come last{ADVICE}")
    kind = type(part)
    if kind is nn.Linear:
        linear = cast(nn.Linear, part)
        if chain.linears and chain.linears[-1].out_features != linear.in_features:
            raise ValueError(
                f"{where} must take the {chain.linears[-1].out_features} outputs of the layer "
                f"before, got in_features={linear.in_features}"
            )
        chain.paths.append(path)
        chain.linears.append(linear)
        chain.activations.append("identity")
        chain.dropout.append(0.0)
    elif kind is nn.Flatten:
        _flatten(chain, where, cast(nn.Flatten, part))
    elif kind is nn.Dropout:
        rate = part.p if part.training else 0.0
        if rate > 0:
            if not chain.linears or chain.dropout[-1] > 0:
                raise ValueError(f"{where} must follow the activation of a hidden layer{ADVICE}")
            chain.dropout[-1] = rate
    elif kind in (nn.Softmax, nn.LogSoftmax):
        _check_open(chain, where)
        if part.dim not in (1, -1):
            raise ValueError(f"{where} must have dim=1, got dim={part.dim}")
        chain.final = "softmax" if kind is nn.Softmax else "log_softmax"
    elif kind in _ACTIVATIONS:
        _check_open(chain, where)
        if kind is nn.Softplus and (part.beta != 1 or part.threshold < 20):
            raise ValueError(
                f"{where} must have beta=1 and a threshold of at least 20, got beta={part.beta} "
                f"and threshold={part.threshold}{ADVICE}"
            )
        chain.activations[-1] = _ACTIVATIONS[kind](part)
    elif kind is not nn.Identity:
        known = sorted(known.__name__ for known in (*_ACTIVATIONS, nn.LogSoftmax, nn.Softmax))
        raise ValueError(
            f"{where} is none of Sequential, Linear, Dropout, Flatten, Identity, "
            f"{', '.join(known)}{ADVICE}"
        )


def _check_open(chain: Chain, where: str) -> None:
    """Raise ValueError unless a Linear layer comes directly before."""
    if not chain.linears or chain.activations[-1] != "identity" or chain.dropout[-1] > 0:
        raise ValueError(f"{where} must directly follow a Linear layer{ADVICE}")


def _flatten(chain: Chain, where: str, part: nn.Flatten) -> None:
    """Flatten rows, which changes only inputs, or outputs of one column."""
    span = part.start_dim, part.end_dim
    if span == (1, -1):
        chain.flattens = chain.flattens or not chain.linears
    elif chain.linears and chain.linears[-1].out_features == 1 and span in ((0, -1), (0, 1)):
        chain.drops_column = True
    else:
        raise ValueError(
            f"{where} must have start_dim=1 and end_dim=-1, got start_dim={part.start_dim} and "
            f"end_dim={part.end_dim}{ADVICE}"
        )


def _check_parameters(chain: Chain) -> None:
    seen: set[int] = set()
    for name, parameter in chain.named_parameters.items():
        problem = None
        if parameter.device.type != "cpu":
            problem = f"is on the device {parameter.device}, not on the CPU"
        elif parameter.dtype not in _DTYPES or parameter.dtype != chain.dtype:
            problem = f"has the dtype {parameter.dtype}, not float32 or float64 like all others"
        elif not parameter.requires_grad:
            problem = "is frozen: its requires_grad is False"
        elif parameter.is_inference() and not torch.is_inference_mode_enabled():
            problem = "was created in inference mode, outside of which nothing may change it"
        elif parameter.data_ptr() in seen:
            problem = "is shared with another layer"
        elif any(getattr(parameter, hooks, None) for hooks in _PARAMETER_HOOKS):
            problem = "has hooks, which nncore cannot call"
        if problem is not None:
            raise ValueError(f"parameter {name!r} {problem}{ADVICE}")
        seen.add(parameter.data_ptr())


def network(module: nn.Module, loss: nn.Module | None = None) -> Network:
    """Return a network with a module's layers and a copy of its parameters, for deployment.

    Parameters
    ----------
    module : torch.nn.Sequential
        As `fit` accepts it; its dropout does not matter.
    loss : torch.nn.Module, optional
        The loss that the module was trained with. It tells what its outputs mean: after logits for
        ``CrossEntropyLoss`` the network has softmax outputs, for ``BCEWithLogitsLoss`` sigmoid
        outputs, for ``PoissonNLLLoss`` exponential ones. By default the outputs are the module's.

    Returns
    -------
    Network
        In the dtype of the parameters.

    Raises
    ------
    TypeError, ValueError
        A part of the module or the loss is not supported; the message names it.

    Examples
    --------
    >>> import torch, nncore.torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3))
    >>> nncore.torch.network(module, torch.nn.CrossEntropyLoss())
    Network([4, 3], loss='cross_entropy', dtype='float32'), 15 parameters
      1  4 -> 3  softmax  15
    """
    from ._losses import as_torch_loss, loss_of_outputs

    chain = as_chain(module)
    meaning: TorchLoss = loss_of_outputs(chain) if loss is None else as_torch_loss(loss, chain)
    architecture = chain.architecture(meaning.name, meaning.output)
    deployed = Network.from_architecture(architecture)
    vector = np.zeros(architecture.n_parameters, architecture.dtype)
    copy_all(chain.views(vector, architecture), chain.parameters)
    deployed.parameters = vector
    return deployed


_MODULES: dict[str, Callable[[float], nn.Module]] = {
    "elu": lambda slope: nn.ELU(slope),
    "gelu": lambda _: nn.GELU(),
    "gelu_tanh": lambda _: nn.GELU("tanh"),
    "leaky_relu": lambda slope: nn.LeakyReLU(slope),
    "relu": lambda _: nn.ReLU(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "silu": lambda _: nn.SiLU(),
    "softmax": lambda _: nn.Softmax(dim=1),
    "softplus": lambda _: nn.Softplus(),
    "tanh": lambda _: nn.Tanh(),
}


def to_torch(source: Network, *, logits: bool) -> nn.Sequential:
    """Return a module with a network's layers; `Network.to_torch` describes it."""
    modules: list[nn.Module] = []
    architecture = source.architecture
    for l, layer in enumerate(architecture.layers, start=1):
        name = layer.activation.name.lower()
        # Not initialized: that would draw from PyTorch's global generator.
        linear = nn.utils.skip_init(
            nn.Linear, layer.n_prev, layer.n, dtype=getattr(torch, source.dtype.name)
        )
        modules.append(linear)
        is_last = l == len(architecture.layers)
        if name == "identity" or (
            is_last and logits and name in ("softmax", "sigmoid", "exponential")
        ):
            continue
        if name not in _MODULES:
            raise ValueError(f"PyTorch has no module for the activation {name!r} of layer {l}")
        modules.append(_MODULES[name](layer.slope))
    module = nn.Sequential(*modules)
    chain = as_chain(module)
    copy_all(chain.parameters, chain.views(source.copy_parameters(), architecture))
    return module
