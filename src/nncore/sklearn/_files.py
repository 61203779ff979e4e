"""Estimators in files: the network, which `nncore.load` reads too, and what the estimator adds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from .._arrays import as_vector
from .._checks import as_integer
from .._files import FilePath, as_path, refused
from ..network import Network
from ..persistence import Stored, read_stored, save
from ..schedules import MOST_STEPS
from ._architecture import ACTIVATIONS, OUTPUT_ACTIVATIONS, hidden_activations
from ._solvers import StochasticSolver

__all__ = ["FilesMixin"]

Array = npt.NDArray[Any]

# The attributes of a fitted estimator, besides its network, with the types of their values.
_ATTRIBUTES: dict[str, type | tuple[type, ...]] = {
    "n_features_in_": int,
    "feature_names_in_": np.ndarray,
    "classes_": np.ndarray,
    "n_outputs_": int,
    "n_layers_": int,
    "out_activation_": str,
    "n_iter_": int,
    "t_": int,
    "loss_": float,
    "best_loss_": (float, type(None)),
    "loss_curve_": list,
    "validation_scores_": (list, type(None)),
    "best_validation_score_": (float, type(None)),
    "validation_loss_curve_": (list, type(None)),
    "_no_improvement_count": int,
}


class FilesMixin(BaseEstimator, ABC):
    """The part of `BaseMLP` that saves and loads."""

    # What a file calls the class.
    _kind: ClassVar[str]

    @abstractmethod
    def _label_types(self) -> dict[str, Any]:
        """Return what a file must hold about labels besides the classes."""

    @abstractmethod
    def _set_label_types(self, types: dict[str, Any]) -> None:
        """Take this over, and check the classes."""

    def save(self, path: FilePath) -> None:
        """Write the fitted estimator to a file, for ``load`` (nncore's).

        The file holds the parameters, the network, the attributes and what ``partial_fit`` and warm
        starts need. `nncore.load` returns the network in it.

        Parameters
        ----------
        path : str or path
            As in `nncore.Network.save`.

        Raises
        ------
        OSError
            The file could not be written; the old one, if any, is unchanged.
        TypeError
            A parameter or the classes cannot be stored: a callable, a random generator, or labels
            that are neither numbers nor strings. `callbacks` are left out.
        ValueError
            The estimator is not fitted, or a parameter of the network is not finite.
        """
        network = self.network_
        values = {
            "kind": self._kind,
            "parameters": self._storable_parameters(),
            "attributes": {name: vars(self)[name] for name in _ATTRIBUTES if name in vars(self)},
            "labels": self._label_types(),
        }
        solver = vars(self).get("_optimizer")
        if solver is not None and solver.adapt(network.architecture):
            values["solver"] = solver.as_values()
        # Usually the network's own.
        if self.early_stopping and not np.array_equal(self._best_parameters, network.parameters):
            values["best_parameters"] = self._best_parameters
        sections = {"estimator": values}
        save(path, Stored(network.architecture, network.parameters, sections=sections))

    def _storable_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.get_params(deep=False)
        parameters.pop("callbacks", None)
        if parameters["dtype"] is not None:
            parameters["dtype"] = np.dtype(parameters["dtype"]).name
        for name, value in parameters.items():
            if callable(value) or isinstance(value, np.random.RandomState):
                raise TypeError(
                    f"{name} cannot be stored in a file, got {value!r}; set_params({name}=None) "
                    "makes the estimator storable"
                )
        return parameters

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Return the fitted estimator in a file that ``save`` wrote (nncore's).

        Loading executes no code. Predictions and later calls of ``partial_fit`` or of ``fit`` with
        ``warm_start=True`` give the same bits as those of the saved estimator.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        MLPClassifier or MLPRegressor

        Raises
        ------
        OSError
            The file could not be read.
        ModuleNotFoundError
            safetensors is not installed.
        ValueError
            The file is damaged, holds something else, or was written by a newer version of nncore.
        """
        stored = read_stored(path)
        values = stored.sections.get("estimator", {"kind": "Network"})
        with refused(as_path(path)):
            kind = values.pop("kind")
            if kind != cls._kind:
                raise ValueError(f"it holds a {kind}, and {cls._kind}.load was called")
            estimator = cls(**values.pop("parameters"))._checked()
            estimator._restore(stored, **values)
            return estimator

    def _checked(self) -> Self:
        """Return the estimator itself if its parameters are valid."""
        self._validate_params()
        return self

    def _restore(
        self,
        stored: Stored,
        attributes: dict[str, Any],
        labels: dict[str, Any],
        solver: dict[str, Any] | None = None,
        best_parameters: Array | None = None,
    ) -> None:
        """Take over what a file holds besides the parameters, and check it."""
        for name, value in attributes.items():
            kinds = _ATTRIBUTES[name]
            if not isinstance(value, kinds):
                raise TypeError(f"{name} has the wrong type {type(value).__name__}")
            if kinds is int:
                as_integer(name, value, low=0, high=MOST_STEPS)
            if isinstance(value, list) and not all(isinstance(item, float) for item in value):
                raise TypeError(f"{name} must hold floats")
            setattr(self, name, value)
        self._set_label_types(labels)
        network = Network.from_architecture(stored.architecture)
        network.parameters = stored.parameters
        hidden = hidden_activations(self.activation, len(network.weights) - 1)
        activation = (
            *(ACTIVATIONS[name] for name in hidden),
            OUTPUT_ACTIVATIONS[self.out_activation_],
        )
        shape = self.n_features_in_, self.n_outputs_, self.n_layers_
        if shape != (network.sizes[0], network.sizes[-1], len(network.sizes)) or (
            activation,
            self._core_loss(),
        ) != (network.activation, network.loss):
            raise ValueError("its estimator does not fit its network")
        self._adopt(network)
        if "loss_curve_" in attributes:  # not after L-BFGS
            best = stored.parameters if best_parameters is None else best_parameters
            n = stored.parameters.size
            self._best_parameters = as_vector("best_parameters", best, n, network.dtype)
        if solver is not None:
            given = type(self)(**solver.pop("parameters"))._checked()
            self._optimizer = StochasticSolver(given)
            self._optimizer.resume(stored.architecture, **solver)
