"""Converters of the estimators for skl2onnx, so that it can export pipelines with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy.typing as npt

from ..onnx import Graph, lowest_opset
from ._classifier import MLPClassifier
from ._onnx import EstimatorOutputs
from ._regressor import MLPRegressor

__all__ = ["register_when_imported"]

Array = npt.NDArray[Any]

_PACKAGE = "skl2onnx"


def register_when_imported() -> None:
    """Register the converters with skl2onnx, now or as soon as somebody imports it.

    Importing it here would take a second, and most programs do not need it.
    """
    if _PACKAGE in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds skl2onnx as the other finders do, and registers the converters after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PACKAGE:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register()


def _register() -> None:
    from skl2onnx import update_registered_converter

    update_registered_converter(
        MLPClassifier,
        "NncoreMLPClassifier",
        _set_output_types,
        _convert,
        # What skl2onnx itself does after every classifier.
        options={
            "nocl": [False, True],
            "output_class_labels": [False, True],
            "zipmap": [True, False, "columns"],
        },
    )
    update_registered_converter(MLPRegressor, "NncoreMLPRegressor", _set_output_types, _convert)


def _outputs_of(operator: Any) -> EstimatorOutputs:
    """Return the outputs of an operator's estimator, in float64 if its input is."""
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.common.utils_classifier import get_label_classes

    estimator = operator.raw_operator
    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    classes = None
    if isinstance(estimator, MLPClassifier):
        classes = get_label_classes(operator.scope_inst, estimator)
    return EstimatorOutputs(estimator, "float64" if is_double else "float32", classes)


def _set_output_types(operator: Any) -> None:
    from skl2onnx.common import data_types
    from skl2onnx.common.utils import check_input_and_output_numbers

    types = list(_outputs_of(operator).types.values())
    check_input_and_output_numbers(
        operator, input_count_range=1, output_count_range=[len(types), len(types)]
    )
    kinds = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "object": data_types.StringTensorType,
    }
    n = operator.inputs[0].get_first_dimension()
    for variable, (dtype, columns) in zip(operator.outputs, types, strict=True):
        variable.set_type(kinds[dtype.name]([n] if columns is None else [n, columns]))


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from onnx.helper import np_dtype_to_tensor_dtype

    outputs = _outputs_of(operator)
    lowest = lowest_opset(outputs.architecture)
    if container.target_opset < lowest:
        raise ValueError(
            f"target_opset must be at least {lowest} for {outputs.architecture.given_activations}, "
            f"got {container.target_opset}"
        )
    graph = _ContainerGraph(scope, container)
    # Inputs may be integers.
    A0, number = graph.unique("A.0"), np_dtype_to_tensor_dtype(outputs.architecture.dtype)
    graph.node("Cast", [operator.inputs[0].full_name], A0, to=number)
    outputs.add(graph, A0, operator.output_full_names)


class _ContainerGraph(Graph):
    """A graph that skl2onnx constructs."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def unique(self, name: str) -> str:
        unique: str = self._scope.get_unique_variable_name(name)
        return unique

    def constant(self, name: str, values: Array) -> str:
        from onnx.helper import np_dtype_to_tensor_dtype

        name = self.unique(name)
        content: Any = values.ravel()
        if values.dtype == object:
            content = [text.encode() for text in content]
        kind = np_dtype_to_tensor_dtype(values.dtype)
        self._container.add_initializer(name, kind, values.shape, content)
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        name = self._scope.get_unique_operator_name(operator)
        self._container.add_node(operator, list(inputs), [output], name=name, **attributes)
