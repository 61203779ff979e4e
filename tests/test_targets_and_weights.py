"""Sample weights, and the forms of targets."""

import copy
from typing import Any

import numpy as np
import pytest
from helpers import (
    Array,
    Twin,
    assert_layers_close,
    data,
    make,
    rtol,
    snapshot,
)

import nncore

DType = np.dtype[Any]

# sample_weight


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "cross_entropy"])
def test_integer_weights_equal_repeated_rows(
    loss: str, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], loss=loss, dtype=dtype)
    X, Y = data(net, 300, rng)
    counts = rng.integers(0, 4, 300)
    X_again, Y_again = np.repeat(X, counts, axis=0), np.repeat(Y, counts, axis=0)
    assert net.evaluate(X, Y, sample_weight=counts) == pytest.approx(
        net.evaluate(X_again, Y_again), rel=rtol(dtype)
    )
    assert_layers_close(
        Twin(net),
        net.gradient(X, Y, sample_weight=counts),
        net.gradient(X_again, Y_again),
        rtol(dtype),
    )


def test_zero_weight_equals_a_removed_row(dtype: DType, rng: np.random.Generator) -> None:
    net = make([5, 4, 3], dtype=dtype)
    X, Y = data(net, 600, rng)
    weights = rng.uniform(0.5, 2, 600)
    weights[rng.permutation(600)[:400]] = 0
    # A whole internal batch without weight.
    weights[:256] = 0
    kept = weights > 0
    assert net.evaluate(X, Y, sample_weight=weights) == pytest.approx(
        net.evaluate(X[kept], Y[kept], sample_weight=weights[kept]), rel=rtol(dtype)
    )
    assert_layers_close(
        Twin(net),
        net.gradient(X, Y, sample_weight=weights),
        net.gradient(X[kept], Y[kept], sample_weight=weights[kept]),
        rtol(dtype),
    )


@pytest.mark.parametrize("blas", [False, True], ids=["chosen", "blas"])
@pytest.mark.parametrize("sizes", [[5, 3], [1, 40, 1], [70, 33, 37, 3]], ids=str)
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
@pytest.mark.parametrize("bad", ["largest", "lowest", np.nan, np.inf, -np.inf])
def test_an_example_without_weight_may_have_any_numbers(
    bad: Any,
    loss: str,
    sizes: list[int],
    blas: bool,
    dtype: DType,
    rng: np.random.Generator,
    request: pytest.FixtureRequest,
) -> None:
    """Their squares overflow, as do the layers behind such inputs."""
    if blas:
        request.getfixturevalue("on_blas")
    net = make(sizes, "relu", loss, "identity", dtype=dtype)
    X, Y = data(net, 100, rng)
    weights = rng.uniform(0.5, 2, 100)
    weights[[3, 50, 51]] = 0
    bad_X, bad_Y = X.copy(), Y.copy()
    limit = np.finfo(dtype).max
    bad_X[weights == 0] = bad_Y[weights == 0] = {"largest": limit, "lowest": -limit}.get(bad, bad)
    if bad not in ("largest", "lowest"):
        # Arrays in memory must be finite; mapped ones are checked through the loss.
        mapped: Any = np.memmap
        bad_X, bad_Y = bad_X.view(mapped), bad_Y.view(mapped)

    def results(X: Array, Y: Array) -> list[Any]:
        twin, optimizer = copy.deepcopy(net), nncore.Adam()
        options: dict[str, Any] = {"sample_weight": weights}
        evaluated = twin.evaluate(X, Y, **options), twin.gradient(X, Y, **options)
        loss = twin.train_on_batch(X, Y, optimizer, **options)
        history = twin.fit(X, Y, batch_size=8, optimizer=optimizer, seed=0, **options)
        return snapshot(twin, optimizer, *evaluated, loss, history.loss)

    assert results(bad_X, bad_Y) == results(X, Y)


