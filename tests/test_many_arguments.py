"""Arguments of `fit_many`: one value, or a list with one for each network."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make, problem, refused

import nncore
from nncore.callbacks import BestModel, Checkpoint, EarlyStopping, Log, Progress

X, Y = problem()[1:]


def networks(n: int = 3) -> list[nncore.Network]:
    return [make([5, 6, 3], seed=i) for i in range(n)]


@pytest.mark.parametrize(
    ("options", "error", "fragment"),
    [
        ({"epochs": [1, 2]}, ValueError, "epochs must be a list with one value for each of the 3"),
        ({"epochs": (1, 2, 3)}, TypeError, "epochs must be an integer, got (1, 2, 3)"),
        ({"epochs": [1, 2, 0]}, ValueError, "epochs must be at least 1, got 0"),
        ({"sample_weight": [1.0] * 37}, ValueError, "sample_weight must be a list with one value"),
        ({"dropout": [0.1, 0.2, 1.5]}, ValueError, "dropout must be in [0, 1), got 1.5"),
        ({"metrics": ["accuracy"] * 3}, TypeError, "metrics"),
        ({"callbacks": [print] * 3}, TypeError, "callbacks must be a sequence of callables"),
        ({"callbacks": print}, TypeError, "callbacks must be a tuple for all networks or a list"),
        ({"callbacks": iter([print])}, TypeError, "callbacks must be a tuple for all networks"),
        ({"seeds": np.arange(3)}, TypeError, "seeds must be one seed, or a list or range of them"),
        ({"seeds": (1, 2, 3)}, TypeError, "seeds must be one seed, or a list or range of them"),
        ({"seeds": range(2)}, ValueError, "seeds must be a list with one value for each of the 3"),
        ({"seeds": "zero"}, TypeError, "seed must be None, an integer >= 0"),
        ({"rows": [0, 1, 2]}, TypeError, "rows must be a vector of row numbers, or of 37 booleans"),
        ({"rows": np.ones(36, bool)}, TypeError, "rows must be a vector of row numbers"),
        ({"rows": np.ones((3, 2), int)}, TypeError, "got int64 of shape (3, 2)"),
        ({"rows": ([0], [1, 2], [3])}, TypeError, "rows must be a vector of row numbers"),
        ({"rows": np.array([0.0])}, TypeError, "rows must be a vector of row numbers"),
        ({"rows": np.array([1, 37])}, ValueError, "rows must hold rows from 0 to 36, got 37 at 1"),
        ({"rows": np.array([-1])}, ValueError, "rows must hold rows from 0 to 36, got -1 at 0"),
        ({"rows": np.array([], int)}, ValueError, "rows must hold at least 1 row, got none"),
        ({"rows": np.zeros(37, bool)}, ValueError, "rows must hold at least 1 row, got none"),
        ({"validation_rows": np.array([99])}, ValueError, "validation_rows must hold rows from 0"),
        (
            {"validation_rows": np.array([1]), "validation_split": 0.1},
            ValueError,
            "validation_rows must not be given with validation_data or validation_split",
        ),
        (
            {"rows": np.array([1, 2]), "sample_weight": np.arange(37) > 9},
            ValueError,
            "sample_weight must have a sum above 0, got zeros only for rows",
        ),
        ({"n_threads": 0}, ValueError, "n_threads must be at least 1, got 0"),
        ({"verbose": "no"}, TypeError, "verbose must be a bool, got 'no'"),
        ({"resume": __file__}, ValueError, "test_many_arguments.py"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_has_changed(
    options: dict[str, Any], error: type[Exception], fragment: str
) -> None:
    nets = networks()
    with refused(error, fragment, unchanged=nets):
        nncore.fit_many(nets, X, Y, **options)


@pytest.mark.parametrize(
    ("given", "error", "fragment"),
    [
        ([make([5, 6, 3]), "net"], TypeError, "networks must hold nncore.Network objects, got "),
        ([make([5, 6, 3])] * 2, ValueError, "networks must hold different objects, got one of"),
        ([make([5, 6, 3]), make([4, 6, 3])], ValueError, "X must have shape (n_samples, 4)"),
        ([make([5, 6, 3]), make([5, 6, 2])], ValueError, "Y must have shape (n_samples, 2)"),
    ],
)
def test_invalid_networks_are_refused(
    given: list[Any], error: type[Exception], fragment: str
) -> None:
    with refused(error, fragment, unchanged=given[:1]):
        nncore.fit_many(given, X, Y)


def test_a_note_says_for_which_network_an_argument_is_invalid() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1") as raised:
        nncore.fit_many(networks(), X, Y, batch_size=[8, 0, 8])
    assert raised.value.__notes__ == ["for networks[1]"]


def shared(folder: Path) -> dict[str, dict[str, Any]]:
    rng, optimizer = np.random.default_rng(0), nncore.Adam()
    log = folder / "log.csv"
    return {
        "optimizer": {"optimizer": [optimizer, "sgd", optimizer]},
        "generator": {"seeds": rng},
        "generator in a list": {"seeds": [0, rng, rng]},
        "early stopping": {"callbacks": (EarlyStopping("loss"),)},
        "checkpoint": {"callbacks": (Checkpoint(folder / "run"),)},
        "path": {"callbacks": [(Log(log),), (), (Log(log),)]},
        "paths of two kinds": {"callbacks": [(Log(log),), (), (BestModel(log, "loss"),)]},
        "progress": {"callbacks": (Progress(disable=True),)},
    }


@pytest.mark.parametrize("case", shared(Path()))
def test_what_belongs_to_one_network_is_refused_for_several(case: str, tmp_path: Path) -> None:
    options = shared(tmp_path)[case]
    nets = networks()
    name = next(iter(options))
    with refused(ValueError, f"{name} of networks[", "must be different", unchanged=nets):
        nncore.fit_many(nets, X, Y, **options)


def test_one_network_may_have_what_belongs_to_one() -> None:
    stopping = EarlyStopping("loss")
    rng = np.random.default_rng(0)
    nncore.fit_many(networks(1), X, Y, epochs=2, seeds=rng, callbacks=(stopping,))
    assert stopping.best_epoch > 0


def test_a_list_may_hold_single_values_that_are_lists() -> None:
    nets = networks()
    metrics: Any = ["r2"]
    histories = nncore.fit_many(
        nets, X, Y, metrics=[metrics] * 3, dropout=[[0.1]] * 3, callbacks=[[], [print], []],
        validation_data=[[X, Y]] * 3, seeds=[[1, 2]] * 3,
    )  # fmt: skip
    assert all("validation_r2" in history.metrics for history in histories)


def test_a_hint_is_given_once() -> None:
    nets = [make([5, 6, 3], output=name) for name in ("sigmoid", "tanh", "sigmoid")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nncore.fit_many(nets, X, Y + 10)
    assert [str(one.message).partition(" in row")[0][:5] for one in caught] == ["Y has"]
    assert caught[0].filename == __file__


def test_each_network_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]

    def fit(nets: list[nncore.Network], epochs: int) -> list[nncore.History]:
        callbacks = [(Checkpoint(path),) for path in paths]
        return nncore.fit_many(
            nets, X, Y, epochs=epochs, seeds=range(3), rows=[np.arange(30)] * 3, n_threads=2,
            callbacks=callbacks, resume=[*paths],
        )  # fmt: skip

    straight = networks()
    expected = fit(straight, 5)
    for path in paths:
        path.unlink()
    fit(networks(), 2)
    paths[1].unlink()
    resumed = networks()
    histories = fit(resumed, 5)
    assert all(net.equals(twin) for net, twin in zip(resumed, straight, strict=True))
    assert [history.loss for history in histories] == [history.loss for history in expected]


def test_a_checkpoint_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    options: Any = {"callbacks": [(Checkpoint(path),)], "seeds": 0}
    nncore.fit_many(networks(1), X, Y, rows=np.arange(30), **options)
    nets = networks(1)
    with refused(ValueError, "rows must be 'an array of shape (30,)", unchanged=nets):
        nncore.fit_many(nets, X, Y, rows=np.arange(1, 31), epochs=2, resume=path, **options)
