"""What is trained: the networks, their data and their first parameters, the same for everybody."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
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
    own_learning_rate : float
        None for one so small that the widest network with linear outputs stays finite for minutes.
    seed : int
        Of the first parameters and of the shuffling.
    data_file : str
        Arrays ``X`` and ``Y`` to train on, in NumPy's format; None for random data.
    """

    sizes: tuple[int, ...]
    batch_size: int
    steps_per_epoch: int
    dtype: str = "float32"
    optimizer: str = "sgd"
    activation: str = "sigmoid"
    own_learning_rate: float | None = None
    seed: int = 0
    data_file: str | None = None

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
        if self.own_learning_rate is not None:
            return self.own_learning_rate
        return {"sgd": 1e-3, "adam": 1e-4}[self.optimizer]

    @property
    def n_weights(self) -> int:
        """P; biases do not count."""
        return sum(n * m for n, m in self.shapes)

    @property
    def operations_per_step(self) -> int:
        """2N(3P - n_0 n_1): no product is spent on a delta of the input."""
        return 2 * self.batch_size * (3 * self.n_weights - self.sizes[0] * self.sizes[1])

    def operations_per_prediction(self, n_rows: int) -> int:
        return 2 * n_rows * self.n_weights

    def data(self) -> tuple[Array, Array]:
        """Return X (n_samples, n_0) and targets Y (n_samples, n_L), not to be written to."""
        return _data(self)

    def first_parameters(self) -> tuple[list[Array], list[Array]]:
        """Return weights (n_{l-1}, n_l), uniform as Glorot has them, and zero biases (n_l,)."""
        rng = np.random.default_rng(self.seed + 1)
        weights, biases = [], []
        for n, m in self.shapes:
            bound = np.sqrt(6 / (n + m))
            weights.append(rng.uniform(-bound, bound, (n, m)).astype(self.dtype))
            biases.append(np.zeros(m, self.dtype))
        return weights, biases


@lru_cache(maxsize=1)
def _data(case: Case) -> tuple[Array, Array]:
    """Return the file's arrays, or X uniform in [0, 1) and Y either 0 or 1.

    A random linear rule decides the targets, so that there is something to learn.
    """
    if case.data_file is not None:
        with np.load(case.data_file) as arrays:
            X, Y = (arrays[name][: case.n_samples] for name in ("X", "Y"))
    else:
        rng = np.random.default_rng(case.seed)
        X = rng.random((case.n_samples, case.sizes[0]))
        scores = (X - 0.5) @ rng.standard_normal((case.sizes[0], case.sizes[-1]))
        threshold = 0 if case.sizes[-1] == 1 else scores.max(axis=1, keepdims=True)
        Y = scores >= threshold
    return X.astype(case.dtype), Y.astype(case.dtype)


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
    ((4096, 4096, 10), 512, 2),
]
NETWORKS = {network_name(network[0]): network for network in _USUAL + _FURTHER}
USUAL_NETWORKS = [network_name(network[0]) for network in _USUAL]

# Predictions: network, rows per call.
PREDICTIONS = [("784-30-10", 1), ("784-30-10", 10_000)]


@dataclass(frozen=True)
class AccuracyGoal:
    """Train on real digits until a share of unseen ones is recognized.

    Hidden units are ReLUs and the outputs linear, with squared errors: what every contestant,
    scikit-learn and nn-engine-core among them, can train exactly alike.
    """

    accuracy: float
    sizes: tuple[int, ...]
    batch_size: int
    learning_rate: float


ACCURACY_GOALS = {
    "digits": AccuracyGoal(0.96, (64, 64, 32, 10), 32, 0.1),
    "mnist": AccuracyGoal(0.94, (784, 128, 64, 10), 64, 0.1),
}


@dataclass(frozen=True)
class Target:
    """What nncore is meant to reach in a network's float32 training with sigmoids and plain SGD.

    Parameters
    ----------
    share_of_peak : float
        With one thread.
    times_faster : dict of str to float
        Than each peer, with one thread.
    times_faster_than_best : float
        Than the best of these peers, with all threads.
    large : bool
        Whether the matrix products take nearly all of the time. Then `ADAM_COST`,
        `TWO_THREADS_GAIN` and, with narrower vectors than the processor has, the shares apply.
    """

    share_of_peak: float
    times_faster: dict[str, float]
    times_faster_than_best: float
    large: bool


def _target(
    share: float, jax: float, scikit_learn: float, pytorch: float, best: float, *, large: bool
) -> Target:
    peers = {"jax": jax, "scikit-learn": scikit_learn, "pytorch": pytorch}
    return Target(share, peers, best, large)


TARGETS = {
    "784-30-10": _target(0.62, 3.5, 10, 22, 3.4, large=False),
    "784-100-10": _target(0.70, 2.1, 6.5, 10, 2.0, large=False),
    "64-64-32-1": _target(0.65, 2.2, 13, 28, 2.5, large=False),
    "784-128-64-10": _target(0.88, 1.35, 2.7, 3.6, 2.0, large=True),
    "784-512-512-10": _target(0.93, 1.3, 1.95, 2.8, 1.4, large=True),
    "1024x4": _target(0.94, 1.2, 1.2, 2.3, 1.12, large=True),
}
FLOAT64_SHARE_BELOW = 0.05  # how far below that of float32 a float64 share of the peak may be
ADAM_COST = 1.35  # at most, times plain SGD
TWO_THREADS_GAIN = 1.8  # at least, times faster than one
NO_SLOWER = 0.97  # what two medians of the same thing may differ by
PREDICT_ROW_SECONDS = 5e-6  # at most
PREDICT_ROWS_SHARE = 0.8  # at least, of the peak
