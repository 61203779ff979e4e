"""PyTorch's optimizers as rules of nncore's step, with their state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._optimizer import Optimizer, Rule
from ..schedules import Schedule
from ._modules import ADVICE, Chain, copy_all

__all__ = ["TorchOptimizer"]

Array = npt.NDArray[Any]
Group = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Recorded(Schedule):
    """The values of a run of consecutive steps."""

    first: int
    values: npt.NDArray[np.float64]

    def _evaluate(self, t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        place = t.astype(np.intp) - self.first
        return self.values[np.clip(place, 0, len(self.values) - 1)]


@dataclass(frozen=True)
class _Kind:
    """How an optimizer's options make a rule, and which tensors are the rule's running vectors."""

    rule: Callable[[Group], dict[str, Any]]
    vectors: Callable[[Group], tuple[str, ...]]
    counts_steps: bool
    # The options that must be off.
    refused: tuple[str, ...]


def _sgd(group: Group) -> dict[str, Any]:
    if not group["momentum"]:
        return {"kind": "gradient_descent"}
    return {
        "kind": "momentum",
        "momentum": group["momentum"],
        "nesterov": group["nesterov"],
        "accumulates": True,
    }


def _adam(group: Group) -> dict[str, Any]:
    beta_1, beta_2 = group["betas"]
    kind = "amsgrad" if group["amsgrad"] else "adam"
    return {"kind": kind, "beta_1": beta_1, "beta_2": beta_2, "epsilon": group["eps"]}


def _adam_vectors(group: Group) -> tuple[str, ...]:
    return ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"])


def _rmsprop(group: Group) -> dict[str, Any]:
    return {
        "kind": "rmsprop",
        "rho": group["alpha"],
        "epsilon": group["eps"],
        "centered": group["centered"],
        "momentum": group["momentum"],
    }


def _rmsprop_vectors(group: Group) -> tuple[str, ...]:
    centered, momentum = group["centered"], group["momentum"] > 0
    return ("square_avg", *["grad_avg"] * centered, *["momentum_buffer"] * momentum)


_ADAM = _Kind(_adam, _adam_vectors, True, ("maximize", "capturable", "differentiable"))

_KINDS: dict[type[torch.optim.Optimizer], _Kind] = {
    torch.optim.Adam: _ADAM,
    torch.optim.AdamW: _ADAM,
    torch.optim.RMSprop: _Kind(
        _rmsprop, _rmsprop_vectors, True, ("maximize", "capturable", "differentiable")
    ),
    torch.optim.SGD: _Kind(
        _sgd,
        lambda group: ("momentum_buffer",) if group["momentum"] else (),
        False,
        ("maximize", "dampening", "differentiable"),
    ),
}

# How steps are computed, which does not change them.
_IMPLEMENTATION = {"foreach", "fused", "params", "initial_lr", "param_names"}


class TorchOptimizer(Optimizer):
    """An optimizer of PyTorch's: its rule, and its state as flat vectors.

    Parameters
    ----------
    source : torch.optim.Optimizer
    chain : Chain

    Raises
    ------
    TypeError, ValueError
        The optimizer or one of its options is not supported, or its parameters are not the chain's.
    """

    _names = ()

    def __init__(self, source: torch.optim.Optimizer, chain: Chain) -> None:
        super().__init__()
        self._source, self._chain = source, chain
        self._kind = _kind_of(source)
        self._groups = _groups_of(source, chain)
        self._recorded: tuple[Recorded, Recorded] | None = None
        self._names_of_vectors = self._kind.vectors(self._groups[0])
        self.read_rule()
        if self._kind.counts_steps:
            self.step_count = self._steps_made()

    def rule(self) -> Rule:
        return self._rules[0]

    def read_rule(self) -> Rule:
        """Return the rule by the options as they are now, for instance after a scheduler's step."""
        self._check_groups()
        weights, biases = self._groups
        options = self._kind.rule(weights)
        decoupled = weights.get("decoupled_weight_decay", False)
        options["decoupled_decay" if decoupled else "weight_decay"] = weights["weight_decay"]
        options["decoupled_bias_decay" if decoupled else "bias_decay"] = biases["weight_decay"]
        options["learning_rate"] = float(weights["lr"])
        if self._recorded is not None:
            options["learning_rate"], momenta = self._recorded
            if options["kind"] != "gradient_descent":
                options["momenta"] = momenta
        self.forget_rule()
        rule = Rule(**options)
        self._rules = [rule]
        return rule

    def record(self, advance: Callable[[], object], n_steps: int) -> None:
        """Note the options of each of the next steps; `advance` makes those of the next one."""
        values = np.empty((n_steps, 2))
        group = self._groups[0]
        for i in range(n_steps):
            self._check_groups()
            values[i] = group["lr"], group["betas"][0] if "betas" in group else group["momentum"]
            advance()
        first = self.step_count
        self._recorded = Recorded(first, values[:, 0]), Recorded(first, values[:, 1])

    @property
    def n_vectors(self) -> int:
        """How many running vectors the rule has."""
        return len(self._names_of_vectors)

    def read_state(self, views: Sequence[list[torch.Tensor]]) -> None:
        """Copy the state into tensors, for each running vector one per parameter."""
        state = self._source.state
        for name, tensors in zip(self._names_of_vectors, views, strict=True):
            found = [state[p].get(name) if p in state else None for p in self._chain.parameters]
            if all(tensor is not None for tensor in found):
                copy_all(tensors, found)
                continue
            # PyTorch creates the state in the first step.
            for tensor, source in zip(tensors, found, strict=True):
                tensor.copy_(source) if source is not None else tensor.zero_()

    def write_state(self, views: Sequence[list[torch.Tensor]]) -> None:
        """Copy tensors and the steps into the state, in place where it exists."""
        if not self.step_count:
            return
        state, parameters = self._source.state, self._chain.parameters
        if self._kind.counts_steps:
            for parameter in parameters:
                step = state[parameter].get("step")
                if isinstance(step, torch.Tensor):
                    step.fill_(self.step_count)
                else:
                    made = torch.tensor(float(self.step_count), dtype=_step_dtype())
                    state[parameter]["step"] = made
        for name, tensors in zip(self._names_of_vectors, views, strict=True):
            copy_all([_tensor(state[p], p, name) for p in parameters], tensors)

    def _check_groups(self) -> None:
        """Raise ValueError for options that the rule does not have, or not with its vectors."""
        weights, biases = self._groups
        _check_options(self._kind, weights, biases)
        if self._kind.vectors(weights) != self._names_of_vectors:
            raise ValueError(
                "optimizer must keep its momentum, centered and amsgrad on or off during a fit"
                f"{ADVICE}"
            )

    def _steps_made(self) -> int:
        state = self._source.state
        steps = {int(state[p].get("step", 0)) if p in state else 0 for p in self._chain.parameters}
        if len(steps) > 1:
            raise ValueError(
                f"optimizer must have made the same number of steps for all parameters, got "
                f"{sorted(steps)}{ADVICE}"
            )
        return steps.pop()


