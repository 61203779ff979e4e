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

from ._base import FLOATS, BaseMLP

__all__ = ["MLPRegressor"]

Array = npt.NDArray[Any]


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multi-layer perceptron regressor: scikit-learn's interface and semantics on nncore's core.

    Parameters, attributes and methods are scikit-learn's but where they are said to be nncore's,
    and these change nothing by default.

    Parameters
    ----------
    loss : {'squared_error', 'poisson'}, default='squared_error'
        ½ (y - a)², the mean of the outputs, or half the Poisson deviance y ln(y/a) - y + a, summed
        over the outputs. nncore's: 'absolute_error', Σ |y - a|, and 'huber', Σ ½ r² where
        r = |y - a| <= 1 and r - ½ beyond.
    hidden_layer_sizes : int or array-like of int, default=(100,)
        The units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='relu'
        Of the hidden layers. nncore's: 'leaky_relu' (slope 0.01), 'elu' (α = 1) and 'softplus', and
        a sequence with a name for each hidden layer.
    solver : {'lbfgs', 'sgd', 'adam'}, default='adam'
        L-BFGS on all examples at once, or mini-batches with gradient descent or Adam.
    alpha : float, default=0.0001
        The L2 term ½ α ‖W‖² of the weights, divided by the number of examples in the batch.
    batch_size : int or 'auto', default='auto'
        Examples per step, the last batch of an epoch may have fewer; 'auto' is at most 200.
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        For 'sgd': always `learning_rate_init`; divided by (t + 1) ** `power_t` after t examples; or
        divided by 5 whenever neither loss nor score has improved for `n_iter_no_change` epochs.
    learning_rate_init : float, default=0.001
        The first learning rate of 'sgd' and 'adam'.
    power_t : float, default=0.5
        The exponent of 'invscaling'.
    max_iter : int, default=200
        The most epochs, or iterations of 'lbfgs'.
    shuffle : bool, default=True
        Whether each epoch of 'sgd' and 'adam' goes through the examples in a new order.
    random_state : int, RandomState instance or None, default=None
        Where initial parameters, the validation part, orders and dropout are drawn from: in
        scikit-learn's order, so that the same seed gives scikit-learn's parameters up to rounding.
    tol : float, default=1e-4
        What counts as an improvement; for 'lbfgs' the tolerance of the gradient.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the parameters there are.
    momentum : float, default=0.9
        Of 'sgd', in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether it is Nesterov's.
    early_stopping : bool, default=False
        Whether to stop when the validation score has not improved by `tol` for `n_iter_no_change`
        epochs, and to return to the parameters of the best score.
    validation_fraction : float, default=0.1
        The part of the examples that is set aside for it.
    beta_1, beta_2 : float, default=0.9 and 0.999
        The decay of Adam's first and second moments, in [0, 1).
    epsilon : float, default=1e-8
        What Adam adds to the square root of the second moment.
    n_iter_no_change : int or inf, default=10
        How many epochs without an improvement are borne.
    max_fun : int, default=15000
        The most evaluations of the loss by 'lbfgs'.
    output_activation : str, default=None
        nncore's: 'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'softplus' or 'exp';
        None takes 'exp' for the loss 'poisson', which has no other, else 'identity'.
    dropout : float or array-like of float, default=0.0
        nncore's: the share of each hidden layer's units that a step of 'sgd' or 'adam' leaves out,
        one for all layers or one for each, in [0, 1). The others are scaled by 1 / (1 - dropout).
    gradient_clipping : float, default=None
        nncore's: the largest Euclidean norm that the gradient of a step of 'sgd' or 'adam' may
        have; one that is larger is scaled to it.
    scoring : str, callable or None, default=None
        nncore's: what early stopping goes by: a scorer or its name, "loss" for the validation
        loss, whose negative is then the score, or None for the estimator's own score.
    callbacks : list of callables, default=None
        nncore's: each is called with a `nncore.EpochEnd` after each epoch, or iteration of 'lbfgs';
        if one returns True, training stops.
    dtype : {'float32', 'float64'}, default=None
        nncore's: the type of the parameters and of all arithmetic, whatever X has. None takes X's,
        as scikit-learn does.
    n_threads : int, default=None
        nncore's: how many threads work on a step; the result is the same to the last bit for any
        number. None takes as many as gain by it.

    Attributes
    ----------
    loss_ : float
        That of the last epoch.
    best_loss_ : float or None
        The smallest of the epochs' losses; None with early stopping.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_ : list of float or None
        The score of the validation data after each epoch, with early stopping.
    best_validation_score_ : float or None
        The best of them.
    validation_loss_curve_ : list of float or None
        nncore's: the mean loss of the validation data after each epoch.
    t_ : int
        How many examples have been trained on, repetitions included.
    coefs_, intercepts_ : list of ndarray
        Weights of shape (n_prev, n) and biases of shape (n,) of each layer: views of the network's
        parameters. Writing to them changes what is predicted.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Where X has names of type str.
    n_iter_ : int
    n_layers_ : int
        Input and output layer included.
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
        "output_activation": [
            StrOptions(
                {"identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "softplus", "exp"}
            ),
            None,
        ],
    }

    def __init__(
        self,
        loss: str = "squared_error",
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

    # What differs from the classifier.

    def _output_activation(self) -> str:
        output = self.output_activation
        if output is None:
            output = "exp" if self.loss == "poisson" else "identity"
        if self.loss == "poisson" and output != "exp":
            raise ValueError(f"loss='poisson' needs output_activation='exp', got {output!r}")
        return output

    def _core_loss(self) -> str:
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
        """Go once through the examples, from where the network is.

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
            X, y or a parameter is not what it must be, or parameters became NaN or infinite.
        """
        return self._fit(X, y, sample_weight, incremental=True)
