"""The state of scikit-learn's stochastic solvers between epochs, and what it tells the core."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._layout import Update, aligned_zeros
from ..network import Network

__all__ = ["StochasticSolver"]


class StochasticSolver:
    """SGD with a schedule of learning rates, or Adam, as scikit-learn defines them.

    Adam adds ε to the square root of the uncorrected second moment, the form of section 2 of
    D. P. Kingma, J. Ba, Adam: a method for stochastic optimization (2015).

    Attributes
    ----------
    learning_rate : float
        SGD: that of the next step. Adam: that of the last step with the corrections of both
        moments, or the initial one before the first.
    step_count : int
    state : tuple of ndarray of shape (n_parameters,)
        SGD: the velocity, none without momentum. Adam: the moments.
    """

    def __init__(self, estimator: Any, network: Network) -> None:
        self.solver: str = estimator.solver
        self.learning_rate_init = float(estimator.learning_rate_init)
        self.lr_schedule: str = estimator.learning_rate
        self.power_t = estimator.power_t
        self.momentum = float(estimator.momentum)
        self.nesterov = bool(estimator.nesterovs_momentum)
        self.beta_1, self.beta_2 = float(estimator.beta_1), float(estimator.beta_2)
        self.epsilon = float(estimator.epsilon)
        self.step_count = 0
        self._rate = self.learning_rate_init
        n_vectors = 2 if self.solver == "adam" else int(self.momentum != 0)
        self.state: tuple[npt.NDArray[Any], ...] = tuple(
            aligned_zeros(network.parameters.size, network.dtype) for _ in range(n_vectors)
        )

    def belongs_to(self, network: Network) -> bool:
        """Make sure that the state can be written to and has the network's type.

        It may come read-only from a mapped file. False if its parameters are others.
        """
        state = tuple(np.require(vector, network.dtype, ["C", "W"]) for vector in self.state)
        self.state = state
        return all(vector.size == network.parameters.size for vector in state)

    @property
    def learning_rate(self) -> float:
        if self.solver == "sgd" or self.step_count == 0:
            return self._rate
        t = self.step_count
        return float(self._rate * np.sqrt(1 - self.beta_2**t) / (1 - self.beta_1**t))

    def update(self, alpha: float, **options: Any) -> Update:
        """Return the rule of the next epoch's steps."""
        if self.solver == "adam":
            options |= {"beta_1": self.beta_1, "beta_2": self.beta_2}
            options |= {"epsilon": self.epsilon, "epsilon_uncorrected": True}
        elif self.momentum != 0:
            options |= {"momentum": self.momentum, "nesterov": self.nesterov}
        return Update(
            "adam" if self.solver == "adam" else "momentum" if self.state else "gradient_descent",
            self.state,
            self.step_count,
            learning_rate=self._rate,
            weight_decay=0.0,
            penalty=float(alpha),
            **options,
        )

    def end_epoch(self, t: int) -> None:
        """Take note of an epoch after which t examples in all have been trained on."""
        if self.solver == "sgd" and self.lr_schedule == "invscaling":
            self._rate = self.learning_rate_init / (t + 1) ** self.power_t

    def stops(self, reason: str, verbose: bool) -> bool:
        """Say whether to stop for the reason, or go on with a smaller learning rate."""
        if self.solver != "sgd" or self.lr_schedule != "adaptive":
            end = "Stopping."
        elif self._rate <= 1e-6:
            end = "Learning rate too small. Stopping."
        else:
            self._rate /= 5.0
            end = f"Setting learning rate to {self._rate:f}"
        if verbose:
            print(reason, end)
        return end.endswith("Stopping.")
