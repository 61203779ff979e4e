"""What is measured: networks, estimators, their data and first parameters, equal for everyone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nncore.typing import ActivationName, DTypeName

Array = npt.NDArray[Any]

# Sizes, input first, and batch size.
NETWORKS = {
    "small": ["784-30-10,10", "784-100-10,10", "64-64-32-1,32"],
    "large": ["784-128-64-10,64", "784-512-512-10,128", "1024-1024-1024-1024,1024"],
}


@dataclass(frozen=True)
class Case:
    """A call on a network: one row of the comparison, apart from the number of threads."""

    sizes: tuple[int, ...]
    batch_size: int
    n_samples: int  # a whole number of batches, or the rows of a prediction
    call: str = "fit"  # or train_on_batch or predict
    dtype: DTypeName = "float32"
    optimizer: str = "sgd"
    activation: ActivationName = "sigmoid"  # of the hidden layers; the outputs are always sigmoids

    @property
    def label(self) -> str:
        """Network, batch size and whatever differs from long epochs of plain SGD with sigmoids."""
        network = "-".join(map(str, self.sizes))
        if self.call == "predict":
            return f"{network}, {self.n_samples:,} row{'s' * (self.n_samples > 1)}"
        names = [self.optimizer, self.activation, self.call]
        extras = [name for name in names if name not in ("sgd", "sigmoid", "fit")]
        if self.call == "fit" and self.steps == 1:
            extras.append("one step per epoch")
        return ", ".join([network, str(self.batch_size), *extras])

    @property
    def steps(self) -> int:
        """Steps per epoch; 1 where calls are counted."""
        return self.n_samples // self.batch_size if self.call == "fit" else 1

    @property
    def operations(self) -> int:
        """Floating-point operations of a step's or a prediction's matrix products.

        The input needs no delta, so a step of N examples takes 2N(3P - n_0 n_1) for P weights.
        """
        P = sum(n * m for n, m in self.shapes)
        if self.call == "predict":
            return 2 * self.n_samples * P
        return 2 * self.batch_size * (3 * P - self.sizes[0] * self.sizes[1])

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shape (n_{l-1}, n_l) of every layer's weights."""
        return list(pairwise(self.sizes))

    @property
    def activations(self) -> list[ActivationName]:
        return [self.activation] * (len(self.sizes) - 2) + ["sigmoid"]

    @property
    def learning_rate(self) -> float:
        return {"sgd": 1e-3, "adam": 1e-4}[self.optimizer]

    def data(self) -> tuple[Array, Array]:
        """Return X (n_samples, n_0) and targets Y (n_samples, n_L), not to be written to."""
        return _random_data(self.sizes[0], self.sizes[-1], self.n_samples, self.dtype)

    def first_parameters(self) -> tuple[list[Array], list[Array]]:
        """Return Glorot's uniform weights (n_{l-1}, n_l) and zero biases (n_l,)."""
        rng = np.random.default_rng(1)
        weights = [rng.uniform(-1, 1, shape) * np.sqrt(6 / sum(shape)) for shape in self.shapes]
        biases = [np.zeros(m, self.dtype) for m in self.sizes[1:]]
        return [W.astype(self.dtype) for W in weights], biases


@lru_cache(maxsize=1)
def _random_data(n_inputs: int, n_outputs: int, n_samples: int, dtype: str) -> tuple[Array, Array]:
    """Return X uniform in [0, 1) and Y of 0 and 1, which a random linear rule decides."""
    rng = np.random.default_rng(0)
    X = rng.random((n_samples, n_inputs))
    scores = (X - 0.5) @ rng.standard_normal((n_inputs, n_outputs))
    threshold = 0 if n_outputs == 1 else scores.max(axis=1, keepdims=True)
    return X.astype(dtype), (scores >= threshold).astype(dtype)


def training(network: str) -> Case:
    """Return the training of a network in epochs that are long, but shorter than a sample."""
    sizes, batch_size = network.split(",")
    case = Case(tuple(map(int, sizes.split("-"))), int(batch_size), int(batch_size))
    steps = max(2, min(10_000 // case.batch_size, 20_000_000_000 // case.operations))
    return replace(case, n_samples=steps * case.batch_size)


def single_steps(dtype: DTypeName) -> list[Case]:
    """Return a step of a long epoch, and the same step where each is an epoch or a call."""
    case = replace(training("12-64-64-4,32"), dtype=dtype, optimizer="adam")
    alone = replace(case, n_samples=case.batch_size)
    return [case, alone, replace(alone, call="train_on_batch")]


def predictions(dtype: DTypeName) -> list[Case]:
    return [Case((784, 30, 10), 1, n_rows, "predict", dtype) for n_rows in (1, 10_000)]


def online() -> list[Case]:
    """Return what a loop calls a thousand times a second."""
    step = Case((12, 64, 64, 4), 32, 32, "train_on_batch", optimizer="adam", activation="relu")
    return [replace(step, n_samples=1, call="predict"), step]


MNIST = os.environ.get("NNCORE_MNIST")  # a directory with the images
DATASETS = ["digits", "mnist10k", "10k x 20", "100k x 50"]
EPOCHS = 20


@dataclass(frozen=True)
class EstimatorCase:
    """A call of an MLPClassifier or MLPRegressor with its defaults."""

    dataset: str
    task: str  # classification or regression
    solver: str
    dtype: str  # of X; "float64 as float32" has nncore compute in float32
    call: str = "fit"  # or predict
    n_rows: int | None = None  # of a prediction; None for all
    scaled: bool = False  # by a StandardScaler in front of the estimator

    steps = 1
    operations = 0  # not counted

    @property
    def label(self) -> str:
        rows = "1 row" if self.n_rows == 1 else "all rows"
        rows += " in a pipeline" * self.scaled
        call = f"fit, {EPOCHS} epochs" if self.call == "fit" else f"predict {rows}"
        return f"{self.dataset}, {self.task}, {self.solver}, {call}"

    def data(self) -> tuple[Array, Array]:
        X, y = _estimator_data(self.dataset, self.task)
        return X.astype(self.dtype.split()[0]), y


AnyCase = Case | EstimatorCase


def estimators(datasets: Sequence[str]) -> Iterator[EstimatorCase]:
    tasks, solvers = ("classification", "regression"), ("adam", "sgd")
    dtypes = ("float64", "float32", "float64 as float32")
    for choice in product(datasets, tasks, solvers, dtypes):
        case = EstimatorCase(*choice)
        yield case
        if case.solver == "adam":
            one_row = replace(case, call="predict", n_rows=1)
            yield from (one_row, replace(one_row, scaled=True))
            yield replace(case, call="predict")


@lru_cache(maxsize=1)
def _estimator_data(dataset: str, task: str) -> tuple[Array, Array]:
    from sklearn import datasets

    from nncore.datasets import load_mnist

    if dataset == "digits":
        X, y = datasets.load_digits(return_X_y=True)
        X = X / 16
    elif dataset == "mnist10k":
        parts = load_mnist(str(MNIST))
        X, y = (np.concatenate([part[i] for part in parts]) for i in range(2))
    else:
        shape = {"10k x 20": (10_000, 20), "100k x 50": (100_000, 50)}[dataset]
        if task == "classification":
            X, y = datasets.make_classification(*shape, n_informative=shape[1] // 2, random_state=0)
        else:
            X, y = datasets.make_regression(*shape, noise=1.0, random_state=0)
            y = y / y.std()
    return X.astype(float), y.astype(float) if task == "regression" else y
