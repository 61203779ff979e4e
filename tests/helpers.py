"""Networks computed by the reference kernels, data for them, and shared checks."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import threadpoolctl

import nncore
from nncore import _files, reference

Array = npt.NDArray[Any]

HIDDEN = [
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "identity",
]
OUTPUT = {
    "squared_error": HIDDEN,
    "binary_cross_entropy": ["sigmoid"],
    "cross_entropy": ["softmax"],
    "absolute_error": ["identity", "sigmoid"],
    "huber": ["identity", "sigmoid"],
    "poisson": ["exponential"],
}
PAIRS = [(loss, output) for loss, outputs in OUTPUT.items() for output in outputs]

CALLS: dict[str, Callable[..., Any]] = {
    "predict": lambda net, X, Y, **options: net.predict(X, **options),
    "evaluate": lambda net, X, Y, **options: net.evaluate(X, Y, **options),
    "gradient": lambda net, X, Y, **options: net.gradient(X, Y, **options),
    "train_on_batch": lambda net, X, Y, **options: net.train_on_batch(
        X, Y, nncore.SGD(0.1), **options
    ),
    "fit": lambda net, X, Y, **options: net.fit(X, Y, **options),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)

# Every rule, and what its code depends on.
OPTIMIZERS: dict[str, Callable[[], nncore.Optimizer]] = {
    "plain": lambda: nncore.SGD(0.1),
    "decay": lambda: nncore.SGD(0.1, weight_decay=0.02),
    "momentum": lambda: nncore.SGD(0.1, momentum=0.9),
    "nesterov": lambda: nncore.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.02),
    "schedule": lambda: nncore.SGD(nncore.schedules.cosine(0.2, steps=50, warmup=10), momentum=0.5),
    "adam": lambda: nncore.Adam(0.01),
    "adam-decay": lambda: nncore.Adam(0.01, 0.8, 0.99, 1e-6, weight_decay=0.02),
    "amsgrad": lambda: nncore.Adam(0.01, amsgrad=True),
    "adamw": lambda: nncore.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: nncore.RMSprop(0.003, weight_decay=0.02),
    "rmsprop-momentum": lambda: nncore.RMSprop(0.003, momentum=0.5),
    "rmsprop-centered": lambda: nncore.RMSprop(0.003, centered=True),
    "rmsprop-all": lambda: nncore.RMSprop(0.003, 0.9, momentum=0.5, centered=True),
}
every_optimizer = pytest.mark.parametrize("create", OPTIMIZERS.values(), ids=OPTIMIZERS)


# Depths 1 to 4: widths that are odd, small and unequal.
SIZES = [[5, 3], [5, 4, 3], [5, 4, 6, 3], [5, 4, 6, 4, 3]]


def rtol(dtype: np.dtype[Any]) -> float:
    """Return the relative error that the rounding of a few layers may cause."""
    return 1e3 * float(np.finfo(dtype).eps)


def make(
    sizes: Sequence[int],
    hidden: Any = "tanh",
    loss: Any = "squared_error",
    output: Any = None,
    **options: Any,
) -> nncore.Network:
    """Return a network whose output activation fits the loss."""
    output = output or OUTPUT[loss][0]
    activation = [*[hidden] * (len(sizes) - 2), output]
    options.setdefault("dtype", "float64")
    options.setdefault("seed", 1)
    return nncore.Network(sizes, activation=activation, loss=loss, **options)


def make_lively(*args: Any, **options: Any) -> nncore.Network:
    """Return a network whose biases are not 0 and whose outputs are not saturated.

    Where an output a is close to 1, 1 - a has few digits, and so has every loss made from it.
    """
    net = make(*args, init="normal", **options)
    net.parameters *= 0.5
    return net


def data(
    net: nncore.Network, n: int, rng: np.random.Generator, dtype: npt.DTypeLike | None = None
) -> tuple[Array, Array]:
    """Return inputs and targets that the network's loss allows."""
    dtype = dtype or net.dtype
    X = rng.normal(size=(n, net.sizes[0]))
    Y = rng.uniform(0.05, 0.95, size=(n, net.sizes[-1]))
    if net.loss == "cross_entropy":
        Y /= Y.sum(axis=1, keepdims=True)
    return X.astype(dtype), Y.astype(dtype)


def problem(dtype: npt.DTypeLike = "float64", n: int = 37) -> tuple[nncore.Network, Array, Array]:
    """Return a small network with data."""
    net = make([5, 6, 3], dtype=dtype)
    return net, *data(net, n, np.random.default_rng(6))


