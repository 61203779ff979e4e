"""What is trained: the networks, their data and their first parameters, the same for everybody."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def network_name(sizes: tuple[int, ...]) -> str:
    """Write sizes as 784-30-10, and a run of three or more equal ones as 1024x4."""
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    return "-".join(
        f"{size}x{count}" if count > 2 else "-".join([str(size)] * count) for size, count in runs
    )


@dataclass(frozen=True)
class Case:
    """One row of the comparison, apart from the number of threads.

    Parameters
    ----------
    sizes : tuple of int
        Units per layer, input first.
    batch_size : int
        Examples per step.
    steps_per_epoch : int
        Steps in one pass over the data; every batch is full.
    dtype, optimizer, activation : str
        ``activation`` is that of the hidden layers.
    """

    sizes: tuple[int, ...]
    batch_size: int
    steps_per_epoch: int
    dtype: str = "float32"
    optimizer: str = "sgd"
    activation: str = "sigmoid"

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Case:
        return cls(**{**fields, "sizes": tuple(fields["sizes"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def network(self) -> str:
        return network_name(self.sizes)

    @property
    def label(self) -> str:
        """Network, batch size and whatever differs from plain SGD with sigmoids."""
        extras = [
            name
            for name, usual in ((self.optimizer, "sgd"), (self.activation, "sigmoid"))
            if name != usual
        ]
        return ", ".join([self.network, str(self.batch_size), *extras])

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape (n_{l-1}, n_l) of every layer's weights."""
        return list(pairwise(self.sizes))

    @property
    def n_samples(self) -> int:
        return self.batch_size * self.steps_per_epoch

    @property
    def activations(self) -> list[str]:
        """Activation of every layer: sigmoid outputs beside sigmoids, linear ones beside ReLU."""
        output = "sigmoid" if self.activation == "sigmoid" else "identity"
        return [self.activation] * (len(self.sizes) - 2) + [output]

    @property
    def learning_rate(self) -> float:
        # Small enough for the widest network with linear outputs to stay finite for minutes.
        return {"sgd": 1e-3, "adam": 1e-4}[self.optimizer]

    @property
    def operations_per_step(self) -> int:
        """2N(3P - n_0 n_1): no product is spent on a delta of the input."""
        products = [n * m for n, m in self.shapes]
        return 2 * self.batch_size * (3 * sum(products) - products[0])

    def data(self, seed: int = 0) -> tuple[Array, Array]:
        """Return X (n_samples, n_0), uniform in [0, 1), and targets Y (n_samples, n_L), 0 or 1.

        A random linear rule decides the targets, so that there is something to learn.
        """
        rng = np.random.default_rng(seed)
        X = rng.random((self.n_samples, self.sizes[0]))
        scores = (X - 0.5) @ rng.standard_normal((self.sizes[0], self.sizes[-1]))
        threshold = 0 if self.sizes[-1] == 1 else scores.max(axis=1, keepdims=True)
        Y = scores >= threshold
        return X.astype(self.dtype), Y.astype(self.dtype)

    def first_parameters(self, seed: int = 1) -> tuple[list[Array], list[Array]]:
        """Return weights (n_{l-1}, n_l), uniform as Glorot has them, and zero biases (n_l,)."""
        rng = np.random.default_rng(seed)
        weights, biases = [], []
        for n, m in self.shapes:
            bound = np.sqrt(6 / (n + m))
            weights.append(rng.uniform(-bound, bound, (n, m)).astype(self.dtype))
            biases.append(np.zeros(m, self.dtype))
        return weights, biases


def mean_loss(outputs: Array, Y: Array) -> float:
    """Return half the squared error, summed over the outputs, averaged over the examples."""
    return float(0.5 * np.mean(np.sum(np.square(outputs - Y, dtype=np.float64), axis=1)))


# (sizes, batch size, steps per epoch); the default run takes the first group only.
_USUAL = [
    ((784, 30, 10), 10, 1000),
    ((784, 100, 10), 10, 1000),
    ((64, 64, 32, 1), 32, 500),
    ((784, 128, 64, 10), 64, 150),
    ((784, 512, 512, 10), 128, 40),
    ((1024, 1024, 1024, 1024), 1024, 2),
]
_FURTHER = [
    ((20, 100, 100, 1), 200, 100),
    ((32,) * 9, 64, 200),
    ((4096, 4096, 10), 512, 4),
]
NETWORKS = {network_name(network[0]): network for network in _USUAL + _FURTHER}
USUAL_NETWORKS = [network_name(network[0]) for network in _USUAL]
