"""Folds a pipeline of scalers and an MLP into one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted

from ..network import Network
from ..typing import DType, LossName
from ._architecture import hidden_activations, network_of
from ._base import BaseMLP

__all__ = ["as_network"]

# The core's loss for each output activation of scikit-learn's estimators.
_LOSSES: dict[str, LossName] = {
    "identity": "squared_error",
    "exp": "poisson",
    "logistic": "binary_cross_entropy",
    "softmax": "cross_entropy",
}


class _Scaling(NamedTuple):
    """The transformation of x to (x - mean) / scale, with float64 numbers or vectors."""

    mean: Any = np.float64(0)
    scale: Any = np.float64(1)

    def then(self, after: _Scaling) -> _Scaling:
        """Return the transformation by this scaling and by another one after it."""
        return _Scaling(self.mean + self.scale * after.mean, self.scale * after.scale)


def _float64(value: Any) -> Any:
    return np.asarray(value, dtype=np.float64)


def _standard(scaler: StandardScaler) -> _Scaling:
    mean = scaler.mean_ if scaler.with_mean else 0
    return _Scaling(_float64(mean), _float64(scaler.scale_ if scaler.with_std else 1))


def _robust(scaler: RobustScaler) -> _Scaling:
    center = scaler.center_ if scaler.with_centering else 0
    return _Scaling(_float64(center), _float64(scaler.scale_ if scaler.with_scaling else 1))


def _min_max(scaler: MinMaxScaler) -> _Scaling:
    # It computes x scale_ + min_.
    scale = 1 / _float64(scaler.scale_)
    return _Scaling(-_float64(scaler.min_) * scale, scale)


def _max_abs(scaler: MaxAbsScaler) -> _Scaling:
    return _Scaling(scale=_float64(scaler.scale_))


def _identity(transformer: FunctionTransformer) -> _Scaling:
    return _Scaling()


# By exact type, since a subclass may compute anything.
_FOLDABLE: dict[type, Callable[[Any], _Scaling]] = {
    FunctionTransformer: _identity,
    MaxAbsScaler: _max_abs,
    MinMaxScaler: _min_max,
    RobustScaler: _robust,
    StandardScaler: _standard,
}


def _obstacle(step: Any) -> str | None:
    """Return why a transformer is no scaling, if it is none."""
    if type(step) not in _FOLDABLE:
        return "only 'passthrough' and " + ", ".join(kind.__name__ for kind in _FOLDABLE) + " can"
    if getattr(step, "clip", False):
        return "clip=True is not linear"
    if any(getattr(step, name, None) is not None for name in ("func", "inverse_func")):
        return "it has a function"
    return None


def _scaling_of(name: str, step: Any) -> _Scaling:
    """Return what the transformer of a step does."""
    if step is None or step == "passthrough":
        return _Scaling()
    if isinstance(step, Pipeline):
        scaling = _Scaling()
        for inner_name, inner in step.steps:
            scaling = scaling.then(_scaling_of(f"{name}.{inner_name}", inner))
        return scaling
    obstacle = _obstacle(step)
    if obstacle is not None:
        raise ValueError(f"step {name!r} ({type(step).__name__}) cannot be folded: {obstacle}")
    check_is_fitted(step)
    return _FOLDABLE[type(step)](step)


def _parts_of(estimator: Any, where: str = "") -> tuple[Network, _Scaling, _Scaling]:
    """Return an estimator's network, and the scaling of its inputs and of its targets."""
    if isinstance(estimator, Pipeline):
        *front, (name, last) = estimator.steps
        network, inputs, targets = _parts_of(last, f" in step {name!r}")
        for name, step in reversed(front):
            inputs = _scaling_of(name, step).then(inputs)
        return network, inputs, targets
    if isinstance(estimator, TransformedTargetRegressor):
        check_is_fitted(estimator)
        network, inputs, targets = _parts_of(estimator.regressor_, " as regressor")
        return network, inputs, _scaling_of("transformer", estimator.transformer_).then(targets)
    if isinstance(estimator, BaseMLP):
        return estimator.network_, _Scaling(), _Scaling()
    if isinstance(estimator, (MLPClassifier, MLPRegressor)):
        check_is_fitted(estimator)
        hidden = hidden_activations(estimator.activation, len(estimator.coefs_) - 1)
        output = estimator.out_activation_
        network = network_of(
            estimator.coefs_, estimator.intercepts_, hidden, output, _LOSSES[output]
        )
        return network, _Scaling(), _Scaling()
    raise TypeError(
        "estimator must be an MLPClassifier or MLPRegressor, or a Pipeline or "
        f"TransformedTargetRegressor with one, got {type(estimator).__name__}{where}"
    )


def as_network(estimator: Any, *, dtype: DType | None = None) -> Network:
    """Fold a fitted estimator or pipeline into one network that takes raw inputs.

    A prediction for one row then takes about a microsecond; a pipeline takes about two hundred.
    `Network.fold_scaling` describes folding and its rounding.

    Parameters
    ----------
    estimator : fitted estimator
        An MLPClassifier or MLPRegressor, nncore's or scikit-learn's; a Pipeline of StandardScaler,
        MinMaxScaler, MaxAbsScaler, RobustScaler, FunctionTransformer without a function,
        'passthrough' and pipelines of these, with such an MLP at its end; or a
        TransformedTargetRegressor of such a regressor, with one of these transformers.
    dtype : {"float32", "float64"}, optional
        Of the network; by default that of the MLP's parameters. float32 loses digits of inputs
        whose means are much larger than their scales.

    Returns
    -------
    Network
        A copy, independent of the estimator. Its inputs are the columns of X in the order of the
        fit. A regressor's outputs have shape (n_samples, n_outputs). A classifier's are the
        probabilities of `classes_` in their order; with two classes a single column, the
        probability of ``classes_[1]``; for multilabel targets a column per label; and with
        nncore's logistic outputs for several classes not divided by their sum.

    Raises
    ------
    NotFittedError
        The estimator or a step is not fitted.
    TypeError
        There is no MLP where one must be.
    ValueError
        A step cannot be folded. The message names it, its class and the reason.

    Examples
    --------
    >>> import numpy as np
    >>> from nncore.sklearn import MLPClassifier, as_network
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), MLPClassifier(random_state=0, max_iter=500))
    >>> net = as_network(pipeline.fit(X, y))
    >>> np.allclose(net.predict(X), pipeline.predict_proba(X))
    True
    """
    network, inputs, targets = _parts_of(estimator)
    try:
        return network.fold_scaling(*inputs, *targets, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{type(estimator).__name__} cannot be folded: {error}") from None
