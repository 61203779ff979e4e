"""What ONNX calls each activation, and the import of onnx, which is optional."""

from __future__ import annotations

from typing import Any, NamedTuple

from .enums import Activation

__all__ = ["LOWEST_OPSET", "OPERATORS", "Operator", "import_onnx"]

# From this version on Softmax and the other operators mean what they mean today.
LOWEST_OPSET = 13


class Operator(NamedTuple):
    """An operator of ONNX with its attributes."""

    name: str
    attributes: dict[str, Any] = {}  # noqa: RUF012 - never changed


# All but the identity, which needs no node.
OPERATORS: dict[Activation, Operator] = {
    Activation.SIGMOID: Operator("Sigmoid"),
    Activation.TANH: Operator("Tanh"),
    Activation.RELU: Operator("Relu"),
    Activation.LEAKY_RELU: Operator("LeakyRelu", {"alpha": 0.01}),
    Activation.ELU: Operator("Elu", {"alpha": 1.0}),
    Activation.SOFTPLUS: Operator("Softplus"),
    Activation.EXPONENTIAL: Operator("Exp"),
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
