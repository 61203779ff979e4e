"""The estimators among scikit-learn's other tools, and what people do with fitted ones."""

import copy
import inspect
import io
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn.neural_network as theirs
from sklearn import clone, config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nncore.sklearn import MLPClassifier, MLPRegressor

Array = npt.NDArray[Any]

X, y = load_digits(return_X_y=True)
X, y = X[:300] / 16, y[:300]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def small(cls: Any = MLPClassifier, **options: Any) -> Any:
    usual = {"hidden_layer_sizes": (10,), "max_iter": 15, "random_state": 0}
    return cls(**{**usual, "learning_rate_init": 0.03, "batch_size": 50, **options})


def same(one: Any, other: Any) -> bool:
    return all(
        (a == b).all()
        for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True)
    )


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_signatures_begin_with_scikit_learns_parameters(name: str) -> None:
    ours, other = (
        {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[name],
        getattr(theirs, name),
    )
    parameters = inspect.signature(ours).parameters
    for parameter in inspect.signature(other).parameters.values():
        assert parameters[parameter.name].default == parameter.default
        assert parameters[parameter.name].kind == parameter.kind
    for method in ("fit", "partial_fit", "predict", "score"):
        expected = inspect.signature(getattr(other, method)).parameters
        actual = inspect.signature(getattr(ours, method)).parameters
        if "sample_weight" in expected:  # not before scikit-learn 1.7
            assert list(actual)[: len(expected)] == list(expected)


def test_all_public_names_of_scikit_learn_exist() -> None:
    for ours, other in (
        (small(), theirs.MLPClassifier(max_iter=2)),
        (small(MLPRegressor), theirs.MLPRegressor(max_iter=2)),
    ):
        ours.fit(X, y)
        other.fit(X, y)
        public = {name for name in dir(other) if not name.startswith("_")}
        assert public <= set(dir(ours))
        assert ours.__sklearn_tags__() == other.__sklearn_tags__()


def test_grid_search_over_a_pipeline_in_two_processes() -> None:
    pipeline = make_pipeline(StandardScaler(), small())
    grid = {"mlpclassifier__alpha": [1e-4, 1e-1], "mlpclassifier__solver": ["adam", "lbfgs"]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.7


def test_voting_and_calibration() -> None:
    voting = VotingClassifier([("a", small()), ("b", small(random_state=1))], voting="soft")
    assert voting.fit(X, y).score(X, y) > 0.7
    calibrated = CalibratedClassifierCV(small(max_iter=60), cv=2).fit(X, y)
    assert calibrated.predict_proba(X).shape == (300, 10)


@pytest.mark.parametrize("container", [pd.DataFrame, pl.DataFrame])
def test_data_frames(container: Any) -> None:
    frame = container(X, **({"columns" if container is pd.DataFrame else "schema": NAMES}))
    assert len(cross_val_score(small(), frame, y, cv=3)) == 3
    fitted = small().fit(frame, y)
    if not hasattr(small(theirs.MLPClassifier).fit(frame, y), "feature_names_in_"):
        pytest.skip("this scikit-learn does not read the names of these frames")
    assert list(fitted.feature_names_in_) == NAMES
    assert same(fitted, small().fit(X, y))
    assert (fitted.predict(frame) == small().fit(X, y).predict(X)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        small(early_stopping=True, scoring="accuracy", max_iter=3, tol=10).fit(frame, y)
        with pytest.raises(UserWarning, match="feature names"):
            fitted.predict(X)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[NAMES[::-1]])


NAMES = [f"pixel {i}" for i in range(64)]


def test_metadata_routing() -> None:
    weights = np.linspace(0, 1, len(X))
    with config_context(enable_metadata_routing=True):
        classifier = small().set_fit_request(sample_weight=True)
        classifier.set_score_request(sample_weight=False)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, classifier)
        pipeline.fit(X, y, sample_weight=weights)
        search = GridSearchCV(classifier, {"alpha": [1e-4]}, cv=2).fit(X, y, sample_weight=weights)
    assert same(search.best_estimator_, small().fit(X, y, weights))


def test_joblibs_processes_give_the_same_bits() -> None:
    fits = joblib.Parallel(n_jobs=2)(
        joblib.delayed(small(random_state=seed).fit)(X, y) for seed in (0, 1)
    )
    assert same(fits[0], small().fit(X, y))
    assert not same(fits[1], fits[0])


def test_dasks_processes_give_the_same_bits() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None),
        joblib.parallel_config("dask"),
    ):
        (fitted,) = joblib.Parallel()(joblib.delayed(small().fit)(X, y) for _ in range(1))
    assert same(fitted, small().fit(X, y))


