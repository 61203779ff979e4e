"""scikit-learn's stochastic solvers as optimizers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._checks import as_real
from ..architecture import Architecture
from ..optimizers import Optimizer, Rule

__all__ = ["StochasticSolver"]

Array = npt.NDArray[Any]


class _Parameters(Protocol):
    """The parameters of an estimator that determine a solver."""

    solver: str
    learning_rate_init: float
    learning_rate: str
    power_t: float
    momentum: float
    nesterovs_momentum: bool
    beta_1: float
    beta_2: float
    epsilon: float


class StochasticSolver(Optimizer):
    """SGD with a schedule of learning rates, or Adam, as scikit-learn defines them.

    Adam adds ε to the square root of the uncorrected second moment, the form of section 2 of
    D. P. Kingma, J. Ba, Adam: a method for stochastic optimization (2015).

    Attributes
    ----------
    learning_rate : float
        For SGD the rate of the next step. For Adam the rate of the last step, including the bias
        corrections of both moments, and the initial rate before the first step.
    penalty : float
        α of the L2 term.
    """

    penalty = 0.0

    _names = ("learning_rate",)

    def __init__(self, parameters: _Parameters) -> None:
        super().__init__()
        self._is_adam = parameters.solver == "adam"
        self._initial_rate = self._rate = float(parameters.learning_rate_init)
        self._schedule = parameters.learning_rate
        self._power_t = parameters.power_t
        self._momentum = float(parameters.momentum)
        self._nesterov = bool(parameters.nesterovs_momentum)
        self._beta_1, self._beta_2 = float(parameters.beta_1), float(parameters.beta_2)
        self._epsilon = float(parameters.epsilon)

    def adapt(self, architecture: Architecture) -> bool:
        """Convert the state to the network's dtype; return False if it has other sizes."""
        owner = self.owner
        if owner is not None and owner.sizes != architecture.sizes:
            return False
        if owner is not None and owner.dtype != architecture.dtype:
            state = self.state
            self.owner = architecture
            self.state = tuple(vector.astype(architecture.dtype) for vector in state)
        return True

    def as_values(self) -> dict[str, Any]:
        """Return what a file must hold; `penalty` is set in each fit."""
        parameters = {
            "solver": "adam" if self._is_adam else "sgd",
            "learning_rate_init": self._initial_rate,
            "learning_rate": self._schedule,
            "power_t": self._power_t,
            "momentum": self._momentum,
            "nesterovs_momentum": self._nesterov,
            "beta_1": self._beta_1,
            "beta_2": self._beta_2,
            "epsilon": self._epsilon,
        }
        return {
            "parameters": parameters,
            "rate": self._rate,
            "step_count": self.step_count,
            "state": list(self.arrays),
        }

    def resume(
        self, architecture: Architecture, rate: float, step_count: int, state: list[Array]
    ) -> None:
        """Take over what `as_values` returned besides the parameters."""
        self._rate = as_real("rate", rate)
        if not 0 <= self._rate < np.inf:
            raise ValueError(f"rate must be >= 0 and finite, got {rate!r}")
        self.restore(architecture, {}, step_count, state)

    @property
    def learning_rate(self) -> float:
        if not self._is_adam or self.step_count == 0:
            return self._rate
        t = self.step_count
        return float(self._rate * np.sqrt(1 - self._beta_2**t) / (1 - self._beta_1**t))

    def rule(self) -> Rule:
        for rule in self._rules:
            if (rule.learning_rate, rule.penalty) == (self._rate, self.penalty):
                return rule
        coefficients: dict[str, Any] = {}
        if self._is_adam:
            coefficients = {"beta_1": self._beta_1, "beta_2": self._beta_2}
            coefficients |= {"epsilon": self._epsilon, "epsilon_uncorrected": True}
        elif self._momentum != 0:
            coefficients = {"momentum": self._momentum, "nesterov": self._nesterov}
        rule = Rule(
            "adam" if self._is_adam else "momentum" if self._momentum else "gradient_descent",
            self._rate,
            penalty=self.penalty,
            **coefficients,
        )
        self._rules = [rule]
        return rule

    def end_epoch(self, t: int) -> None:
        """Adapt the rate after an epoch; t is the number of examples trained on so far."""
        if not self._is_adam and self._schedule == "invscaling":
            self._rate = self._initial_rate / (t + 1) ** self._power_t

    def stops(self, reason: str, verbose: bool) -> bool:
        """Return whether to stop; if not, a smaller learning rate is set."""
        if self._is_adam or self._schedule != "adaptive":
            end = "Stopping."
        elif self._rate <= 1e-6:
            end = "Learning rate too small. Stopping."
        else:
            self._rate /= 5.0
            end = f"Setting learning rate to {self._rate:f}"
        if verbose:
            print(reason, end)
        return end.endswith("Stopping.")
