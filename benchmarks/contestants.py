"""The contestants: the same training, each written as its users would write it.

Each knows a case's network with the same first parameters, trains whole epochs over freshly
shuffled data and predicts. What a contestant cannot train, it refuses with `UnavailableError`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from cases import Array, Case
from machine import UnavailableError


class Contestant(Protocol):
    """What a worker asks of a contestant; the constructor imports the contestant's package."""

    def __init__(self, case: Case, n_threads: int) -> None: ...

    def fit(self, epochs: int) -> None:
        """Train; everything is finished when this returns."""

    def predict(self, X: Array) -> Array:
        """Return outputs (n_samples, n_L)."""


class NNCore:
    def __init__(self, case: Case, n_threads: int) -> None:
        import nncore

        self.case = case
        self.X, self.Y = case.data()
        self.network = nncore.Network(
            case.sizes, activation=case.activations, loss="squared_error", dtype=case.dtype
        )
        weights, biases = case.first_parameters()
        for own, first in zip(
            self.network.weights + self.network.biases, weights + biases, strict=True
        ):
            own[...] = first
        optimizers = {"sgd": nncore.SGD, "adam": nncore.Adam}
        self.optimizer = optimizers[case.optimizer](learning_rate=case.learning_rate)
        self.rng = np.random.default_rng(case.seed)
        # With all threads, the default: it is what users get, be it one thread or all of them.
        self.n_threads = 1 if n_threads == 1 else None

    def fit(self, epochs: int) -> None:
        self.network.fit(
            self.X,
            self.Y,
            epochs=epochs,
            batch_size=self.case.batch_size,
            optimizer=self.optimizer,
            shuffle=True,
            seed=self.rng,
            n_threads=self.n_threads,
        )

    def predict(self, X: Array) -> Array:
        return self.network.predict(X, n_threads=self.n_threads)


class NumPy:
    """The loop that one writes by hand: matrix products of whole batches, no buffers kept."""

    def __init__(self, case: Case, n_threads: int) -> None:
        self.case = case
        self.X, self.Y = case.data()
        self.weights, self.biases = case.first_parameters()
        self.rng = np.random.default_rng(case.seed)
        self.loss = 0.0
        self.step_count = 0
        self.moments = [(np.zeros_like(P), np.zeros_like(P)) for P in self.parameters]

    @property
    def parameters(self) -> list[Array]:
        return self.weights + self.biases

    def fit(self, epochs: int) -> None:
        N = self.case.batch_size
        for _ in range(epochs):
            order = self.rng.permutation(len(self.X))
            self.loss = 0.0
            for start in range(0, len(self.X), N):
                rows = order[start : start + N]
                self.step(self.X[rows], self.Y[rows])

    def predict(self, X: Array) -> Array:
        return self.forward(X)[-1]

    def forward(self, X: Array) -> list[Array]:
        A = [X]
        for W, b, activation in zip(self.weights, self.biases, self.case.activations, strict=True):
            A.append(_ACTIVATE[activation](A[-1] @ W + b))
        return A

    def step(self, X: Array, Y: Array) -> None:
        A = self.forward(X)
        error = A[-1] - Y
        self.loss += 0.5 * float(np.sum(error * error))
        delta = error * _DERIVATIVE[self.case.activations[-1]](A[-1])
        gradients_W: list[Array] = []
        gradients_b: list[Array] = []
        for layer in reversed(range(len(self.weights))):
            gradients_W.insert(0, A[layer].T @ delta / len(X))
            gradients_b.insert(0, delta.mean(axis=0))
            if layer > 0:
                derivative = _DERIVATIVE[self.case.activations[layer - 1]]
                delta = delta @ self.weights[layer].T * derivative(A[layer])
        self.update(gradients_W + gradients_b)

    def update(self, gradients: list[Array]) -> None:
        learning_rate = self.case.learning_rate
        if self.case.optimizer == "sgd":
            for P, gradient in zip(self.parameters, gradients, strict=True):
                P -= learning_rate * gradient
            return
        self.step_count += 1
        step = learning_rate * np.sqrt(1 - 0.999**self.step_count) / (1 - 0.9**self.step_count)
        for P, gradient, (m, v) in zip(self.parameters, gradients, self.moments, strict=True):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            P -= float(step) * m / (np.sqrt(v) + 1e-8)


_ACTIVATE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda Z: 1 / (1 + np.exp(-Z)),
    "relu": lambda Z: np.maximum(Z, 0),
    "identity": lambda Z: Z,
}
_DERIVATIVE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda A: A * (1 - A),
    "relu": lambda A: A > 0,
    "identity": np.ones_like,
}


