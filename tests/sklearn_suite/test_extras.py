"""What the estimators offer beyond scikit-learn's."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_digits, make_regression
from sklearn.metrics import log_loss

from nncore.sklearn import MLPClassifier, MLPRegressor

Array = npt.NDArray[Any]

X, y = load_digits(return_X_y=True)
X, y = X[:300] / 16, y[:300]
X_val, y_val = load_digits(return_X_y=True)
X_val, y_val = X_val[300:400] / 16, y_val[300:400]
BOTH = [MLPClassifier, MLPRegressor]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def small(cls: Any = MLPClassifier, **options: Any) -> Any:
    usual = {"hidden_layer_sizes": (10,), "max_iter": 15, "random_state": 0}
    return cls(**{**usual, "learning_rate_init": 0.03, "batch_size": 50, **options})


def flat(estimator: Any) -> Array:
    return np.concatenate([p.ravel() for p in estimator.coefs_ + estimator.intercepts_])


# dtype and n_threads


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("cls", BOTH)
def test_dtype_takes_precedence_over_the_type_of_x(cls: Any, solver: str) -> None:
    options: dict[str, Any] = {"solver": solver, "max_iter": 5, "learning_rate_init": 0.01}
    single = small(cls, dtype="float32", **options).fit(X, y)
    assert {p.dtype for p in single.coefs_ + single.intercepts_} == {np.dtype("float32")}
    np.testing.assert_allclose(flat(single), flat(small(cls, **options).fit(X, y)), atol=1e-2)
    double = small(cls, dtype=np.float64, **options).fit(X.astype("f4"), y)
    assert {p.dtype for p in double.coefs_ + double.intercepts_} == {np.dtype("float64")}
    if cls is MLPRegressor:
        assert single.predict(X).dtype == np.float32
        assert double.predict(X.astype("f4")).dtype == np.float64


def test_dtype_may_change_between_partial_fits() -> None:
    estimator = small().partial_fit(X, y, classes=np.arange(10))
    estimator.set_params(dtype="float32").partial_fit(X, y)
    assert estimator.coefs_[0].dtype == np.float32
    expected = small()
    for _ in range(2):
        expected.partial_fit(X, y, classes=np.arange(10))
    np.testing.assert_allclose(flat(estimator), flat(expected), atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "gradient_clipping": 0.5}])
def test_the_number_of_threads_changes_no_bit(options: dict[str, Any]) -> None:
    fits = [small(n_threads=n, max_iter=3, **options).fit(X, y) for n in (1, 2, 3)]
    assert {flat(fit).tobytes() for fit in fits} == {flat(fits[0]).tobytes()}
    assert fits[1].loss_curve_ == fits[0].loss_curve_


# Activations and losses


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "softplus"])
def test_further_activations_learn(activation: str) -> None:
    assert small(activation=activation, max_iter=40).fit(X, y).score(X, y) > 0.9


def test_each_layer_has_its_activation() -> None:
    estimator = small(hidden_layer_sizes=(10, 8), activation=["tanh", "elu"]).fit(X, y)
    assert estimator.network_.activation == ("tanh", "elu", "softmax")
    uniform = small(hidden_layer_sizes=(10, 8), activation=["tanh", "tanh"]).fit(X, y)
    assert (
        flat(uniform) == flat(small(hidden_layer_sizes=(10, 8), activation="tanh").fit(X, y))
    ).all()


def test_sigmoid_outputs_with_squared_error() -> None:
    estimator = small(loss="squared_error", max_iter=80).fit(X, y)
    assert estimator.out_activation_ == "logistic"
    assert estimator.score(X, y) > 0.8
    np.testing.assert_allclose(estimator.predict_proba(X).sum(axis=1), 1)
    net = estimator.network_
    assert (net.loss, net.activation[-1]) == ("squared_error", "sigmoid")
    loss = small(loss="squared_error", alpha=0, max_iter=1, batch_size=300, shuffle=False)
    loss.initialize(X, y)
    expected = loss.network_.evaluate(X, np.eye(10)[y])
    loss.set_params(warm_start=True).fit(X, y)
    assert loss.loss_ == pytest.approx(expected)


def test_logistic_outputs_with_the_log_loss_are_one_class_against_the_rest() -> None:
    estimator = small(output_activation="logistic", max_iter=40).fit(X, y)
    assert estimator.network_.loss == "binary_cross_entropy"
    assert estimator.score(X, y) > 0.9


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_robust_losses_care_less_for_outliers(loss: str, solver: str) -> None:
    inputs, targets = make_regression(300, 4, noise=0.1, random_state=0)
    targets /= targets.std()
    spoiled = targets.copy()
    spoiled[::10] += 50
    errors = {}
    for name in ("squared_error", loss):
        options: dict[str, Any] = {"solver": solver, "max_iter": 200, "alpha": 0.0}
        estimator = small(MLPRegressor, loss=name, **options).fit(inputs, spoiled)
        errors[name] = np.median(np.abs(estimator.predict(inputs) - targets))
    assert errors[loss] < errors["squared_error"] / 2


def test_output_activation_bounds_what_a_regressor_predicts() -> None:
    estimator = small(MLPRegressor, output_activation="softplus").fit(X, y)
    assert (estimator.predict(X) > 0).all()
    assert estimator.out_activation_ == "softplus"
    with pytest.raises(ValueError, match="needs output_activation='exp', got 'identity'"):
        small(MLPRegressor, loss="poisson", output_activation="identity").fit(X, y)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y must not be negative with loss='poisson', got -1\.0"):
        small(MLPRegressor, loss="poisson").fit(X, y - 1.0)


# class_weight


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_class_weight_is_a_sample_weight_by_class(solver: str) -> None:
    unbalanced = y > 0
    weights = {False: 5.0, True: 0.5}
    one = small(solver=solver, class_weight=weights).fit(X, unbalanced)
    other = small(solver=solver).fit(X, unbalanced, np.where(unbalanced, 0.5, 5.0))
    assert (flat(one) == flat(other)).all()
    balanced = small(solver=solver, class_weight="balanced").fit(X, unbalanced)
    factors = np.where(unbalanced, 0.5 / unbalanced.mean(), 0.5 / (1 - unbalanced.mean()))
    np.testing.assert_allclose(
        flat(balanced), flat(small(solver=solver).fit(X, unbalanced, factors))
    )
    doubled = small(solver=solver, class_weight=weights).fit(X, unbalanced, np.full(300, 2.0))
    assert not (flat(doubled) == flat(one)).all()


def test_balanced_weights_are_not_for_partial_fit() -> None:
    with pytest.raises(ValueError, match="class_weight='balanced' needs all examples"):
        small(class_weight="balanced").partial_fit(X, y, classes=np.arange(10))


# Validation


@pytest.mark.parametrize("cls", BOTH)
def test_a_given_validation_set_takes_the_place_of_a_part_of_x(cls: Any) -> None:
    estimator = small(cls, early_stopping=True, n_iter_no_change=4, max_iter=60)
    estimator.fit(X, y, X_val=X_val, y_val=y_val)
    assert estimator.t_ == 300 * estimator.n_iter_
    assert len(estimator.validation_loss_curve_) == estimator.n_iter_
    assert estimator.score(X_val, y_val) == pytest.approx(estimator.best_validation_score_)
    assert estimator.best_validation_score_ == max(estimator.validation_scores_)


def test_a_validation_set_without_early_stopping_changes_nothing_but_the_curve() -> None:
    plain, watched = small().fit(X, y), small().fit(X, y, X_val=X_val, y_val=y_val)
    assert (flat(plain) == flat(watched)).all()
    assert plain.validation_loss_curve_ is None
    expected = log_loss(y_val, watched.predict_proba(X_val), labels=np.arange(10))
    assert watched.validation_loss_curve_[-1] == pytest.approx(expected)
    weights = np.linspace(0, 1, 100)
    watched.fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=weights)
    expected = log_loss(
        y_val, watched.predict_proba(X_val), labels=np.arange(10), sample_weight=weights
    )
    assert watched.validation_loss_curve_[-1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"X_val": X_val}, "X_val and y_val must be given together, got X_val only"),
        ({"y_val": y_val}, "X_val and y_val must be given together, got y_val only"),
        ({"X_val": X_val, "y_val": y_val[:5]}, "the same number of rows, got 100 and 5"),
        ({"X_val": X_val, "y_val": y_val + 9}, "y_val must have only classes of y"),
        ({"X_val": X_val[:, :5], "y_val": y_val}, "5 features"),
        ({"sample_weight_val": y_val}, "sample_weight_val needs X_val and y_val"),
    ],
)
def test_a_validation_set_that_does_not_fit_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().fit(X, y, **data)


def test_lbfgs_has_no_epochs_to_validate_after() -> None:
    with pytest.raises(ValueError, match="X_val and y_val need solver='sgd' or 'adam'"):
        small(solver="lbfgs").fit(X, y, X_val=X_val, y_val=y_val)


@pytest.mark.parametrize("scoring", ["loss", "neg_log_loss"])
def test_early_stopping_can_monitor_the_loss(scoring: str) -> None:
    estimator = small(early_stopping=True, scoring=scoring, n_iter_no_change=3, max_iter=200)
    estimator.fit(X, y, X_val=X_val, y_val=y_val)
    np.testing.assert_allclose(
        estimator.validation_scores_, -np.array(estimator.validation_loss_curve_), rtol=1e-6
    )
    assert estimator.n_iter_ < 200
    best = np.argmin(estimator.validation_loss_curve_)
    assert best < estimator.n_iter_ - 1
    loss = log_loss(y_val, estimator.predict_proba(X_val), labels=np.arange(10))
    assert loss == pytest.approx(estimator.validation_loss_curve_[best])


def test_early_stopping_takes_a_scorer() -> None:
    def worst(estimator: Any, X: Any, y: Any) -> float:
        return -float(np.abs(estimator.predict(X) - y).max())

    estimator = small(MLPRegressor, early_stopping=True, scoring=worst).fit(X, y)
    assert all(score < 0 for score in estimator.validation_scores_)


# Dropout and clipping


@pytest.mark.parametrize("dropout", [0.2, [0.2, 0.5]])
def test_dropout_has_its_own_random_numbers_and_is_off_in_predict(dropout: Any) -> None:
    options: dict[str, Any] = {"hidden_layer_sizes": (30, 20), "max_iter": 40}
    fits = [small(dropout=dropout, **options).fit(X, y) for _ in range(2)]
    assert (flat(fits[0]) == flat(fits[1])).all()
    assert not (flat(fits[0]) == flat(small(**options).fit(X, y))).all()
    assert fits[0].score(X, y) > 0.8
    assert (fits[0].predict_proba(X) == fits[0].predict_proba(X)).all()
    assert fits[0].loss_ > small(**options).fit(X, y).loss_


def test_gradient_clipping_bounds_a_step() -> None:
    options: dict[str, Any] = {"solver": "sgd", "momentum": 0, "batch_size": 300, "max_iter": 1}
    options |= {"learning_rate_init": 1.0, "warm_start": True}
    estimator = small(gradient_clipping=1e-3, **options).initialize(X, y)
    before = flat(estimator)
    change = flat(estimator.fit(X, y)) - before
    assert np.linalg.norm(change) == pytest.approx(1e-3)


# initialize


@pytest.mark.parametrize("cls", BOTH)
def test_initialize_draws_the_parameters_that_fit_starts_from(cls: Any) -> None:
    estimator = small(cls, learning_rate_init=1e-300, solver="sgd", max_iter=1)
    assert (flat(estimator.initialize(X, y)) == flat(small(cls).initialize(X, y))).all()
    assert estimator.n_iter_ == estimator.t_ == 0
    before = flat(estimator)
    np.testing.assert_array_equal(flat(estimator.fit(X, y)), before)
    assert estimator.predict(X).shape == (300,)


def test_fit_starts_from_what_was_written_after_initialize() -> None:
    pretrained = theirs.MLPClassifier((10,), random_state=1, max_iter=50).fit(X, y)
    estimator = small(warm_start=True, solver="lbfgs", max_iter=1).initialize(X, y)
    for W, expected in zip(estimator.coefs_, pretrained.coefs_, strict=True):
        W[...] = expected
    for b, expected in zip(estimator.intercepts_, pretrained.intercepts_, strict=True):
        b[...] = expected
    np.testing.assert_allclose(estimator.predict_proba(X), pretrained.predict_proba(X))
    assert estimator.fit(X, y).loss_ < pretrained.loss_
