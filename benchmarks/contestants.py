"""The contestants: the same work, each written as its users would write it.

Each starts from a case's first parameters and shuffles the data anew for every epoch.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from cases import EPOCHS, AnyCase, Array, Case, EstimatorCase
from machine import available_cpus, load_c


class Contestant:
    """A way to do a case's work; the worker times `repeat`.

    A subclass has the methods named in `calls`: ``fit(epochs)``, which returns when everything is
    finished, ``train_on_batch(X, Y)`` for a single step, and ``predict(X)``.
    """

    packages: ClassVar[tuple[str, ...]] = ()  # must be importable; their versions are reported
    calls: ClassVar[tuple[str, ...]] = ("fit", "train_on_batch", "predict")
    learns: ClassVar[bool] = True  # False of a yardstick, which does only a part of the work
    kernels: str | None = None  # the name of those that were chosen for this processor

    def __init__(self, case: AnyCase, n_threads: int) -> None:
        self.case: Any = case
        self.X, self.Y = case.data()
        self.rng = np.random.default_rng(0)

    def repeat(self, count: int) -> None:
        """Train so many epochs, or make so many calls."""
        call: Any = getattr(self, self.case.call)
        if self.case.call == "fit":
            call(count)
            return
        data = self.data()
        for _ in range(count):
            call(*data)

    def data(self) -> tuple[Array, ...]:
        """Return the arguments of a single step or prediction."""
        return (self.X,) if self.case.call == "predict" else (self.X, self.Y)

    def warm_up(self) -> list[float]:
        """Do the work twice; return the losses before and after it, none of a yardstick."""
        losses = [self.loss()] if self.learns else []
        self.repeat(2)
        return [*losses, self.loss()] if self.learns else []

    def loss(self) -> float:
        """Return half the squared error, summed over the outputs, averaged over the examples."""
        return float(0.5 * np.mean(np.sum((self.predict(self.X) - self.Y) ** 2, axis=1)))

    def predict(self, X: Array) -> Array:
        raise NotImplementedError


def network_of(case: Case) -> Any:
    """Return the case's network with its first parameters."""
    import nncore

    network = nncore.Network(
        case.sizes, activation=case.activations, loss="squared_error", dtype=case.dtype
    )
    # Not through views of the network, which would make every later call pack them again.
    pairs = zip(*case.first_parameters(), strict=True)
    network.parameters = np.concatenate([P.ravel() for pair in pairs for P in pair])
    return network


class NNCore(Contestant):
    packages = ("nncore", "numpy", "scipy")
    # The default, which may use fewer threads than there are CPUs.
    n_threads: int | None = None

    def __init__(self, case: Case, n_threads: int) -> None:
        import nncore
        from nncore import _kernels

        super().__init__(case, n_threads)
        self.kernels = _kernels.KERNELS
        self.network = network_of(case)
        optimizer = {"sgd": nncore.SGD, "adam": nncore.Adam}[case.optimizer]
        self.optimizer = optimizer(learning_rate=case.learning_rate)

    def fit(self, epochs: int) -> None:
        self.network.fit(
            self.X,
            self.Y,
            epochs=epochs,
            batch_size=self.case.batch_size,
            optimizer=self.optimizer,
            seed=self.rng,
            n_threads=self.n_threads,
        )

    def train_on_batch(self, X: Array, Y: Array) -> None:
        self.network.train_on_batch(X, Y, self.optimizer, n_threads=self.n_threads)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.network.predict(X, n_threads=self.n_threads))


class NNCoreOneThread(NNCore):
    n_threads = 1


class NNCoreAllThreads(NNCore):
    n_threads = len(available_cpus())


