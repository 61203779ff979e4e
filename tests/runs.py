"""A small fit with everything that belongs to it, to be interrupted and resumed."""

from collections.abc import Callable
from typing import Any

import numpy as np
from helpers import problem

import nncore

# Batches per epoch, and epochs.
N_BATCHES = 5
EPOCHS = 4


class Decay:
    """A callback that lowers the learning rate, and has a state."""

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor
        self.rates: list[float] = []
        self.settings: dict[str, float] = {}

    def __call__(self, end: nncore.EpochEnd) -> None:
        assert end.optimizer is not None
        end.optimizer.learning_rate *= self.factor
        self.rates.append(end.optimizer.learning_rate)

    def state(self) -> dict[str, Any]:
        return {"rates": np.array(self.rates)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.rates = state["rates"].tolist()


class Run:
    """A fit with everything that belongs to it."""

    def __init__(self, create: Callable[[], Any] = nncore.Adam, **options: Any) -> None:
        self.net, self.X, self.Y = problem("float32")
        self.optimizer = create()
        self.seed: Any = np.random.default_rng(3)
        self.decay = Decay()
        self.options = {
            "epochs": EPOCHS,
            "batch_size": 8,
            "optimizer": self.optimizer,
            "seed": self.seed,
            "callbacks": [self.decay],
            **options,
        }

    def fit(self, *callbacks: Any, **changes: Any) -> nncore.History:
        options = {**self.options, **changes}
        options["callbacks"] = [*options["callbacks"], *callbacks]
        data = options.pop("data", (self.X, self.Y))
        self.history = self.net.fit(*data, **options)
        return self.history

    def result(self) -> dict[str, Any]:
        """Return everything that must not depend on interruptions."""
        return {
            "parameters": self.net.parameters.tobytes(),
            "state": [vector.tobytes() for vector in self.optimizer.state],
            "coefficients": self.optimizer.coefficients,
            "step_count": self.optimizer.step_count,
            "loss": self.history.loss,
            "validation_loss": self.history.validation_loss,
            "metrics": self.history.metrics,
            "seed": repr(self.seed.bit_generator.state),
            "rates": self.decay.rates,
        }
