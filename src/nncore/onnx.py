"""Networks as ONNX models, which other runtimes execute, and back.

`Network.to_onnx` and `Network.save_onnx` export, `from_onnx` imports. They need onnx:
``pip install 'nncore[onnx]'``.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._arrays import as_vector
from ._checks import as_integer
from ._files import FilePath, replacing
from ._onnx_import import import_network
from ._onnx_operators import LOWEST_OPSET, OPERATORS, import_onnx
from .architecture import Architecture
from .persistence import encode_architecture
from .typing import ActivationName, CustomLoss, DType, LossLike

if TYPE_CHECKING:
    import onnx

    from .network import Network

__all__ = [
    "Graph",
    "ModelGraph",
    "add_layers",
    "as_exported",
    "from_onnx",
    "lowest_opset",
    "save_model",
    "to_onnx",
]

Array = npt.NDArray[Any]

# The format of ONNX files allows 2 GiB; names and shapes take some of them.
_MOST_BYTES = (1 << 31) - (1 << 20)


# What a model takes while it is built: copies of the parameters, and bytes for everything else.
_COPIES = 5
_MORE_BYTES = 1 << 20


class Graph(ABC):
    """Nodes and constants of a model under construction."""

    @abstractmethod
    def unique(self, name: str) -> str:
        """Return the name itself, or a similar one if it is taken, and take it."""

    @abstractmethod
    def constant(self, name: str, values: Array) -> str:
        """Add an array of floats, int64 or strings, and return its unique name."""

    @abstractmethod
    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Add a node with one output."""


class ModelGraph(Graph):
    """The graph of a ModelProto.

    Parameters
    ----------
    opset : int or None
        The version of ONNX's operators, by default the lowest that has all of them.
    architecture : Architecture
        Of the network in the graph.
    names : sequence of str
        Of the model's inputs and outputs, which must differ.
    """

    def __init__(self, opset: int | None, architecture: Architecture, names: Sequence[str]) -> None:
        self._onnx = import_onnx()
        self._architecture = architecture
        lowest, newest = lowest_opset(architecture), self._onnx.defs.onnx_opset_version()
        self._opset = (
            lowest if opset is None else as_integer("opset", opset, low=lowest, high=newest)
        )
        for name in names:
            if not isinstance(name, str) or not name or names.count(name) > 1:
                raise ValueError(
                    "input_name and the names of outputs must be different, non-empty strings, "
                    f"got {names}"
                )
        self._names = set(names)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def unique(self, name: str) -> str:  # noqa: D102
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def constant(self, name: str, values: Array) -> str:  # noqa: D102
        helper = self._onnx.helper
        name = self.unique(name)
        if values.dtype.kind in "OU":
            kind = self._onnx.TensorProto.STRING
            texts = [text.encode() for text in values.reshape(-1)]
            tensor = helper.make_tensor(name, kind, values.shape, texts)
        else:
            tensor = self._onnx.numpy_helper.from_array(values, name)
        self._constants.append(tensor)
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:  # noqa: D102
        make = self._onnx.helper.make_node
        self._nodes.append(make(operator, inputs, [output], name=output, **attributes))

    def model(
        self, input_name: str, outputs: Mapping[str, tuple[npt.DTypeLike, int | None]]
    ) -> onnx.ModelProto:
        """Return the ModelProto.

        Parameters
        ----------
        input_name : str
        outputs : dict
            For each name the type and the number of columns, None for a vector.
        """
        helper, architecture = self._onnx.helper, self._architecture

        def described(name: str, dtype: npt.DTypeLike, n: int | None) -> Any:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            shape = ["batch"] if n is None else ["batch", n]
            return helper.make_tensor_value_info(name, kind, shape)

        graph = helper.make_graph(
            self._nodes,
            "nncore",
            [described(input_name, architecture.dtype, architecture.sizes[0])],
            [described(name, *output) for name, output in outputs.items()],
            self._constants,
        )
        opsets = [helper.make_opsetid("", self._opset)]
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="nncore",
            producer_version=version("nncore"),
        )
        # ONNX Runtime shows these, but not the producer's version.
        metadata = {
            "nncore_version": model.producer_version,
            "architecture": json.dumps(encode_architecture(architecture)),
        }
        helper.set_model_props(model, metadata)
        return model