class NumPy(Contestant):
    """The loop that one writes by hand: matrix products of whole batches, no buffers kept."""

    packages = ("numpy",)

    def __init__(self, case: Case, n_threads: int) -> None:
        super().__init__(case, n_threads)
        self.layers = list(zip(*case.first_parameters(), case.activations, strict=True))
        self.moments = [
            [(np.zeros_like(P), np.zeros_like(P)) for P in (W, b)] for W, b, _ in self.layers
        ]
        self.step_count = 0
        self.total_loss = 0.0

    def fit(self, epochs: int) -> None:
        N = self.case.batch_size
        for _ in range(epochs):
            order = self.rng.permutation(len(self.X))
            self.total_loss = 0.0
            for start in range(0, len(self.X), N):
                rows = order[start : start + N]
                self.train_on_batch(self.X[rows], self.Y[rows])

    def predict(self, X: Array) -> Array:
        return self.forward(X)[-1]

    def forward(self, X: Array) -> list[Array]:
        A = [X]
        for W, b, activation in self.layers:
            Z = A[-1] @ W + b
            A.append(1 / (1 + np.exp(-Z)) if activation == "sigmoid" else np.maximum(Z, 0))
        return A

    def train_on_batch(self, X: Array, Y: Array) -> None:
        self.step_count += 1
        A = self.forward(X)
        delta = A[-1] - Y
        self.total_loss += 0.5 * float(np.sum(delta * delta))
        for l, (W, b, activation) in reversed(list(enumerate(self.layers))):
            delta *= A[l + 1] * (1 - A[l + 1]) if activation == "sigmoid" else A[l + 1] > 0
            dW, db = A[l].T @ delta / len(X), delta.mean(axis=0)
            if l > 0:
                delta = delta @ W.T
            for P, gradient, moments in zip((W, b), (dW, db), self.moments[l], strict=True):
                self.update(P, gradient, *moments)

    def update(self, P: Array, gradient: Array, m: Array, v: Array) -> None:
        rate, t = self.case.learning_rate, self.step_count
        if self.case.optimizer == "sgd":
            P -= rate * gradient
            return
        m += 0.1 * (gradient - m)
        v += 0.001 * (gradient * gradient - v)
        rate *= (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        P -= rate * m / (np.sqrt(v) + 1e-8)


class ScikitLearn(Contestant):
    """``MLPRegressor``; its outputs are linear, and it begins Adam anew in each call of fit."""

    packages = ("sklearn", "numpy", "scipy")

    def __init__(self, case: Case, n_threads: int) -> None:
        from sklearn.neural_network import MLPRegressor

        # It warns of epochs without convergence, and of batches larger than the data.
        warnings.simplefilter("ignore")
        super().__init__(case, n_threads)
        self.targets = self.Y.ravel() if case.sizes[-1] == 1 else self.Y
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
        # The attributes exist only after a first fit.
        self.model.fit(self.X, self.targets)
        self.model.coefs_, self.model.intercepts_ = case.first_parameters()

    def fit(self, epochs: int) -> None:
        self.model.max_iter = epochs
        # A call with the same number would go through the same orders again.
        self.model.random_state = int(self.rng.integers(2**32))
        self.model.fit(self.X, self.targets)

    def train_on_batch(self, X: Array, Y: Array) -> None:
        self.model.partial_fit(X, Y)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.model.predict(X)).reshape(len(X), -1)


class PyTorch(Contestant):
    """Eager mode, ``torch.optim`` with its defaults, batches picked by a shuffled index."""

    packages = ("torch",)
    options: ClassVar[dict[str, Any]] = {}  # of the optimizer

    def __init__(self, case: Case, n_threads: int) -> None:
        import torch

        super().__init__(case, n_threads)
        torch.set_num_threads(n_threads)
        torch.manual_seed(0)
        self.torch: Any = torch
        modules: list[Any] = []
        for W, b, activation in zip(*case.first_parameters(), case.activations, strict=True):
            linear = torch.nn.Linear(*W.shape)
            linear.weight = torch.nn.Parameter(torch.from_numpy(W.T.copy()))
            linear.bias = torch.nn.Parameter(torch.from_numpy(b))
            modules += [linear, torch.nn.Sigmoid() if activation == "sigmoid" else torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*modules)
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[case.optimizer]
        self.optimizer = optimizer(self.model.parameters(), lr=case.learning_rate, **self.options)

    def fit(self, epochs: int) -> None:
        X, Y = self.torch.from_numpy(self.X), self.torch.from_numpy(self.Y)
        for _ in range(epochs):
            for rows in self.torch.randperm(len(X)).split(self.case.batch_size):
                self.step(X[rows], Y[rows])

    def train_on_batch(self, X: Array, Y: Array) -> None:
        self.step(self.torch.from_numpy(X), self.torch.from_numpy(Y))

    def step(self, X: Any, Y: Any) -> None:
        self.optimizer.zero_grad()
        loss = 0.5 * (self.model(X) - Y).square().sum(dim=1).mean()
        loss.backward()
        self.optimizer.step()

    def predict(self, X: Array) -> Array:
        with self.torch.no_grad():
            return np.asarray(self.model(self.torch.from_numpy(X)).numpy())


class PyTorchFused(PyTorch):
    """The optimizer's kernel updates all parameters at once."""

    options: ClassVar[dict[str, Any]] = {"fused": True}
    calls = ("fit", "train_on_batch")


