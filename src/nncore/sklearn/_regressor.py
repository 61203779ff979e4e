"""MLPRegressor."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import check_array, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import validate_data

from ..typing import LossName
from ._architecture import OUTPUT_ACTIVATIONS
from ._base import FLOATS, BaseMLP

__all__ = ["MLPRegressor"]

Array = npt.NDArray[Any]


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multi-layer perceptron regressor: scikit-learn's interface and semantics on nncore's core.

    Parameters, attributes and methods are scikit-learn's, except those marked "nncore's", whose
    defaults change nothing.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        ½ (y - a)², averaged over the outputs, or half the Poisson deviance, y ln(y/a) - y + a,
        summed over the outputs. nncore adds 'absolute_error', Σ |y - a|, and 'huber', Σ ½ r² where
        r = |y - a| <= 1 and r - ½ beyond.
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
        The share of the examples held out for early stopping.
    beta_1, beta_2 : float, default=0.9 and 0.999
        The decay of Adam's first and second moments, in [0, 1).
    epsilon : float, default=1e-8
        The constant that Adam adds to the square root of the second moment.
    n_iter_no_change : int or inf, default=10
        The number of epochs without an improvement before training stops.
    max_fun : int, default=15000
        The largest number of evaluations of the loss by 'lbfgs'.
    output_activation : str, default=None
        nncore's: 'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'softplus' or 'exp'.
        None uses 'exp' for the loss 'poisson', which requires it, and 'identity' otherwise.
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
        nncore's: the network itself, not a copy.
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
    >>> from nncore.sklearn import MLPRegressor
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> regressor = MLPRegressor(random_state=0, solver="lbfgs", tol=1e-2, max_iter=5000).fit(X, y)
    >>> regressor.score(X, y) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson", "absolute_error", "huber"})],
        "output_activation": [StrOptions(set(OUTPUT_ACTIVATIONS) - {"softmax"}), None],
    }

    def __init__(
        self,
        loss: LossName = "squared_error",
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
        output_activation: str | None = None,
        dropout: Any = 0.0,
        gradient_clipping: float | None = None,
        scoring: Any = None,
        callbacks: Any = None,
        dtype: Any = None,
        n_threads: int | None = None,
    ) -> None:
        self.loss = loss
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
        self.output_activation = output_activation
        self.dropout = dropout
        self.gradient_clipping = gradient_clipping
        self.scoring = scoring
        self.callbacks = callbacks
        self.dtype = dtype
        self.n_threads = n_threads

    # Differences from the classifier.

    _kind = "MLPRegressor"

    def _label_types(self) -> dict[str, Any]:
        return {}

    def _set_label_types(self, types: dict[str, Any]) -> None:
        pass

    def _target_kind(self) -> str:
        return "continuous"

    def _output_activation(self) -> str:
        output = self.output_activation
        if output is None:
            output = "exp" if self.loss == "poisson" else "identity"
        if self.loss == "poisson" and output != "exp":
            raise ValueError(f"loss='poisson' needs output_activation='exp', got {output!r}")
        return output

    def _core_loss(self) -> LossName:
        return self.loss

    @property
    def _loss_factor(self) -> float:
        return 1 / self.n_outputs_ if self.loss == "squared_error" else 1.0

    def _check_targets(
        self, X: Any, y: Any, *, incremental: bool, reset: bool
    ) -> tuple[Any, Array, Array]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=True,
            dtype=FLOATS,
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, self._encode(y), y

    def _encode(self, y: Array) -> Array:
        if y.dtype not in FLOATS or not y.dtype.isnative:
            y = y.astype(np.float64)
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError(f"y must not be negative with loss='poisson', got {y.min()}")
        return y[:, np.newaxis] if y.ndim == 1 else y

    def _check_validation_targets(self, y: Any) -> tuple[Array, Array]:
        y = check_array(y, ensure_2d=False, dtype="numeric", input_name="y_val")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        Y = self._encode(y)
        if Y.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y_val must have as many outputs as y, {self.n_outputs_}, got {Y.shape[1]}"
            )
        return Y, y

    def _strata(self, Y: Array) -> None:
        return None

    def _decode(self, outputs: Array) -> Array:
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    def _score(self, y: Array, outputs: Array, sample_weight: Array | None) -> float:
        predicted = self._decode(outputs)
        if not np.isfinite(predicted).all():
            return float("nan")
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    # The interface.

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch, from the current parameters.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self

        Raises
        ------
        ValueError
            X, y or a parameter is invalid, or the network's parameters became NaN or infinite.
        """
        return self._fit(X, y, sample_weight, incremental=True)
