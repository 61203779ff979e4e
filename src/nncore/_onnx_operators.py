"""What ONNX calls each activation, and the import of onnx, which is optional."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .enums import Activation

__all__ = ["LOWEST_OPSET", "OPERATORS", "Operator", "import_onnx"]

# From this version on Softmax and the other operators mean what they mean today.
LOWEST_OPSET = 13


class Operator(NamedTuple):
    """An operator of ONNX that computes σ.

    Attributes
    ----------
    name : str
    attributes : dict
    slope : str
        The name of the attribute that is σ's slope, "" if it has none.
    opset : int
        The version of ONNX's operators that it came with.
    times_z : bool
        Whether σ(z) is z times what the operator computes.
    """

    name: str
    attributes: Mapping[str, Any] = MappingProxyType({})
    slope: str = ""
    opset: int = LOWEST_OPSET
    times_z: bool = False


# All but the identity, which needs no node.
OPERATORS: dict[Activation, Operator] = {
    Activation.SIGMOID: Operator("Sigmoid"),
    Activation.TANH: Operator("Tanh"),
    Activation.RELU: Operator("Relu"),
    Activation.LEAKY_RELU: Operator("LeakyRelu", slope="alpha"),
    Activation.ELU: Operator("Elu", slope="alpha"),
    Activation.SOFTPLUS: Operator("Softplus"),
    Activation.EXPONENTIAL: Operator("Exp"),
    # Swish, from opset 24 on, is one node, but few runtimes have it yet.
    Activation.SILU: Operator("Sigmoid", times_z=True),
    Activation.GELU: Operator("Gelu", {"approximate": "none"}, opset=20),
    Activation.GELU_TANH: Operator("Gelu", {"approximate": "tanh"}, opset=20),
    Activation.SOFTMAX: Operator("Softmax", {"axis": 1}),
}


def import_onnx() -> Any:
    """Return the module onnx.

    Raises
    ------
    ImportError
        It is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("ONNX models need onnx: pip install 'nncore[onnx]'") from error
    return onnx
