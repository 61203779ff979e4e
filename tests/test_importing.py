"""Networks from layers of other libraries, and from libraries that are not installed."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncore.architecture import OUTPUT_ACTIVATIONS, default_loss
from nncore.enums import Activation, Loss
from nncore.importing import ImportedLayers

rng = np.random.default_rng(0)
W, U = rng.normal(size=(4, 3)).astype("f4"), rng.normal(size=(3, 2)).astype("f4")
b, c = rng.normal(size=3).astype("f4"), rng.normal(size=2).astype("f4")


def two_layers() -> ImportedLayers:
    layers = ImportedLayers()
    layers.multiply("one", W)
    layers.add("one", b)
    layers.activate("σ", Activation.TANH)
    layers.multiply("two", U)
    layers.add("two", c)
    return layers


def test_network_has_the_layers() -> None:
    net = two_layers().as_network()
    assert net.activation == ("tanh", "identity")
    X = rng.normal(size=(5, 4)).astype("f4")
    np.testing.assert_allclose(net.predict(X), np.tanh(X @ W + b) @ U + c, rtol=1e-5)


def test_activation_may_have_a_slope() -> None:
    layers = two_layers()
    layers.activate("σ", Activation.ELU, 0.5)
    assert layers.as_network().activation == ("tanh", ("elu", 0.5))


def test_network_has_copies_of_the_parameters() -> None:
    layers = two_layers()
    layers.as_network().parameters[:] = 0
    np.testing.assert_array_equal(layers.as_network().weights[0], W)


@pytest.mark.parametrize(
    ("bias", "expected"),
    [(c, c), (c[np.newaxis], c), (np.array(2, "f4"), 2), (np.array([2], "f4"), 2)],
)
def test_bias_may_be_a_row_or_a_number(bias: Any, expected: Any) -> None:
    layers = ImportedLayers()
    layers.multiply("one", U)
    layers.add("one", bias)
    np.testing.assert_array_equal(layers.as_network().biases[0], np.broadcast_to(expected, 2))


def test_layer_without_bias_has_zeros() -> None:
    layers = ImportedLayers()
    layers.multiply("one", W)
    np.testing.assert_array_equal(layers.as_network().biases[0], np.zeros(3))


@pytest.mark.parametrize("loss", Loss)
def test_loss_follows_from_its_default_outputs(loss: Loss) -> None:
    names = [default_loss(output) for output in OUTPUT_ACTIVATIONS[loss]]
    identity = OUTPUT_ACTIVATIONS[loss][0] is Activation.IDENTITY
    assert names[0] == ("squared_error" if identity else loss.name.lower())


def change(*calls: tuple[Any, ...]) -> Callable[[], object]:
    """Return a function that makes a network from two layers after further calls."""

    def run() -> object:
        layers = two_layers()
        for name, *args in calls:
            getattr(layers, name)("here", *args)
        return layers.as_network()

    return run


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ImportedLayers().as_network, "it has no matrix product"),
        (change(("multiply", W)), "here is for 4 columns, not 2"),
        (change(("multiply", b)), r"here must have weights of shape .* got shape \(3,\)"),
        (change(("multiply", np.ones((2, 0), "f4"))), "here must have weights of shape"),
        (change(("multiply", np.ones((2, 2), "f2"))), "here must have weights .* in float16"),
        (change(("multiply", np.ones((2, 2)))), "here must be in float32 like the first layer"),
        (change(("add", c)), "here follows a layer that has a bias"),
        (
            change(("multiply", np.eye(2, dtype="f4")), ("add", np.ones(2))),
            "here must be in float32 like the first layer",
        ),
        (
            change(("multiply", np.eye(2, dtype="f4")), ("add", b)),
            r"here must have a bias of shape \(2,\), got \(3,\)",
        ),
        (change(("activate", Activation.SOFTMAX), ("multiply", U.T)), "here follows a softmax"),
        (change(("activate", Activation.RELU), ("activate", Activation.RELU)), "here does not dir"),
        (change(("activate", Activation.RELU), ("add", c)), "here does not directly follow"),
        (change(("expect_columns", 3)), "here is for 3 columns, not 2"),
        (change(("expect_dtype", np.dtype("f8"))), "here must be in float32 like the first layer"),
        (
            change(("multiply", np.eye(2, dtype="f4")), ("add", np.array([0, np.nan], "f4"))),
            "the bias of here must be finite, got nan",
        ),
        (change(("multiply", np.full((2, 2), np.inf, "f4"))), "the weights of here must be finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_their_names(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        (
            "onnx",
            "nncore.Network([2, 1]).to_onnx()",
            "ONNX models need onnx: pip install 'nncore[onnx]'",
        ),
        (
            "onnx",
            "nncore.from_onnx('model.onnx')",
            "ONNX models need onnx: pip install 'nncore[onnx]'",
        ),
        ("keras", "nncore.from_keras(None)", "from_keras needs Keras 3: pip install keras"),
    ],
)
def test_missing_package_is_named_with_the_way_to_install_it(
    package: str, code: str, message: str
) -> None:
    script = f"""
import sys, nncore
assert {package!r} not in sys.modules
sys.modules[{package!r}] = None
try:
    {code}
except ImportError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stdout == f"{message}\n", process.stderr
