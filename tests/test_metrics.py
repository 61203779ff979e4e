"""Metrics of the validation and the training data."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from helpers import Array, data, make, problem, refused

import nncore
from nncore.metrics import as_metrics


def value_of(
    name: Any, net: nncore.Network, Y: Array, outputs: Array, weights: Array | None = None
) -> float:
    (metric,) = as_metrics([name], net.architecture)
    return metric(Y, outputs, weights)


# The metrics


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_of_classes_is_scikit_learns(
    one_hot: bool, weighted: bool, rng: np.random.Generator
) -> None:
    net = make([5, 4], loss="cross_entropy")
    labels, outputs = rng.integers(0, 4, 50), rng.uniform(size=(50, 4))
    weights = rng.uniform(size=50) if weighted else None
    Y = np.eye(4)[labels] if one_hot else labels
    expected = sklearn.metrics.accuracy_score(labels, outputs.argmax(axis=1), sample_weight=weights)
    assert value_of("accuracy", net, Y, outputs, weights) == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "squared_error"])
@pytest.mark.parametrize("n_out", [1, 3])
def test_accuracy_of_sigmoid_outputs(loss: str, n_out: int, rng: np.random.Generator) -> None:
    net = make([5, n_out], loss=loss, output="sigmoid")
    labels: Array = rng.integers(0, 2, (50, n_out))
    outputs = np.clip(labels + rng.normal(0, 0.4, labels.shape), 0, 1)
    if loss == "squared_error" and n_out > 1:
        # Classes, as in Nielsen's book.
        labels = np.eye(n_out)[rng.integers(0, n_out, 50)]
        expected = sklearn.metrics.accuracy_score(labels.argmax(axis=1), outputs.argmax(axis=1))
    else:
        expected = sklearn.metrics.accuracy_score(labels, outputs > 0.5)
    assert 0 < expected < 1
    assert value_of("accuracy", net, labels, outputs) == pytest.approx(expected)


# More outputs than are computed at a time.
MANY_ROWS = 70_000


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("r2", sklearn.metrics.r2_score),
        ("mean_absolute_error", sklearn.metrics.mean_absolute_error),
    ],
)
def test_metrics_of_many_rows_are_scikit_learns(
    name: str, function: Callable[..., float], weighted: bool, rng: np.random.Generator
) -> None:
    net = make([5, 3], output="identity")
    Y, outputs = rng.normal(3, 1, (2, MANY_ROWS, 3))
    weights = rng.uniform(size=MANY_ROWS) if weighted else None
    if weights is not None:
        weights[: MANY_ROWS // 2] = 0
    expected = function(Y, outputs, sample_weight=weights)
    assert value_of(name, net, Y, outputs, weights) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["r2", "mean_absolute_error"])
def test_class_indices_count_as_rows_of_zeros_and_a_one(
    name: str, rng: np.random.Generator
) -> None:
    n_classes = 3000
    net = make([5, n_classes], loss="cross_entropy")
    labels, outputs = rng.integers(0, n_classes, 50), rng.uniform(size=(50, n_classes))
    expected = value_of(name, net, np.eye(n_classes)[labels], outputs)
    assert value_of(name, net, labels, outputs) == expected


@pytest.mark.parametrize("n", [3, MANY_ROWS])
@pytest.mark.parametrize("weighted", [False, True])
def test_r2_of_constant_targets_is_0_or_1(n: int, weighted: bool) -> None:
    net = make([5, 1], output="identity")
    Y, weights = np.full((n, 1), 0.1), np.ones(n) if weighted else None
    if weights is not None:
        Y[0], weights[0] = 7, 0
    assert value_of("r2", net, Y, np.full((n, 1), 0.2), weights) == 0
    assert value_of("r2", net, Y, Y.copy(), weights) == 1


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("r2", sklearn.metrics.r2_score),
        ("mean_absolute_error", sklearn.metrics.mean_absolute_error),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_out", [1, 3])
def test_metrics_of_numbers_are_scikit_learns(
    name: str, function: Callable[..., float], weighted: bool, n_out: int, rng: np.random.Generator
) -> None:
    net = make([5, n_out], output="identity")
    Y = rng.normal(size=(50, n_out)).astype(np.float32)
    Y[:, -1] = 3
    outputs = (Y + rng.normal(size=(50, n_out))).astype(np.float32)
    # Whole numbers, with which scikit-learn's variance of the constant is 0, too.
    weights = rng.integers(1, 4, 50).astype(float) if weighted else None
    for A in (outputs, Y):
        expected = function(Y.astype(float), A.astype(float), sample_weight=weights)
        assert value_of(name, net, Y, A, weights) == pytest.approx(expected)


def test_examples_without_weight_do_not_count(rng: np.random.Generator) -> None:
    net = make([5, 2], output="sigmoid")
    Y, outputs = rng.uniform(size=(2, 9, 2))
    weights = np.arange(9) % 3.0
    bad = Y.copy()
    bad[weights == 0] = math.nan
    for name in ("r2", "mean_absolute_error", "accuracy"):
        expected = value_of(name, net, Y, outputs, weights)
        assert value_of(name, net, bad, outputs, weights) == expected


# In a fit


def test_metrics_are_those_of_the_outputs_after_each_epoch() -> None:
    net, X, Y = problem()
    X_val, Y_val = X[:9], Y[:9]

    def largest(targets: Array, outputs: Array) -> float:
        return float(np.abs(targets - outputs).max())

    expected: dict[str, list[float]] = {"largest": [], "validation_largest": []}

    def compute(end: nncore.EpochEnd) -> None:
        expected["largest"].append(largest(Y, net.predict(X)))
        expected["validation_largest"].append(largest(Y_val, net.predict(X_val)))
        assert end.metrics == {name: column[-1] for name, column in expected.items()}

    history = net.fit(
        X,
        Y,
        epochs=3,
        validation_data=(X_val, Y_val),
        metrics=[largest],
        training_metrics=True,
        callbacks=[compute],
    )
    assert history.metrics == expected
    assert len(expected["largest"]) == 3


def test_metrics_change_neither_the_training_nor_the_losses() -> None:
    results = []
    for options in ({}, {"metrics": ["accuracy", "r2"], "training_metrics": True}):
        net, X, Y = problem("float32")
        history = net.fit(X, Y, epochs=3, validation_data=(X, Y), seed=0, **options)  # type: ignore[arg-type]
        results.append((net.parameters.tobytes(), history.loss, history.validation_loss))
    assert results[0] == results[1]


def test_the_validation_loss_is_that_of_evaluate() -> None:
    net, X, Y = problem("float32")
    history = net.fit(X, Y, validation_data=(X, Y), metrics=["r2"])
    assert history.validation_loss == [net.evaluate(X, Y)]


def test_weights_of_examples_count() -> None:
    net, X, Y = problem()
    weights = np.zeros(len(X))
    weights[:5] = 1
    metrics: Any = ["mean_absolute_error"]
    history = net.fit(X, Y, validation_data=(X, Y, weights), metrics=metrics, training_metrics=True)
    A = net.predict(X)
    assert history.metrics == {
        "mean_absolute_error": [pytest.approx(np.abs(A - Y).mean())],
        "validation_mean_absolute_error": [pytest.approx(np.abs(A[:5] - Y[:5]).mean())],
    }


def test_a_dict_names_its_metrics() -> None:
    net, X, Y = problem()
    metrics: Any = {"zero": lambda Y, outputs: 0.0, "fit": "r2"}
    history = net.fit(X, Y, metrics=metrics, training_metrics=True)
    assert list(history.metrics) == ["zero", "fit"]


@pytest.mark.parametrize("one_hot", [False, True])
def test_functions_get_targets_and_outputs_that_they_cannot_change(one_hot: bool) -> None:
    net = make([5, 4], loss="cross_entropy", dtype="float32")
    X, Y = data(net, 20, np.random.default_rng(0))
    labels = Y.argmax(axis=1)
    shapes = []

    def spoil(targets: Array, outputs: Array) -> float:
        shapes.append((targets.shape, outputs.shape))
        for array in (targets, outputs):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0
        return 0.0

    net.fit(X, np.eye(4)[labels] if one_hot else labels, metrics=[spoil], training_metrics=True)
    assert shapes == [((20, 4) if one_hot else (20,), (20, 4))]


def test_an_array_that_a_function_reads_stays_writeable_for_its_owner() -> None:
    net, X, Y = problem()
    net.fit(X, Y, validation_data=(X, Y), metrics=["r2"])
    assert Y.flags.writeable


def test_mapped_validation_data_give_the_same_metrics(tmp_path: Path) -> None:
    results = []
    for mapped in (False, True):
        net, X, Y = problem()
        Y_val = Y
        if mapped:
            Y_val = np.memmap(tmp_path / "Y", dtype=Y.dtype, mode="w+", shape=Y.shape)
            Y_val[:] = Y
        results.append(net.fit(X, Y, seed=0, validation_data=(X, Y_val), metrics=["r2"]).metrics)
    assert results[0] == results[1]


# Errors


def no_number(Y: Array, outputs: Array) -> Any:
    return "good"


@pytest.mark.parametrize(
    ("metrics", "error", "fragment"),
    [
        ("accuracy", TypeError, "metrics must be a list of names and functions"),
        (3, TypeError, "metrics must be a list of names and functions"),
        ([3], TypeError, "metrics must be names or functions of (Y, outputs), got 3"),
        (["acuracy"], ValueError, "did you mean 'accuracy'?"),
        (["accuracy"], ValueError, "'accuracy' needs sigmoid or softmax outputs, got identity"),
        ([lambda Y, outputs: 0.0], ValueError, "metrics must have names"),
        ([partial(no_number)], ValueError, "metrics must have names"),
        ({3: no_number}, TypeError, "metrics must have names that are strings, got 3"),
        ({"": no_number}, ValueError, "metrics must have names"),
        ({"loss": no_number}, ValueError, "got 'loss'"),
        ({"validation_r2": no_number}, ValueError, "got 'validation_r2'"),
        (["r2", "r2"], ValueError, "got 'r2'"),
    ],
)
def test_invalid_metrics_are_refused_before_training(
    metrics: Any, error: type[Exception], fragment: str
) -> None:
    net = make([5, 3], output="identity")
    X, Y = data(net, 9, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    with refused(error, fragment, unchanged=[net, rng]):
        net.fit(X, Y, validation_data=(X, Y), metrics=metrics, dropout=0.0, seed=rng)


def test_metrics_without_data_are_refused() -> None:
    net, X, Y = problem()
    with refused(ValueError, "metrics need validation_data", unchanged=[net]):
        net.fit(X, Y, metrics=["r2"])
    with refused(ValueError, "training_metrics=True needs metrics", unchanged=[net]):
        net.fit(X, Y, training_metrics=True)


def test_a_function_that_returns_no_number_is_named() -> None:
    net, X, Y = problem()
    with pytest.raises(TypeError, match="the metric 'no_number' must be a real number, got 'good'"):
        net.fit(X, Y, metrics=[no_number], training_metrics=True)


def test_accuracy_of_a_single_class_counts_indices_and_one_hot_targets_alike() -> None:
    net = nncore.Network([4, 1], loss="cross_entropy", seed=0)
    X = np.random.default_rng(0).random((6, 4))
    for Y in (np.zeros(6, np.intp), np.ones((6, 1))):
        history = net.fit(X, Y, metrics=["accuracy"], training_metrics=True)
        assert history.metrics["accuracy"] == [1.0]
