"""Activations and losses with a parameter: slopes, and the threshold of Huber's loss."""

import json
import math
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers import Array, Twin, assert_layers_close, data, make, make_lively
from kernel_cases import Close, DType, each, normal, wide
from numpy.testing import assert_array_equal

import nncore
from nncore import reference
from nncore._kernel_calls import SLOPED
from nncore._kernels import KERNELS
from nncore.enums import Activation, Loss, range_of

SLOPES = [2.0, 0.2, 0.0, -0.3]
PAIRS = [("leaky_relu", slope) for slope in SLOPES] + [("elu", slope) for slope in SLOPES]


def sigma(activation: Activation, slope: float, z: float) -> float:
    if z > 0:
        return z
    return slope * (z if activation == Activation.LEAKY_RELU else math.exp(z) - 1)


def derivative(activation: Activation, slope: float, z: float) -> float:
    if z > 0:
        return 1.0
    return slope * (1 if activation == Activation.LEAKY_RELU else math.exp(z))


@pytest.mark.parametrize("activation", SLOPED)
@pytest.mark.parametrize("slope", SLOPES)
def test_forward_and_delta_use_the_slope(
    twin: ModuleType,
    dtype: DType,
    close: Close,
    rng: np.random.Generator,
    activation: Activation,
    slope: float,
) -> None:
    A_prev, W = normal(rng, dtype, 7, 3), normal(rng, dtype, 3, 21)
    A, derivatives = np.empty((7, 21), dtype), np.full((7, 21), np.nan, dtype)
    twin.forward(A, A_prev, W, np.zeros(21, dtype), activation, derivatives, slope)
    Z = np.einsum("kj,ji->ki", wide(A_prev), wide(W))
    close(A, each(lambda z: sigma(activation, slope, z), Z))

    delta = np.empty((7, 21), dtype)
    source = derivatives if slope < 0 else A
    twin.delta(delta, np.ones((7, 1), dtype), np.ones((21, 1), dtype), source, activation, slope)
    close(delta, each(lambda z: derivative(activation, slope, z), Z))


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("activation", SLOPED)
def test_slope_at_zero_is_the_one_from_below(
    twin: ModuleType, dtype: DType, activation: Activation, slope: float
) -> None:
    A, derivatives, one = np.empty((1, 9), dtype), np.empty((1, 9), dtype), np.ones((1, 1), dtype)
    zeros = np.zeros((1, 9), dtype)
    twin.forward(A, one, zeros, zeros[0], activation, derivatives, slope)
    delta, W = np.empty((1, 9), dtype), np.ones((9, 1), dtype)
    twin.delta(delta, one, W, derivatives if slope < 0 else A, activation, slope)
    assert_array_equal(delta, np.full((1, 9), slope, dtype))


@pytest.mark.parametrize("threshold", [0.1, 1.0, 3.0])
def test_hubers_loss_is_linear_from_the_threshold_on(
    twin: ModuleType, dtype: DType, close: Close, rng: np.random.Generator, threshold: float
) -> None:
    A, Y = 2 * normal(rng, dtype, 7, 11), normal(rng, dtype, 7, 11)
    r = wide(A) - wide(Y)
    beyond = np.abs(r) > threshold
    expected = np.where(beyond, threshold * (np.abs(r) - threshold / 2), r * r / 2)
    close(twin.loss(A, Y, None, Loss.HUBER, threshold), float(expected.sum()))
    delta = np.empty_like(A)
    twin.output_delta(delta, A, Y, None, Loss.HUBER, Activation.IDENTITY, threshold=threshold)
    close(delta, np.where(beyond, threshold * np.sign(r), r))


