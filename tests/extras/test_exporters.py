"""Networks from the ONNX files that PyTorch, Keras and skl2onnx write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from runtimes import difference

import nncore

pytest.importorskip("onnx")

Array = npt.NDArray[Any]

# Exporters warn of what they will change, and of each other.
pytestmark = pytest.mark.filterwarnings("ignore")

X = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


# PyTorch.


def export_traced(torch: Any, module: Any, example: Any, path: Path) -> None:
    torch.onnx.export(
        module, (example,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": [0]}
    )


def export_with_dynamo(torch: Any, module: Any, example: Any, path: Path) -> None:
    pytest.importorskip("onnxscript")
    # Parameters are in a second file if they are large.
    torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=({0: "n"},))


every_exporter = pytest.mark.parametrize("export", [export_traced, export_with_dynamo])


@every_exporter
@pytest.mark.parametrize(
    "name",
    ["ReLU", "LeakyReLU", "ELU", "Sigmoid", "Tanh", "Softplus", "SiLU", "GELU", "Identity"],
)
def test_module_of_pytorch(export: Callable[..., None], name: str, path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(
        nn.Flatten(),
        nn.Linear(4, 100),
        getattr(nn, name)(),
        nn.Dropout(0.5),
        nn.Linear(100, 6, bias=False),
        getattr(nn, name)(),
        nn.Linear(6, 3),
        nn.Softmax(dim=1),
    ).eval()
    images = torch.from_numpy(X.reshape(-1, 2, 2))
    export(torch, module, images, path)
    net = nncore.from_onnx(path)
    assert net.sizes == (4, 100, 6, 3)
    assert net.loss == "cross_entropy"
    assert difference(net.predict(X), module(images).detach().numpy()) < 1e-6


@every_exporter
def test_float64_module_of_pytorch(export: Callable[..., None], path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double().eval()
    inputs = torch.from_numpy(X.astype("float64"))
    export(torch, module, inputs, path)
    expected = module(inputs).detach().numpy()
    assert difference(nncore.from_onnx(path).predict(X), expected) < 1e-14


@every_exporter
def test_other_modules_of_pytorch_are_refused(export: Callable[..., None], path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    module = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 1)).eval()
    export(torch, module, torch.from_numpy(X), path)
    with pytest.raises(ValueError, match=r"node .* \(\w+\) is no part of a layer"):
        nncore.from_onnx(path)


# Keras.


def test_model_of_keras(path: Path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,))])
    for name in (
        "relu",
        "leaky_relu",
        "elu",
        "sigmoid",
        "tanh",
        "softplus",
        "silu",
        "gelu",
        "linear",
    ):
        model.add(layers.Dense(5, activation=name))
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(3, activation="softmax"))
    model.predict(X, verbose=0)
    model.export(path, format="onnx", verbose=False)
    net = nncore.from_onnx(path)
    assert difference(net.predict(X), np.asarray(model.predict(X, verbose=0))) < 1e-6


# scikit-learn.


@pytest.mark.parametrize("zipmap", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifier_of_scikit_learn(zipmap: bool, n_classes: int, path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPClassifier

    y = np.arange(9) % n_classes
    classifier = MLPClassifier((5, 6), activation="tanh", max_iter=3).fit(X, y)
    model = skl2onnx.to_onnx(classifier, X[:1], options={"zipmap": zipmap})
    path.write_bytes(model.SerializeToString())
    expected = classifier.predict_proba(X)
    outputs = nncore.from_onnx(path).predict(X)
    assert difference(outputs, expected if n_classes > 2 else expected[:, 1:]) < 1e-6


def test_regressor_of_scikit_learn(dtype: np.dtype[Any], path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.neural_network import MLPRegressor

    inputs = X.astype(dtype)
    regressor = MLPRegressor(hidden_layer_sizes=(5,), max_iter=3).fit(inputs, inputs[:, 0])
    path.write_bytes(skl2onnx.to_onnx(regressor, inputs[:1]).SerializeToString())
    outputs = nncore.from_onnx(path).predict(X)[:, 0]
    assert difference(outputs, regressor.predict(inputs)) < 100 * np.finfo(dtype).eps