@pytest.mark.parametrize("factor", [2.0**-20, 1e-3, 7.0, 1e6, 1e-30, 1e-37, 1e30, 1e36])
def test_only_ratios_of_weights_matter(
    factor: float, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], dtype=dtype)
    X, Y = data(net, 40, rng)
    weights = rng.uniform(0.1, 1, 40).astype(dtype)
    scaled = (weights * factor).astype(dtype)
    assert net.evaluate(X, Y, sample_weight=scaled) == pytest.approx(
        net.evaluate(X, Y, sample_weight=weights), rel=rtol(dtype)
    )
    assert_layers_close(
        Twin(net),
        net.gradient(X, Y, sample_weight=scaled),
        net.gradient(X, Y, sample_weight=weights),
        rtol(dtype),
    )


# At the edge of the type: sums that overflow, reciprocals that overflow.
@pytest.mark.parametrize(
    ("kind", "weight"), [("f4", 1e-39), ("f4", 3e38), ("f8", 1e-309), ("f8", 1e308)]
)
def test_extreme_weights_that_are_finite_give_the_plain_mean(
    kind: str, weight: float, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], dtype=kind)
    X, Y = data(net, 4, rng)
    weights = np.full(4, weight, dtype=kind)
    # Close to zero the weight itself has few digits, but all four are equal.
    assert net.evaluate(X, Y, sample_weight=weights) == pytest.approx(net.evaluate(X, Y), rel=1e-5)
    assert_layers_close(
        Twin(net), net.gradient(X, Y, sample_weight=weights), net.gradient(X, Y), 1e-5
    )


# Targets


def test_class_indices_equal_their_indicator_vectors(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 7], loss="cross_entropy", dtype=dtype)
    X, _ = data(net, 600, rng)
    labels = rng.integers(0, 7, 600)
    indicators = np.eye(7, dtype=dtype)[labels]
    assert net.evaluate(X, labels) == pytest.approx(net.evaluate(X, indicators), rel=1e-6)
    assert net.gradient(X, labels).tobytes() == net.gradient(X, indicators).tobytes()
    twins = [copy.deepcopy(net) for _ in range(2)]
    for twin, Y in zip(twins, [labels, indicators], strict=True):
        twin.fit(X, Y, seed=0, validation_data=(X, Y))
    assert twins[0].equals(twins[1])


@pytest.mark.parametrize("kind", ["i1", "u1", "<i4", ">i4", ">i8", "u8", list, "strided"])
def test_class_indices_may_have_every_integer_type(kind: Any, rng: np.random.Generator) -> None:
    net = make([5, 4, 7], loss="cross_entropy")
    X, _ = data(net, 50, rng)
    labels = rng.integers(0, 7, 50)
    given: Any = labels.tolist() if kind is list else labels
    if kind == "strided":
        given = np.repeat(labels, 3)[::-3][::-1]
    elif kind is not list:
        given = labels.astype(kind)
    assert net.gradient(X, given).tobytes() == net.gradient(X, labels).tobytes()


def test_targets_of_one_output_may_be_a_vector(dtype: DType, rng: np.random.Generator) -> None:
    net = make([5, 4, 1], dtype=dtype)
    X, Y = data(net, 50, rng)
    assert net.evaluate(X, Y[:, 0]) == net.evaluate(X, Y)
    assert net.gradient(X, Y[:, 0]).tobytes() == net.gradient(X, Y).tobytes()
    wide = np.repeat(Y, 3, axis=1)
    assert net.gradient(X, wide[:, 1]).tobytes() == net.gradient(X, Y).tobytes()


def test_loss_of_saturated_probabilities_is_finite(dtype: DType) -> None:
    net = nncore.Network([1, 1], loss="binary_cross_entropy", dtype=dtype)
    net.weights[0][:] = 1000
    loss = net.evaluate([[1.0], [-1.0]], [0, 1])
    assert loss == pytest.approx(-np.log(np.finfo(dtype).eps), rel=1e-6)
    assert np.isfinite(net.gradient([[1.0], [-1.0]], [0, 1])).all()
