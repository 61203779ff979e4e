"""The network of an estimator, and pipelines folded into one network."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
import sklearn.neural_network as theirs
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

import nncore
from nncore.sklearn import MLPClassifier, MLPRegressor, as_network

Array = npt.NDArray[Any]

X, y = load_iris(return_X_y=True)
X = np.column_stack([X * [1, 300, 0.01, 1] + [0, 5000, 0, -2], np.full(150, 7.5)])
Y_REAL = 40 + np.abs(X[:, [1, 0]] * X[:, [3, 0]])

BOTH = [MLPClassifier, MLPRegressor]
MODULES = [nncore.sklearn, theirs]
every_module = pytest.mark.parametrize("module", MODULES, ids=["nncore", "scikit-learn"])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def small(cls: Any = MLPClassifier, **options: Any) -> Any:
    usual = {"hidden_layer_sizes": (10, 6), "max_iter": 15, "random_state": 0, "activation": "tanh"}
    return cls(**{**usual, "learning_rate_init": 0.03, **options})


def assert_close(actual: Array, expected: Array) -> None:
    """Assert that outputs agree relative to the largest of their column."""
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= 1e-10 * np.abs(expected).max(axis=0)).all()


# network_


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
def test_network_is_missing_before_a_fit(cls: Any) -> None:
    assert not hasattr(cls(), "network_")
    with pytest.raises(NotFittedError, match="not fitted"):
        _ = cls().network_
    assert hasattr(small(cls).initialize(X, y), "network_")


def test_network_is_the_one_that_predicts() -> None:
    fitted = small().fit(X, y)
    net = fitted.network_
    assert net is fitted.network_
    assert "network_" not in vars(fitted)
    np.testing.assert_array_equal(net.predict(X), fitted.predict_proba(X))
    net.biases[-1][2] = 50
    assert (fitted.predict(X) == 2).all()
    net.fit(X, y, epochs=2)
    np.testing.assert_array_equal(net.predict(X), fitted.predict_proba(X))


def test_further_training_continues_with_the_same_network_and_a_fit_replaces_it() -> None:
    fitted = small().fit(X, y)
    net = fitted.network_
    assert fitted.partial_fit(X, y).network_ is net
    assert fitted.fit(X, y).network_ is not net


def test_network_takes_up_other_arrays_in_the_place_of_coefs() -> None:
    fitted = small().fit(X, y)
    fitted.coefs_ = [2 * W for W in fitted.coefs_]
    expected = fitted.predict_proba(X)
    net = fitted.network_
    np.testing.assert_array_equal(net.predict(X), expected)
    assert np.shares_memory(fitted.coefs_[0], net.parameters)


# Scalers

SCALERS: dict[str, Any] = {
    "standard": StandardScaler(),
    "standard without mean": StandardScaler(with_mean=False),
    "standard without scale": StandardScaler(with_std=False),
    "standard without anything": StandardScaler(with_mean=False, with_std=False),
    "min max": MinMaxScaler(),
    "min max from -3 to -1": MinMaxScaler((-3, -1)),
    "max abs": MaxAbsScaler(),
    "robust": RobustScaler(quantile_range=(10, 80)),
    "robust without center": RobustScaler(with_centering=False),
    "robust without scale": RobustScaler(with_scaling=False),
    "robust of unit variance": RobustScaler(unit_variance=True),
    "function": FunctionTransformer(),
    "passthrough": "passthrough",
    "none": None,
}
every_scaler = pytest.mark.parametrize("scaler", SCALERS.values(), ids=SCALERS)


@every_module
@every_scaler
def test_a_scaler_is_folded(scaler: Any, module: Any) -> None:
    pipeline = Pipeline([("scale", scaler), ("mlp", small(module.MLPClassifier))]).fit(X, y)
    net = as_network(pipeline)
    assert type(net) is nncore.Network
    assert net.loss == "cross_entropy"
    assert net.dtype == np.float64
    assert_close(net.predict(X), pipeline.predict_proba(X))


@pytest.mark.parametrize("name", [name for name in SCALERS if name != "passthrough"])
def test_a_scaler_of_targets_is_folded(name: str) -> None:
    regressor = TransformedTargetRegressor(small(MLPRegressor), transformer=SCALERS[name])
    pipeline = make_pipeline(StandardScaler(), regressor).fit(X, Y_REAL)
    assert_close(as_network(pipeline).predict(X), pipeline.predict(X))


def test_chains_of_scalers_and_nested_pipelines_are_folded() -> None:
    inner = make_pipeline(MinMaxScaler((2, 5)), "passthrough", MaxAbsScaler())
    pipeline = make_pipeline(StandardScaler(), inner, None, RobustScaler(), small()).fit(X, y)
    assert_close(as_network(pipeline).predict(X), pipeline.predict_proba(X))
    nested = make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), small())).fit(X, y)
    assert_close(as_network(nested).predict(X), nested.predict_proba(X))


def test_a_pipeline_inside_a_transformed_target_is_folded() -> None:
    regressor = make_pipeline(StandardScaler(), small(MLPRegressor))
    scale = make_pipeline(MinMaxScaler((1, 3)), StandardScaler())
    model = TransformedTargetRegressor(regressor, transformer=scale).fit(X, Y_REAL[:, 0])
    assert_close(as_network(model).predict(X)[:, 0], model.predict(X))


def test_a_scaler_of_sparse_examples_is_folded() -> None:
    sparse = scipy.sparse.random(150, 5, 0.3, format="csr", random_state=0)
    pipeline = make_pipeline(MaxAbsScaler(), StandardScaler(with_mean=False), small())
    pipeline.fit(sparse, y)
    assert_close(as_network(pipeline).predict(sparse.toarray()), pipeline.predict_proba(sparse))


def test_options_changed_after_the_fit_count() -> None:
    pipeline = make_pipeline(StandardScaler(), small()).fit(X, y)
    pipeline.set_params(standardscaler__with_mean=False)
    assert_close(as_network(pipeline).predict(X), pipeline.predict_proba(X))


# Outputs


@every_module
def test_two_classes_have_one_output_the_probability_of_the_second(module: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), small(module.MLPClassifier))
    pipeline.fit(X, np.where(y == 1, "no", "yes"))
    net = as_network(pipeline)
    outputs = net.predict(X)
    assert net.loss == "binary_cross_entropy"
    assert_close(outputs[:, 0], pipeline.predict_proba(X)[:, 1])
    predicted = pipeline.classes_[(outputs[:, 0] > 0.5).astype(int)]
    assert (predicted == pipeline.predict(X)).all()


@every_module
def test_multilabel_targets_have_an_output_per_label(module: Any) -> None:
    labels = np.column_stack([y == 0, y > 0, X[:, 0] > 5.5])
    pipeline = make_pipeline(StandardScaler(), small(module.MLPClassifier)).fit(X, labels)
    assert_close(as_network(pipeline).predict(X), pipeline.predict_proba(X))


@every_module
@pytest.mark.parametrize("targets", [Y_REAL, Y_REAL[:, 0]], ids=["two outputs", "one output"])
def test_regressors_return_what_they_predict(module: Any, targets: Array) -> None:
    pipeline = make_pipeline(MinMaxScaler(), small(module.MLPRegressor)).fit(X, targets)
    net = as_network(pipeline)
    assert net.loss == "squared_error"
    assert_close(net.predict(X), pipeline.predict(X).reshape(150, -1))


@pytest.mark.parametrize("options", [{"loss": "poisson"}, {"output_activation": "softplus"}])
def test_other_outputs_of_regressors_are_kept(options: dict[str, Any]) -> None:
    pipeline = make_pipeline(StandardScaler(), small(MLPRegressor, **options)).fit(X, Y_REAL / 1e5)
    assert_close(as_network(pipeline).predict(X), pipeline.predict(X))


def test_logistic_outputs_of_several_classes_are_not_divided_by_their_sum() -> None:
    pipeline = make_pipeline(StandardScaler(), small(output_activation="logistic")).fit(X, y)
    outputs = as_network(pipeline).predict(X)
    assert_close(outputs / outputs.sum(axis=1, keepdims=True), pipeline.predict_proba(X))


@every_module
@pytest.mark.parametrize("activation", ["identity", "logistic", "relu"])
def test_every_activation_of_hidden_layers_is_kept(module: Any, activation: str) -> None:
    estimator = small(module.MLPClassifier, activation=activation, hidden_layer_sizes=(7,))
    estimator.fit(X / 100, y)
    assert_close(as_network(estimator).predict(X / 100), estimator.predict_proba(X / 100))


@pytest.mark.parametrize("cls", BOTH)
def test_the_network_is_a_copy(cls: Any) -> None:
    estimator = small(cls).fit(X, y)
    before = estimator.predict(X)
    as_network(estimator).parameters[:] = 0
    np.testing.assert_array_equal(estimator.predict(X), before)


# dtype


def test_a_float32_pipeline_becomes_a_float32_network_within_the_bound_of_rounding() -> None:
    pipeline = make_pipeline(StandardScaler(), small(dtype="float32", activation="identity"))
    exact = as_network(pipeline.fit(X, y), dtype="float64")
    net = as_network(pipeline)
    assert net.dtype == np.float32
    scaler, W, b = pipeline[0], *(p[0] for p in (exact.weights, exact.biases))
    magnitude = np.abs(b) + (np.abs(X) + np.abs(scaler.mean_)) @ np.abs(W)
    magnitude += np.abs(scaler.mean_) @ np.abs(W)
    error = np.abs(net.layer_outputs(X)[0] - exact.layer_outputs(X)[0])
    assert (error <= (X.shape[1] + 3) * 2.0**-24 * magnitude).all()


def test_a_float64_network_predicts_what_a_pipeline_with_a_float32_estimator_does() -> None:
    far = X + 1e7
    pipeline = make_pipeline(StandardScaler(), small(dtype="float32")).fit(far, y)
    net = as_network(pipeline, dtype="float64")
    np.testing.assert_allclose(net.predict(far), pipeline.predict_proba(far), atol=1e-5)


# What is refused


class Squared(StandardScaler):  # type: ignore[misc]
    """A scaler that is none."""

    def transform(self, X: Any, copy: Any = None) -> Any:
        return super().transform(X, copy) ** 2


REFUSED: dict[str, tuple[Any, str]] = {
    "pca": (PCA(), r"'no' \(PCA\) .* only 'passthrough' and .*StandardScaler can"),
    "quantiles": (QuantileTransformer(n_quantiles=10), r"'no' \(QuantileTransformer\)"),
    "categories": (OneHotEncoder(handle_unknown="ignore"), r"'no' \(OneHotEncoder\)"),
    "subclass": (Squared(), r"'no' \(Squared\)"),
    "clip": (MinMaxScaler(clip=True), r"'no' \(MinMaxScaler\) .* clip=True is not linear"),
    "function": (FunctionTransformer(np.cbrt), r"'no' \(FunctionTransformer\) .* a function"),
    "nested": (make_pipeline(PCA()), r"'no\.pca' \(PCA\)"),
}


@pytest.mark.parametrize(("step", "message"), REFUSED.values(), ids=REFUSED)
def test_steps_that_are_no_scaling_are_refused_by_name(step: Any, message: str) -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("no", step), ("mlp", small())]).fit(X, y)
    with pytest.raises(ValueError, match=f"step {message}"):
        as_network(pipeline)


def test_max_abs_with_clip_is_refused() -> None:
    scaler = MaxAbsScaler()
    if "clip" not in scaler.get_params():
        pytest.skip("this scikit-learn has no clip")
    pipeline = make_pipeline(scaler.set_params(clip=True), small()).fit(X, y)
    with pytest.raises(ValueError, match=r"'maxabsscaler' \(MaxAbsScaler\) .* clip=True"):
        as_network(pipeline)


def test_functions_of_targets_are_refused() -> None:
    model = TransformedTargetRegressor(small(MLPRegressor), func=np.log, inverse_func=np.exp)
    with pytest.raises(ValueError, match=r"'transformer' \(FunctionTransformer\) .* a function"):
        as_network(model.fit(X, Y_REAL))


def test_scaled_targets_of_outputs_that_are_not_identity_are_refused() -> None:
    regressor = small(MLPRegressor, output_activation="softplus")
    model = TransformedTargetRegressor(regressor, transformer=MaxAbsScaler()).fit(X, Y_REAL)
    with pytest.raises(ValueError, match=r"cannot be folded: .* with softplus outputs"):
        as_network(model)
    model = TransformedTargetRegressor(regressor).fit(X, Y_REAL)
    assert_close(as_network(model).predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), "estimator must be an MLPClassifier .* got LogisticRegression$"),
        (make_pipeline(LogisticRegression()), "got LogisticRegression in step 'logisticregression"),
        (make_pipeline(StandardScaler()), "got StandardScaler in step 'standardscaler'"),
        (Pipeline([("last", "passthrough")]), "got str in step 'last'"),
        (MLPClassifier, "got ABCMeta$"),
        (None, "got NoneType$"),
    ],
)
def test_what_is_no_mlp_is_refused(estimator: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        as_network(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        small(),
        small(theirs.MLPRegressor),
        make_pipeline(StandardScaler(), small()),
        make_pipeline(StandardScaler(), small().initialize(X, y)),
        TransformedTargetRegressor(small(MLPRegressor)),
    ],
    ids=["estimator", "scikit-learn's", "pipeline", "scaler", "targets"],
)
def test_what_is_not_fitted_is_refused(estimator: Any) -> None:
    with pytest.raises(NotFittedError, match="not fitted"):
        as_network(estimator)