def _tensor(state: dict[str, Any], parameter: torch.Tensor, name: str) -> torch.Tensor:
    """Return a tensor of a parameter's state, created if need be."""
    if state.get(name) is None:
        state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    tensor: torch.Tensor = state[name]
    return tensor


def _step_dtype() -> torch.dtype:
    """Return the dtype in which PyTorch counts steps."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def _kind_of(optimizer: torch.optim.Optimizer) -> _Kind:
    if type(optimizer) not in _KINDS:
        known = ", ".join(sorted(known.__name__ for known in _KINDS))
        raise TypeError(
            f"optimizer must be one of {known} of torch.optim, got "
            f"{type(optimizer).__name__}{ADVICE}"
        )
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        if getattr(optimizer, hooks, None):
            raise ValueError(f"optimizer has step hooks, which nncore cannot call{ADVICE}")
    return _KINDS[type(optimizer)]


def _groups_of(optimizer: torch.optim.Optimizer, chain: Chain) -> tuple[Group, Group]:
    """Return a group of the weights, and one of the biases, which may be the same."""
    owner = {
        id(parameter): i
        for i, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    }
    first: dict[str, int] = {}
    for name, parameter in chain.named_parameters.items():
        i = owner.pop(id(parameter), None)
        if i is None:
            raise ValueError(f"optimizer must have the parameter {name!r} of module{ADVICE}")
        kind = name.rpartition(".")[2]
        _check_equal(optimizer, first.setdefault(kind, i), i, kind)
    if owner:
        raise ValueError(
            f"optimizer must have the parameters of module only, got {len(owner)} others{ADVICE}"
        )
    groups = optimizer.param_groups
    return groups[first["weight"]], groups[first.get("bias", first["weight"])]


def _check_equal(optimizer: torch.optim.Optimizer, i: int, j: int, kind: str) -> None:
    """Raise ValueError if the options of two groups with such parameters differ."""
    if i == j:
        return
    one, other = optimizer.param_groups[i], optimizer.param_groups[j]
    for option in one.keys() - _IMPLEMENTATION:
        if one[option] != other[option]:
            raise ValueError(
                f"optimizer must have the same {option} for every {kind}, got {one[option]} in "
                f"group {i} and {other[option]} in group {j}{ADVICE}"
            )


def _check_options(kind: _Kind, weights: Group, biases: Group) -> None:
    """Raise ValueError for options that the rule does not have."""
    if weights is not biases:
        for option in weights.keys() - _IMPLEMENTATION - {"weight_decay"}:
            if weights[option] != biases[option]:
                raise ValueError(
                    f"optimizer must have groups that differ only in weight_decay, got {option}="
                    f"{weights[option]} for weights and {biases[option]} for biases{ADVICE}"
                )
    for option in kind.refused:
        if weights.get(option):
            off = type(weights[option])()
            raise ValueError(f"optimizer must have {option}={off}, got {weights[option]}{ADVICE}")
    for option in ("lr", "weight_decay", "betas"):
        value = weights.get(option, 0)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, torch.Tensor):
                raise ValueError(f"optimizer must have a number as {option}, got a tensor{ADVICE}")