def linear_problem(dtype: npt.DTypeLike = "float64") -> tuple[nncore.Network, Array, Array]:
    """Return a network that diverges as soon as the learning rate is large, with data."""
    net = make([5, 6, 3], hidden="identity", output="identity", dtype=dtype)
    return net, *data(net, 40, np.random.default_rng(6))


# The examples of a `Setting`.
N = 30


class Setting:
    """A network, an optimizer in mid-training, and data that fit them."""

    def __init__(self, sizes: list[int], loss: str = "squared_error", dtype: Any = "f4") -> None:
        self.net = make(sizes, loss=loss, dtype=dtype)
        self.X, self.Y = data(self.net, N, np.random.default_rng(2))
        self.optimizer = nncore.Adam(0.01)
        self.net.fit(self.X, self.Y, optimizer=self.optimizer, seed=0)
        self.rng = np.random.default_rng(5)

    @property
    def everything(self) -> tuple[Any, ...]:
        return self.net, self.optimizer, self.rng, self.X, self.Y

    def fit(self, X: Any, Y: Any, **options: Any) -> object:
        options = {"optimizer": self.optimizer, "seed": self.rng, **options}
        return self.net.fit(X, Y, **options)

    def call(self, name: str, X: Any, Y: Any, **options: Any) -> object:
        if name in ("predict", "layer_outputs"):
            return getattr(self.net, name)(X)
        if name == "fit":
            return self.fit(X, Y, **options)
        if name == "train_on_batch":
            return self.net.train_on_batch(X, Y, self.optimizer, **options)
        return getattr(self.net, name)(X, Y, **options)


TAKES_X = ["predict", "layer_outputs", "evaluate", "gradient", "train_on_batch", "fit"]
TAKES_Y = ["evaluate", "gradient", "train_on_batch", "fit"]


class Twin:
    """The network's architecture and a copy of its parameters, run by the reference kernels."""

    def __init__(self, net: nncore.Network, dtype: npt.DTypeLike = np.float64) -> None:
        self.parameters: Array = net.parameters.astype(dtype)
        self.architecture = net.architecture

    def backward(self, X: Array, dA: Array) -> tuple[Array, Array]:
        return reference.backward(self.architecture, self.parameters, X, dA)

    def layers(self, flat: Array) -> list[tuple[Array, Array]]:
        """Return W^l and b^l, as views, of a vector in the layout of the parameters."""
        return list(zip(*self.architecture.views(flat), strict=True))

    def outputs(self, X: Array) -> list[Array]:
        outputs = []
        A_prev = X.astype(self.parameters.dtype)
        layers = self.architecture.layers
        for (W, b), layer in zip(self.layers(self.parameters), layers, strict=True):
            A = np.empty((len(A_prev), b.size), dtype=self.parameters.dtype)
            reference.forward(A, A_prev, W, b, layer.activation, slope=layer.slope)
            outputs.append(A)
            A_prev = A
        return outputs

    def total_loss(self, X: Array, Y: Array, sample_weight: Array | None = None) -> float:
        loss, threshold = self.architecture.loss, self.architecture.threshold
        return reference.loss(self.outputs(X)[-1], Y, sample_weight, loss, threshold)

    def mean_loss(self, X: Array, Y: Array, sample_weight: Array | None = None) -> float:
        weight = len(X) if sample_weight is None else float(sample_weight.sum())
        return self.total_loss(X, Y, sample_weight) / weight

    def gradient(self, X: Array, Y: Array, sample_weight: Array | None = None) -> Array:
        """Return the gradient of the mean loss, equations (3) to (5)."""
        return reference.backprop(self.architecture, self.parameters, X, Y, sample_weight)[1]


