"""MLPClassifier."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import validate_data

from .._checks import as_bool
from ..typing import LossName
from ._base import FLOATS, STOCHASTIC, BaseMLP

__all__ = ["MLPClassifier"]

Array = npt.NDArray[Any]


def _has_partial_fit(estimator: Any) -> bool:
    if estimator.solver not in STOCHASTIC:
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{estimator.solver} is not stochastic."
        )
    return True


def _binarizer(classes: Array, y_type: str, sparse_input: bool) -> LabelBinarizer:
    """Return a fitted LabelBinarizer."""
    binarizer = LabelBinarizer()
    binarizer.classes_, binarizer.y_type_ = classes, y_type
    binarizer.sparse_input_ = sparse_input
    return binarizer


def _binarizer_of(y: Array) -> LabelBinarizer:
    """Return ``LabelBinarizer().fit(y)``, whose checks a vector of integers does not need.

    scikit-learn may warn if more than half of the examples are classes of their own.
    """
    if y.ndim == 1 and y.dtype.kind in "iu":
        classes = np.unique(y)
        if 2 * len(classes) <= len(y):
            return _binarizer(classes, "binary" if len(classes) <= 2 else "multiclass", False)
    return LabelBinarizer().fit(y)


class MLPClassifier(ClassifierMixin, BaseMLP):
    """Multi-layer perceptron classifier: scikit-learn's interface and semantics on nncore's core.

    It minimises the log loss. Parameters, attributes and methods are scikit-learn's, except those
    marked "nncore's", whose defaults change nothing.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(100,)
        The number of units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        The activation of the hidden layers. nncore adds 'leaky_relu' (slope 0.01), 'elu' (α = 1)
        and 'softplus', and accepts a sequence with one name per hidden layer.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        L-BFGS on all examples at once, or gradient descent or Adam on mini-batches.
    alpha : float, default=0.0001
        The factor α of the L2 term ½ α ‖W‖², which is divided by the batch's number of examples.
    batch_size : int or 'auto', default='auto'
        Examples per step; the last batch of an epoch may have fewer. 'auto' means 200, or all
        examples if there are fewer.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        For 'sgd': `learning_rate_init`; `learning_rate_init` divided by (t + 1) ** `power_t` after
        t examples; or divided by 5 each time that the loss, or with early stopping the score, has
        not improved for `n_iter_no_change` epochs.
    learning_rate_init : float, default=0.001
        The initial learning rate of 'sgd' and 'adam'.
    power_t : float, default=0.5
        The exponent of 'invscaling'.
    max_iter : int, default=200
        The largest number of epochs, or of iterations of 'lbfgs'.
    shuffle : bool, default=True
        Whether 'sgd' and 'adam' draw a new order of the examples for each epoch.
    random_state : int, RandomState instance or None, default=None
        The source of initial parameters, validation split, orders and dropout. They are drawn in
        scikit-learn's order, so the same seed gives scikit-learn's parameters up to rounding.
    tol : float, default=1e-4
        The smallest improvement that counts; for 'lbfgs' the tolerance of the gradient.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether ``fit`` continues from the current parameters.
    momentum : float, default=0.9
        The momentum of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether to use Nesterov's momentum.
    early_stopping : bool, default=False
        Whether to stop when the validation score has not improved by `tol` for `n_iter_no_change`
        epochs, and to restore the parameters of the best score.
    validation_fraction : float, default=0.1
        The share of the examples held out for early stopping, in each class if there are two.
    beta_1, beta_2 : float, default=0.9 and 0.999
        The decay of Adam's first and second moments, in [0, 1).
    epsilon : float, default=1e-8
        The constant that Adam adds to the square root of the second moment.
    n_iter_no_change : int or inf, default=10
        The number of epochs without an improvement before training stops.
    max_fun : int, default=15000
        The largest number of evaluations of the loss by 'lbfgs'.
    loss : {'log_loss', 'squared_error'}, default='log_loss'
        nncore's: 'squared_error' is ½ Σ (y - a)² over one logistic output per class.
    output_activation : {'logistic', 'softmax'}, default=None
        nncore's: None uses softmax for the log loss of more than two classes, otherwise logistic.
    class_weight : dict, list of dict, 'balanced' or None, default=None
        nncore's: a factor for the weights of each class's examples; 'balanced' gives all classes
        the same total weight.
    dropout : float or array-like of float, default=0.0
        nncore's: the share of units that each step of 'sgd' or 'adam' drops, in [0, 1), for all
        hidden layers or one per hidden layer. The others are scaled by 1 / (1 - dropout).
    gradient_clipping : float, default=None
        nncore's: the largest Euclidean norm of the gradient in a step of 'sgd' or 'adam'; longer
        gradients are scaled to it.
    scoring : str, callable or None, default=None
        nncore's: the score that early stopping monitors: a scorer or its name, "loss" for the
        negative validation loss, or None for the score of ``score``.
    callbacks : list of callables, default=None
        nncore's: called with an `nncore.EpochEnd` after each epoch, or iteration of 'lbfgs'; if one
        returns True, training stops.
    dtype : {'float32', 'float64'}, default=None
        nncore's: the type of the parameters and of all arithmetic. None uses that of X, as
        scikit-learn does.
    n_threads : int, default=None
        nncore's: the number of threads; results do not depend on it. None uses as many as make
        training faster.

    Attributes
    ----------
    classes_ : ndarray or list of ndarray of shape (n_classes,)
    loss_ : float
        The loss of the last epoch.
    best_loss_ : float or None
        The smallest loss of an epoch; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_ : list of float or None
        The score of the validation data after each epoch, with early stopping.
    best_validation_score_ : float or None
        The best validation score.
    validation_loss_curve_ : list of float or None
        nncore's: the mean loss of the validation data after each epoch.
    t_ : int
        The number of examples trained on, repetitions included.
    coefs_, intercepts_ : list of ndarray
        The weights of shape (n_prev, n) and the biases of shape (n,) of each layer. They are views
        of the network's parameters, so writing to them changes predictions.
    network_ : nncore.Network
        nncore's: the network itself, not a copy; its outputs are the probabilities of
        `classes_`, or with one output that of the second class.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Defined if X has column names of type str.
    n_iter_ : int
    n_layers_ : int
        The number of layers, input and output layer included.
    n_outputs_ : int
    out_activation_ : str

    Examples
    --------
    >>> from nncore.sklearn import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier(random_state=0, max_iter=1000, dtype="float32").fit(X, y)
    >>> classifier.predict(X[:3])
    array([0, 0, 0])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"log_loss", "squared_error"})],
        "output_activation": [StrOptions({"logistic", "softmax"}), None],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: str = "log_loss",
        output_activation: str | None = None,
        class_weight: Any = None,
        dropout: Any = 0.0,
        gradient_clipping: float | None = None,
        scoring: Any = None,
        callbacks: Any = None,
        dtype: Any = None,
        n_threads: int | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.loss = loss
        self.output_activation = output_activation
        self.class_weight = class_weight
        self.dropout = dropout
        self.gradient_clipping = gradient_clipping
        self.scoring = scoring
        self.callbacks = callbacks
        self.dtype = dtype
        self.n_threads = n_threads

    # Differences from the regressor.

    _kind = "MLPClassifier"
    classes_: Array

    def _label_types(self) -> dict[str, Any]:
        return {"y_type": self._target_kind(), "sparse": self._label_binarizer.sparse_input_}

    def _set_label_types(self, types: dict[str, Any]) -> None:
        y_type, sparse = types["y_type"], types["sparse"]
        allowed = [1, 2] if y_type == "binary" else [self.n_outputs_]
        if (
            y_type not in ("binary", "multiclass", "multilabel-indicator")
            or self.classes_.ndim != 1
            or len(self.classes_) not in allowed
            or not np.array_equal(self.classes_, np.unique(self.classes_))
        ):
            raise ValueError(f"it has the classes {self.classes_} for a {y_type} target")
        self._label_binarizer = _binarizer(self.classes_, y_type, as_bool("sparse", sparse))

    def _target_kind(self) -> str:
        kind: str = self._label_binarizer.y_type_
        return kind

    def _output_activation(self) -> str:
        is_multiclass = self._target_kind() == "multiclass"
        output = self.output_activation
        if output is None:
            output = "softmax" if is_multiclass and self.loss == "log_loss" else "logistic"
        if output == "softmax" and not (is_multiclass and self.loss == "log_loss"):
            raise ValueError(
                "output_activation='softmax' needs loss='log_loss' and more than two mutually "
                f"exclusive classes, got loss={self.loss!r} and a "
                f"{self._target_kind()} target"
            )
        return output

    def _core_loss(self) -> LossName:
        if self.loss == "squared_error":
            return "squared_error"
        return "cross_entropy" if self.out_activation_ == "softmax" else "binary_cross_entropy"

    def _check_targets(
        self, X: Any, y: Any, *, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=FLOATS,
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        # partial_fit uses the classes of its first call, which has set them already.
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = _binarizer_of(y)
            self.classes_ = self._label_binarizer.classes_
        else:
            self._check_classes(unique_labels(y))
        return X, self._encode(y), y

    def _check_classes(self, classes: Array) -> None:
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _encode(self, y: Array) -> Array:
        """Return class indices for softmax, otherwise a column per output."""
        kind = self._target_kind()
        if y.ndim == 1 and kind == "multiclass" and self._output_activation() == "softmax":
            return np.searchsorted(self.classes_, y).astype(np.intp, copy=False)
        if y.ndim == 1 and kind == "binary":
            return np.searchsorted(self.classes_, y).astype(np.uint8)[:, np.newaxis]
        return np.asarray(self._label_binarizer.transform(y)).astype(np.uint8)

    def _check_validation_targets(self, y: Any) -> tuple[Array, Array]:
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        classes = unique_labels(y)
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(f"y_val must have only classes of y, {self.classes_}, got {classes}")
        return self._encode(y), y

    def _n_outputs(self, Y: Array) -> int:
        return len(self.classes_) if Y.ndim == 1 else int(Y.shape[1])

    def _strata(self, Y: Array) -> Array | None:
        """Return the classes by which to stratify a split, if there are two."""
        return np.where(Y[:, 0], "True", "False") if self.n_outputs_ == 1 else None

    def _class_factors(self, y: Array, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if incremental and isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' needs all examples, which partial_fit does not have; pass "
                "a dict with a weight for each class"
            )
        factors: Array = compute_sample_weight(self.class_weight, y)
        return factors

    def _decode(self, outputs: Array) -> Array:
        kind = self._target_kind()
        if kind == "multiclass":
            labels: Array = self.classes_[outputs.argmax(axis=1)]
        elif kind == "binary" and len(self.classes_) == 2:
            labels = self.classes_[(outputs[:, 0] > 0.5).astype(np.intp)]
        else:
            if self.n_outputs_ == 1:
                outputs = outputs.ravel()
            labels = self._label_binarizer.inverse_transform(outputs)
        return labels

    def _score(self, y: Array, outputs: Array, sample_weight: Array | None) -> float:
        right = self._decode(outputs) == y
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=sample_weight))

    # The interface.

    @available_if(_has_partial_fit)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """Train for one epoch, from the current parameters.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None
        classes : array-like of shape (n_classes,), default=None
            The classes of all calls; required in the first call.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            X, y or a parameter is invalid, or the network's parameters became NaN or infinite.
        """
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict_proba(self, X: Any) -> Array:
        """Predict the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`. Rows sum to 1, except for multilabel targets.
        """
        outputs = self._outputs(X)
        if self.n_outputs_ == 1:
            return np.hstack([1 - outputs, outputs])
        if self.out_activation_ == "logistic" and self._target_kind() == "multiclass":
            outputs /= outputs.sum(axis=1, keepdims=True)
        return outputs

    def predict_log_proba(self, X: Any) -> Array:
        """Predict the logarithm of the probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        probabilities = self.predict_proba(X)
        return np.log(probabilities, out=probabilities)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