class TorchJIT(PyTorch):
    """A frozen graph of the model."""

    calls = ("predict",)

    def __init__(self, case: Case, n_threads: int) -> None:
        super().__init__(case, n_threads)
        warnings.simplefilter("ignore", DeprecationWarning)
        example = self.torch.from_numpy(self.X)
        self.model = self.torch.jit.freeze(self.torch.jit.trace(self.model.eval(), example))


class ONNXRuntime(Contestant):
    packages = ("onnxruntime", "onnx")
    calls = ("predict",)

    def __init__(self, case: Case, n_threads: int) -> None:
        import onnxruntime

        super().__init__(case, n_threads)
        model = network_of(case).to_onnx()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self.session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.session.run(None, {"X": X})[0])


class JAX(Contestant):
    """One compiled call per epoch: one gather, then ``lax.scan`` over the batches."""

    packages = ("jax", "jaxlib")
    calls = ("fit", "predict")

    def __init__(self, case: Case, n_threads: int) -> None:
        import jax
        import jax.numpy as jnp

        super().__init__(case, n_threads)
        self.jax: Any = jax
        self.jax.config.update("jax_enable_x64", True)
        self.arrays = [jnp.asarray(array) for array in (self.X, self.Y)]

        def predict(parameters: Any, X: Any) -> Any:
            A = X
            for (W, b), activation in zip(parameters, case.activations, strict=True):
                A = getattr(jax.nn, activation)(A @ W + b)
            return A

        def loss(parameters: Any, X: Any, Y: Any) -> Any:
            return 0.5 * jnp.mean(jnp.sum((predict(parameters, X) - Y) ** 2, axis=1))

        def step(state: Any, batch: Any) -> Any:
            P, m, v, count = state
            value, gradient = jax.value_and_grad(loss)(P, *batch)
            rate = case.learning_rate
            if case.optimizer == "sgd":
                P = jax.tree.map(lambda P, g: P - rate * g, P, gradient)
                return (P, m, v, count), value
            count = count + 1
            rate = rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradient)
            P = jax.tree.map(lambda P, m, v: P - rate * m / (jnp.sqrt(v) + 1e-8), P, m, v)
            return (P, m, v, count), value

        def epoch(state: Any, X: Any, Y: Any, order: Any) -> Any:
            batches = tuple(
                array[order].reshape(case.steps, case.batch_size, -1) for array in (X, Y)
            )
            state, losses = jax.lax.scan(step, state, batches)
            return state, losses.mean()

        P = jax.tree.map(jnp.asarray, list(zip(*case.first_parameters(), strict=True)))
        adam = case.optimizer == "adam"
        m, v = (jax.tree.map(jnp.zeros_like, P) if adam else () for _ in range(2))
        self.state = (P, m, v, jnp.zeros((), case.dtype))
        self.epoch = jax.jit(epoch, donate_argnums=0)
        self.forward = jax.jit(predict)

    def fit(self, epochs: int) -> None:
        for _ in range(epochs):
            order = self.rng.permutation(len(self.X)).astype(np.int32)
            self.state, _ = self.epoch(self.state, *self.arrays, order)
        self.jax.block_until_ready(self.state)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.forward(self.state[0], X))


class Estimator(Contestant):
    """An MLP of scikit-learn."""

    packages = ("sklearn", "numpy", "scipy")
    module = "sklearn.neural_network"

    def __init__(self, case: EstimatorCase, n_threads: int) -> None:
        warnings.simplefilter("ignore")
        super().__init__(case, n_threads)
        name = {"classification": "MLPClassifier", "regression": "MLPRegressor"}[case.task]
        epochs = EPOCHS if case.call == "fit" else 1
        self.mlp: Any = getattr(importlib.import_module(self.module), name)(
            solver=case.solver, max_iter=epochs, n_iter_no_change=epochs, tol=0, random_state=0
        )
        self.model = self.mlp
        if case.scaled:
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            self.model = make_pipeline(StandardScaler(), self.mlp)

    def fit(self, epochs: int) -> None:
        for _ in range(epochs):
            self.model.fit(self.X, self.Y)

    def predict(self, X: Array) -> Array:
        return np.asarray(self.model.predict(X))

    def warm_up(self) -> list[float]:
        self.fit(1)
        self.X = self.X[: self.case.n_rows]
        return [self.mlp.loss_curve_[0], self.mlp.loss_curve_[-1]]