class Stepper:
    """An optimizer run by the reference kernels; its coefficients are read before each step."""

    def __init__(self, twin: Twin, optimizer: nncore.Optimizer) -> None:
        self.twin = twin
        self.optimizer = optimizer
        self.state = [np.zeros_like(twin.parameters) for _ in range(3)]
        self.step_count = 0

    def step(self, X: Array, Y: Array, sample_weight: Array | None = None) -> float:
        """Make a step; return the batch's summed loss before it."""
        loss = self.twin.total_loss(X, Y, sample_weight)
        gradient = self.twin.gradient(X, Y, sample_weight)
        self.step_count += 1
        vectors = [self.twin.parameters, *self.state, gradient]
        for layer in zip(*map(self.twin.layers, vectors), strict=True):
            for i, decay in enumerate([self.optimizer.weight_decay, 0.0]):
                w, *state, g = (pair[i].reshape(-1) for pair in layer)
                self._update(w, state, g, decay)
        return loss

    def _update(self, w: Array, state: list[Array], g: Array, decay: float) -> None:
        opt, t = self.optimizer, self.step_count
        first, second, third = state
        rate = opt.learning_rate
        rate = rate(t - 1) if callable(rate) else rate
        if isinstance(opt, nncore.AdamW):
            w *= 1 - rate * decay
            decay = 0.0
        if isinstance(opt, nncore.Adam):
            root = np.sqrt(1 - opt.beta_2**t)
            step_size, epsilon = rate * root / (1 - opt.beta_1**t), opt.epsilon * root
            scalars = step_size, opt.beta_1, opt.beta_2, epsilon, decay
            if opt.amsgrad:
                reference.amsgrad(w, first, second, third, g, *scalars)
            else:
                reference.adam(w, first, second, g, *scalars)
        elif isinstance(opt, nncore.RMSprop):
            mean = second if opt.centered else None
            velocity = None if opt.momentum == 0 else third if opt.centered else second
            reference.rmsprop(
                w, first, mean, velocity, g, rate, opt.rho, opt.momentum, opt.epsilon, decay
            )
        elif isinstance(opt, nncore.SGD) and opt.momentum:
            reference.momentum(w, first, g, rate, opt.momentum, opt.nesterov, decay)
        else:
            reference.sgd(w, g, rate, decay)

    def epoch(
        self,
        X: Array,
        Y: Array,
        batch_size: int,
        order: Array | None = None,
        sample_weight: Array | None = None,
    ) -> float:
        """Go once through the examples; return their mean loss."""
        order = np.arange(len(X)) if order is None else order
        total = 0.0
        for begin in range(0, len(X), batch_size):
            rows = order[begin : begin + batch_size]
            weights = None if sample_weight is None else sample_weight[rows]
            total += self.step(X[rows], Y[rows], weights)
        return total / (len(X) if sample_weight is None else float(sample_weight.sum()))


def assert_layers_close(twin: Twin, actual: Array, expected: Array, tolerance: float) -> None:
    """Assert closeness relative to the length of each W^l and each b^l.

    So a large gradient in a late layer does not hide errors of a small one in an early layer.
    """
    for layer, wanted in zip(twin.layers(actual), twin.layers(expected), strict=True):
        for part, target in zip(layer, wanted, strict=True):
            assert np.linalg.norm(part - target) <= tolerance * np.linalg.norm(target)


def is_near_a_kink(net: nncore.Network, X: Array) -> bool:
    """Return whether a unit with a kink at 0 comes near it."""
    A_prev = [X, *net.layer_outputs(X)]
    Z = [a @ W + b for a, W, b in zip(A_prev[:-1], net.weights, net.biases, strict=True)]
    kinked = [z for z, name in zip(Z, net.activation, strict=True) if name[-2:] == "lu"]
    return any(np.abs(z).min() <= 0.01 for z in kinked)


def snapshot(*things: Any) -> list[Any]:
    """Return everything that a refused call must not change."""
    states: list[Any] = []
    for thing in things:
        if isinstance(thing, nncore.Network):
            states.append(thing.parameters.tobytes())
        elif isinstance(thing, nncore.Optimizer):
            states.append((repr(thing), thing.step_count, [v.tobytes() for v in thing.state]))
        elif isinstance(thing, np.random.Generator):
            states.append(thing.bit_generator.state)
        else:
            states.append(np.asarray(thing).tobytes())
    return states


@contextmanager
def refused(
    error: type[BaseException] | tuple[type[BaseException], ...],
    *fragments: str,
    unchanged: Sequence[Any],
) -> Iterator[None]:
    """Assert that the block raises with a message that holds the fragments, and changes nothing."""
    before = snapshot(*unchanged)
    with pytest.raises(error) as raised:
        yield
    for fragment in fragments:
        assert fragment in str(raised.value)
    assert snapshot(*unchanged) == before


@contextmanager
def assert_no_new_threads() -> Iterator[None]:
    """Assert that there are as many threads after the block as before it, Python's and others."""
    nncore.Network([37, 5]).predict(np.ones((1, 37)))
    process, python = psutil.Process(), threading.active_count()
    before = process.num_threads()
    yield
    assert threading.active_count() == python
    # The system counts a thread a moment longer than Python does.
    end = time.monotonic() + 10
    while process.num_threads() > before and time.monotonic() < end:
        os.sched_yield()
    assert process.num_threads() <= before


def blas_threads() -> set[int]:
    """Return the numbers of threads that BLAS libraries use at present."""
    return {
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    }


def temporary_of(path: Path) -> Path:
    """Return the file that is written before it replaces that of the path."""
    before = set(path.parent.iterdir())
    with suppress(LookupError), _files.replacing(path):
        (temporary,) = set(path.parent.iterdir()) - before
        raise LookupError
    return temporary


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process that runs the script."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
