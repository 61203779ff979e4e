"""Holding out a share of the examples for validation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, data, make, problem, refused

import nncore
from nncore._layout import Examples
from nncore.evaluation import Part


def held_out(n: int, share: float, shuffle: bool = True) -> tuple[Array, Array]:
    """Return the rows to train on and those held out."""
    examples = Examples(np.zeros((n, 1)))
    training, validation = Part(examples, float(n)).split(share, shuffled=shuffle)
    assert training.rows is not None
    assert validation.rows is not None
    return training.rows, validation.rows


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("n", "share", "expected"),
    [(100, 0.1, 10), (99, 0.5, 50), (2, 0.01, 1), (2, 0.99, 1), (1000, 1e-9, 1), (10, 0.999, 9)],
)
def test_the_parts_have_the_share_and_at_least_one_example_each(
    n: int, share: float, expected: int, shuffle: bool
) -> None:
    rows, validation = held_out(n, share, shuffle)
    assert len(validation) == expected
    assert sorted([*rows, *validation]) == list(range(n))


def test_without_shuffling_the_last_examples_are_held_out() -> None:
    assert held_out(10, 0.3, shuffle=False)[1].tolist() == [7, 8, 9]


def test_with_shuffling_the_examples_held_out_are_spread_over_all() -> None:
    counts, _ = np.histogram(held_out(10_000, 0.2)[1], bins=10, range=(0, 10_000))
    assert (abs(counts - 200) < 60).all()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_split_gives_the_bits_of_separate_arrays(
    shuffle: bool, weighted: bool, mapped: bool, tmp_path: Path
) -> None:
    (net, X, Y), (twin, _, _) = problem("float32"), problem("float32")
    weights = np.linspace(0.5, 1, len(X)) if weighted else None
    rows, validation = held_out(len(X), 0.3, shuffle)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 7, "shuffle": shuffle, "seed": 0}
    options |= {"metrics": ["r2", "mean_absolute_error"], "training_metrics": True, "dropout": 0.2}
    parts = [[a[part] for a in (X, Y, weights) if a is not None] for part in (rows, validation)]
    expected = twin.fit(
        *parts[0][:2],
        sample_weight=parts[0][2] if weighted else None,
        validation_data=parts[1],
        **options,
    )
    if mapped:
        in_file = np.memmap(tmp_path / "X", dtype=X.dtype, mode="w+", shape=X.shape)
        in_file[:] = X
        X = in_file
    history = net.fit(X, Y, sample_weight=weights, validation_split=0.3, **options)
    assert net.equals(twin)
    history.seconds = expected.seconds
    assert history == expected


def test_callbacks_are_told_the_number_of_training_examples() -> None:
    net, X, Y = problem()
    counts: list[int] = []
    net.fit(X, Y, validation_split=0.3, callbacks=[lambda end: counts.append(end.n_examples)])
    assert counts == [len(held_out(len(X), 0.3)[0])]


def test_class_indices_are_split() -> None:
    net = make([5, 4], loss="cross_entropy")
    X, Y = data(net, 40, np.random.default_rng(0))
    labels = Y.argmax(axis=1)
    history = net.fit(X, labels, validation_split=0.5, metrics=["accuracy"])
    _, rows = held_out(40, 0.5)
    assert history.validation_loss == [net.evaluate(X[rows], labels[rows])]
    right = net.predict(X[rows]).argmax(axis=1) == labels[rows]
    assert history.metrics == {"validation_accuracy": [right.mean()]}


@pytest.mark.parametrize(
    ("options", "error", "fragment"),
    [
        ({"validation_split": 0.0}, ValueError, "must be between 0 and 1, got 0.0"),
        ({"validation_split": 1}, ValueError, "must be between 0 and 1, got 1"),
        ({"validation_split": np.nan}, ValueError, "must be between 0 and 1, got nan"),
        ({"validation_split": "0.1"}, TypeError, "must be a real number, got '0.1'"),
        (
            {"validation_split": 0.1, "validation_data": (np.ones((1, 5)), np.ones((1, 3)))},
            ValueError,
            "validation_data and validation_split must not be given together",
        ),
        (
            {"validation_split": 0.5, "shuffle": False, "sample_weight": np.arange(37) < 9},
            ValueError,
            "zeros only for validation",
        ),
        (
            {"validation_split": 0.5, "shuffle": False, "sample_weight": np.arange(37) > 30},
            ValueError,
            "zeros only for training",
        ),
    ],
)
def test_invalid_splits_are_refused(
    options: dict[str, Any], error: type[Exception], fragment: str
) -> None:
    net, X, Y = problem()
    with refused(error, fragment, unchanged=[net]):
        net.fit(X, Y, **options)


def test_a_single_example_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="validation_split needs at least 2 examples, got 1"):
        nncore.Network([1, 1]).fit([[1.0]], [1.0], validation_split=0.5)
