"""Estimators with too little memory, or without more threads from the system."""

import warnings
from pathlib import Path

import pytest
from exhaustion import check_exhaustion, limits_memory, limits_threads, no_more_threads
from sklearn.datasets import load_digits

from nncore.sklearn import MLPClassifier

SETUP = """
import pickle
import sys
import warnings
import numpy as np
import scipy.sparse
from nncore.sklearn import MLPClassifier, MLPRegressor

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X, Y = rng.random((3000, 200), np.float32), rng.random((3000, 100), np.float32)
classes = rng.integers(0, 3, 3000)
options = {"hidden_layer_sizes": (300,), "max_iter": 1, "batch_size": 1500, "random_state": 0}
classifier = MLPClassifier(**options, n_threads=2).fit(X, classes)
regressor = MLPRegressor(**options, early_stopping=True).fit(X, Y)
warm = MLPClassifier(**options, warm_start=True).fit(X, classes)
lbfgs = MLPRegressor(**options, solver="lbfgs", warm_start=True).fit(X, Y)
estimators = classifier, regressor, warm, lbfgs
calls = {
    "fit": lambda: classifier.fit(X, classes),
    "fit with early stopping": lambda: regressor.fit(X.astype(float), Y),
    "fit on sparse input": lambda: classifier.fit(scipy.sparse.csr_matrix(X), classes),
    "warm start": lambda: warm.fit(X, classes),
    "warm start of L-BFGS": lambda: lbfgs.fit(X, Y),
    "partial_fit": lambda: classifier.partial_fit(X, classes),
    "initialize": lambda: regressor.initialize(X, Y),
    "predict": lambda: regressor.predict(X),
    "predict_proba": lambda: classifier.predict_proba(X),
    "score": lambda: regressor.score(X, Y),
}
call = calls[sys.argv[1]]

def state():
    return [pickle.dumps(estimator) for estimator in estimators]
"""

CALLS = [
    "fit",
    "fit with early stopping",
    "fit on sparse input",
    "warm start",
    "warm start of L-BFGS",
    "partial_fit",
    "initialize",
    "predict",
    "predict_proba",
    "score",
]


@limits_memory
@pytest.mark.parametrize("call", CALLS)
def test_too_little_memory_raises_memory_error_and_changes_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_exhaustion(SETUP, call, tmp_path, monkeypatch)


@limits_threads
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_without_more_threads_fewer_give_the_same_bits(solver: str) -> None:
    X, y = load_digits(return_X_y=True)

    def probabilities() -> list[bytes]:
        classifier = MLPClassifier((300,), solver=solver, max_iter=2, random_state=0, n_threads=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = classifier.fit(X, y).predict_proba(X)
        if solver == "adam":
            classifier.partial_fit(X, y)
        return [fitted.tobytes(), classifier.predict_proba(X).tobytes()]

    expected = probabilities()
    with no_more_threads():
        assert probabilities() == expected