class ScikitLearn:
    """``MLPRegressor``, whose output layer is always linear: it is spared the outputs' sigmoids.

    ``max_iter`` epochs with neither early stopping nor a tolerance; ``warm_start`` keeps
    the parameters from call to call, as the others do.
    """

    def __init__(self, case: Case, n_threads: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        warnings.simplefilter("ignore", ConvergenceWarning)
        self.X, self.Y = case.data()
        if case.sizes[-1] == 1:
            self.Y = self.Y.ravel()
        self.model = MLPRegressor(
            hidden_layer_sizes=case.sizes[1:-1],
            activation={"sigmoid": "logistic", "relu": "relu"}[case.activation],
            solver=case.optimizer,
            alpha=0.0,
            batch_size=case.batch_size,
            learning_rate_init=case.learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            max_iter=1,
            tol=0.0,
            n_iter_no_change=np.inf,
            warm_start=True,
            random_state=0,
        )
        self.rng = np.random.default_rng(case.seed)
        # The attributes exist only after a first fit.
        self.model.fit(self.X, self.Y)
        self.model.coefs_, self.model.intercepts_ = case.first_parameters()

    def fit(self, epochs: int) -> None:
        self.model.max_iter = epochs
        # A call with the same number would go through the same orders again.
        self.model.random_state = int(self.rng.integers(2**32))
        self.model.fit(self.X, self.Y)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.model.predict(X)).reshape(len(X), -1)


