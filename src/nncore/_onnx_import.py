"""Reads ONNX models from untrusted files, and recognizes chains of layers in them.

Only protobuf sees the bytes of a file, neither onnx's loader nor its checker: whatever is used is
checked here. No memory is allocated for a shape before the values that it describes are there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._checks import one_of
from ._files import FilePath, as_path, naming
from ._onnx_operators import OPERATORS, import_onnx
from ._onnx_tensors import TensorReader
from .architecture import ACTIVATIONS, LOSSES
from .enums import SLOPES, Activation
from .importing import ImportedLayers
from .typing import ActivationName, CustomLoss, LossLike

if TYPE_CHECKING:
    from .network import Network

__all__ = ["import_network"]

Array = npt.NDArray[Any]
Model = Any  # onnx.ModelProto
Node = Any  # onnx.NodeProto
Step = Callable[[ImportedLayers], None]

# protobuf parses no longer messages.
_LONGEST = (1 << 31) - 1

_DOMAINS = ("", "ai.onnx")

# Operators of older versions have other attributes.
_OLDEST_OPSET = 7

# Beyond this PyTorch computes softplus(z) as z, which is the same in float32.
_LINEAR_SOFTPLUS = 20.0

# By the format's numbers.
_DTYPES = {1: np.dtype(np.float32), 11: np.dtype(np.float64)}

# By their operators, which for GELU have two forms.
_ACTIVATIONS = {
    operator.name: activation
    for activation, operator in OPERATORS.items()
    if not operator.times_z and "approximate" not in operator.attributes
}

# Before these the input may have more than two dimensions, up to NumPy's limit.
_FLATTENING = ("Flatten", "Reshape")
_MOST_DIMENSIONS = 64


def import_network(
    source: FilePath | Model,
    loss: LossLike | CustomLoss | None,
    output: str | None,
    output_activation: ActivationName | None,
) -> Network:
    """Return the network in a model; `nncore.from_onnx` describes it."""
    onnx = import_onnx()
    if isinstance(loss, str):
        one_of("loss", loss, LOSSES)
    if output_activation is not None:
        one_of("output_activation", output_activation, ACTIVATIONS)
    if output is not None and not isinstance(output, str):
        raise TypeError(f"output must be the name of an output, got {output!r}")
    path = None if isinstance(source, onnx.ModelProto) else as_path(source)
    with _refused("the model" if path is None else repr(path)):
        model = source if path is None else _parse(onnx, path)
        graph = _Graph(model, None if path is None else os.path.dirname(path))
        layers = graph.layers(graph.output_name(output))
        if loss is None and output_activation is None:
            loss = _stored_loss(model)
        return layers.as_network(loss, output_activation)


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Say in error messages which model they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error


def _parse(onnx: Any, path: str) -> Model:
    """Return the ModelProto in a file."""
    from google.protobuf.message import DecodeError

    with naming(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} bytes")
        model = onnx.ModelProto()
        try:
            model.ParseFromString(file.read(size))
        except DecodeError as error:
            if "alloc" in str(error):
                raise MemoryError(f"could not allocate the model of {size} bytes") from error
            raise ValueError(f"it is no ONNX model: {error}") from error
        return model


def _stored_loss(model: Model) -> Any:
    """Return the loss that nncore stored in the model's metadata, None if there is none."""
    for entry in model.metadata_props:
        if model.producer_name == "nncore" and entry.key == "architecture":
            try:
                loss = json.loads(entry.value)["loss"]
                name, *threshold = [loss] if isinstance(loss, str) else loss
                # Others are the user's own, or a newer version's.
                if name not in LOSSES:
                    return None
                return (name, float(*threshold)) if threshold else name
            except (LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
                raise ValueError(f"its metadata hold no architecture: {error}") from error
    return None


@dataclass(slots=True)
class _Constant:
    tensor: Any  # onnx.TensorProto
    values: Array | None = None
    is_weight: bool = False


class _Graph:
    """The graph of a model: which node computes a value, and which values are constant."""

    def __init__(self, model: Model, directory: str | None) -> None:
        for opset in model.opset_import:
            if opset.domain in _DOMAINS and opset.version < _OLDEST_OPSET:
                raise ValueError(f"its opset {opset.version} is older than {_OLDEST_OPSET}")
        if any(function.domain in _DOMAINS for function in model.functions):
            raise ValueError("it redefines operators of ONNX")
        self._reader = TensorReader(directory)
        self._constants = {tensor.name: _Constant(tensor) for tensor in model.graph.initializer}
        self._inputs = {value.name: value for value in model.graph.input}
        self._outputs = {value.name: value for value in model.graph.output}
        self._nodes: dict[str, Node] = {}
        for node in model.graph.node:
            kind, first = _kind(node), node.output[0] if node.output else ""
            for name in filter(None, node.output):
                if name in self._nodes or name in self._constants or name in self._inputs:
                    raise ValueError(f"{_where(node)} computes {name!r}, which exists already")
                self._nodes[name] = node
            # Exporters store equal biases once. A node follows those that compute its inputs.
            if kind == "Constant":
                self._constants[first] = _Constant(_attribute(node, "value", "t", None))
            elif kind == "Identity" and node.input[:1] and node.input[0] in self._constants:
                self._constants[first] = self._constants[node.input[0]]

    def output_name(self, output: str | None) -> str:
        """Return the output of that name, by default the only one of real numbers."""
        names: list[str] = list(self._outputs)
        if output is None and len(names) > 1:
            names = [name for name in names if _is_real(self._outputs[name].type)]
        if output is None and len(names) == 1:
            return names[0]
        if output is None or output not in names:
            raise ValueError(f"output must be one of {list(self._outputs)}, got {output!r}")
        return output

    def layers(self, name: str) -> ImportedLayers:
        """Return what happens to the input until it becomes the output of that name."""
        nodes: list[Node] = []
        steps: list[Step] = []
        seen: set[str] = set()
        while name in self._nodes:
            node = self._nodes[name]
            if name in seen:
                raise ValueError(f"{_where(node)} is part of a cycle")
            reader = _READERS.get(_kind(node))
            if reader is None or node.output[0] != name:
                raise ValueError(f"{_where(node)} is no part of a layer of nncore")
            seen.add(name)
            name, step = reader(self, node)
            nodes.append(node)
            steps.append(step)
        if name not in self._inputs or name in self._constants:
            raise ValueError(f"{name!r} is neither computed by a node nor an input")
        layers = ImportedLayers()
        self._expect_columns(layers, name, [_kind(node) for node in reversed(nodes)])
        for step in reversed(steps):
            step(layers)
        return layers

    def _expect_columns(self, layers: ImportedLayers, name: str, kinds: list[str]) -> None:
        """Note how many columns the input has, after it was flattened."""
        tensor = self._inputs[name].type.tensor_type
        if not tensor.HasField("shape"):
            return
        shape = [size.dim_value for size in tensor.shape.dim]
        first = next((kind for kind in kinds if kind in (*_FLATTENING, "Gemm", "MatMul")), None)
        if len(shape) != 2 and not (first in _FLATTENING and len(shape) <= _MOST_DIMENSIONS):
            raise ValueError(f"input {name!r} must be a matrix, got {len(shape)} dimensions")
        columns = math.prod(shape[1:])
        if columns > 0:  # 0 stands for any size
            layers.expect_columns(f"input {name!r}", columns)

    def node(self, name: str, kind: str) -> Node | None:
        """Return the node that computes a value if it is of that kind."""
        node = self._nodes.get(name)
        return node if node is not None and _kind(node) == kind else None

    def is_constant(self, name: str) -> bool:
        """Return whether the model stores the value."""
        return name in self._constants

    def constant(self, node: Node, i: int) -> Array:
        """Return the values of input i of a node."""
        name = _input(node, i)
        if name not in self._constants:
            raise ValueError(f"{_where(node)} must have a constant as input {i}, got {name!r}")
        constant = self._constants[name]
        if constant.values is None:
            constant.values = self._reader.read(constant.tensor)
        return constant.values

    def weights(self, node: Node, i: int) -> Array:
        """Return the matrix that is input i of a node and of no other one."""
        values = self.constant(node, i)
        constant = self._constants[_input(node, i)]
        if constant.is_weight:
            raise ValueError(f"{_where(node)} shares its weights with another node")
        constant.is_weight = True
        return values


# One function for each operator. It returns the name of the value that the node is applied to, and
# the step to take in the order of the data.


def _input(node: Node, i: int) -> str:
    """Return the name of an input, "" if there is none."""
    return node.input[i] if i < len(node.input) else ""


def _kind(node: Node) -> str:
    """Return the operator, with its domain unless it is ONNX's own."""
    return node.op_type if node.domain in _DOMAINS else f"{node.domain}.{node.op_type}"


def _where(node: Node) -> str:
    name = node.name or next(iter(node.output), "")
    return f"node {name!r} ({_kind(node)})"


def _attribute(node: Node, name: str, field: str, default: Any) -> Any:
    """Return an attribute that is a float, int, string or tensor, for the field f, i, s or t."""
    for attribute in node.attribute:
        if attribute.name == name:
            if not attribute.HasField(field):
                raise ValueError(f"{_where(node)} has an attribute {name!r} of the wrong type")
            return getattr(attribute, field)
    if default is None:
        raise ValueError(f"{_where(node)} must have an attribute {name!r}")
    return default


def _is_real(kind: Any) -> bool:
    """Return whether a type is a tensor of floats, or the sequence that ZipMap makes of one."""
    return kind.HasField("sequence_type") or kind.tensor_type.elem_type in _DTYPES


def _nothing(graph: _Graph, node: Node) -> tuple[str, Step]:
    return _input(node, 0), lambda layers: None


def _gemm(graph: _Graph, node: Node) -> tuple[str, Step]:
    where = _where(node)
    if _attribute(node, "transA", "i", 0):
        raise ValueError(f"{where} transposes its input")
    W = graph.weights(node, 1)
    if _attribute(node, "transB", "i", 0):
        W = W.T
    b = graph.constant(node, 2) if _input(node, 2) else None
    W = _scaled(W, _attribute(node, "alpha", "f", 1.0))

    def step(layers: ImportedLayers) -> None:
        layers.multiply(where, W)
        if b is not None:
            layers.add(where, _scaled(b, _attribute(node, "beta", "f", 1.0)))

    return _input(node, 0), step


def _scaled(values: Array, factor: float) -> Array:
    if factor == 1:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: Array = values * values.dtype.type(factor)
    return scaled


def _mat_mul(graph: _Graph, node: Node) -> tuple[str, Step]:
    where, W = _where(node), graph.weights(node, 1)
    return _input(node, 0), lambda layers: layers.multiply(where, W)


def _add(graph: _Graph, node: Node) -> tuple[str, Step]:
    where = _where(node)
    i = 0 if graph.is_constant(_input(node, 0)) else 1
    b = graph.constant(node, i)
    return _input(node, 1 - i), lambda layers: layers.add(where, b)


def _activation(graph: _Graph, node: Node) -> tuple[str, Step]:
    where, activation = _where(node), _ACTIVATIONS[node.op_type]
    slope = None
    if name := OPERATORS[activation].slope:
        # The shortest decimal number that is the attribute in float32.
        slope = float(str(np.float32(_attribute(node, name, "f", SLOPES[activation]))))
    if activation is Activation.SOFTMAX and _attribute(node, "axis", "i", -1) not in (1, -1):
        raise ValueError(f"{where} must have axis 1")
    return _input(node, 0), lambda layers: layers.activate(where, activation, slope)


def _gelu(graph: _Graph, node: Node) -> tuple[str, Step]:
    where, form = _where(node), _attribute(node, "approximate", "s", b"none")
    forms = {b"none": Activation.GELU, b"tanh": Activation.GELU_TANH}
    if form not in forms:
        raise ValueError(f"{where} has approximate {form!r}, and nncore has only {list(forms)}")
    return _input(node, 0), lambda layers: layers.activate(where, forms[form])


def _silu(graph: _Graph, node: Node) -> tuple[str, Step]:
    """Mul(z, sigmoid(z))."""
    where = _where(node)
    for i in (0, 1):
        z, sigmoid = _input(node, i), graph.node(_input(node, 1 - i), "Sigmoid")
        if sigmoid is not None and _input(sigmoid, 0) == z:
            return z, lambda layers: layers.activate(where, Activation.SILU)
    raise ValueError(f"{where} is no part of a layer of nncore")


def _linear_softplus(graph: _Graph, node: Node) -> tuple[str, Step]:
    """Where(z > limit, z, softplus(z)), as PyTorch writes it."""
    where, z = _where(node), _input(node, 1)
    greater = graph.node(_input(node, 0), "Greater")
    softplus = graph.node(_input(node, 2), "Softplus")
    if (
        greater is None
        or softplus is None
        or _input(greater, 0) != z
        or _input(softplus, 0) != z
        or not (graph.constant(greater, 1) >= _LINEAR_SOFTPLUS).all()
    ):
        raise ValueError(f"{where} is no part of a layer of nncore")
    return z, lambda layers: layers.activate(where, Activation.SOFTPLUS)


def _second_of_two(graph: _Graph, node: Node) -> tuple[str, Step]:
    """Concat(1 - p, p), the probabilities of two classes."""
    where, p = _where(node), _input(node, 1)
    rest = graph.node(_input(node, 0), "Sub")
    if (
        rest is None
        or _attribute(node, "axis", "i", None) not in (1, -1)
        or len(node.input) != 2
        or _input(rest, 1) != p
        or not (graph.constant(rest, 0) == 1).all()
    ):
        raise ValueError(f"{where} is no part of a layer of nncore")
    return p, lambda layers: layers.expect_columns(where, 1)


def _cast(graph: _Graph, node: Node) -> tuple[str, Step]:
    where, to = _where(node), _attribute(node, "to", "i", None)
    if to not in _DTYPES:
        raise ValueError(f"{where} must cast to float32 or float64, got type number {to}")
    return _input(node, 0), lambda layers: layers.expect_dtype(where, _DTYPES[to])


def _dropout(graph: _Graph, node: Node) -> tuple[str, Step]:
    if _input(node, 2) and graph.constant(node, 2).any():
        raise ValueError(f"{_where(node)} is in training mode")
    return _nothing(graph, node)


def _flatten(graph: _Graph, node: Node) -> tuple[str, Step]:
    axis = _attribute(node, "axis", "i", 1)
    if axis != 1:
        raise ValueError(f"{_where(node)} must have axis 1, got {axis}")
    return _nothing(graph, node)


def _reshape(graph: _Graph, node: Node) -> tuple[str, Step]:
    """Rows stay rows if the shape gives the number of columns or keeps that of the rows."""
    where, shape = _where(node), graph.constant(node, 1)
    keeps_rows = shape.shape == (2,) and shape[0] == 0 and not _attribute(node, "allowzero", "i", 0)
    if keeps_rows and shape[1] == -1:
        return _nothing(graph, node)
    if shape.shape != (2,) or shape.dtype.kind != "i" or shape[1] < 1:
        raise ValueError(f"{where} must keep rows, got shape {shape.reshape(-1).tolist()[:9]}")
    columns = int(shape[1])
    return _input(node, 0), lambda layers: layers.expect_columns(where, columns)


_READERS: dict[str, Callable[[_Graph, Node], tuple[str, Step]]] = {
    "Add": _add,
    "Cast": _cast,
    "Concat": _second_of_two,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": _nothing,
    "MatMul": _mat_mul,
    "Mul": _silu,
    "Reshape": _reshape,
    "Where": _linear_softplus,
    "ai.onnx.ml.ZipMap": _nothing,
    **dict.fromkeys(_ACTIVATIONS, _activation),
}
