"""Networks from Keras models."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from runtimes import difference

import nncore

keras = pytest.importorskip("keras")
layers = keras.layers

Array = npt.NDArray[Any]

X = np.random.default_rng(0).normal(size=(9, 4))


@pytest.fixture
def policy(dtype: np.dtype[Any]) -> Iterator[np.dtype[Any]]:
    """Let all layers compute in the dtype."""
    keras.config.set_dtype_policy(dtype.name)
    yield dtype
    keras.config.set_dtype_policy("float32")


def sequential(*parts: Any, shape: tuple[int, ...] = (4,)) -> Any:
    model = keras.Sequential([keras.Input(shape), *parts])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=W.shape) / 2 for W in model.get_weights()])
    return model


def assert_same(net: nncore.Network, model: Any) -> None:
    """Assert equal outputs. Keras with PyTorch multiplies matrices in float32."""
    inputs = X.astype(net.dtype)
    expected = keras.ops.convert_to_numpy(model(inputs.reshape(-1, *model.input_shape[1:])))
    assert difference(net.predict(inputs), expected) < 1e-6


ACTIVATIONS = [
    "elu",
    "exponential",
    "gelu",
    "linear",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dense_layers_return(name: str, policy: np.dtype[Any]) -> None:
    model = sequential(
        layers.Dense(5, activation=name),
        layers.Dropout(0.5),
        layers.Dense(6, use_bias=False),
        layers.Activation(name),
        layers.Dense(3, activation="softmax"),
    )
    net = nncore.from_keras(model)
    assert net.dtype == policy
    assert net.loss == "cross_entropy"
    parameters = [net.weights[0], net.biases[0], net.weights[1], net.weights[2], net.biases[2]]
    for own, other in zip(parameters, model.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)
    assert_same(net, model)


def test_flattened_images_are_rows() -> None:
    model = sequential(layers.Flatten(), layers.Dense(3), shape=(2, 2))
    assert_same(nncore.from_keras(model), model)


def test_logits_may_get_an_activation() -> None:
    net = nncore.from_keras(sequential(layers.Dense(3)), output_activation="softmax")
    assert net.loss == "cross_entropy"


def test_loss_may_be_chosen() -> None:
    net = nncore.from_keras(sequential(layers.Dense(1)), loss="huber")
    assert net.loss == "huber"


def test_parameters_are_copies() -> None:
    model = sequential(layers.Dense(3))
    net = nncore.from_keras(model)
    net.parameters[:] = 0
    assert np.abs(model.get_weights()[0]).max() > 0
    assert_same(nncore.from_keras(model), model)


OwnDense: Any = type("OwnDense", (layers.Dense,), {})
OwnSequential: Any = type("OwnSequential", (keras.Sequential,), {})


def own(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([layers.BatchNormalization(name="n")], r"layer 'n' \(BatchNormalization\) is neither"),
        ([OwnDense(3, name="n")], r"layer 'n' \(OwnDense\) is neither"),
        ([keras.Sequential([layers.Dense(3)], name="n")], r"layer 'n' \(Sequential\) is neither"),
        ([layers.Dense(3, activation=own, name="n")], "layer 'n' .* activation 'own'"),
        ([layers.Dense(3, activation="relu6", name="n")], "layer 'n' .* activation 'relu6'"),
        ([layers.Dense(3, activation=layers.ReLU(), name="n")], "layer 'n' .* activation 'ReLU'"),
        (
            [layers.Dense(3, "relu"), layers.Activation("tanh", name="n")],
            r"layer 'n' \(Activation\) does not directly follow a matrix product",
        ),
        ([layers.Dense(3, "softmax"), layers.Dense(3, name="n")], "layer 'n' .* follows a softmax"),
        ([layers.Dense(3, dtype="bfloat16", name="n")], "layer 'n' .* in bfloat16"),
        ([], "it has no matrix product|begin it with a keras.Input"),
    ],
)
def test_other_layers_are_refused_by_their_names(parts: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nncore.from_keras(keras.Sequential([keras.Input((4,)), *parts]))


def test_sequences_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="must take rows or begin with Flatten"):
        nncore.from_keras(sequential(layers.Dense(3), shape=(5, 4)))


def test_model_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"begin it with a keras\.Input"):
        nncore.from_keras(keras.Sequential([layers.Dense(3)]))


@pytest.mark.parametrize("model", [3, None, layers.Dense(3), OwnSequential()])
def test_other_models_are_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"model must be a keras\.Sequential"):
        nncore.from_keras(model)
