"""Estimators as ONNX models, with the outputs that skl2onnx gives scikit-learn's estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from .._files import FilePath
from ..enums import Activation
from ..onnx import Graph, ModelGraph, add_layers, as_exported, save_model
from ..typing import DType

if TYPE_CHECKING:
    import onnx

__all__ = ["EstimatorOutputs", "OnnxMixin"]

Array = npt.NDArray[Any]

_INT64 = np.dtype(np.int64)
_INT64_NUMBER = 7  # onnx.TensorProto.INT64


class EstimatorOutputs:
    """The network of a fitted estimator, and what turns its outputs into those of a model.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    dtype : {"float32", "float64"}, optional
        Of the model's input; by default that of the network.
    classes : ndarray, optional
        The labels instead of `classes_`.

    Attributes
    ----------
    architecture : Architecture
    types : dict of str to (numpy.dtype, int or None)
        The names of the outputs, each with its type and number of columns, None for a vector.
    """

    def __init__(self, estimator: Any, dtype: DType | None, classes: Array | None = None) -> None:
        network = estimator.network_
        self.architecture, self._parameters = as_exported(
            network.architecture, network.copy_parameters(), dtype
        )
        self._kind = estimator._target_kind()
        real, n = self.architecture.dtype, self.architecture.sizes[-1]
        self.types: dict[str, tuple[np.dtype[Any], int | None]]
        if self._kind == "continuous":
            self.types = {"variable": (real, n)}
        elif self._kind == "multilabel-indicator":
            self.types = {"label": (_INT64, n), "probabilities": (real, n)}
        else:
            # A single class is the label of both probabilities, as in predict and predict_proba.
            self._labels = np.resize(
                _as_labels(estimator.classes_ if classes is None else classes), max(2, n)
            )
            self.types = {
                "label": (self._labels.dtype, None),
                "probabilities": (real, self._labels.size),
            }

    def add(self, graph: Graph, input_name: str, names: Sequence[str]) -> None:
        """Add the network and the outputs to a graph, under names in the order of `types`."""
        if self._kind == "continuous":
            self._add_layers(graph, input_name, names[0])
        elif self._kind == "multilabel-indicator":
            self._add_layers(graph, input_name, names[1])
            self._add_indicators(graph, *names)
        else:
            scores = self._add_probabilities(graph, input_name, names[1])
            index = graph.unique("index")
            graph.node("ArgMax", [scores], index, axis=1, keepdims=0)
            graph.node("Gather", [graph.constant("labels", self._labels), index], names[0])

    def _add_layers(self, graph: Graph, input_name: str, output_name: str) -> None:
        add_layers(graph, self.architecture, self._parameters, input_name, output_name)

    def _add_indicators(self, graph: Graph, label: str, probabilities: str) -> None:
        half = graph.constant("half", np.array(0.5, self.architecture.dtype))
        above = graph.unique("above")
        graph.node("Greater", [probabilities, half], above)
        graph.node("Cast", [above], label, to=_INT64_NUMBER)

    def _add_probabilities(self, graph: Graph, input_name: str, probabilities: str) -> str:
        """Add the probabilities, and return the name of what is largest for the predicted class."""
        dtype, n = self.architecture.dtype, self.architecture.sizes[-1]
        if n == 1:
            one = graph.constant("one", np.array(1, dtype))
            p, rest = graph.unique("p"), graph.unique("rest")
            self._add_layers(graph, input_name, p)
            graph.node("Sub", [one, p], rest)
            graph.node("Concat", [rest, p], probabilities, axis=1)
        elif self.architecture.activations[-1] is Activation.SOFTMAX:
            self._add_layers(graph, input_name, probabilities)
        else:
            axes = graph.constant("axes", np.array([1]))
            scores, total = graph.unique("scores"), graph.unique("total")
            self._add_layers(graph, input_name, scores)
            graph.node("ReduceSum", [scores, axes], total)
            graph.node("Div", [scores, total], probabilities)
            return scores
        return probabilities


def _as_labels(classes: Array) -> Array:
    """Return classes in the types that ONNX's labels have, int64 or strings."""
    if classes.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):
            numbers = classes.astype(_INT64)
        if (numbers == classes).all():
            return numbers
    elif all(isinstance(label, str) for label in classes):
        return classes.astype(object)
    raise ValueError(f"the classes of an ONNX model must be integers or strings, got {classes}")


class OnnxMixin(BaseEstimator, ABC):
    """The part of `BaseMLP` that exports to ONNX."""

    @abstractmethod
    def _target_kind(self) -> str:
        """Return scikit-learn's type of the targets."""

    def to_onnx(
        self, *, opset: int | None = None, input_name: str = "X", dtype: DType | None = None
    ) -> onnx.ModelProto:
        """Return the fitted estimator as an ONNX model (nncore's).

        The outputs are those of skl2onnx without ZipMap. A classifier has ``label``, what
        ``predict`` returns, as int64 or strings, and ``probabilities``, what ``predict_proba``
        returns. A regressor has ``variable``, of shape (batch, n_outputs).

        Parameters
        ----------
        opset, input_name : optional
            As in `nncore.Network.to_onnx`.
        dtype : {"float32", "float64"}, optional
            Of the input and of all arithmetic; by default that of the parameters.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        ImportError
            onnx is not installed.
        NotFittedError
            The estimator is not fitted.
        TypeError, ValueError
            An argument is invalid, or the classes are neither integers nor strings.

        Examples
        --------
        >>> import onnx
        >>> from nncore.sklearn import MLPClassifier
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = MLPClassifier(random_state=0, max_iter=500).fit(X, y)
        >>> model = classifier.to_onnx(dtype="float32")
        >>> [output.name for output in model.graph.output]
        ['label', 'probabilities']
        """
        outputs = EstimatorOutputs(self, dtype)
        graph = ModelGraph(opset, outputs.architecture, [input_name, *outputs.types])
        outputs.add(graph, input_name, list(outputs.types))
        return graph.model(input_name, outputs.types)

    def save_onnx(
        self,
        path: FilePath,
        *,
        opset: int | None = None,
        input_name: str = "X",
        dtype: DType | None = None,
    ) -> None:
        """Write the fitted estimator to an ONNX file, as `to_onnx` describes it (nncore's).

        Parameters
        ----------
        path : str or path
            As in `nncore.Network.save`.
        opset, input_name, dtype
            As in `to_onnx`.

        Raises
        ------
        OSError
            The file could not be written; the old one, if any, is unchanged.
        ImportError, NotFittedError, TypeError, ValueError
            As in `to_onnx`.
        """
        save_model(path, self.to_onnx(opset=opset, input_name=input_name, dtype=dtype))