# Parameters


@pytest.mark.parametrize("kind", ["as it is", "pickled", "copied", "deep copy", "from joblib"])
def test_writing_to_coefs_changes_the_predictions(kind: str, tmp_path: Path) -> None:
    fitted = small().fit(X, y)
    if kind == "pickled":
        fitted = pickle.loads(pickle.dumps(fitted))
    elif kind == "copied":
        fitted = copy.copy(fitted)
    elif kind == "deep copy":
        fitted = copy.deepcopy(fitted)
    elif kind == "from joblib":
        joblib.dump(fitted, tmp_path / "mlp")
        fitted = joblib.load(tmp_path / "mlp", mmap_mode="r")
    assert np.shares_memory(fitted.coefs_[0], fitted.network_.parameters)
    before = fitted.predict_proba(X)
    np.testing.assert_allclose(before, small().fit(X, y).predict_proba(X))
    fitted.coefs_[1][:, 3] = 0
    fitted.intercepts_[1][3] = 50
    assert (fitted.predict(X) == 3).all()
    fitted.partial_fit(X, y)
    assert np.abs(fitted.intercepts_[1][3] - 50) < 1


def test_other_arrays_in_the_place_of_coefs_are_taken_up() -> None:
    fitted = small().fit(X, y)
    other = small(random_state=1).fit(X, y)
    expected = other.predict_proba(X)
    fitted.coefs_ = [W.copy() for W in other.coefs_]
    fitted.intercepts_ = [b.tolist() for b in other.intercepts_]
    np.testing.assert_allclose(fitted.predict_proba(X), expected)
    fitted.coefs_[1][:] = 0
    assert (np.ptp(fitted.predict_proba(X), axis=0) == 0).all()
    fitted.partial_fit(X, y)
    assert np.shares_memory(fitted.coefs_[0], fitted.network_.parameters)


def test_a_pickled_estimator_continues_with_the_same_bits() -> None:
    one = small(random_state=np.random.RandomState(0))
    one.partial_fit(X, y, classes=np.arange(10))
    other = pickle.loads(pickle.dumps(one))
    for estimator in (one, other):
        estimator.partial_fit(X, y)
    assert same(one, other)


def test_clones_have_the_parameters_and_nothing_else() -> None:
    fitted = small(dtype="float32", activation=["tanh"]).fit(X, y)
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "coefs_")
    assert "MLPClassifier" in copied._repr_html_()


def test_a_changed_activation_counts_from_the_next_prediction_on() -> None:
    ours, other = small(), small(theirs.MLPClassifier)
    for estimator in (ours, other):
        estimator.fit(X, y)
        estimator.set_params(activation="tanh")
    np.testing.assert_allclose(ours.predict_proba(X), other.predict_proba(X), atol=1e-8)


# Inputs


def test_sparse_input_is_never_dense_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = scipy.sparse.random(5000, 400, 0.01, format="csr", random_state=0)
    largest = 0
    toarray = scipy.sparse.csr_matrix.toarray

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal largest
        largest = max(largest, self.shape[0])
        return toarray(self, *arguments, **options)

    monkeypatch.setattr(type(sparse), "toarray", watched)
    for solver in ("adam", "lbfgs"):
        fitted = small(MLPRegressor, solver=solver, max_iter=2, early_stopping=solver == "adam")
        fitted.fit(sparse, np.arange(5000.0)).predict(sparse)
    assert 0 < largest <= 1000


