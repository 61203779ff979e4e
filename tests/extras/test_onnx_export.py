"""ONNX models of networks: what ONNX Runtime and onnx's reference evaluator compute with them."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import HIDDEN, PAIRS, make, make_lively
from runtimes import difference, run_onnxruntime, run_reference

import nncore

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Array = npt.NDArray[Any]

# What ONNX Runtime executes in float32 only.
FLOAT32_ONLY = {"leaky_relu", "elu", "softplus", "gelu", "gelu_tanh"}


every_runtime = pytest.mark.parametrize("run", [run_onnxruntime, run_reference])


def random_network(seed: int) -> tuple[nncore.Network, Array]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 50, rng.integers(2, 6)).tolist()
    loss: Any
    loss, output = PAIRS[seed % len(PAIRS)]
    activation = [*rng.choice(HIDDEN, len(sizes) - 2).tolist(), output]
    net = nncore.Network(sizes, activation=activation, loss=loss, seed=rng)
    for b in net.biases:
        b[...] = rng.uniform(-0.2, 0.2, b.shape)
    return net, rng.normal(size=(9, sizes[0])).astype("float32")


@pytest.mark.parametrize("seed", range(100))
def test_runtimes_agree_on_random_networks(seed: int) -> None:
    net, X = random_network(seed)
    model = net.to_onnx()
    onnx.checker.check_model(model, full_check=True)
    for run in (run_onnxruntime, run_reference):
        assert difference(run(model, X)[0], net.predict(X)) < 1e-6


@pytest.mark.parametrize(
    ("run", "loss", "output"),
    [
        *((run_reference, *pair) for pair in PAIRS),
        *((run_onnxruntime, *pair) for pair in PAIRS if pair[1] not in FLOAT32_ONLY),
    ],
)
def test_runtimes_agree_in_float64(run: Any, loss: str, output: str) -> None:
    net = make_lively([5, 7, 3], "tanh", loss, output)
    X = np.random.default_rng(0).normal(size=(9, 5))
    # ONNX stores slopes in float32, and its evaluator the constants of GELU.
    most = 1e-7 if output in {"leaky_relu", "gelu", "gelu_tanh"} else 1e-14
    assert difference(run(net.to_onnx(), X)[0], net.predict(X)) < most


@pytest.mark.parametrize("hidden", sorted(FLOAT32_ONLY))
def test_float64_network_can_be_exported_in_float32(hidden: str) -> None:
    net = make_lively([5, 7, 3], hidden)
    X = np.random.default_rng(0).normal(size=(9, 5))
    Y = run_onnxruntime(net.to_onnx(dtype="float32"), X.astype("float32"))[0]
    assert difference(Y, net.predict(X).astype("float32")) < 1e-6


@pytest.mark.parametrize("opset", [13, 18, 21, onnx.defs.onnx_opset_version()])
def test_every_opset_gives_the_same_outputs(opset: int) -> None:
    net = make_lively([4, 6, 3], "elu", "cross_entropy", dtype="float32")
    X = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
    model = net.to_onnx(opset=opset)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [opset]
    assert difference(run_reference(model, X)[0], net.predict(X)) < 1e-6
    if opset <= 21:  # the newest may be newer than ONNX Runtime
        assert difference(run_onnxruntime(model, X)[0], net.predict(X)) < 1e-6


@every_runtime
@pytest.mark.parametrize("n", [0, 1, 1000])
def test_batch_has_any_size(run: Any, n: int) -> None:
    net = make([4, 3], dtype="float32")
    Y = run(net.to_onnx(), np.ones((n, 4), "float32"))[0]
    np.testing.assert_allclose(Y, net.predict(np.ones((n, 4))), rtol=1e-6)


def test_layer_is_one_gemm_and_one_node_for_its_activation() -> None:
    activation: list[Any] = ["relu", "identity", "softmax"]
    net = nncore.Network([4, 6, 5, 3], activation=activation, loss="cross_entropy", seed=0)
    model = net.to_onnx()
    assert [node.op_type for node in model.graph.node] == [
        "Gemm",
        "Relu",
        "Gemm",
        "Gemm",
        "Softmax",
    ]
    names = ["weights.1", "biases.1", "weights.2", "biases.2", "weights.3", "biases.3"]
    assert [tensor.name for tensor in model.graph.initializer] == names
    W = onnx.numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(W, net.weights[0])


def test_silu_is_two_nodes() -> None:
    model = nncore.Network([4, 6, 3], activation="silu", seed=0).to_onnx()
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Sigmoid", "Mul", "Gemm"]


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_gelu_needs_opset_20(activation: Any) -> None:
    net = nncore.Network([4, 6, 3], activation=activation, seed=0)
    assert net.to_onnx().opset_import[0].version == 20
    with pytest.raises(ValueError, match="opset must be at least 20, got 19"):
        net.to_onnx(opset=19)


@pytest.mark.parametrize(("input_name", "output_name"), [("pixels", "p"), ("A.1", "weights.1")])
def test_inputs_and_outputs_have_the_names_given(input_name: str, output_name: str) -> None:
    net = make([4, 6, 3], dtype="float32")
    model = net.to_onnx(input_name=input_name, output_name=output_name)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == [input_name]
    assert [value.name for value in model.graph.output] == [output_name]
    X = np.ones((2, 4), "float32")
    assert difference(run_onnxruntime(model, X, input_name)[0], net.predict(X)) < 1e-6


def test_metadata_hold_version_and_architecture() -> None:
    net = make([4, 6, 3], "tanh", "cross_entropy")
    model = net.to_onnx(dtype="float32")
    assert (model.producer_name, model.producer_version) == ("nncore", nncore.__version__)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["nncore_version"] == nncore.__version__
    assert json.loads(metadata["architecture"]) == {
        "sizes": [4, 6, 3],
        "activation": ["tanh", "softmax"],
        "loss": "cross_entropy",
        "dtype": "float32",
    }


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 12}, ValueError, "opset must be"),
        ({"opset": 1000}, ValueError, "opset must be"),
        ({"opset": "17"}, TypeError, "opset must be"),
        ({"input_name": ""}, ValueError, "input_name and the names of outputs"),
        ({"input_name": "Y"}, ValueError, "input_name and the names of outputs"),
        ({"output_name": 3}, ValueError, "input_name and the names of outputs"),
        ({"dtype": "float16"}, ValueError, "dtype must be"),
    ],
)
def test_invalid_arguments_are_named(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make([4, 3]).to_onnx(**options)


def test_parameters_must_be_finite_in_the_dtype_of_the_model() -> None:
    net = make([4, 3])
    net.parameters[2] = 1e300
    net.to_onnx()
    with pytest.raises(ValueError, match="parameters must be finite"):
        net.to_onnx(dtype="float32")


def test_network_beyond_the_limit_of_the_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nncore.onnx._MOST_BYTES", 59)
    with pytest.raises(ValueError, match="must fit in 59 bytes, got 60"):
        make([4, 3], dtype="float32").to_onnx()


def test_export_keeps_single_steps_fast() -> None:
    """Vectors that count as shared would be packed again in every step."""
    net = make([4, 3])
    net.to_onnx()
    assert not net._vector.is_shared


def test_file_holds_the_model_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    path.chmod(0o600)
    net = make([4, 6, 3])
    net.save_onnx(path, opset=17, input_name="A", output_name="B", dtype="float32")
    expected = net.to_onnx(opset=17, input_name="A", output_name="B", dtype="float32")
    assert onnx.load(path) == expected
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_failed_export_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    net = make([4, 3])
    net.parameters[0] = np.nan
    with pytest.raises(ValueError, match="parameters must be finite"):
        net.save_onnx(path)
    assert path.read_bytes() == b"old"