def as_exported(
    architecture: Architecture, parameters: Array, dtype: DType | None
) -> tuple[Architecture, Array]:
    """Return both in the dtype of the model, checked.

    Raises
    ------
    ValueError
        A parameter is not finite in it, or the model would be too large for the format.
    MemoryError
        There is too little memory for the model.
    """
    if dtype is not None:
        architecture = architecture.with_dtype(dtype)
    n_bytes = architecture.n_parameters * architecture.dtype.itemsize
    if n_bytes > _MOST_BYTES:
        raise ValueError(
            f"the parameters of an ONNX model must fit in {_MOST_BYTES} bytes, got {n_bytes}"
        )
    n = architecture.n_parameters
    parameters = as_vector("parameters", parameters, n, architecture.dtype)
    # Raises MemoryError where protobuf, without memory for its copies, ends the process.
    np.empty(_COPIES * n_bytes + _MORE_BYTES, np.uint8)
    return architecture, parameters


def lowest_opset(architecture: Architecture) -> int:
    """Return the lowest version of ONNX's operators that has all activations."""
    operators = [OPERATORS[σ] for σ in architecture.activations if σ in OPERATORS]
    return max([LOWEST_OPSET, *(operator.opset for operator in operators)])


def add_layers(
    graph: Graph, architecture: Architecture, parameters: Array, input_name: str, output_name: str
) -> None:
    """Add (1) for each layer: a Gemm, and a node for σ unless it is the identity, two for SiLU.

    Parameters
    ----------
    graph : Graph
    architecture : Architecture
    parameters : ndarray of shape (n_parameters,)
    input_name, output_name : str
        The names of A^0 and A^L.
    """
    A = input_name
    layers = zip(architecture.layers, *architecture.views(parameters), strict=True)
    for l, (layer, W, b) in enumerate(layers, start=1):
        inputs = [A, graph.constant(f"weights.{l}", W), graph.constant(f"biases.{l}", b)]
        A = output_name if l == len(architecture.layers) else graph.unique(f"A.{l}")
        operator = OPERATORS.get(layer.activation)
        if operator is None:
            graph.node("Gemm", inputs, A)
        else:
            Z = graph.unique(f"Z.{l}")
            graph.node("Gemm", inputs, Z)
            factor = graph.unique(f"factor.{l}") if operator.times_z else A
            slope = {operator.slope: layer.slope} if operator.slope else {}
            graph.node(operator.name, [Z], factor, **operator.attributes, **slope)
            if operator.times_z:
                graph.node("Mul", [Z, factor], A)


def to_onnx(
    architecture: Architecture,
    parameters: Array,
    *,
    opset: int | None,
    input_name: str,
    output_name: str,
    dtype: DType | None,
) -> onnx.ModelProto:
    """Return a ModelProto; `Network.to_onnx` describes it."""
    architecture, parameters = as_exported(architecture, parameters, dtype)
    graph = ModelGraph(opset, architecture, [input_name, output_name])
    add_layers(graph, architecture, parameters, input_name, output_name)
    outputs = {output_name: (architecture.dtype, architecture.sizes[-1])}
    return graph.model(input_name, outputs)


def save_model(path: FilePath, model: onnx.ModelProto) -> None:
    """Write a ModelProto to a file; `Network.save_onnx` describes errors and guarantees."""
    data = model.SerializeToString()
    with replacing(path) as file:
        file.write(data)


def from_onnx(
    source: FilePath | onnx.ModelProto,
    *,
    loss: LossLike | CustomLoss | None = None,
    output: str | None = None,
    output_activation: ActivationName | None = None,
) -> Network:
    """Return the network in an ONNX model, for predictions or further training.

    It understands chains of layers, as `Network.to_onnx`, PyTorch, Keras and skl2onnx write them:
    Gemm or MatMul and Add with constant weights, activations that nncore has, and nodes that do
    nothing in a prediction: Identity, Dropout, Flatten, Reshape, Cast and ZipMap. Every other node
    is refused by its name. No file can make it execute code, or take memory out of proportion to
    the file's size.

    Parameters
    ----------
    source : str, path or onnx.ModelProto
        Weights in other files must lie in the model's directory.
    loss : str or object, optional
        For further training. By default the one that nncore stored; for other models the one whose
        default outputs the model has, such as cross entropy for softmax, otherwise squared error.
    output : str, optional
        The name of the output to compute, by default the only one that consists of real numbers.
    output_activation : str, optional
        Applied to outputs without activation, such as "softmax" to the logits of a classifier.

    Returns
    -------
    Network
        In the dtype of the weights. Inputs of more dimensions that the model flattens are rows
        here. Of the two probabilities that skl2onnx computes for two classes it returns the second.

    Raises
    ------
    ImportError
        onnx is not installed.
    OSError
        The file could not be read.
    TypeError, ValueError
        An argument is invalid, the file is damaged, or it holds something else.
    MemoryError
        There is too little memory for the model.

    Examples
    --------
    >>> import nncore, onnx
    >>> net = nncore.Network([4, 3, 2], loss="cross_entropy", seed=0)
    >>> nncore.from_onnx(net.to_onnx()).equals(net)
    True
    """
    return import_network(source, loss, output, output_activation)
