"""A network: an architecture, its parameters, and equations (1) to (6) on them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._arrays import as_rows, as_training_examples, as_vector, check_finite, check_output
from ._checks import Strict, as_bool, as_generator, as_integer, one_of
from ._files import FilePath
from ._forward import ForwardPass
from ._kernels import KERNELS
from ._layout import Examples, FlatVector
from ._threads import as_n_threads, is_large
from .architecture import Architecture
from .evaluation import as_part
from .fitting import as_step_options, fit
from .history import Callback, History
from .initializers import INITIALIZERS
from .losses import loss_title
from .onnx import save_model, to_onnx
from .optimizers import Optimizer
from .persistence import Stored, save
from .scaling import fold_scaling
from .session import GRADIENT_BATCH, NO_OPTIONS, Session
from .shards import ShardData, Shards, are_shards
from .streams import Stream
from .training import DivergenceError
from .typing import (
    ActivationLike,
    CustomLoss,
    DType,
    ExamplesLike,
    InitName,
    LossLike,
    Metrics,
    OptimizerName,
)

if TYPE_CHECKING:
    import mpi4py.MPI
    import onnx
    import torch

    from .distributed import Ranks

__all__ = ["Network"]

Array = npt.NDArray[Any]

_BLAS = KERNELS == "blas"

# Sessions with larger workspaces, in bytes, are kept for the next call only if the system can take
# back the memory meanwhile.
_MOST_IDLE = 64 << 20

# A step takes about this many times as many multiplications as a forward pass.
_STEP_WORK = 3


# What `Network._set_up` sets.
_ATTRIBUTES = frozenset(
    {"_architecture", "_vector", "_weights", "_biases", "_forward_pass", "_idle", "_own_idle"}
)


class Network(Strict):
    """A fully connected network of layers 1, ..., L.

    Layer l computes A^l = σ(A^{l-1} W^l + b^l), equation (1), for a batch with one example per row.

    Parameters
    ----------
    sizes : sequence of int
        n_0, n_1, ..., n_L: the number of inputs, then of the units of each layer.
    activation : str or sequence of L str, default "relu"
        σ of the hidden layers, or a sequence with the name for each of the layers 1, ..., L:
        "sigmoid", "tanh", "relu", "leaky_relu" (slope 0.01), "elu" (α = 1), "softplus",
        "silu", "gelu", "gelu_tanh", "exponential", "identity", and "softmax" for the output layer.
        A pair such as ("leaky_relu", 0.2) or ("elu", 0.5) sets the slope or α.
    output_activation : str, optional
        σ of the output layer. By default the loss determines it: "identity" for squared, absolute
        and Huber loss and losses of yours, "softmax" for cross entropy, "sigmoid" for binary cross
        entropy, "exponential" for Poisson.
    loss : str or `nncore.typing.CustomLoss`, default "squared_error"
        Summed over outputs, averaged over examples: "squared_error",
        ½ Σ (y - a)² (2), "absolute_error", Σ |y - a|, and "huber", Σ ½ r² where r = |y - a| <= 1
        and r - ½ beyond, with any output but softmax, or with ("huber", d), ½ r² where r <= d and
        d (r - ½ d) beyond; "poisson", half the deviance,
        Σ y ln(y/a) - y + a, with exponential outputs; "binary_cross_entropy",
        -Σ [y ln a + (1 - y) ln(1 - a)], with sigmoid outputs; "cross_entropy", -Σ y ln a, with
        softmax outputs. Probabilities are clipped to [eps, 1 - eps], the dtype's eps, before the
        logarithm. Or an object of yours with the methods ``value(A, Y)``, the loss of each example,
        and ``delta(A, Y)``, its derivative by the outputs; with any outputs.
    dtype : {"float32", "float64"}, default "float32"
        The type of the parameters and of all arithmetic.
    init : str, default "glorot_uniform"
        "glorot_uniform", "glorot_normal" (variance 2/(n_{l-1} + n_l)), "he_uniform", "he_normal"
        (variance 2/n_{l-1}), each with biases 0, or "normal": N(0, 1) for weights and biases.
    seed : None, int or numpy.random.Generator
        The source of the initial parameters. The same seed gives the same parameters, up to
        rounding, in both dtypes.

    Attributes
    ----------
    sizes : tuple of int
    activation : tuple of str
        One name, or pair, for each of the layers 1, ..., L.
    loss : str or CustomLoss
    dtype : numpy.dtype
    weights : tuple of ndarray
        W^l at index l - 1, shape (n_{l-1}, n_l); views of `parameters`.
    biases : tuple of ndarray
        b^l at index l - 1, shape (n_l,); views of `parameters`.

    Raises
    ------
    TypeError, ValueError
        An argument has the wrong type, a name is unknown, or loss and output layer do not fit.

    References
    ----------
    M. Nielsen, Neural Networks and Deep Learning (2015). X. Glorot, Y. Bengio, Understanding the
    difficulty of training deep feedforward neural networks (2010). K. He, X. Zhang, S. Ren,
    J. Sun, Delving deep into rectifiers (2015).

    Examples
    --------
    >>> import nncore
    >>> net = nncore.Network([4, 3, 2], activation="tanh", loss="cross_entropy", seed=0)
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
        activation: ActivationLike | Sequence[ActivationLike] = "relu",
        output_activation: ActivationLike | None = None,
        loss: LossLike | CustomLoss = "squared_error",
        dtype: DType = "float32",
        init: InitName = "glorot_uniform",
        seed: Any = None,
    ) -> None:
        self._set_up(Architecture.from_names(sizes, activation, loss, dtype, output_activation))
        draw = one_of("init", init, INITIALIZERS)
        rng = as_generator(seed)
        for W, b in zip(self._weights, self._biases, strict=True):
            W[...] = draw(rng, *W.shape)
            b[...] = draw(rng, 1, b.size)[0] if init == "normal" else 0

    def _set_up(self, architecture: Architecture) -> None:
        """Set all attributes, with parameters of 0."""
        self._architecture = architecture
        self._vector = FlatVector.zeros(architecture)
        self._weights, self._biases = architecture.views(self._vector.array)
        self._forward_pass = ForwardPass(architecture, self._vector.array)
        # Unused sessions, the most recent first. A deque's methods are atomic, so no two calls
        # get the same session.
        self._idle = self._own_idle = deque[Session](maxlen=2)

    @classmethod
    def from_architecture(cls, architecture: Architecture) -> Network:
        """Return a network of the architecture with parameters of 0."""
        network = cls.__new__(cls)
        network._set_up(architecture)
        return network

    @property
    def architecture(self) -> Architecture:
        """Sizes, activations, loss and dtype as one immutable value."""
        return self._architecture

    @property
    def sizes(self) -> tuple[int, ...]:  # noqa: D102 - described in the class docstring
        return self._architecture.sizes

    @property
    def activation(self) -> tuple[ActivationLike, ...]:  # noqa: D102
        return self._architecture.given_activations

    @property
    def loss(self) -> LossLike | CustomLoss:  # noqa: D102
        return self._architecture.given_loss

    @property
    def dtype(self) -> np.dtype[Any]:  # noqa: D102
        return self._architecture.dtype

    @property
    def weights(self) -> tuple[Array, ...]:  # noqa: D102
        self._vector.share()
        return self._weights

    @property
    def biases(self) -> tuple[Array, ...]:  # noqa: D102
        self._vector.share()
        return self._biases

    @property
    def parameters(self) -> Array:
        """The flat vector of all parameters, W^1, b^1, W^2, b^2, ...; writing changes the network.

        Assigning to the attribute copies the values.
        """
        return self._vector.share()

    @parameters.setter
    def parameters(self, values: npt.ArrayLike) -> None:
        if values is not self._vector.array:
            architecture = self._architecture
            self._vector.write(
                as_vector("parameters", values, architecture.n_parameters, architecture.dtype)
            )

    def copy_parameters(self) -> Array:
        """Return a copy of `parameters`.

        ``net.parameters.copy()`` has the same values, but whoever reads the attribute may keep it
        and write to it, so later steps load the parameters again.
        """
        return self._vector.array.copy()

    def __repr__(self) -> str:
        rows = [
            (
                str(l),
                f"{layer.n_prev} -> {layer.n}",
                sigma if isinstance(sigma, str) else f"{sigma[0]} {sigma[1]:g}",
                f"{(layer.n_prev + 1) * layer.n:,}",
            )
            for l, (layer, sigma) in enumerate(
                zip(self._architecture.layers, self.activation, strict=True), start=1
            )
        ]
        width = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            f"  {l:>{width[0]}}  {shape:<{width[1]}}  {name:<{width[2]}}  {count:>{width[3]}}"
            for l, shape, name, count in rows
        ]
        head = (
            f"Network({list(self.sizes)}, loss={self.loss!r}, dtype={self.dtype.name!r}), "
            f"{self._architecture.n_parameters:,} parameters"
        )
        return "\n".join([head, *lines])

    def __getstate__(self) -> dict[str, Any]:
        # Subclasses may have attributes and slots.
        everything: Any = super().__getstate__()
        own, slots = everything if isinstance(everything, tuple) else (everything, {})
        added = {name: value for name, value in own.items() if name not in _ATTRIBUTES}
        return {
            "sizes": self.sizes,
            "activation": self.activation,
            "loss": self.loss,
            "parameters": self._vector.array,
            "attributes": {**added, **slots},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = np.asarray(state["parameters"])
        architecture = Architecture.from_names(
            state["sizes"], state["activation"], state["loss"], values.dtype
        )
        values = as_vector("parameters", values, architecture.n_parameters, architecture.dtype)
        self._set_up(architecture)
        self._vector.write(values)
        for name, value in state.get("attributes", {}).items():
            setattr(self, name, value)

    def equals(self, other: Network) -> bool:
        """Return whether `other` has the same architecture and bitwise equal parameters.

        ``==`` compares identity.
        """
        return (
            isinstance(other, Network)
            and self._architecture == other._architecture
            and self._vector.array.tobytes() == other._vector.array.tobytes()
        )

    def save(self, path: FilePath, optimizer: Optimizer | None = None) -> None:
        """Write the architecture and the parameters to a file, for `nncore.load`.

        The file is in the safetensors format, which other languages and frameworks read: W^l is the
        tensor ``weights.l``, b^l is ``biases.l``. Attributes of a subclass are not stored. At any
        moment, also of a power cut, the path leads to the complete old file or to the complete new
        one.

        Parameters
        ----------
        path : str or path
            A symbolic link stays, and the file that it leads to is replaced. A new file has the
            permissions of the one that it replaces.
        optimizer : Optimizer, optional
            Stored, too, with its coefficients, step count and state.

        Raises
        ------
        OSError
            The file could not be written; the old one, if any, is unchanged.
        TypeError, ValueError
            A parameter is not finite, or the optimizer belongs to a network of another shape, is of
            a class outside nncore, or has a learning rate that is neither a number nor one of
            `nncore.schedules`.
        """
        save(path, Stored(self._architecture, self._vector.array, optimizer))

    def to_onnx(
        self,
        *,
        opset: int | None = None,
        input_name: str = "X",
        output_name: str = "Y",
        dtype: DType | None = None,
    ) -> onnx.ModelProto:
        """Return the network as an ONNX model, which ONNX Runtime and others execute.

        Parameters
        ----------
        opset : int, optional
            The version of ONNX's operators: from 13 on, from 20 on with GELU; by default the
            lowest.
        input_name, output_name : str, default "X" and "Y"
            The names of A^0, of shape (batch, n_0), and A^L, of shape (batch, n_L). The batch has
            any size.
        dtype : {"float32", "float64"}, optional
            Of parameters, inputs and outputs; by default the network's. ONNX Runtime executes
            "leaky_relu", "elu", "softplus", "gelu" and "gelu_tanh" in float32 only, and ONNX stores
            slopes of "leaky_relu" and "elu" in float32.

        Returns
        -------
        onnx.ModelProto
            For each layer a Gemm with the constants ``weights.l`` and ``biases.l``, and a node for
            σ, two for SiLU, none for the identity. The metadata hold the version of nncore and the
            architecture.

        Raises
        ------
        ImportError
            onnx is not installed.
        TypeError, ValueError
            An argument is invalid, a parameter is not finite in that dtype, or the model would
            exceed the format's 2 GiB.
        MemoryError
            There is too little memory for the model.

        Examples
        --------
        >>> import nncore, onnx
        >>> net = nncore.Network([4, 3, 2], activation="tanh", loss="cross_entropy", seed=0)
        >>> model = net.to_onnx()
        >>> onnx.checker.check_model(model, full_check=True)
        >>> [node.op_type for node in model.graph.node]
        ['Gemm', 'Tanh', 'Gemm', 'Softmax']
        """
        return to_onnx(
            self._architecture,
            self._vector.array,
            opset=opset,
            input_name=input_name,
            output_name=output_name,
            dtype=dtype,
        )

    def save_onnx(
        self,
        path: FilePath,
        *,
        opset: int | None = None,
        input_name: str = "X",
        output_name: str = "Y",
        dtype: DType | None = None,
    ) -> None:
        """Write the network to an ONNX file, as `to_onnx` describes it.

        At any moment the path leads to the complete old file or to the complete new one.

        Parameters
        ----------
        path : str or path
            As in `save`.
        opset, input_name, output_name, dtype
            As in `to_onnx`.

        Raises
        ------
        OSError
            The file could not be written; the old one, if any, is unchanged.
        ImportError, MemoryError, TypeError, ValueError
            As in `to_onnx`.
        """
        save_model(
            path,
            self.to_onnx(opset=opset, input_name=input_name, output_name=output_name, dtype=dtype),
        )

    def to_torch(self, *, logits: bool = False) -> torch.nn.Sequential:
        """Return a PyTorch module with the layers and a copy of the parameters.

        `nncore.torch.network` goes back.

        Parameters
        ----------
        logits : bool, default False
            Whether to leave out softmax, sigmoid or exponential outputs, as PyTorch's
            CrossEntropyLoss, BCEWithLogitsLoss and PoissonNLLLoss expect.

        Returns
        -------
        torch.nn.Sequential
            In the network's dtype.

        Raises
        ------
        ImportError
            PyTorch is not installed.
        ValueError
            PyTorch has no module for an activation: the exponential function.

        Examples
        --------
        >>> import torch, nncore
        >>> nncore.Network([4, 3], loss="cross_entropy", seed=0).to_torch(logits=True)
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
        )
        """
        from .torch import to_torch

        return to_torch(self, logits=as_bool("logits", logits))

    def fold_scaling(
        self,
        X_mean: npt.ArrayLike,
        X_scale: npt.ArrayLike,
        Y_mean: npt.ArrayLike = 0,
        Y_scale: npt.ArrayLike = 1,
        *,
        dtype: DType | None = None,
    ) -> Network:
        """Return a network that takes raw inputs, and with identity outputs returns raw targets.

        This network was trained with the inputs (x - X_mean) / X_scale and, if targets were scaled,
        with the targets (y - Y_mean) / Y_scale. The new one has the same loss and activations; its
        first and last layer do the scaling, equation (1).

        Parameters
        ----------
        X_mean, X_scale : float or array_like of shape (n_0,)
            Finite numbers. A scale is not 0; that of a constant column is 1.
        Y_mean, Y_scale : float or array_like of shape (n_L,), default 0 and 1
            Likewise; other values than 0 and 1 need identity outputs.
        dtype : {"float32", "float64"}, optional
            Of the new network; by default this network's.

        Returns
        -------
        Network
            With parameters computed in float64 and rounded once.

        Raises
        ------
        TypeError, ValueError
            An argument is not a number or vector of this kind, targets are scaled but the outputs
            are not identity, or a parameter would overflow.

        Notes
        -----
        Subtracting the mean inside the first layer cancels digits. Rounding with unit u (6e-8 in
        float32, 1e-16 in float64) changes the sum that enters unit j of layer 1 by up to about
        (n_0 + 3) u (|b_j| + Σ_i (|x_i| + |X_mean_i|) |w_ij| / |X_scale_i|). If means are a
        thousand times as large as scales, float32 thus loses three of its seven digits, and
        ``dtype="float64"`` is advisable; from 16,000 times on a `UserWarning` says so.

        To train on, train this network on scaled values and fold again: the new one would train on
        raw values.

        Examples
        --------
        >>> import numpy as np
        >>> import nncore
        >>> celsius = np.array([[2.0], [14.0], [20.0]])
        >>> net = nncore.Network([1, 4, 1], activation="tanh", seed=0)
        >>> raw = net.fold_scaling(X_mean=12.0, X_scale=7.5, Y_mean=100.0, Y_scale=20.0)
        >>> scaled = net.predict((celsius - 12.0) / 7.5)
        >>> np.allclose(raw.predict(celsius), 100.0 + 20.0 * scaled)
        True
        """
        architecture = self._architecture
        if dtype is not None:
            architecture = architecture.with_dtype(dtype)
        folded = fold_scaling(architecture, self._vector.array, X_mean, X_scale, Y_mean, Y_scale)
        network = Network.from_architecture(architecture)
        network._vector.write(folded)
        return network

    def session(
        self, n_examples: int, *, batch_size: int = 0, n_threads: int | None = None
    ) -> Session:
        """Return a session, the interface for other training loops.

        Parameters
        ----------
        n_examples : int
            The examples of all steps; with `batch_size` it determines the default of `n_threads`.
        batch_size : int, default 0
            The largest batch; 0 if only outputs and losses are computed.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        Session
            For a ``with`` statement. Concurrent calls get different sessions.
        """
        one = self._architecture.n_parameters * (_STEP_WORK if batch_size else 1)
        team = as_n_threads(n_threads, (batch_size or n_examples) * one, n_examples * one)
        shape = batch_size, team
        for _ in range(len(self._idle)):
            try:
                session = self._idle.popleft()
            except IndexError:  # another thread took it
                break
            if session.shape == shape and session.architecture == self._architecture:
                session.serve(self._architecture, self._vector, self._keep)
                return session
            self._idle.append(session)
        shares = is_large(batch_size * one)
        return Session(
            self._architecture, self._vector, *shape, self._keep, blas=_BLAS, shares=shares
        )

    def _keep(self, session: Session) -> None:
        if session.n_bytes <= _MOST_IDLE or session.offer_memory():
            self._idle.appendleft(session)

    @contextmanager
    def sessions_from(self, idle: deque[Session]) -> Iterator[None]:
        """Take unused sessions from `idle`, and leave them there, in the ``with`` block.

        They may be those of other networks. So networks of one architecture that train one after
        the other need a single workspace.
        """
        self._idle = idle
        try:
            yield
        finally:
            self._idle = self._own_idle

    def predict(
        self, X: ExamplesLike, *, out: Array | None = None, n_threads: int | None = None
    ) -> Array:
        """Return the outputs A^L for each example, equation (1).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0) or (n_0,)
            An array of one dimension is a single example, also if n_0 = 1. Or shards, as in `fit`.
        out : ndarray of shape (n_samples, n_L) or (n_L,), optional
            A C-contiguous array of the network's dtype to store the outputs in. It is written
            last: it may overlap with X, and an error leaves it as it was.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_L), or (n_L,) for a single example
            `out` if it is given.

        Raises
        ------
        TypeError, ValueError
            X is not a finite array of numbers of such a shape, or `out` does not fit.

        Examples
        --------
        >>> import nncore
        >>> net = nncore.Network([3, 2], seed=0)
        >>> net.predict([[0, 0, 0], [1, 2, 3]]).shape
        (2, 2)
        >>> net.predict([1, 2, 3]).shape
        (2,)
        """
        if n_threads is not None:
            as_n_threads(n_threads, 0, 0)
        if not _BLAS:
            if out is None:
                few = self._forward_pass.predict(X)
            else:
                few = self._forward_pass.predict_to((X, out))
            if few is not None:
                return few
        rows: Array | Shards
        if are_shards(X):
            rows, is_single = Shards(X, None, None, self._architecture), False
        else:
            rows, is_single = self._as_rows(X)
        if out is not None:
            shape = self.sizes[-1:] if is_single else (len(rows), self.sizes[-1])
            check_output("out", out, shape, self.dtype)
        outputs: Array
        if isinstance(rows, Shards):
            outputs = self._outputs_of_shards(rows, n_threads)
        else:
            outputs = self._forward(Session.outputs, rows, n_threads)
        if is_single:
            outputs = outputs[0]
        if out is None:
            return outputs
        out[...] = outputs
        return out

    def _outputs_of_shards(self, shards: Shards, n_threads: int | None) -> Array:
        outputs, done = np.empty((len(shards), self.sizes[-1]), self.dtype), 0
        with (
            self.session(len(shards), n_threads=n_threads) as session,
            closing(ShardData(shards).pieces(None, 1, 0)) as pieces,
        ):
            for piece in pieces:
                outputs[done : done + piece.end] = session.outputs(piece.examples)
                done += piece.end
        return outputs

    def _as_rows(self, X: ExamplesLike) -> tuple[Array, bool]:
        architecture = self._architecture
        return as_rows("X", X, architecture.sizes[0], architecture.dtype)

    def _forward(
        self, compute: Callable[..., Any], rows: Array, n_threads: int | None = None
    ) -> Any:
        """Return the result of a session's method, which checks that the rows are finite."""
        with self.session(len(rows), n_threads=n_threads) as session:
            result = compute(session, Examples(rows), check=True)
        if result is None:
            check_finite("X", rows, self.dtype)
            raise ValueError("X must be finite, and changed while it was read")
        return result

    def layer_outputs(self, X: npt.ArrayLike) -> list[Array]:
        """Return the activations A^1, ..., A^L of every layer, equation (1).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0) or (n_0,)
            As in `predict`.

        Returns
        -------
        list of L ndarray of shape (n_samples, n_l), or (n_l,) for a single example

        Raises
        ------
        TypeError, ValueError
            X is not a finite array of numbers of such a shape.
        """
        rows, is_single = self._as_rows(X)
        outputs: list[Array] = self._forward(Session.layer_outputs, rows)
        return [A[0] for A in outputs] if is_single else outputs

    def evaluate(
        self,
        X: ExamplesLike | Stream,
        Y: ExamplesLike | None = None,
        *,
        sample_weight: ExamplesLike | None = None,
        n_threads: int | None = None,
    ) -> float:
        """Return the mean loss over the examples, equation (2).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
            Or shards, as in `fit`, Y and the weights likewise; or a `Stream`.
        Y : array_like of shape (n_samples, n_L)
            Or of shape (n_samples,) if n_L = 1, or, for the loss "cross_entropy", a vector of
            integer class indices. A loss of yours gets its rows as they are, whatever the shape
            (n_samples, ...), NaN included.
        sample_weight : array_like of shape (n_samples,), optional
            The weight of each example's loss; the mean divides by the sum of the weights.
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
        part = as_part(X, Y, sample_weight, self._architecture)
        return part.evaluate(self, (), n_threads)["loss"]

    def gradient(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        *,
        sample_weight: npt.ArrayLike | None = None,
        n_threads: int | None = None,
    ) -> Array:
        """Return the gradient of the mean loss, equations (3) to (5).

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
            In the layout of `parameters`, without L2 terms.

        Raises
        ------
        TypeError, ValueError
            An argument is not a finite array of numbers of its shape.
        """
        examples, weight = as_training_examples(X, Y, sample_weight, self._architecture)
        out = np.empty_like(self._vector.array)
        with self._backward_session(examples.n, n_threads) as session:
            session.gradient(out, examples, 1 / weight)
        return out

    def backward(
        self, X: npt.ArrayLike, dA: npt.ArrayLike, *, n_threads: int | None = None
    ) -> tuple[Array, Array]:
        """Return the derivatives of any function f of the outputs, equations (4) and (5).

        This is reverse mode: from ∂f/∂A^L to the derivatives of f by the parameters and by the
        inputs. With it a network is a node of any other automatic differentiation;
        docs/custom.md shows PyTorch and JAX.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0) or (n_0,)
            As in `predict`.
        dA : array_like of shape (n_samples, n_L) or (n_L,)
            ∂f/∂A^L, of the shape of ``predict(X)``.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        gradient : ndarray of shape (n_parameters,)
            ∂f/∂W^1, ∂f/∂b^1, ..., in the layout of `parameters`: summed over the examples, not
            averaged as `gradient` is.
        dX : ndarray of the shape of X
            ∂f/∂X = δ^0 = δ^1 W^1ᵀ.

        Raises
        ------
        TypeError, ValueError
            An argument is not a finite array of numbers of its shape.

        Notes
        -----
        At a kink, which "relu", "leaky_relu" and "elu" have at 0, the derivative is that from the
        left, 0, 0.01 and 1.

        Examples
        --------
        For f = Σ sin a, ∂f/∂a = cos a:

        >>> import numpy as np
        >>> import nncore
        >>> net = nncore.Network([3, 8, 2], activation="tanh", seed=0)
        >>> X = np.ones((5, 3))
        >>> gradient, dX = net.backward(X, np.cos(net.predict(X)))
        >>> gradient.shape == net.parameters.shape, dX.shape
        (True, (5, 3))
        """
        architecture = self._architecture
        rows, is_single = self._as_finite_rows(X)
        deltas, _ = as_rows("dA", dA, architecture.sizes[-1], architecture.dtype)
        check_finite("dA", deltas, architecture.dtype)
        if len(deltas) != len(rows):
            raise ValueError(f"dA must have as many rows as X, {len(rows)}, got {len(deltas)}")
        out, dX = np.zeros_like(self._vector.array), np.empty(rows.shape, architecture.dtype)
        if len(rows):
            with self._backward_session(len(rows), n_threads) as session:
                session.backward(out, dX, Examples(rows, deltas))
        return out, dX[0] if is_single else dX

    def jacobian(self, X: npt.ArrayLike, *, n_threads: int | None = None) -> Array:
        """Return the derivatives of every output by every input.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0) or (n_0,)
            As in `predict`.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_L, n_0), or (n_L, n_0) for a single example
            ∂a_j/∂x_i in row j, column i of each example's matrix.

        Raises
        ------
        TypeError, ValueError
            X is not a finite array of numbers of such a shape.

        Notes
        -----
        One forward pass (1), and for each output one pass back (4); see `backward` for kinks.

        Examples
        --------
        >>> import numpy as np
        >>> import nncore
        >>> net = nncore.Network([3, 2], seed=0)
        >>> np.array_equal(net.jacobian([1, 2, 3]), net.weights[0].T)
        True
        """
        rows, is_single = self._as_finite_rows(X)
        n_0, n_L = self.sizes[0], self.sizes[-1]
        out = np.empty((len(rows), n_L, n_0), self.dtype)
        if len(rows):
            with self._backward_session(len(rows), n_threads) as session:
                session.jacobian(out, Examples(rows))
        return out[0] if is_single else out

    def input_gradient(self, X: npt.ArrayLike, *, n_threads: int | None = None) -> Array:
        """Return the derivatives of the output by the inputs, for a network of one output.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0) or (n_0,)
            As in `predict`.
        n_threads : int, optional
            As in `fit`.

        Returns
        -------
        ndarray of the shape of X
            ∂a/∂x_i in column i.

        Raises
        ------
        TypeError, ValueError
            X is not a finite array of numbers of such a shape, or the network has several outputs.
        """
        if self.sizes[-1] != 1:
            raise ValueError(
                f"input_gradient needs a network of one output, got {self.sizes[-1]} outputs; "
                "network.jacobian has the derivatives of all"
            )
        return self.jacobian(X, n_threads=n_threads)[..., 0, :]

    def _as_finite_rows(self, X: npt.ArrayLike) -> tuple[Array, bool]:
        rows, is_single = self._as_rows(X)
        check_finite("X", rows, self.dtype)
        return rows, is_single

    def _backward_session(self, n: int, n_threads: int | None) -> Session:
        return self.session(n, batch_size=min(n, GRADIENT_BATCH), n_threads=n_threads)

    def train_on_batch(
        self,
        X: npt.ArrayLike,
        Y: npt.ArrayLike,
        optimizer: Optimizer,
        *,
        sample_weight: npt.ArrayLike | None = None,
        dropout: float | Sequence[float] = 0.0,
        gradient_clipping: float | None = None,
        seed: int = 0,
        n_threads: int | None = None,
    ) -> float:
        """Make one step with all examples as its batch, equations (1) to (6).

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
        Y : array_like of shape (n_samples, n_L)
            As in `evaluate`.
        optimizer : Optimizer
            An instance; it keeps its state from call to call.
        sample_weight : array_like of shape (n_samples,), optional
            As in `evaluate`.
        dropout, gradient_clipping : optional
            As in `fit`.
        seed : int, default 0
            Together with ``optimizer.step_count`` it determines which units dropout drops.
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
            The loss, a parameter or the optimizer's state is not finite; network and optimizer are
            unchanged.
        """
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                "optimizer must be an instance such as nncore.SGD(0.1), which keeps its state, "
                f"got {optimizer!r}"
            )
        examples, weight = as_training_examples(X, Y, sample_weight, self._architecture)
        self.check_writeable()
        options = NO_OPTIONS
        if gradient_clipping is not None or not (isinstance(dropout, float) and dropout == 0):
            options = as_step_options(
                dropout,
                gradient_clipping,
                self._architecture.n_hidden,
                lambda: as_integer("seed", seed, low=0, high=2**63 - 1),
            )
        n = examples.n
        with self.session(n, batch_size=n, n_threads=n_threads) as session:
            session.use(optimizer, optimizer.rule(), options)
            loss, is_finite = session.step(examples)
        if is_finite:
            return loss / weight
        what = "a parameter or the optimizer's state"
        if not math.isfinite(loss):
            what = loss_title(self._architecture.custom_loss)
        raise DivergenceError(None, optimizer.current_rate, "the network is unchanged", what)

    def check_writeable(self) -> None:
        """Raise ValueError if `parameters` is read-only."""
        if not self._vector.array.flags.writeable:
            raise ValueError("network.parameters must be writeable, got a read-only vector")

    def fit(
        self,
        X: ExamplesLike | Stream,
        Y: ExamplesLike | None = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        optimizer: Optimizer | OptimizerName = "adam",
        shuffle: bool = True,
        seed: Any = None,
        sample_weight: ExamplesLike | None = None,
        validation_data: Sequence[ExamplesLike] | Stream | None = None,
        validation_split: float | None = None,
        metrics: Metrics = (),
        training_metrics: bool = False,
        dropout: float | Sequence[float] = 0.0,
        gradient_clipping: float | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        n_threads: int | None = None,
        resume: FilePath | None = None,
        comm: mpi4py.MPI.Intracomm | Ranks | None = None,
    ) -> History:
        """Train by mini-batch gradient descent, equations (1) to (6), from the current parameters.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_0)
            Values of 1e4 and above among the first ones give a `UserWarning`, with the remedy.
            Arrays of other number types, orders and strides are converted once.

            Or shards, of which a thread reads some MB at a time: a mapped file (`numpy.memmap`),
            the path of a .npy file, or a list of these and of arrays of two dimensions. The result
            is that of the concatenated arrays, to the last bit; docs/scaling.md has more.

            Or a `Stream` of chunks with X and Y, whose rows are shuffled in its buffer.
        Y : array_like of shape (n_samples, n_L)
            As in `evaluate`. Values among the first ones that the output layer cannot reach, such
            as 3 with sigmoid outputs, give a `UserWarning`, with the remedy. Or shards, perhaps cut
            at other rows than X.
        epochs : int, default 1
            The number of passes over the examples.
        batch_size : int, default 32
            N, the examples per step. The last batch of an epoch may be shorter; its mean is over
            the examples that it has.
        optimizer : Optimizer or {"adam", "adamw", "rmsprop", "sgd"}, default "adam"
            An instance, which keeps its state from call to call, or the name of a new one with
            default coefficients.
        shuffle : bool, default True
            Whether to draw a new order of the examples for each epoch.
        seed : None, int or numpy.random.Generator
            The source of the orders and of dropout. The same seed, data, wheel and machine give
            the same bits.
        sample_weight : array_like of shape (n_samples,), optional
            The weight of each example's loss; means divide by the sum of the weights. A batch
            whose weights are all 0 makes no step. A weight below 2^-100 of the largest, in float64
            2^-900, counts as 0.
        validation_data : (X, Y), (X, Y, sample_weight) or Stream, optional
            Examples for the loss and the metrics after each epoch.
        validation_split : float, optional
            In (0, 1): instead of `validation_data`, hold out this share of the examples. With
            `shuffle` they are spread over all examples, always the same ones, whatever the seed is,
            so that no other fit trains on them; otherwise they are the last ones. Nothing is
            copied.
        metrics : list or dict, default ()
            What to compute besides the loss after each epoch, in a pass over the validation data:
            names, functions of (Y, outputs), or a dict of functions under their names.
            "accuracy" is the share of examples whose largest output is that of their class, or
            with a single output or binary cross entropy, all of whose outputs are on the right side
            of 1/2; it needs sigmoid or softmax outputs. "r2" is 1 - Σ (y - a)² / Σ (y - mean y)²,
            and "mean_absolute_error" the mean of |y - a|, both averaged over the outputs. These use
            the examples' weights. A function gets two arrays that it must not change: outputs
            of shape (n, n_L), and Y likewise, or of shape (n,) if it holds class indices.
        training_metrics : bool, default False
            Whether to compute the metrics of the training data, too, in a further pass.
        dropout : float or sequence of float, default 0
            The share of units that each step drops, in [0, 1), for all hidden layers or one per
            hidden layer. The outputs of the other units are divided by 1 - dropout.
        gradient_clipping : float, optional
            The largest Euclidean norm of a step's gradient, L2 terms included; longer gradients
            are scaled to it.
        callbacks : sequence of callables
            Called with an `EpochEnd` after each epoch; if one returns True, training stops.
            `nncore.callbacks` has some.
        verbose : bool, default False
            Whether to show progress: a bar if tqdm is installed and the output is a terminal or a
            notebook, otherwise lines, at most ten a second.
        n_threads : int, optional
            The number of threads, at most 1024; results do not depend on it. By default as many as
            make the call faster, a single one for small steps, but not more than the affinity mask,
            the cgroup and ``OMP_NUM_THREADS`` allow, divided by the number of Python's threads that
            train networks in large steps. An explicit number is used as given.
        resume : str or path, optional
            A file that `nncore.callbacks.Checkpoint` wrote in a run with the same data and
            arguments. Training continues from there with the same bits as if it had never been
            interrupted; if the file does not exist, it begins. Network, optimizer, the generator
            `seed` and the callbacks' states become those of the checkpoint. `epochs`, `n_threads`,
            `verbose` and the ranks of `comm` may differ.
        comm : mpi4py.MPI.Intracomm or nncore.distributed.Ranks, optional
            The processes that train this network together, on one or several machines, and all
            make the same call. `nncore.distributed.Ranks` describes it.

        Returns
        -------
        History
            Losses, metrics and seconds of each epoch.

        Raises
        ------
        TypeError, ValueError
            An argument is invalid; nothing has changed.
        DivergenceError
            The loss, a parameter or the optimizer's state became NaN or infinite. Network and
            optimizer are restored to the end of the last finite epoch.
        OSError, ValueError
            A row of a file cannot be read or is not finite, or the file has changed; the message
            names file and row. Network and optimizer are as after the last complete step.
        MemoryError
            There is too little memory. Nothing has changed, except perhaps a generator `seed`,
            unless a callback, a metric of yours or the next block of a file lacks it after some
            steps. Then network and optimizer are as after the last complete step.
        KeyboardInterrupt
            Ctrl-C was pressed. Network and optimizer are as after the last complete step.
        nncore.distributed.RankError
            Another rank of `comm` raised an exception, which this one names.

        Examples
        --------
        >>> import nncore
        >>> images, labels = nncore.datasets.load_digits()
        >>> net = nncore.Network([64, 30, 10], loss="cross_entropy", seed=0)
        >>> history = net.fit(images, labels, epochs=10, seed=0)
        >>> history.loss[-1] < 0.4
        True
        """
        return fit(
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
            validation_split=validation_split,
            metrics=metrics,
            training_metrics=training_metrics,
            dropout=dropout,
            gradient_clipping=gradient_clipping,
            callbacks=callbacks,
            verbose=verbose,
            n_threads=n_threads,
            resume=resume,
            comm=comm,
        )
