"""The same seed gives scikit-learn's parameters up to rounding, step by step."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn
import sklearn.neural_network as theirs
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from sklearn.utils.fixes import CSC_CONTAINERS, CSR_CONTAINERS

import nncore.sklearn as ours

Array = npt.NDArray[Any]

# Sample weights and the Poisson loss came with scikit-learn 1.7.
WEIGHTS = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7)
needs_weights = pytest.mark.skipif(not WEIGHTS, reason="this scikit-learn has no sample weights")

X, y = load_digits(return_X_y=True)
X, y = X[:450] / 16, y[:450]
BOTH = ["MLPClassifier", "MLPRegressor"]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    options = {"hidden_layer_sizes": (20,), "max_iter": 20, "random_state": 3, **options}
    return getattr(theirs, name)(**options), getattr(ours, name)(**options)


def assert_same(one: Any, other: Any, tolerance: float = 1e-6) -> None:
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert a.dtype == b.dtype
        assert np.abs(a - b).max() <= tolerance * np.abs(a).max()
    for attribute in ("loss_", "best_loss_", "best_validation_score_", "loss_curve_"):
        a, b = getattr(one, attribute, None), getattr(other, attribute, None)
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_allclose(b, a, rtol=tolerance)
    for attribute in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_"):
        assert getattr(one, attribute) == getattr(other, attribute)


@pytest.mark.parametrize("activation", ["logistic", "tanh", "relu", "identity"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", BOTH)
def test_twenty_epochs_give_scikit_learns_parameters(
    name: str, solver: str, activation: str
) -> None:
    one, other = pair(name, solver=solver, activation=activation)
    one.fit(X, y)
    other.fit(X, y)
    assert_same(one, other, 1e-4 if activation == "relu" else 1e-6)
    np.testing.assert_allclose(other.predict(X), one.predict(X), rtol=1e-4)
    if name == "MLPClassifier":
        np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=1e-6)


OPTIONS: dict[str, dict[str, Any]] = {
    "no momentum": {"solver": "sgd", "momentum": 0},
    "plain momentum": {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2},
    "adaptive": {
        **{"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.2},
        **{"n_iter_no_change": 1, "tol": 0.05, "max_iter": 60},
    },
    "large alpha": {"alpha": 3.0},
    "batches of 7": {"batch_size": 7, "alpha": 0.1},
    "a batch larger than all": {"batch_size": 10_000},
    "in order": {"shuffle": False, "batch_size": 64},
    "Adam's coefficients": {"beta_1": 0.5, "beta_2": 0.8, "epsilon": 1e-3},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 3, "max_iter": 60},
    "tolerance": {"tol": 0.1, "n_iter_no_change": 2, "max_iter": 100},
    "three hidden layers": {"hidden_layer_sizes": [9, 7, 5], "activation": "tanh"},
    "no hidden layer": {"hidden_layer_sizes": []},
    "lbfgs with few evaluations": {"solver": "lbfgs", "max_fun": 9, "alpha": 0.5},
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_option_gives_scikit_learns_parameters(name: str, options: dict[str, Any]) -> None:
    if options.get("solver") == "sgd" and name == "MLPRegressor":
        options = {**options, "learning_rate_init": 0.01}
    one, other = pair(name, **options)
    one.fit(X, y)
    other.fit(X, y)
    assert_same(one, other, 1e-5)
    if options.get("early_stopping"):
        assert other.validation_scores_ == pytest.approx(one.validation_scores_)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", BOTH)
def test_float32_stays_close_and_keeps_its_type(name: str, solver: str) -> None:
    one, other = pair(name, solver=solver, activation="tanh", learning_rate_init=0.01)
    one.fit(X.astype("f4"), y)
    other.fit(X.astype("f4"), y)
    assert_same(one, other, 1e-2)
    for cast in ("f4", "f8", "i8", "f2"):
        assert other.predict(X.astype(cast)).dtype == one.predict(X.astype(cast)).dtype


@needs_weights
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", BOTH)
def test_sample_weights_act_as_in_scikit_learn(
    name: str, solver: str, early_stopping: bool
) -> None:
    weights = np.random.default_rng(0).uniform(0, 3, len(X))
    one, other = pair(name, solver=solver, alpha=0.1, early_stopping=early_stopping)
    one.fit(X, y, weights)
    other.fit(X, y, sample_weight=weights)
    assert_same(one, other, 1e-5)


@needs_weights
@pytest.mark.parametrize("options", [{"momentum": 0}, {}], ids=["plain", "momentum"])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", BOTH)
def test_a_batch_whose_weights_have_a_negative_sum_trains_as_in_scikit_learn(
    name: str, solver: str, options: dict[str, Any]
) -> None:
    weights = np.random.default_rng(0).uniform(0.5, 3, len(X))
    weights[100:150] *= -0.5
    options = {"shuffle": False, "batch_size": 50, "alpha": 0.1, "max_iter": 3, **options}
    one, other = pair(name, solver=solver, activation="tanh", learning_rate_init=1e-4, **options)
    one.fit(X, y, weights)
    other.fit(X, y, sample_weight=weights)
    assert_same(one, other, 1e-5)
    without = pair(name, solver=solver, activation="tanh", learning_rate_init=1e-4, **options)[1]
    without.fit(X, y, sample_weight=weights.clip(0))
    assert np.abs(without.coefs_[0] - other.coefs_[0]).max() > 1e-5


@needs_weights
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_poisson_loss_equals_scikit_learns(solver: str) -> None:
    one, other = pair("MLPRegressor", loss="poisson", solver=solver)
    one.fit(X, y)
    other.fit(X, y)
    assert_same(one, other, 1e-5)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_two_classes_are_one_output(solver: str) -> None:
    rows = y < 2
    one, other = pair("MLPClassifier", solver=solver, early_stopping=True)
    one.fit(X[rows], y[rows] == 1)
    other.fit(X[rows], y[rows] == 1)
    assert_same(one, other)
    assert (one.predict(X) == other.predict(X)).all()
    np.testing.assert_allclose(other.predict_log_proba(X), one.predict_log_proba(X), atol=1e-6)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_multilabel_targets_give_scikit_learns_parameters(solver: str) -> None:
    inputs, labels = make_multilabel_classification(100, random_state=0)
    one, other = pair("MLPClassifier", solver=solver)
    one.fit(inputs, labels)
    other.fit(inputs, labels)
    assert_same(one, other, 1e-5)
    a, b = one.predict(inputs), other.predict(inputs)
    assert a.dtype == b.dtype
    assert (a == b).all()
    np.testing.assert_allclose(other.predict_proba(inputs), one.predict_proba(inputs), atol=1e-6)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_several_outputs_give_scikit_learns_parameters(solver: str) -> None:
    inputs, targets = make_regression(200, 8, n_targets=3, random_state=0)
    one, other = pair("MLPRegressor", solver=solver, learning_rate_init=1e-4, activation="tanh")
    one.fit(inputs, targets)
    other.fit(inputs, targets)
    assert_same(one, other, 1e-5)
    assert other.predict(inputs).shape == (200, 3)


@pytest.mark.parametrize("container", [*CSR_CONTAINERS, *CSC_CONTAINERS])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_sparse_input_gives_the_results_of_dense_input(solver: str, container: Any) -> None:
    one, other = pair("MLPClassifier", solver=solver, batch_size=50)
    one.fit(container(X), y)
    other.fit(container(X), y)
    assert_same(one, other, 1e-5)
    np.testing.assert_allclose(other.predict_proba(container(X)), other.predict_proba(X))


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", BOTH)
def test_partial_fits_continue_as_in_scikit_learn(name: str, solver: str) -> None:
    one, other = pair(name, solver=solver, learning_rate="invscaling", batch_size=64)
    classes = {"classes": np.unique(y)} if name == "MLPClassifier" else {}
    for begin in (0, 150, 300, 0):
        rows = slice(begin, begin + 150)
        one.partial_fit(X[rows], y[rows], **classes)
        other.partial_fit(X[rows], y[rows], **classes)
        assert_same(one, other)
    assert one._optimizer.learning_rate == pytest.approx(other._optimizer.learning_rate)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", BOTH)
def test_warm_starts_continue_as_in_scikit_learn(name: str, solver: str) -> None:
    one, other = pair(name, solver=solver, warm_start=True, max_iter=5)
    for _ in range(3):
        one.fit(X, y)
        other.fit(X, y)
    assert_same(one, other, 1e-5)


def test_a_generator_is_drawn_from_in_scikit_learns_order() -> None:
    states = [np.random.RandomState(5), np.random.RandomState(5)]
    options: dict[str, Any] = {"early_stopping": True, "max_iter": 7}
    theirs.MLPRegressor(random_state=states[0], **options).fit(X, y)
    ours.MLPRegressor(random_state=states[1], **options).fit(X, y)
    assert states[0].randint(2**31) == states[1].randint(2**31)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1] * 4),
        np.array([-5, 2, 9, 2] * 2, np.int8),
        np.array([2**62, 0, 7, 7] * 2, np.uint64),
        np.array([True, False] * 4),
        np.array(["b", "a", "c", "a"] * 2),
        np.array([1.0, 2.0, 3.0, 1.0] * 2),
        np.zeros(8, int),
        np.arange(8),
    ],
    ids=lambda labels: f"{labels.dtype}-{len(set(labels))}",
)
def test_classes_are_those_of_scikit_learn(labels: Array) -> None:
    other, mine = (each.fit(np.eye(8), labels) for each in pair("MLPClassifier", max_iter=1))
    np.testing.assert_array_equal(mine.classes_, other.classes_, strict=True)
    assert mine.out_activation_ == other.out_activation_
    np.testing.assert_array_equal(mine.predict(np.eye(8)), other.predict(np.eye(8)), strict=True)
