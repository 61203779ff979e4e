"""Warnings about valid arguments that cannot work well."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, make, refused

import nncore
from nncore import reference
from nncore.enums import SLOPES, Activation, range_of
from nncore.typing import ActivationName, LossName


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


def fit_targets(
    output: ActivationName, Y: Any, loss: LossName = "squared_error", **options: Any
) -> None:
    net = nncore.Network([2, 3, 2], output_activation=output, loss=loss, seed=0)
    net.fit(np.ones((len(Y), 2)), Y, epochs=2, batch_size=2, seed=0, **options)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
@pytest.mark.parametrize(
    ("output", "target", "limits"),
    [
        ("sigmoid", 3, "0 to 1"),
        ("sigmoid", -0.5, "0 to 1"),
        ("tanh", 1.5, "-1 to 1"),
        ("tanh", -1.5, "-1 to 1"),
        ("relu", -0.1, "0 to inf"),
        ("softplus", -0.1, "0 to inf"),
        ("exponential", -0.1, "0 to inf"),
        ("elu", -1.1, "-1 to inf"),
        ("gelu", -0.2, "-0.169972 to inf"),
    ],
)
def test_fit_hints_at_targets_beyond_the_outputs_range_once_and_at_the_line_of_the_call(
    loss: LossName, output: ActivationName, target: float, limits: str
) -> None:
    Y = np.full((5, 2), 0.5)
    Y[3, 1] = target
    message = (
        f"Y has {float(target)} in row 3, column 1, but the outputs, with activation '{output}', "
        f"range from {limits}: use output_activation='identity', or scale Y"
    )
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        fit_targets(output, Y, loss)
    (warning,) = caught
    assert warning.filename == __file__


@pytest.mark.parametrize("Y", [[0, 3, 1], np.array([0, 3, 1], np.uint8), [[0], [3], [1]]])
def test_targets_of_any_form_are_compared_with_the_range(Y: Any) -> None:
    net = make([2, 1], output="sigmoid")
    with pytest.warns(UserWarning, match=r"Y has 3\S* in row 1, column 0"):
        net.fit(np.ones((3, 2)), Y)


@pytest.mark.parametrize(
    ("output", "targets"),
    [
        ("sigmoid", [0, 1 + 1e-6]),
        ("tanh", [-1, 1]),
        ("relu", [0, 1e30]),
        ("elu", [-1, 1e30]),
        ("leaky_relu", [-1e30, 1e30]),
        ("identity", [-1e30, 1e30]),
    ],
)
def test_targets_up_to_the_limits_give_no_hint(
    output: ActivationName, targets: list[float]
) -> None:
    fit_targets(output, [targets] * 3, "absolute_error")


def test_a_target_of_weight_0_gives_no_hint() -> None:
    fit_targets("sigmoid", [[0, 1], [3, 0], [1, 0]], sample_weight=[1, 0, 1])


def test_losses_that_refuse_such_targets_give_no_hint() -> None:
    make([2, 3], loss="cross_entropy").fit(np.ones((4, 2)), [0, 1, 2, 1])
    make([2, 1], loss="binary_cross_entropy").fit(np.ones((4, 2)), [0, 1, 1, 0])
    make([2, 1], loss="poisson").fit(np.ones((4, 2)), [0, 1, 5, 0])


@pytest.mark.parametrize("activation", Activation)
def test_ranges_are_the_limits_of_the_activations(activation: Activation) -> None:
    # One column each, for all but softmax.
    Z = np.concatenate([np.linspace(-2, 0, 10_000), [-1e300, 1e300]])[:, np.newaxis]
    if activation == Activation.SOFTMAX:
        Z = Z * [[1.0, -1.0]]
    n = Z.shape[1]
    A = np.empty_like(Z)
    with np.errstate(over="ignore"):
        reference.forward(A, Z, np.eye(n), np.zeros(n), activation)
    low, high = range_of(activation, SLOPES.get(activation, 1.0))
    assert low <= A.min() < low + 1e-6 or A.min() < -1e290 > low
    assert A.max() == high or A.max() > 1e290 < high
