"""A pytest plugin: scikit-learn's own tests, on nncore's classes.

    PYTHONPATH=tests/sklearn_suite python -m pytest -p plugin \
        --pyargs sklearn.neural_network.tests.test_mlp

The classes take their places before the tests are imported, so that nothing is copied.
"""

import pytest
import sklearn.neural_network

import nncore.sklearn

# What can pass with scikit-learn's private attributes only.
DESELECTED = {
    "test_gradient": "calls the private _loss_grad_lbfgs with lists of scikit-learn's own; "
    "tests/test_network.py compares the gradients with central differences",
}


def pytest_configure(config: pytest.Config) -> None:
    for name in ("MLPClassifier", "MLPRegressor"):
        setattr(sklearn.neural_network, name, getattr(nncore.sklearn, name))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    deselected = [item for item in items if item.name.partition("[")[0] in DESELECTED]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in deselected]


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = [f"scikit-learn {sklearn.__version__} with nncore {nncore.__version__}'s classes"]
    return lines + [f"deselected {name}: {reason}" for name, reason in DESELECTED.items()]
