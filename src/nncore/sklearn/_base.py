"""The base class of both estimators: interface, network, fitting and predicting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .._arrays import first_nonfinite
from .._checks import as_dropout
from .._layout import SOURCES
from ..distributed import Alone, as_ranks
from ..network import Network
from ..typing import LossName
from ._architecture import (
    ACTIVATIONS,
    bare_network,
    hidden_activations,
    hidden_sizes,
    network_of,
)
from ._examples import TrainingSet, outputs_of
from ._files import FilesMixin
from ._fit import FitMixin
from ._onnx import OnnxMixin
from ._reports import CallbackSupportMixin, Reports
from ._validation import ValidationSet, split

__all__ = ["FLOATS", "STOCHASTIC", "BaseMLP"]

Array = npt.NDArray[Any]

STOCHASTIC = ("sgd", "adam")

FLOATS = (np.float64, np.float32)


class BaseMLP(FitMixin, FilesMixin, OnnxMixin, CallbackSupportMixin, BaseEstimator):
    """An estimator whose `coefs_` and `intercepts_` are views of a network's parameters."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), "array-like"],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "gradient_clipping": [Interval(Real, 0, None, closed="neither"), None],
        "scoring": [str, callable, None],
        "callbacks": [list, tuple, None],
        "dtype": [
            StrOptions({"float32", "float64"}),
            Options(type, {np.float32, np.float64}),
            None,
        ],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
    }

    # Differences between the two estimators.

    @abstractmethod
    def _check_targets(
        self, X: Any, y: Any, *, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array]:
        """Return X, the targets for the core, and y for a score."""

    @abstractmethod
    def _check_validation_targets(self, y: Any) -> tuple[Array, Array]:
        """Return the targets of a validation set for the core, and y for a score."""

    @abstractmethod
    def _output_activation(self) -> str:
        """Return scikit-learn's name of the output layer's activation."""

    @abstractmethod
    def _core_loss(self) -> LossName:
        """Return the core's name of the loss."""

    @abstractmethod
    def _decode(self, outputs: Array) -> Array:
        """Return the predictions for outputs."""

    def _class_factors(self, y: Array, incremental: bool) -> Array | None:
        """Return the weights of the examples by their class."""
        return None

    # The network.

    def _signature(self) -> tuple[Any, ...]:
        activation = self.activation
        if not isinstance(activation, str):
            activation = tuple(activation)
        return activation, self.out_activation_, self.loss

    def _current_network(self, *, adopt: bool = False) -> Network:
        """Return a network with the current values of `coefs_` and `intercepts_`.

        These are views of the network's parameters. If the user has assigned other arrays, the
        network is a new one, which `adopt` makes the estimator's own.
        """
        network: Network | None = self.__dict__.get("_network")
        if (
            network is not None
            and self.__dict__.get("_network_signature") == self._signature()
            and len(self.coefs_) == len(network.weights)
            and all(W is own for W, own in zip(self.coefs_, network.weights, strict=True))
            and all(b is own for b, own in zip(self.intercepts_, network.biases, strict=True))
        ):
            return network
        hidden = hidden_activations(self.activation, len(self.coefs_) - 1)
        network = network_of(
            self.coefs_, self.intercepts_, hidden, self.out_activation_, self._core_loss()
        )
        if adopt:
            self._adopt(network)
        return network

    @property
    def network_(self) -> Network:
        """nncore's: the fitted `nncore.Network`; `coefs_` and `intercepts_` are its parameters.

        It is no copy: training it or writing to its parameters changes predictions. ``partial_fit``
        and warm starts continue with it; any other fit replaces it.
        """
        check_is_fitted(self, "coefs_")
        return self._current_network(adopt=True)

    def _adopt(self, network: Network) -> None:
        self._network = network
        self._network_signature = self._signature()
        self.coefs_ = list(network.weights)
        self.intercepts_ = list(network.biases)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_network", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "coefs_" in state and "out_activation_" in state:
            self._current_network(adopt=True)

    # Fitting.

    def _new_network(self, n_features: int, n_outputs: int, dtype: np.dtype[Any]) -> None:
        """Set the attributes of a first fit, and draw the parameters."""
        sizes = [n_features, *hidden_sizes(self.hidden_layer_sizes), n_outputs]
        hidden = hidden_activations(self.activation, len(sizes) - 2)
        self.n_iter_ = 0
        self.t_ = 0
        self.n_outputs_ = n_outputs
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._output_activation()

        # A single name determines the bound of the output layer, too.
        factors = [*hidden, hidden[-1] if hidden else self.activation]
        kept = np.float64 if self.dtype is None and self.solver == "lbfgs" else dtype
        network = bare_network(
            sizes, hidden, self.out_activation_, self._core_loss(), np.dtype(kept)
        )
        for W, b, name in zip(network.weights, network.biases, factors, strict=True):
            bound = np.sqrt((2.0 if name == "logistic" else 6.0) / sum(W.shape))
            W[...] = self._random_state.uniform(-bound, bound, W.shape).astype(dtype)
            b[...] = self._random_state.uniform(-bound, bound, b.shape).astype(dtype)
        self._adopt(network)

        if self.solver in STOCHASTIC:
            self._best_parameters = network.parameters.copy()
            self.loss_curve_ = []
            self._no_improvement_count = 0
            self.best_loss_ = None if self.early_stopping else np.inf
            self.validation_scores_ = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None
            self.validation_loss_curve_ = None

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        incremental: bool = False,
        validation: tuple[Any, Any, Any] = (None, None, None),
    ) -> Any:
        ranks = as_ranks(None)
        with self._unchanged_without_memory(), ranks.together():
            return self._fit_on(ranks, X, y, sample_weight, incremental, validation)

    @contextmanager
    def _unchanged_without_memory(self) -> Iterator[None]:
        """Restore all attributes if MemoryError ends the block, unless the network made steps."""
        before = dict(vars(self))
        network, solver = before.get("_network"), before.get("_optimizer")
        n_steps = 0 if solver is None else solver.step_count
        try:
            yield
        except MemoryError:
            now = vars(self)
            made_steps = "_optimizer" in now and (
                now["_optimizer"].step_count > (n_steps if now["_optimizer"] is solver else 0)
            )
            if now.get("_network") is not network or not made_steps:
                self.__dict__ = before
            raise

    def _fit_on(
        self,
        ranks: Alone,
        X: Any,
        y: Any,
        sample_weight: Any,
        incremental: bool,
        validation: tuple[Any, Any, Any],
    ) -> Any:
        n_hidden = len(hidden_sizes(self.hidden_layer_sizes))
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, Y, labels = self._check_targets(X, y, incremental=incremental, reset=first)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
        factors = self._class_factors(labels, incremental)
        if factors is not None:
            sample_weight = factors if sample_weight is None else sample_weight * factors
        dropout = as_dropout(self.dropout, n_hidden)
        if self.solver == "lbfgs" and (any(dropout) or self.gradient_clipping is not None):
            raise ValueError(
                "dropout and gradient_clipping need solver='sgd' or 'adam', got solver='lbfgs'"
            )
        if self.solver == "lbfgs" and any(part is not None for part in validation):
            raise ValueError("X_val and y_val need solver='sgd' or 'adam', got solver='lbfgs'")
        if self.solver == "lbfgs" and ranks.size > 1:
            raise ValueError("several ranks need solver='sgd' or 'adam', got solver='lbfgs'")
        if ranks.n_shards > 1:
            raise ValueError("estimators need the same rows on all ranks, got sharded=True")
        if scipy.sparse.issparse(X):
            X = X.tocsr()

        self.n_outputs_ = self._n_outputs(Y)
        self._random_state = check_random_state(self.random_state)
        if self.random_state is None and ranks.size > 1:
            seed = ranks.on_first(lambda: self._random_state.randint(2**31 - 1))
            self._random_state = np.random.RandomState(seed)
        if first:
            dtype = X.dtype if self.dtype is None else np.dtype(self.dtype)
            self._new_network(X.shape[1], self.n_outputs_, dtype)
        elif len(self.coefs_) != n_hidden + 1:
            raise ValueError(
                f"hidden_layer_sizes must match the {len(self.coefs_) - 1} hidden layers of the "
                f"fitted network, got {self.hidden_layer_sizes!r}"
            )
        network = self._current_network(adopt=True)
        if network.sizes[-1] != self.n_outputs_:
            raise ValueError(
                f"y must have {network.sizes[-1]} outputs, as the fitted network, "
                f"got {self.n_outputs_}"
            )
        if self.dtype is not None and network.dtype != self.dtype:
            network = network_of(
                self.coefs_,
                self.intercepts_,
                hidden_activations(self.activation, n_hidden),
                self.out_activation_,
                self._core_loss(),
                np.dtype(self.dtype),
            )
            self._adopt(network)

        if self.solver in STOCHASTIC:
            # As in scikit-learn: partial_fit makes a single epoch.
            if self.early_stopping and incremental:
                raise ValueError("partial_fit does not support early_stopping=True")
            held_out = self._validation_set(*validation)
            if self.early_stopping and held_out is None:
                X, Y, sample_weight, held_out = split(
                    X,
                    Y,
                    labels,
                    sample_weight,
                    fraction=self.validation_fraction,
                    stratify=self._strata(Y),
                    random_state=self._random_state,
                )
            training = TrainingSet(X, Y, sample_weight, network.dtype)
            reports = Reports(
                self,
                X,
                y,
                sample_weight,
                incremental=incremental,
                validates=held_out is not None,
            )
            self._fit_stochastic(network, training, held_out, dropout, reports, incremental)
        else:
            training = TrainingSet(X, Y, sample_weight, network.dtype)
            reports = Reports(self, X, y, sample_weight, incremental=incremental, validates=False)
            self._fit_lbfgs(network, training, reports)
        if first_nonfinite(network.parameters) is not None:
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        reports.end()
        if ranks.size > 1 and reports.is_wanted():
            ranks.follow_first(network, self._optimizer)
        return self

    def _n_outputs(self, Y: Array) -> int:
        return int(Y.shape[1])

    def _validation_set(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> Any:
        if X_val is None and y_val is None and sample_weight_val is None:
            return None
        if X_val is None or y_val is None:
            raise ValueError(
                "X_val and y_val must be given together, got "
                f"{'y_val' if X_val is None else 'X_val'} only"
                if (X_val is None) != (y_val is None)
                else "sample_weight_val needs X_val and y_val, got neither"
            )
        X_val = validate_data(self, X_val, accept_sparse=["csr", "csc"], dtype=FLOATS, reset=False)
        Y, labels = self._check_validation_targets(y_val)
        if X_val.shape[0] != labels.shape[0]:
            raise ValueError(
                "X_val and y_val must have the same number of rows, "
                f"got {X_val.shape[0]} and {labels.shape[0]}"
            )
        if sample_weight_val is not None:
            sample_weight_val = _check_sample_weight(sample_weight_val, X_val)
        return ValidationSet(X_val, Y, labels, sample_weight_val)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Fit the model to examples and their targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Sparse input is converted to dense arrays a few batches at a time.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, an indicator matrix, or real numbers.
        sample_weight : array-like of shape (n_samples,), default=None
        X_val, y_val : like X and y, default=None
            nncore's: validation data for each epoch of 'sgd' or 'adam'. With
            ``early_stopping=True`` they replace the share that would be held out of X.
        sample_weight_val : array-like of shape (n_validation_samples,), default=None
            nncore's: the weights of the validation data.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            X, y or a parameter is invalid, or the network's parameters became NaN or infinite.
        """
        return self._fit(X, y, sample_weight, validation=(X_val, y_val, sample_weight_val))

    @_fit_context(prefer_skip_nested_validation=True)
    def initialize(self, X: Any, y: Any) -> Any:
        """Create the network for such X and y and draw its parameters, without training (nncore's).

        Write to `coefs_` and `intercepts_` to change them. ``fit`` with ``warm_start=True`` and
        ``partial_fit`` start from them.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            A classifier's y must have all classes.

        Returns
        -------
        self
        """
        with self._unchanged_without_memory():
            self.__dict__.pop("_optimizer", None)
            self.__dict__.pop("classes_", None)
            X, Y, _ = self._check_targets(X, y, incremental=False, reset=True)
            self._random_state = check_random_state(self.random_state)
            dtype = X.dtype if self.dtype is None else np.dtype(self.dtype)
            self._new_network(X.shape[1], self._n_outputs(Y), dtype)
        return self

    # Predicting.

    def _is_plain(self, X: Any) -> bool:
        """Return whether scikit-learn's checks would return a finite array unchanged."""
        return (
            type(X) is np.ndarray
            and X.ndim == 2
            and X.dtype in FLOATS
            and X.dtype.isnative
            and X.shape[0] > 0
            and X.shape[1] == getattr(self, "n_features_in_", -1)
            and "feature_names_in_" not in self.__dict__
            and X.flags.c_contiguous
            and X.flags.aligned
        )

    def _outputs(self, X: Any) -> Array:
        """Return the network's outputs for unchecked input."""
        if "coefs_" not in self.__dict__:
            check_is_fitted(self)  # raises; the call takes as long as a small network
        # Validation data are already checked, and have lost their column names.
        if X is not self.__dict__.get("_checked_X"):
            if self._is_plain(X):
                # `Network.predict` checks that X is finite; the message below is scikit-learn's.
                with suppress(ValueError):
                    return self._outputs_of_checked(X)
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        return self._outputs_of_checked(X)

    def _outputs_of_checked(self, X: Any) -> Array:
        network = self._current_network()
        if self.dtype is None:
            # Promote as NumPy does: do not round float64 examples to a float32 network.
            dtype = np.result_type(X.dtype, network.dtype)
            if dtype != network.dtype:
                hidden = hidden_activations(self.activation, len(self.coefs_) - 1)
                network = network_of(
                    self.coefs_,
                    self.intercepts_,
                    hidden,
                    self.out_activation_,
                    self._core_loss(),
                    dtype,
                )
        if scipy.sparse.issparse(X) and X.dtype not in SOURCES:
            X = X.astype(network.dtype)
        return outputs_of(network, X, self.n_threads)

    def predict(self, X: Any) -> Array:
        """Predict the targets of examples.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._decode(self._outputs(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