class NNCoreEstimator(Estimator):
    """An MLP of nncore.sklearn, deployed as one network if it is in a pipeline."""

    packages = ("nncore", "sklearn", "numpy")
    module = "nncore.sklearn"

    def __init__(self, case: EstimatorCase, n_threads: int) -> None:
        super().__init__(case, n_threads)
        if case.dtype == "float64 as float32":
            self.mlp.set_params(dtype="float32")

    def warm_up(self) -> list[float]:
        losses = super().warm_up()
        if self.case.scaled:
            from nncore.sklearn import as_network

            self.model = as_network(self.model)
        return losses


class Peak(Contestant):
    """As many operations as the work needs, as fast as the CPUs can do any.

    Where ``NNCORE_KERNELS`` makes nncore use narrower vectors, it is those vectors' peak.
    """

    learns = False

    def __init__(self, case: Case, n_threads: int) -> None:
        super().__init__(case, n_threads)
        narrower = {"avx2": "haswell", "baseline": "x86-64"}
        march = "-march=" + narrower.get(os.environ.get("NNCORE_KERNELS", ""), "native")
        scalar = "-DSCALAR=" + {"float32": "float", "float64": "double"}[case.dtype]
        self.library = load_c("fma_peak.c", march, scalar)
        self.library.instruction_set.restype = ctypes.c_char_p
        self.kernels = self.library.instruction_set().decode()
        self.operations = case.steps * case.operations / n_threads
        self.n_threads, self.threads = n_threads, ThreadPoolExecutor(n_threads)

    def repeat(self, count: int) -> None:
        operations = ctypes.c_double(count * self.operations)
        list(self.threads.map(self.library.run_operations, [operations] * self.n_threads))


class Gemm(Contestant):
    """The matrix products of a step and nothing else, through SciPy's BLAS, called from C."""

    packages = ("scipy",)
    calls = ("fit", "train_on_batch")
    learns = False

    def __init__(self, case: Case, n_threads: int) -> None:
        from scipy.linalg import blas

        super().__init__(case, n_threads)
        self.library = load_c("gemm_only.c")
        self.arrays: list[Array] = []
        rng = np.random.default_rng(2)

        def pointers(arrays: Iterable[Any]) -> ctypes.Array[Any]:
            kept = [np.asarray(array, case.dtype) for array in arrays]
            self.arrays += kept
            return (ctypes.c_void_p * len(kept))(*(array.ctypes.data for array in kept))

        def matrices(shapes: list[tuple[int, int]]) -> ctypes.Array[Any]:
            # Products of products stay near 1 although no activation bounds them.
            return pointers(rng.random(shape) * 2 / shape[0] for shape in shapes)

        layers = [(case.batch_size, n) for n in case.sizes]
        W, A, delta = matrices(case.shapes), matrices(layers), matrices(layers)
        # So small a step leaves the weights where they are, however often it is made.
        dW, alpha, beta = W, -1e-20, 1.0
        if case.optimizer == "adam":
            dW, alpha, beta = matrices(case.shapes), 1.0, 0.0
        gemm = _address((blas.sgemm if case.dtype == "float32" else blas.dgemm)._cpointer)
        sizes = (ctypes.c_int * len(A))(*case.sizes)
        scalars = pointers([1.0, 0.0, alpha, beta])
        self.arguments = [gemm, len(W), sizes, case.batch_size, W, A, delta, dW, scalars]

    def repeat(self, count: int) -> None:
        self.library.run_steps(*self.arguments, ctypes.c_long(count * self.case.steps))


def _address(capsule: object) -> ctypes.c_void_p:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return ctypes.c_void_p(get_pointer(capsule, None))


# By their names on the command line and in tables.
PEERS: dict[str, type[Contestant]] = {
    "nncore": NNCore,
    "numpy": NumPy,
    "scikit-learn": ScikitLearn,
    "pytorch": PyTorch,
    "jax": JAX,
    "gemm": Gemm,
    "peak": Peak,
}
ESTIMATORS: dict[str, type[Contestant]] = {"nncore.sklearn": NNCoreEstimator, "sklearn": Estimator}
# Take part only by name.
OTHERS: dict[str, type[Contestant]] = {
    "nncore-1": NNCoreOneThread,
    "nncore-all": NNCoreAllThreads,
    "pytorch-fused": PyTorchFused,
    "torch.jit": TorchJIT,
    "onnxruntime": ONNXRuntime,
}
CONTESTANTS = PEERS | ESTIMATORS | OTHERS
