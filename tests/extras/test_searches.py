"""Searches beyond one process: Optuna's pruning, and joblib's backend for Dask."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nncore

optuna = pytest.importorskip("optuna")
distributed = pytest.importorskip("distributed")
joblib = pytest.importorskip("joblib")

from sklearn.model_selection import GridSearchCV  # noqa: E402

from nncore.sklearn import MLPClassifier  # noqa: E402

IMAGES, LABELS = nncore.datasets.load_digits()
EPOCHS = 4


def network(units: int) -> nncore.Network:
    return nncore.Network([64, units, 10], loss="cross_entropy", seed=0)


def pruning(trial: Any) -> Callable[[nncore.EpochEnd], bool]:
    def stop(end: nncore.EpochEnd) -> bool:
        trial.report(end.validation_loss, end.epoch)
        return bool(trial.should_prune())

    return stop


def test_optuna_prunes_single_networks_and_leaves_the_bits_of_others() -> None:
    # A loss above 2 is that of a network which learns next to nothing.
    pruner = optuna.pruners.ThresholdPruner(upper=2.0, n_warmup_steps=2)
    study = optuna.create_study(pruner=pruner)
    rates = [0.01, 1e-6, 0.003, 1e-7]
    trials = [study.ask() for _ in rates]
    networks = [network(units) for units in (20, 20, 30, 30)]
    options: Any = {"epochs": EPOCHS, "validation_split": 0.2}
    histories = nncore.fit_many(
        networks, IMAGES, LABELS, optimizer=[nncore.Adam(rate) for rate in rates], seeds=0,
        callbacks=[(pruning(trial),) for trial in trials], n_threads=2, **options,
    )  # fmt: skip
    assert [len(history) for history in histories] == [EPOCHS, 2, EPOCHS, 2]
    for i, units in ((0, 20), (2, 30)):
        alone = network(units)
        alone.fit(IMAGES, LABELS, optimizer=nncore.Adam(rates[i]), seed=0, **options)
        assert networks[i].equals(alone)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes with a thread each."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def threads_of_a_fit() -> int:
    """Return how many threads large steps take in this process."""
    net = nncore.Network([1000, 1000, 1])
    with net.session(10**6, batch_size=1000) as session:
        return session.shape[1]


def test_workers_of_dask_use_their_share_of_the_processors(client: Any) -> None:
    assert [*client.run(threads_of_a_fit).values()] == [1, 1]


def test_a_search_on_dask_has_the_bits_of_a_sequential_one(client: Any) -> None:
    estimator = MLPClassifier((20,), tol=0.1, n_iter_no_change=2, random_state=0)
    grid = {"alpha": [1e-4, 1e-1], "learning_rate_init": [0.003, 0.01]}
    alone = GridSearchCV(estimator, grid, cv=3).fit(IMAGES, LABELS)
    with joblib.parallel_config(backend="dask"):
        search = GridSearchCV(estimator, grid, cv=3).fit(IMAGES, LABELS)
    ran = client.run(lambda dask_worker: len(dask_worker.state.log))
    assert all(ran.values())
    for name in ("mean_test_score", "split0_test_score", "split1_test_score"):
        assert np.array_equal(search.cv_results_[name], alone.cv_results_[name])
    assert search.best_params_ == alone.best_params_
    assert search.best_estimator_.network_.equals(alone.best_estimator_.network_)