def test_input_that_need_not_be_copied_is_not_changed() -> None:
    before = X.copy()
    readonly = X.copy()
    readonly.flags.writeable = False
    fitted = small().fit(readonly, y)
    fitted.predict(readonly)
    assert (readonly == before).all()
    assert same(fitted, small().fit(np.asfortranarray(X), y))


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_large_input_gives_no_other_warning_than_scikit_learns(solver: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        small(solver=solver, learning_rate_init=1e-9).fit(1e5 * X, y)


def test_targets_beyond_the_outputs_range_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        MLPRegressor(output_activation="logistic", max_iter=2).fit(X, 100 * X[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layer_sizes": -1}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": True}, "hidden_layer_sizes must hold integers"),
        ({"hidden_layer_sizes": (4, True)}, "hidden_layer_sizes must hold integers"),
        ({"hidden_layer_sizes": (), "dropout": 5}, "dropout"),
        ({"hidden_layer_sizes": (4, 0)}, r"hidden_layer_sizes must be > 0, got \[4, 0\]"),
        ({"solver": "rmsprop"}, "'solver' parameter of MLPClassifier must be a str among"),
        ({"activation": "swish"}, "'activation' parameter of MLPClassifier must be a str among"),
        ({"activation": ["tanh", "tanh"]}, "activation .* each of the 1 hidden layers, got 2"),
        ({"activation": ["swish"]}, "activation must hold names among .* got 'swish'"),
        ({"dropout": 1.0}, "'dropout' parameter of MLPClassifier must be a float in the range"),
        ({"dropout": [0.1, 0.2]}, "dropout .* each of the 1 hidden layers, got 2"),
        ({"dropout": 0.5, "solver": "lbfgs"}, "dropout and gradient_clipping need solver='sgd'"),
        ({"gradient_clipping": 0.0}, "'gradient_clipping' parameter of MLPClassifier must be"),
        ({"dtype": "float16"}, "'dtype' parameter of MLPClassifier must be a str among"),
        ({"n_threads": 0}, "'n_threads' parameter of MLPClassifier must be an int in the range"),
        ({"output_activation": "softmax", "loss": "squared_error"}, "needs loss='log_loss'"),
        ({"scoring": "no such"}, "no such"),
    ],
)
def test_errors_name_the_wrong_parameter_and_its_value(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(**{"early_stopping": "scoring" in options, **options}).fit(X, y)


def test_going_on_with_another_number_of_layers_is_refused() -> None:
    estimator = small(warm_start=True).fit(X, y).set_params(hidden_layer_sizes=(10, 10))
    with pytest.raises(
        ValueError, match=r"the 1 hidden layers of the fitted network, got \(10, 10\)"
    ):
        estimator.fit(X, y)


def test_ctrl_c_ends_the_fit_with_a_warning_and_usable_parameters() -> None:
    large = np.random.default_rng(0).normal(size=(20_000, 50))
    estimator = MLPRegressor(
        hidden_layer_sizes=(300, 300), max_iter=10_000, tol=0, n_iter_no_change=10_000
    )
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(0.5, press)
    timer.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(large, large[:, 0])
    assert time.monotonic() - pressed[0] < 2
    assert "Training interrupted by user." in {str(warning.message) for warning in caught}
    assert np.isfinite(estimator.predict(large[:10])).all()


def test_verbose_prints_scikit_learns_lines(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for cls in (theirs.MLPClassifier, MLPClassifier):
        cls(
            (5,), random_state=0, verbose=True, early_stopping=True, n_iter_no_change=2, tol=0.1
        ).fit(X, y)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "Stopping." in printed[0]


def test_a_stream_can_take_an_estimator() -> None:
    stream = io.BytesIO()
    pickle.dump(small().fit(X, y), stream)
    assert len(stream.getvalue()) < 40_000
