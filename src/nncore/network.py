"""The network: sizes, activations, loss and parameters, and the equations (1) to (5) on them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from . import training
from ._checks import (
    as_activations,
    as_dtype,
    as_examples,
    as_generator,
    as_loss,
    as_matrix,
    as_sizes,
    as_vector,
    check_finite,
    is_plain,
    largest_finite,
    one_of,
)
from ._forward import ForwardPass
from ._kernels import KERNELS, forward
from ._layout import Examples, aligned_zeros
from ._step import Workspace, span_of
from ._threads import as_n_threads, blas_on_one_thread
from .optimizers import Optimizer

__all__ = ["Network"]

Array = npt.NDArray[Any]

# Weights and biases of a layer with n_prev inputs and n units, from a generator.
_Draw = Callable[[np.random.Generator, int, int], Array]


def _uniform(variance: Callable[[int, int], float]) -> _Draw:
    def draw(rng: np.random.Generator, n_prev: int, n: int) -> Array:
        bound = math.sqrt(3 * variance(n_prev, n))
        return rng.uniform(-bound, bound, (n_prev, n))

    return draw


def _normal(variance: Callable[[int, int], float]) -> _Draw:
    def draw(rng: np.random.Generator, n_prev: int, n: int) -> Array:
        return rng.normal(0.0, math.sqrt(variance(n_prev, n)), (n_prev, n))

    return draw


def _glorot(n_prev: int, n: int) -> float:
    return 2 / (n_prev + n)


def _he(n_prev: int, n: int) -> float:
    return 2 / n_prev


_INITIALIZERS: dict[str, _Draw] = {
    "glorot_uniform": _uniform(_glorot),
    "glorot_normal": _normal(_glorot),
    "he_uniform": _uniform(_he),
    "he_normal": _normal(_he),
    "normal": _normal(lambda n_prev, n: 1.0),
}

_BLAS = KERNELS == "blas"

# The examples that a thread takes through predict and evaluate at a time: enough for the weights
# to be read from the cache seldom, few enough for the activations to stay in it.
_SPAN = 256 if _BLAS else 32

# Larger workspaces, in bytes, are not kept for the next call.
_MOST_IDLE = 64 << 20

# The batch in which gradient takes its examples.
_GRADIENT_BATCH = 256


class Network:
    """A fully connected network of layers 1, ..., L.

    Layer l computes A^l = σ(A^{l-1} W^l + b^l), equation (1), for a batch with an example per row.

    Parameters
    ----------
    sizes : sequence of int
        n_0, n_1, ..., n_L: the number of inputs, then the units of each layer.
    activation : str or sequence of L str, default "sigmoid"
        σ of all layers or of each: "sigmoid", "tanh", "relu", "leaky_relu" (slope 0.01), "elu"
        (α = 1), "softplus", "exponential", "identity", and "softmax" for the output layer.
    loss : str, default "squared_error"
        Summed over the outputs, averaged over the examples: "squared_error",
        ½ Σ (y - a)² (2), "absolute_error", Σ |y - a|, and "huber", Σ ½ r² where r = |y - a| <= 1
        and r - ½ beyond, with any output but softmax; "poisson", half the deviance,
        Σ y ln(y/a) - y + a, with exponential outputs; "binary_cross_entropy",
        -Σ [y ln a + (1 - y) ln(1 - a)], with sigmoid outputs; "cross_entropy", -Σ y ln a, with
        softmax outputs. Probabilities are clipped to [eps, 1 - eps], the dtype's eps, before the
        logarithm.
    dtype : {"float32", "float64"}, default "float32"
        The type of parameters and of all arithmetic.
    init : str, default "glorot_uniform"
        "glorot_uniform", "glorot_normal" (variance 2/(n_{l-1} + n_l)), "he_uniform", "he_normal"
        (variance 2/n_{l-1}), each with biases 0, or "normal": N(0, 1) for weights and biases.
    seed : None, int or numpy.random.Generator
        Where the initial parameters are drawn from. The same seed gives the same parameters, up
        to rounding, in both dtypes.

    Attributes
    ----------
    sizes : tuple of int
    activation : tuple of str
        One for each of the layers 1, ..., L.
    loss : str
    dtype : numpy.dtype
    weights : tuple of ndarray
        W^l at index l - 1, shape (n_{l-1}, n_l); views of `parameters`.
    biases : tuple of ndarray
        b^l at index l - 1, shape (n_l,); views of `parameters`.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type, is unknown, or loss and output layer do not fit.

    References
    ----------
    M. Nielsen, Neural Networks and Deep Learning (2015). X. Glorot, Y. Bengio, Understanding the
    difficulty of training deep feedforward neural networks (2010). K. He, X. Zhang, S. Ren,
    J. Sun, Delving deep into rectifiers (2015).

    Examples
    --------
    >>> import nncore
    >>> net = nncore.Network([4, 3, 2], activation=["tanh", "softmax"], loss="cross_entropy",
    ...                      seed=0)
    >>> net
    Network([4, 3, 2], loss='cross_entropy', dtype='float32'), 23 parameters
      1  4 -> 3  tanh     15
      2  3 -> 2  softmax   8
    >>> net.predict([[0, 0, 0, 0]])
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | Sequence[str] = "sigmoid",
        loss: str = "squared_error",
        dtype: npt.DTypeLike = "float32",
        init: str = "glorot_uniform",
        seed: Any = None,
    ) -> None:
        self._set_architecture(sizes, activation, loss, dtype)
        draw = one_of("init", init, _INITIALIZERS)
        rng = as_generator(seed)
        for W, b in zip(self.weights, self.biases, strict=True):
            W[...] = draw(rng, *W.shape)
            b[...] = draw(rng, 1, b.size)[0] if init == "normal" else 0

    def _set_architecture(
        self,
        sizes: Sequence[int],
        activation: str | Sequence[str],
        loss: str,
        dtype: npt.DTypeLike,
    ) -> None:
        """Set everything but the values of the parameters."""
        self._sizes = as_sizes(sizes)
        self._activations = as_activations(activation, len(self._sizes) - 1)
        self._loss = as_loss(loss, self._activations[-1])
        self._dtype = as_dtype(dtype)
        shapes = list(zip(self._sizes[:-1], self._sizes[1:], strict=True))
        n_parameters = sum((n_prev + 1) * n for n_prev, n in shapes)
        self._parameters = aligned_zeros(n_parameters, self._dtype)
        weights, biases = [], []
        begin = 0
        for n_prev, n in shapes:
            middle = begin + n_prev * n
            weights.append(self._parameters[begin:middle].reshape(n_prev, n))
            biases.append(self._parameters[middle : middle + n])
            begin = middle + n
        self._weights, self._biases = tuple(weights), tuple(biases)
        self._forward_pass = ForwardPass(self._sizes, self._activations, self._parameters)
        # Workspaces that no call uses at the moment, the last used first. Of a deque's methods each
        # is one step for other threads: no workspace is ever lent twice.
        self._idle: deque[Workspace] = deque(maxlen=2)

    @property
    def sizes(self) -> tuple[int, ...]:  # noqa: D102 - described in the class docstring
        return self._sizes

    @property
    def activation(self) -> tuple[str, ...]:  # noqa: D102
        return tuple(activation.name.lower() for activation in self._activations)

    @property
    def loss(self) -> str:  # noqa: D102
        return self._loss.name.lower()

    @property
    def dtype(self) -> np.dtype[Any]:  # noqa: D102
        return self._dtype

    @property
    def weights(self) -> tuple[Array, ...]:  # noqa: D102
        return self._weights

    @property
    def biases(self) -> tuple[Array, ...]:  # noqa: D102
        return self._biases

    @property
    def parameters(self) -> Array:
        """All parameters in one flat vector, W^1, b^1, W^2, b^2, ...; writing changes the network.

        Assigning to the attribute copies the values in.
        """
        return self._parameters

    @parameters.setter
    def parameters(self, values: npt.ArrayLike) -> None:
        if values is not self._parameters:
            self._parameters[:] = as_vector(
                "parameters", values, self._parameters.size, self._dtype
            )

    def __repr__(self) -> str:
        rows = [
            (str(l), f"{W.shape[0]} -> {W.shape[1]}", name, f"{W.size + b.size:,}")
            for l, (W, b, name) in enumerate(
                zip(self.weights, self.biases, self.activation, strict=True), start=1
            )
        ]
        width = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"  {l:>{width[0]}}  {shape:<{width[1]}}  {name:<{width[2]}}  {count:>{width[3]}}"
            for l, shape, name, count in rows
        ]
        head = (
            f"Network({list(self.sizes)}, loss={self.loss!r}, dtype={self.dtype.name!r}), "
            f"{self._parameters.size:,} parameters"
        )
        return "\n".join([head, *lines])

    def __getstate__(self) -> dict[str, Any]:
        return {
            "sizes": self.sizes,
            "activation": self.activation,
            "loss": self.loss,
            "parameters": self._parameters,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        parameters = state["parameters"]
        self._set_architecture(state["sizes"], state["activation"], state["loss"], parameters.dtype)
        self._parameters[:] = parameters

    def equals(self, other: Network) -> bool:
        """Whether `other` has the same architecture and, to the last bit, the same parameters.

        ``==`` is Python's identity.
        """
        return (
            isinstance(other, Network)
            and self.sizes == other.sizes
            and self.activation == other.activation
            and self.loss == other.loss
            and self.dtype == other.dtype
            and self._parameters.tobytes() == other._parameters.tobytes()
        )

    @contextmanager
    def _workspace(
        self, batch_size: int, n_threads: int, span: int | None = None
    ) -> Iterator[Workspace]:
        """Lend a workspace; calls from several threads get one each."""
        if span is None:
            span = span_of(batch_size, self._parameters.size, _BLAS)
        shape = (batch_size, span, n_threads)
        workspace, others = None, []
        with suppress(IndexError):
            while workspace is None:
                candidate = self._idle.popleft()
                if candidate.shape == shape:
                    workspace = candidate
                else:
                    others.append(candidate)
        self._idle.extend(others)
        if workspace is None:
            workspace = Workspace(
                self._sizes, self._activations, self._loss, self._parameters, *shape, blas=_BLAS
            )
        with blas_on_one_thread() if _BLAS else nullcontext():
            yield workspace
        if workspace.size <= _MOST_IDLE:
            self._idle.appendleft(workspace)

    def _team_size(self, n_threads: int | None, n_examples: int, batch_size: int = 0) -> int:
        """Return the threads for a call on so many examples, in steps of batches or in one go."""
        one = self._parameters.size * (3 if batch_size else 1)
        return as_n_threads(n_threads, (batch_size or n_examples) * one, n_examples * one)

    def _examples(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None,
        names: tuple[str, str, str] = ("X", "Y", "sample_weight"),
    ) -> tuple[Examples, float]:
        return as_examples(X, Y, sample_weight, self._sizes, self._loss, self._dtype, names=names)

    def predict(self, X: npt.ArrayLike, *, n_threads: int | None = None) -> Array:
        """Return the outputs A^L for each example, equation (1).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_L)

        Raises
        ------
        TypeError, ValueError
            X is not a finite array of numbers of that shape.
        """
        few_outputs = self._predict_few(X, n_threads)
        if few_outputs is not None:
            return few_outputs
        array = as_matrix("X", X, self._sizes[0], self._dtype, unread=True)
        outputs = self._predict(array, n_threads, check_rows=is_plain(array))
        if outputs is None:
            check_finite("X", array, self._dtype)
            raise ValueError("X must be finite and must not change meanwhile, but it did")
        return outputs

    def _predict_few(self, X: npt.ArrayLike, n_threads: int | None) -> Array | None:
        """Return the outputs for a few rows that need no preparation, or None."""
        if n_threads is not None:
            as_n_threads(n_threads, 0, 0)
        return None if _BLAS else self._forward_pass.predict(X)

    def _predict(
        self, inputs: Array, n_threads: int | None, *, check_rows: bool = False
    ) -> Array | None:
        """Return the outputs for an array of a type that Examples takes.

        With `check_rows` a plain one is looked through in passing; None if it is not finite in the
        network's dtype.
        """
        examples = Examples(inputs)
        outputs = np.empty((examples.n, self._sizes[-1]), dtype=self._dtype)
        limit = largest_finite(inputs.dtype, self._dtype) if check_rows else 0.0
        team = self._team_size(n_threads, examples.n)
        with self._workspace(_SPAN * team, team, _SPAN) as workspace:
            workspace.load(transposes=False)
            done = workspace.predict(outputs, examples, limit=limit)
        return outputs if done else None

    def layer_outputs(self, X: npt.ArrayLike) -> list[Array]:
        """Return the activations A^1, ..., A^L of every layer, equation (1).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)

        Returns
        -------
        list of L ndarray, that of layer l of shape (n_samples, n_l)

        Raises
        ------
        TypeError, ValueError
            X is not a finite array of numbers of that shape.
        """
        A_prev = np.ascontiguousarray(as_matrix("X", X, self._sizes[0], self._dtype), self._dtype)
        outputs = []
        for W, b, activation in zip(self.weights, self.biases, self._activations, strict=True):
            A = np.empty((A_prev.shape[0], b.size), dtype=self._dtype)
            forward(A, A_prev, W, b, activation)
            outputs.append(A)
            A_prev = A
        return outputs

    def evaluate(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        *,
        sample_weight: npt.ArrayLike | None = None,
        n_threads: int | None = None,
    ) -> float:
        """Return the mean loss over the examples, equation (2).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
        Y : array_like of shape (n_samples, n_L)
            (n_samples,) will do where n_L = 1; with the loss "cross_entropy" also a vector of
            integer class indices.
        sample_weight : array_like of shape (n_samples,), optional
            Weighs each example's term; the mean is over the sum of the weights.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            An argument is not a finite array of numbers of its shape.
        """
        examples, weight = self._examples(X, Y, sample_weight)
        return self._evaluate(examples, weight, n_threads)

    def _evaluate(self, examples: Examples, weight: float, n_threads: int | None) -> float:
        team = self._team_size(n_threads, examples.n)
        with self._workspace(_SPAN * team, team, _SPAN) as workspace:
            workspace.load(transposes=False)
            return workspace.total_loss(examples) / weight

    def gradient(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        *,
        sample_weight: npt.ArrayLike | None = None,
        n_threads: int | None = None,
    ) -> Array:
        """Return the gradient of the mean loss by the parameters, equations (3) to (5).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
        Y : array_like of shape (n_samples, n_L)
            As in `evaluate`.
        sample_weight : array_like of shape (n_samples,), optional
            As in `evaluate`.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_parameters,)
            In the layout of `parameters`.

        Raises
        ------
        TypeError, ValueError
            An argument is not a finite array of numbers of its shape.
        """
        examples, weight = self._examples(X, Y, sample_weight)
        out = np.empty_like(self._parameters)
        batch_size = min(examples.n, _GRADIENT_BATCH)
        team = self._team_size(n_threads, examples.n, batch_size)
        with self._workspace(batch_size, team) as workspace:
            workspace.load()
            workspace.add_gradient(out, examples, 1 / weight)
        return out

    def train_on_batch(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        optimizer: Optimizer,
        *,
        sample_weight: npt.ArrayLike | None = None,
        n_threads: int | None = None,
    ) -> float:
        """Make one step with all the examples as its batch, equations (1) to (6).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
        Y : array_like of shape (n_samples, n_L)
            As in `evaluate`.
        optimizer : Optimizer
            An instance, which keeps its state from call to call.
        sample_weight : array_like of shape (n_samples,), optional
            As in `evaluate`.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        float
            The mean loss of the batch before the step.

        Raises
        ------
        TypeError, ValueError
            An argument is not a finite array of numbers of its shape, or the optimizer belongs to
            a network of another shape.
        DivergenceError
            The loss is not finite; the network is then unchanged.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer must be an instance such as nncore.SGD(0.1), which keeps its state, "
                f"got {optimizer!r}"
            )
        examples, weight = self._examples(X, Y, sample_weight)
        return training.train_on_batch(self, examples, weight, optimizer, n_threads)

    def fit(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: Optimizer | str = "adam",
        shuffle: bool = True,
        seed: Any = None,
        sample_weight: npt.ArrayLike | None = None,
        validation_data: Sequence[npt.ArrayLike] | None = None,
        dropout: float | Sequence[float] = 0.0,
        gradient_clipping: float | None = None,
        callbacks: Sequence[training.Callback] = (),
        verbose: bool = False,
        n_threads: int | None = None,
    ) -> training.History:
        """Train by mini-batch gradient descent, equations (1) to (6), from where the network is.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
            Other number types, orders and strides are converted once. A `numpy.memmap` of the
            network's dtype is never read as a whole: only the rows of the current batch are, and
            NaN shows in the loss.
        Y : array_like of shape (n_samples, n_L)
            As in `evaluate`.
        epochs : int, default 1
            How often the examples are gone through.
        batch_size : int, default 32
            N, the examples per step; the last batch of an epoch may be shorter, and is averaged
            over its own number.
        optimizer : Optimizer or {"adam", "sgd"}, default "adam"
            An instance, whose state is kept from call to call, or a name for a new one with its
            defaults.
        shuffle : bool, default True
            Whether each epoch goes through the examples in a new order.
        seed : None, int or numpy.random.Generator
            Where the orders are drawn from. The same seed, data, wheel and machine give the same
            bits.
        sample_weight : array_like of shape (n_samples,), optional
            Weighs each example's term; means are over the sum of the weights. A batch whose
            weights are all 0 makes no step. A weight of less than 2^-100 of the largest, in float64
            2^-900, counts as 0.
        validation_data : (X, Y) or (X, Y, sample_weight), optional
            Examples whose mean loss is computed after each epoch.
        dropout : float or sequence of float, default 0
            The share of a hidden layer's units that each step leaves out, for all layers or for
            each, in [0, 1); the others are divided by 1 - dropout.
        gradient_clipping : float, optional
            The largest Euclidean norm of a step's gradient, L2 terms included; one above it is
            scaled to it.
        callbacks : sequence of callables
            Each is called after each epoch with an `EpochEnd`; if one returns True, training
            stops after that epoch.
        verbose : bool, default False
            Whether to print a line after each epoch.
        n_threads : int, optional
            How many threads work on a step; the result is the same to the last bit for any
            number. By default as many as gain by it: one where a step is small, and never more
            than the affinity mask, a cgroup's limit and ``OMP_NUM_THREADS`` allow. At most 1024.

        Returns
        -------
        History
            Losses and seconds of each epoch.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; nothing has changed.
        DivergenceError
            The loss became NaN or infinite; network and optimizer are back at the end of the last
            finite epoch.
        KeyboardInterrupt
            Ctrl-C was pressed; the network is as after the last whole step.

        Examples
        --------
        >>> import nncore
        >>> images, labels = nncore.datasets.load_digits()
        >>> net = nncore.Network([64, 30, 10], activation=["relu", "softmax"],
        ...                      loss="cross_entropy", seed=0)
        >>> history = net.fit(images, labels, epochs=10, seed=0)
        >>> history.loss[-1] < 0.4
        True
        """
        return training.fit(
            self,
            X,
            Y,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            shuffle=shuffle,
            seed=seed,
            sample_weight=sample_weight,
            validation_data=validation_data,
            dropout=dropout,
            gradient_clipping=gradient_clipping,
            callbacks=callbacks,
            verbose=verbose,
            n_threads=n_threads,
        )