@pytest.mark.parametrize("hidden", PAIRS, ids=str)
@pytest.mark.parametrize("output", ["identity", ("elu", 0.5), ("leaky_relu", -0.3)], ids=str)
def test_gradient_equals_central_differences(hidden: Any, output: Any) -> None:
    net = make_lively([4, 19, 3], hidden, ("huber", 0.4), output)
    X, Y = data(net, 20, np.random.default_rng(6))
    before, h = net.parameters.copy(), 1e-6
    gradient, slopes = net.gradient(X, Y), np.empty_like(before)
    for i in range(before.size):
        losses = []
        for shifted in (before[i] + h, before[i] - h):
            net.parameters[i] = shifted
            losses.append(net.evaluate(X, Y))
        net.parameters[i] = before[i]
        slopes[i] = (losses[0] - losses[1]) / (2 * h)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6, atol=1e-8)
    twin = Twin(net)
    assert_layers_close(twin, gradient, twin.gradient(X, Y), 1e-12)


@pytest.mark.skipif(KERNELS == "blas", reason="BLAS forms its sums in an order of its own")
@pytest.mark.parametrize("hidden", PAIRS, ids=str)
def test_single_rows_have_the_outputs_of_many(dtype: DType, hidden: Any) -> None:
    net = make([5, 33, 7], hidden, output=hidden, dtype=dtype)
    X, _ = data(net, 50, np.random.default_rng(1))
    assert_array_equal(net.predict(X)[7], net.predict(X[7]))


def test_names_and_pairs_can_be_mixed() -> None:
    net = nncore.Network([2, 3, 3, 1], activation=["tanh", ("elu", 0.5), "identity"])
    assert net.activation == ("tanh", ("elu", 0.5), "identity")
    net = nncore.Network([2, 3, 1], activation=("leaky_relu", 0.2), loss=("huber", 2))
    assert net.activation == (("leaky_relu", 0.2), "identity")
    assert net.loss == ("huber", 2.0)
    assert "leaky_relu 0.2" in repr(net)
    assert "loss=('huber', 2.0)" in repr(net)


def test_the_default_as_a_parameter_is_the_name_alone() -> None:
    net = nncore.Network([2, 3, 1], activation=("elu", 1), loss=("huber", 1.0))
    assert net.activation == ("elu", "identity")
    assert net.loss == "huber"
    plain = nncore.Network([2, 3, 1], activation="elu", loss="huber")
    assert net.architecture == plain.architecture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": ("tanh", 0.2)}, r"activation with a parameter must be like .*leaky_relu"),
        ({"activation": ("rleu", 0.2)}, "activation must be one of"),
        ({"activation": ("elu", math.nan)}, "parameter of activation 'elu' must be finite"),
        ({"activation": ["tanh", ("elu", math.inf)]}, "parameter of activation 'elu' must be fin"),
        ({"output_activation": ("softmax", 1.0)}, "output_activation with a parameter must be"),
        ({"loss": ("huber", 0)}, "parameter of loss 'huber' must be > 0, got 0"),
        ({"loss": ("squared_error", 1)}, r"loss with a parameter must be like \('huber', 1.0\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nncore.Network([2, 3, 1], **options)


def test_files_and_pickles_keep_parameters(tmp_path: Path) -> None:
    net = make([3, 4, 2], ("leaky_relu", 0.1), ("huber", 0.3), ("elu", -2.0))
    net.save(tmp_path / "net.safetensors")
    for again in (nncore.load(tmp_path / "net.safetensors"), pickle.loads(pickle.dumps(net))):
        assert again.equals(net)
        assert again.activation == (("leaky_relu", 0.1), ("elu", -2.0))
        assert again.loss == ("huber", 0.3)
    assert json.loads(json.dumps(net.activation)) == [["leaky_relu", 0.1], ["elu", -2.0]]


@pytest.mark.parametrize("activation", SLOPED)
@pytest.mark.parametrize("slope", SLOPES)
def test_ranges_are_the_limits_of_sigma(activation: Activation, slope: float) -> None:
    Z = np.concatenate([np.linspace(-2, 2, 1001), [-1e300, 1e300]])[:, np.newaxis]
    A: Array = np.empty_like(Z)
    reference.forward(A, Z, np.eye(1), np.zeros(1), activation, slope=slope)
    low, high = range_of(activation, slope)
    assert A.min() == low or A.min() < -1e290 > low
    assert A.max() == high or A.max() > 1e290 < high
