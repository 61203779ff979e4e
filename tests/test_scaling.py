"""Networks that take raw inputs and return raw targets."""

from typing import Any

import numpy as np
import pytest
from helpers import OUTPUT, Array, make, refused

DType = np.dtype[Any]

SIZES = [[5, 3], [5, 4, 3], [5, 4, 6, 3]]
every_depth = pytest.mark.parametrize("sizes", SIZES, ids=["L=1", "L=2", "L=3"])


def raw_inputs(n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return inputs of several magnitudes, with their means and scales."""
    X = rng.normal([3, -400, 0.002, 7e4, 0], [2, 50, 0.001, 3e4, 1], (n, 5))
    return X, X.mean(axis=0), X.std(axis=0)


@every_depth
def test_a_folded_network_takes_raw_inputs_and_returns_raw_targets(
    sizes: list[int], rng: np.random.Generator
) -> None:
    net = make(sizes, output="identity", init="normal")
    X, mean, scale = raw_inputs(50, rng)
    Y_mean, Y_scale = rng.normal(size=3) * 100, rng.uniform(1, 1000, 3)
    folded = net.fold_scaling(mean, scale, Y_mean, Y_scale)
    expected = Y_mean + Y_scale * net.predict((X - mean) / scale)
    np.testing.assert_allclose(folded.predict(X), expected, rtol=1e-10, atol=1e-10)
    assert folded.architecture == net.architecture


@every_depth
@pytest.mark.parametrize("loss", OUTPUT)
def test_inputs_fold_into_a_network_with_any_loss(
    sizes: list[int], loss: str, rng: np.random.Generator
) -> None:
    net = make(sizes, loss=loss)
    X, mean, scale = raw_inputs(50, rng)
    expected = net.predict((X - mean) / scale)
    folded = net.fold_scaling(mean, scale, np.zeros(3), np.ones(3))
    np.testing.assert_allclose(folded.predict(X), expected, rtol=1e-10, atol=1e-10)
    assert folded.loss == loss


def test_numbers_stand_for_all_columns(rng: np.random.Generator) -> None:
    net = make([5, 4, 3], output="identity")
    one = net.fold_scaling(2, np.float32(0.5), np.array(3), Y_scale=7)
    other = net.fold_scaling(np.full(5, 2), np.full(5, 0.5), [3.0] * 3, (7, 7, 7))
    assert one.equals(other)


def test_folding_nothing_is_a_copy(dtype: DType) -> None:
    net = make([5, 4, 3], dtype=dtype)
    copied = net.fold_scaling(0, 1)
    assert copied.equals(net)
    copied.parameters += 1
    assert not copied.equals(net)


def test_folding_leaves_the_network_and_the_arrays_alone(rng: np.random.Generator) -> None:
    net = make([5, 4, 3], output="identity")
    arrays = [rng.uniform(1, 2, n) for n in (5, 5, 3, 3)]
    before = [net.parameters.copy(), *(array.copy() for array in arrays)]
    net.fold_scaling(*arrays)
    for now, then in zip([net.parameters, *arrays], before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_scales_may_be_negative(rng: np.random.Generator) -> None:
    net = make([5, 4, 3], output="identity")
    X = rng.normal(size=(9, 5))
    folded = net.fold_scaling(1, -2, 3, -4)
    np.testing.assert_allclose(
        folded.predict(X), 3 - 4 * net.predict((X - 1) / -2), rtol=1e-10, atol=1e-10
    )


def test_folding_twice_composes(rng: np.random.Generator) -> None:
    net = make([5, 4, 3], output="identity")
    X, mean, scale = raw_inputs(20, rng)
    folded = net.fold_scaling(0.25, 4.0, 1, 2).fold_scaling(mean, scale, 3, 4)
    expected = 3 + 4 * (1 + 2 * net.predict(((X - mean) / scale - 0.25) / 4))
    np.testing.assert_allclose(folded.predict(X), expected, rtol=1e-10, atol=1e-10)


# Rounding


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e2, 5e3])
@pytest.mark.parametrize("n_inputs", [1, 7, 100])
def test_rounding_stays_within_the_documented_bound(
    n_inputs: int, mean: float, rng: np.random.Generator
) -> None:
    net = make([n_inputs, 8, 3], dtype="float32", hidden="identity", init="normal")
    scales = rng.uniform(0.5, 2, n_inputs)
    X = rng.normal(mean, scales, (200, n_inputs))
    W, b = net.weights[0].astype(np.float64), net.biases[0].astype(np.float64)
    Z = (X - mean) / scales @ W + b
    actual = net.fold_scaling(mean, scales).layer_outputs(X)[0]
    magnitude = np.abs(b) + (np.abs(X) + abs(mean)) / scales @ np.abs(W)
    bound = (n_inputs + 3) * 2.0**-24 * magnitude
    assert (np.abs(actual - Z) <= bound).all()


def test_float64_keeps_the_digits_that_float32_loses(rng: np.random.Generator) -> None:
    net = make([1, 8, 1], dtype="float32", output="identity", init="normal")
    X = rng.normal(1.7e9, 1e3, (100, 1))  # seconds since 1970
    expected = net.fold_scaling(0, 1, dtype="float64").predict((X - 1.7e9) / 1e3)
    with pytest.warns(UserWarning, match=r"X_mean is 1.7e\+06 times X_scale in column 0.*float64"):
        single = net.fold_scaling(1.7e9, 1e3)
    double = net.fold_scaling(1.7e9, 1e3, dtype="float64")
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert np.abs(single.predict(X) - expected).max() > 1e-3
    np.testing.assert_allclose(double.predict(X), expected, atol=1e-7)


def test_parameters_are_rounded_once(rng: np.random.Generator) -> None:
    net = make([5, 3], dtype="float32", output="identity", init="normal")
    _, mean, scale = raw_inputs(20, rng)
    once = net.fold_scaling(mean, scale, 3, 0.1, dtype="float64").parameters
    folded = net.fold_scaling(mean, scale, 3, 0.1).parameters
    np.testing.assert_array_equal(folded, once.astype(np.float32))


# What is refused


@pytest.mark.parametrize("name", ["X_mean", "X_scale", "Y_mean", "Y_scale"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.nan, ValueError, "must be finite, got nan"),
        ([1, 2, np.inf], ValueError, "must be finite, got inf in row 2"),
        ([1, 2], ValueError, "must have shape (3,) or be a number, got (2,)"),
        (np.ones((1, 3)), ValueError, "must have shape (3,) or be a number, got (1, 3)"),
        ("1", TypeError, "must hold real numbers"),
        (None, TypeError, "must hold real numbers"),
    ],
)
def test_what_is_not_a_scaling_is_refused_by_name(
    name: str, value: Any, error: type[Exception], message: str
) -> None:
    net = make([3, 4, 3], output="identity")
    arguments: dict[str, Any] = {"X_mean": 0, "X_scale": 1, name: value}
    with refused(error, name, message, unchanged=[net]):
        net.fold_scaling(**arguments)


@pytest.mark.parametrize("name", ["X_scale", "Y_scale"])
def test_a_scale_of_0_is_refused_with_its_column(name: str) -> None:
    net = make([3, 4, 3], output="identity")
    arguments: dict[str, Any] = {"X_mean": 0, "X_scale": 1, name: [1, 0, 0]}
    with refused(ValueError, f"{name} must not be 0, got 0 for column 1", unchanged=[net]):
        net.fold_scaling(**arguments)


@pytest.mark.parametrize(("loss", "output"), [("squared_error", "tanh"), ("poisson", None)])
@pytest.mark.parametrize("scaling", [{"Y_mean": 1}, {"Y_scale": [1, 1, 2]}])
def test_scaled_targets_need_identity_outputs(
    loss: str, output: str | None, scaling: dict[str, Any]
) -> None:
    net = make([5, 4, 3], loss=loss, output=output)
    with refused(
        ValueError, "Y_mean and Y_scale must be 0 and 1", str(net.activation[-1]), unchanged=[net]
    ):
        net.fold_scaling(0, 1, **scaling)


def test_parameters_beyond_the_dtype_are_refused() -> None:
    net = make([2, 3], dtype="float32", output="identity")
    with refused(ValueError, "parameters that are finite in float32, got", unchanged=[net]):
        net.fold_scaling(0, 1e-60)
    assert np.isfinite(net.fold_scaling(0, 1e-60, dtype="float64").parameters).all()


def test_another_dtype_than_a_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype must be float32 or float64, got 'float16'"):
        make([2, 3]).fold_scaling(0, 1, dtype="float16")  # type: ignore[arg-type]
