"""Runtimes of ONNX models, and how far their outputs are from others."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx_reference = pytest.importorskip("onnx.reference")
onnxruntime = pytest.importorskip("onnxruntime")

Array = npt.NDArray[Any]


def run_onnxruntime(model: Any, X: Array, name: str = "X") -> list[Array]:
    """Return the outputs for the input of that name."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return [np.asarray(output) for output in session.run(None, {name: X})]


def run_reference(model: Any, X: Array, name: str = "X") -> list[Array]:
    outputs = onnx_reference.ReferenceEvaluator(model).run(None, {name: X})
    return [np.asarray(output) for output in outputs]


def difference(actual: Array, expected: Array) -> float:
    """Return the largest difference, relative to the largest output."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    return float(np.abs(actual - expected).max() / np.abs(expected).max())
