"""Warnings about valid arguments that cannot work well."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, make, refused

import nncore


def large(n: int = 40) -> Array:
    """Return inputs with large values in column 2."""
    X = np.random.default_rng(0).uniform(-1, 1, (n, 5))
    X[:, 2] *= 3e4
    X[7, 2] = -3e4
    return X


def mapped(X: Array, path: Path) -> Array:
    array = np.memmap(path / "X", dtype=np.float64, mode="w+", shape=X.shape, order="F")
    array[...] = X
    return array


KINDS: dict[str, Callable[[Array, Path], Any]] = {
    "float64": lambda X, path: X,
    "float32": lambda X, path: X.astype(np.float32),
    "integers": lambda X, path: X.astype(int),
    "list": lambda X, path: X.tolist(),
    "columns": lambda X, path: np.repeat(X, 2, axis=1)[:, ::2],
    "mapped": mapped,
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_fit_hints_at_large_inputs_once_and_at_the_line_of_the_call(
    kind: Callable[[Array, Path], Any], tmp_path: Path
) -> None:
    net, X = make([5, 4, 1]), kind(large(), tmp_path)
    with pytest.warns(UserWarning, match=r"up to 3e\+04 in column 2.* standardize") as caught:
        net.fit(X, np.zeros(40), epochs=3, batch_size=7)
    (warning,) = caught
    assert warning.filename == __file__


@pytest.mark.parametrize("size", [1e4, -1e4, 3e38])
def test_values_of_ten_thousand_and_above_are_large(size: float) -> None:
    with pytest.warns(UserWarning, match="in column 1, but training works with"):
        make([2, 1]).fit(np.diag([0, size]), [0, 0], optimizer=nncore.SGD(1e-80))


@pytest.mark.parametrize(
    "X", [np.full((3, 2), 9.9e3), np.full((3, 2), 255, np.uint8)], ids=["float64", "uint8"]
)
def test_smaller_inputs_give_no_hint(X: Array) -> None:
    make([2, 1]).fit(X, [0, 0, 0])


def test_an_example_of_weight_0_gives_no_hint() -> None:
    X, weights = large(), np.ones(40)
    weights[np.abs(X[:, 2]) > 1e3] = 0
    assert weights.any()
    make([5, 1]).fit(X, np.zeros(40), sample_weight=weights)


def test_other_calls_give_no_hint() -> None:
    net, X, Y = make([5, 4, 1]), large(), np.zeros(40)
    net.predict(X)
    net.evaluate(X, Y)
    net.gradient(X, Y)
    net.train_on_batch(X, Y, nncore.SGD(1e-9))


def test_a_hint_that_is_an_error_changes_nothing() -> None:
    net, optimizer = make([5, 4, 1]), nncore.Adam()
    with refused(UserWarning, "X has values", unchanged=[net, optimizer]):
        net.fit(large(), np.zeros(40), optimizer=optimizer)