class PyTorch:
    """Eager mode, ``torch.optim`` with its defaults, batches picked by a shuffled index."""

    compiled = False

    def __init__(self, case: Case, n_threads: int) -> None:
        import torch

        torch.set_num_threads(n_threads)
        torch.manual_seed(case.seed)
        self.torch, self.case = torch, case
        self.X, self.Y = (torch.from_numpy(array) for array in case.data())
        modules: list[Any] = []
        for W, b, activation in zip(*case.first_parameters(), case.activations, strict=True):
            linear = torch.nn.Linear(*W.shape)
            linear.weight = torch.nn.Parameter(torch.from_numpy(W.T.copy()))
            linear.bias = torch.nn.Parameter(torch.from_numpy(b))
            modules.append(linear)
            if activation != "identity":
                modules.append({"sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU}[activation]())
        self.model = torch.nn.Sequential(*modules)
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[case.optimizer]
        self.optimizer = optimizer(self.model.parameters(), lr=case.learning_rate)
        self.loss: Any = torch.compile(self._loss) if self.compiled else self._loss

    def _loss(self, X: Any, Y: Any) -> Any:
        return 0.5 * (self.model(X) - Y).square().sum(dim=1).mean()

    def fit(self, epochs: int) -> None:
        for _ in range(epochs):
            order = self.torch.randperm(len(self.X))
            for rows in order.split(self.case.batch_size):
                self.optimizer.zero_grad()
                self.loss(self.X[rows], self.Y[rows]).backward()
                self.optimizer.step()

    def predict(self, X: Array) -> Array:
        with self.torch.no_grad():
            return np.asarray(self.model(self.torch.from_numpy(X)).numpy())


class CompiledPyTorch(PyTorch):
    """The same with ``torch.compile`` around model and loss; it compiles the gradient, too."""

    compiled = True


class JAX:
    """One compiled call per epoch: one gather, then ``lax.scan`` over the batches."""

    def __init__(self, case: Case, n_threads: int) -> None:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        self.jax = jax
        self.X, self.Y = (jnp.asarray(array) for array in case.data())
        self.rng = np.random.default_rng(case.seed)
        activations = {
            "sigmoid": jax.nn.sigmoid,
            "relu": jax.nn.relu,
            "identity": lambda Z: Z,
        }

        def predict(parameters: Any, X: Any) -> Any:
            A = X
            for (W, b), activation in zip(parameters, case.activations, strict=True):
                A = activations[activation](A @ W + b)
            return A

        def loss(parameters: Any, X: Any, Y: Any) -> Any:
            return 0.5 * jnp.mean(jnp.sum((predict(parameters, X) - Y) ** 2, axis=1))

        def step(state: Any, batch: Any) -> Any:
            parameters, moments, count = state
            value, gradient = jax.value_and_grad(loss)(parameters, *batch)
            if case.optimizer == "sgd":
                parameters = jax.tree.map(
                    lambda P, g: P - case.learning_rate * g, parameters, gradient
                )
                return (parameters, moments, count), value
            count = count + 1
            rate = case.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
            parameters = jax.tree.map(
                lambda P, m, v: P - rate * m / (jnp.sqrt(v) + 1e-8), parameters, m, v
            )
            return (parameters, (m, v), count), value

        def epoch(state: Any, X: Any, Y: Any, order: Any) -> Any:
            batches = tuple(
                array[order].reshape(case.steps_per_epoch, case.batch_size, -1) for array in (X, Y)
            )
            state, losses = jax.lax.scan(step, state, batches)
            return state, losses.mean()

        parameters = [
            (jnp.asarray(W), jnp.asarray(b)) for W, b in zip(*case.first_parameters(), strict=True)
        ]
        moments: Any = ()
        if case.optimizer == "adam":
            moments = tuple(jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        self.state = (parameters, moments, jnp.zeros((), case.dtype))
        self._epoch = jax.jit(epoch, donate_argnums=0)
        self._predict = jax.jit(predict)

    def fit(self, epochs: int) -> None:
        for _ in range(epochs):
            order = self.rng.permutation(len(self.X)).astype(np.int32)
            self.state, _ = self._epoch(self.state, self.X, self.Y, order)
        self.jax.block_until_ready(self.state)

    def predict(self, X: Array) -> Array:
        return np.asarray(self._predict(self.state[0], X))


class NNEngine:
    """nn-engine-core, for float32 with ReLU and linear outputs only."""

    def __init__(self, case: Case, n_threads: int) -> None:
        import nnengine

        if case.dtype != "float32" or case.activation != "relu":
            raise UnavailableError("trains float32 with ReLU only")

        class Model(nnengine.Module):  # type: ignore[misc, name-defined, unused-ignore]
            def __init__(self) -> None:
                super().__init__()
                self.layers: list[Any] = []
                for layer, (W, b) in enumerate(zip(*case.first_parameters(), strict=True)):
                    if layer > 0:
                        self.append(f"relu{layer}", nnengine.ReLULayer())
                    dense = nnengine.DenseLayer(*W.shape)
                    for tensor, first in zip(dense.parameters(), (W, b), strict=True):
                        tensor.data[...] = first.reshape(tensor.data.shape)
                    self.append(f"dense{layer}", dense)

            def append(self, name: str, layer: Any) -> None:
                # Only what is set as an attribute is trained.
                setattr(self, name, layer)
                self.layers.append(layer)

            def forward(self, x: Any) -> Any:
                for layer in self.layers:
                    x = layer(x)
                return x

        optimizers = {"sgd": nnengine.SGD, "adam": nnengine.Adam}
        learning_rate = case.learning_rate
        if case.optimizer == "sgd":
            # It takes the gradient of the whole square, not of half; Adam is blind to the factor.
            learning_rate /= 2
        self.model = Model()
        self.trainer = nnengine.JITCompiler(
            self.model,
            optimizers[case.optimizer](learning_rate=learning_rate),
            nnengine.MSELoss(),
        )
        self.loader = nnengine.DataLoader(*case.data(), batch_size=case.batch_size, shuffle=True)

    def fit(self, epochs: int) -> None:
        self.trainer.fit(self.loader, epochs, tol=0.0, n_iter_no_change=2**31 - 1, verbose=False)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.model.predict(X))


# Name on the command line and in tables -> the class, the distributions whose versions matter.
CONTESTANTS: dict[str, tuple[type[Contestant], tuple[str, ...]]] = {
    "nncore": (NNCore, ("nncore", "numpy", "scipy")),
    "numpy": (NumPy, ("numpy",)),
    "scikit-learn": (ScikitLearn, ("scikit-learn", "numpy", "scipy")),
    "pytorch": (PyTorch, ("torch",)),
    "jax": (JAX, ("jax", "jaxlib")),
    "torch.compile": (CompiledPyTorch, ("torch",)),
    "nn-engine-core": (NNEngine, ("nn-engine-core",)),
}
# nncore's own other ways, which the base is measured against beside its peers.
COMPANIONS = ("nncore with Adam", "nncore on 1 thread")
# torch.compile predicts as PyTorch does; nn-engine-core knows no sigmoids.
PREDICTING = ["nncore", "numpy", "scikit-learn", "pytorch", "jax"]
USUAL_CONTESTANTS = ["nncore", "numpy", "scikit-learn", "pytorch", "jax"]
