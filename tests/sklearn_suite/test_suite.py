"""scikit-learn's own tests and checks pass on nncore's classes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from nncore.sklearn import MLPClassifier, MLPRegressor


def test_scikit_learns_own_tests_pass(tmp_path: Path) -> None:
    """In a process of its own, since the plugin puts nncore's classes in scikit-learn's place.

    In an empty directory, since our settings make errors of warnings that scikit-learn's do not:
    whether L-BFGS-B ends with one depends on rounding.
    """
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "plugin", "-p", "no:cacheprovider", "-q"),
            *("--rootdir", str(tmp_path), "--pyargs", "sklearn.neural_network.tests.test_mlp"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-2000:]
    assert " passed" in process.stdout


# What scikit-learn's own suite gives its estimators for these checks: few iterations, and for the
# equivalence of weights and repetitions a solver that does not depend on the order of examples.
WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
ESTIMATORS: list[Any] = [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)]
FOR_WEIGHTS: list[Any] = [
    MLPClassifier(max_iter=100, solver="lbfgs"),
    MLPRegressor(max_iter=100, solver="sgd", tol=1e-2, random_state=42),
]


def name_of(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


@pytest.mark.filterwarnings("default")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks_pass(estimator: Any, check: Any) -> None:
    if name_of(check) == WEIGHTS:
        estimator = FOR_WEIGHTS[[type(e) for e in FOR_WEIGHTS].index(type(estimator))]
    check(estimator)
