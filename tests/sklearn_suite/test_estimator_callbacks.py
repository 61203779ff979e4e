"""Callbacks of the estimators: nncore's and scikit-learn's."""

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits

import nncore
from nncore.callbacks import EarlyStopping, ReduceOnPlateau
from nncore.sklearn import MLPClassifier

Array = npt.NDArray[Any]

X, y = load_digits(return_X_y=True)
X, X_val, y, y_val = X[:300] / 16, X[300:400] / 16, y[:300], y[300:400]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def small(**options: Any) -> Any:
    usual = {"hidden_layer_sizes": (10,), "max_iter": 15, "random_state": 0}
    return MLPClassifier(**{**usual, "learning_rate_init": 0.03, "batch_size": 50, **options})


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks_see_each_epoch_and_can_stop(solver: str) -> None:
    seen: list[nncore.EpochEnd] = []

    def callback(end: nncore.EpochEnd) -> bool:
        seen.append(end)
        return end.epoch == 4

    estimator = small(solver=solver, callbacks=[callback]).fit(X, y)
    assert [end.epoch for end in seen] == [1, 2, 3, 4]
    assert seen[-1].network is estimator.network_
    if solver == "adam":
        assert estimator.n_iter_ == 4
        assert [end.loss for end in seen] == estimator.loss_curve_


def test_a_callback_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="callbacks must be callables, got 3"):
        small(callbacks=[3]).fit(X, y)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_early_stopping_restores_the_best_parameters(solver: str) -> None:
    seen: list[Array] = []
    stopping = EarlyStopping("loss", patience=3, mode="max")  # so that the first epoch is the best
    callbacks = [stopping, lambda end: seen.append(end.network.copy_parameters())]
    estimator = small(solver=solver, callbacks=callbacks).fit(X, y)
    assert len(seen) == 4
    assert np.array_equal(estimator.network_.parameters, seen[0])
    assert np.array_equal(estimator.coefs_[0], estimator.network_.weights[0])


def test_callbacks_monitor_the_validation_loss() -> None:
    stopping = EarlyStopping(patience=2, mode="max")
    estimator = small(callbacks=[stopping]).fit(X, y, X_val=X_val, y_val=y_val)
    assert stopping.best_value == max(estimator.validation_loss_curve_)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping(), "monitors 'validation_loss', but this fit has ['loss']"),
        (ReduceOnPlateau("loss"), "the parameters of an estimator determine its learning rate"),
    ],
)
def test_callbacks_that_an_estimator_cannot_serve_are_refused(callback: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        small(callbacks=[callback]).fit(X, y)


class Recorder:
    """Follows scikit-learn's protocol of callbacks."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.log = last, list[Any]()

    def setup(self, estimator: Any, context: Any) -> None:
        self.log.append("setup")

    def teardown(self, estimator: Any, context: Any) -> None:
        self.log.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.log.append(("begin", context.task_name))

    def on_fit_task_end(
        self, estimator: Any, context: Any, *, fitted_estimator: Any = None
    ) -> bool:
        score = fitted_estimator.score(X, y)
        self.log.append(("end", context.task_name, context.task_id, score))
        return bool(context.task_name == "iteration" and context.task_id == self.last)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_scikit_learns_callbacks_see_each_iteration_and_can_stop(solver: str) -> None:
    pytest.importorskip("sklearn.callback")
    recorder = Recorder(last=2)
    estimator = small(solver=solver).set_callbacks(recorder).fit(X, y)
    ends = [entry for entry in recorder.log if entry[0] == "end"]
    assert [entry[1:3] for entry in ends[:-1]] == [("iteration", i) for i in range(3)]
    assert ends[-1][1] == "fit"
    assert ends[-1][3] == estimator.score(X, y)
    assert (recorder.log[0], recorder.log[-1]) == ("setup", "teardown")


def test_scikit_learns_progress_bar_runs() -> None:
    callback = pytest.importorskip("sklearn.callback")
    pytest.importorskip("rich")
    small().set_callbacks(callback.ProgressBar()).fit(X, y)
