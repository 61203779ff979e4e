"""Networks from ONNX models: which graphs are understood, and which are refused."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import PAIRS, make, make_lively
from runtimes import difference, run_reference

import nncore

onnx = pytest.importorskip("onnx")

Array = npt.NDArray[Any]

rng = np.random.default_rng(1)
CONSTANTS = {
    "W": rng.normal(size=(4, 3)),
    "V": rng.normal(size=(3, 4)),
    "U": rng.normal(size=(3, 2)),
    "b": rng.normal(size=3),
    "row": rng.normal(size=(1, 3)),
    "c": rng.normal(size=2),
    "number": np.array(0.5),
    "limit": np.array(20.0),
    "one": np.array(1.0),
}
HEAD = '<ir_version: 8, opset_import: ["": 20, "ai.onnx.ml": 3]>'
X = rng.normal(size=(9, 4)).astype("float32")


def model(nodes: str, head: str = HEAD, source: str = "float[n,4] X", **constants: Any) -> Any:
    """Return a model from X to Y with those constants that the nodes use."""
    made = onnx.parser.parse_model(f"{head} g ({source}) => (Y) {{ {nodes} }}")
    used = {name for node in made.graph.node for name in node.input}
    for name, values in ({k: v.astype("f4") for k, v in CONSTANTS.items()} | constants).items():
        if name in used:
            made.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return made


# What comes back.


@pytest.mark.parametrize(("loss", "output"), PAIRS)
def test_exported_network_returns_bit_for_bit(loss: str, output: str, dtype: np.dtype[Any]) -> None:
    net = make_lively([4, 6, 3], "tanh", loss, output, dtype=dtype)
    assert nncore.from_onnx(net.to_onnx()).equals(net)


@pytest.mark.parametrize(
    "nodes",
    [
        "Y = Gemm(X, W, b)",
        "Y = Gemm(X, W)",
        "Y = Gemm<transB = 1>(X, V, b)",
        "Y = Gemm<alpha = 0.5, beta = -2.0>(X, W, b)",
        "Y = Gemm(X, W, row)",
        "Y = Gemm(X, W, number)",
        "Z = MatMul(X, W) Y = Add(Z, b)",
        "Z = MatMul(X, W) Y = Add(b, Z)",
        "Z = MatMul(X, W) Y = Add(Z, row)",
        "Y = MatMul(X, W)",
        "Z = Gemm(X, W, b) A = Relu(Z) Y = Gemm(A, U, c)",
        "Z = MatMul(X, W) Y = MatMul(Z, U)",
        "Z = MatMul(X, W) C = Cast<to = 1>(Z) Y = Add(C, b)",
        "Z = Gemm(X, W, b) A = Tanh(Z) D = Dropout(A) Y = Gemm(D, U, c)",
        "t = Constant<value = bool {0}>() Z = Gemm(X, W, b) Y = Dropout(Z, number, t)",
        "Z = Gemm(X, W, b) A = Elu<alpha = 1.0>(Z) I = Identity(A) Y = MatMul(I, U)",
        "Z = Gemm(X, W, b) A = LeakyRelu(Z) Y = MatMul(A, U)",
        "Z = Gemm(X, W, b) A = LeakyRelu<alpha = 0.2>(Z) Y = MatMul(A, U)",
        "Z = Gemm(X, W, b) A = Elu<alpha = 0.7>(Z) Y = MatMul(A, U)",
        "Z = Gemm(X, W, b) Y = Softmax(Z)",
        "Z = Gemm(X, W, b) Y = Softmax<axis = 1>(Z)",
        "d = Identity(b) Y = Gemm(X, W, d)",
        "d = Constant<value = float[3] {1.0, 2.0, 3.0}>() Y = Gemm(X, W, d)",
        "F = Flatten(X) Y = Gemm(F, W, b)",
        "s = Constant<value = int64[2] {-1, 4}>() F = Reshape(X, s) Y = Gemm(F, W)",
        "s = Constant<value = int64[2] {0, -1}>() Z = Gemm(X, W) Y = Reshape(Z, s)",
        "Z = Gemm(X, W, b) S = Sigmoid(Z) Y = Mul(Z, S)",
        "Z = Gemm(X, W, b) S = Sigmoid(Z) Y = Mul(S, Z)",
        "Z = Gemm(X, W, b) Y = Gelu(Z)",
        'Z = Gemm(X, W, b) Y = Gelu<approximate = "tanh">(Z)',
        "Z = Gemm(X, W, b) S = Softplus(Z) G = Greater(Z, limit) Y = Where(G, Z, S)",
    ],
)
def test_chain_of_layers_is_understood(nodes: str) -> None:
    made = model(nodes)
    Y = nncore.from_onnx(made).predict(X)
    assert difference(Y, run_reference(made, X)[0]) < 1e-6


def test_slopes_and_thresholds_return() -> None:
    activation: list[Any] = [("leaky_relu", 0.2), ("elu", 1 / 3), "leaky_relu", "identity"]
    net = nncore.Network([4, 3, 3, 3, 2], activation=activation, loss=("huber", 0.7), seed=0)
    again = nncore.from_onnx(net.to_onnx())
    assert again.loss == net.loss
    assert again.activation == (("leaky_relu", 0.2), ("elu", 0.33333334), *activation[2:])
    assert difference(again.predict(X), net.predict(X)) < 1e-6


def test_bias_may_belong_to_several_layers() -> None:
    made = model(
        "Z = MatMul(X, W) A = Add(Z, b) B = MatMul(A, Q) Y = Add(B, b)", Q=np.eye(3, dtype="f4")
    )
    assert difference(nncore.from_onnx(made).predict(X), run_reference(made, X)[0]) < 1e-6


def test_values_may_be_stored_as_numbers(dtype: np.dtype[Any]) -> None:
    made = model(
        "Y = MatMul(X, W)", source=f"{dtype.name.replace('32', '').replace('64', '')}[n,4] X"
    )
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    tensor = onnx.helper.make_tensor("W", kind, [4, 3], np.arange(12.0))
    assert not tensor.HasField("raw_data")
    made.graph.initializer[0].CopyFrom(tensor)
    net = nncore.from_onnx(made)
    assert net.dtype == dtype
    np.testing.assert_array_equal(net.weights[0], np.arange(12).reshape(4, 3))


def test_flattened_images_are_rows() -> None:
    made = model("F = Flatten(X) Y = Gemm(F, W, b)", source="float[n,2,2] X")
    Y = nncore.from_onnx(made).predict(X)
    assert difference(Y, run_reference(made, X.reshape(-1, 2, 2))[0]) < 1e-6


def test_probabilities_of_two_classes_become_the_second() -> None:
    made = model(
        "Z = Gemm(X, v) p = Sigmoid(Z) q = Sub(one, p) Y = Concat<axis = 1>(q, p)",
        v=CONSTANTS["W"][:, :1].astype("f4"),
    )
    Y = nncore.from_onnx(made).predict(X)
    assert difference(Y, run_reference(made, X)[0][:, 1:]) < 1e-6


def test_network_can_be_trained_further() -> None:
    net = nncore.from_onnx(make([4, 5, 3], "relu", "cross_entropy").to_onnx())
    before = net.evaluate(X, np.arange(9) % 3)
    net.fit(X, np.arange(9) % 3, epochs=20, seed=0)
    assert net.evaluate(X, np.arange(9) % 3) < before


# Loss and outputs.


@pytest.mark.parametrize(
    ("nodes", "loss"),
    [
        ("Y = Gemm(X, W)", "squared_error"),
        ("Z = Gemm(X, W) Y = Tanh(Z)", "squared_error"),
        ("Z = Gemm(X, W) Y = Exp(Z)", "poisson"),
        ("Z = Gemm(X, W) Y = Sigmoid(Z)", "binary_cross_entropy"),
        ("Z = Gemm(X, W) Y = Softmax(Z)", "cross_entropy"),
    ],
)
def test_loss_follows_from_the_outputs(nodes: str, loss: str) -> None:
    assert nncore.from_onnx(model(nodes)).loss == loss


def test_loss_that_nncore_stored_returns() -> None:
    assert nncore.from_onnx(make([4, 3], loss="huber").to_onnx()).loss == "huber"


def test_loss_may_be_another() -> None:
    assert nncore.from_onnx(model("Y = Gemm(X, W)"), loss="absolute_error").loss == "absolute_error"
    with pytest.raises(ValueError, match="needs an output layer with activation softmax"):
        nncore.from_onnx(model("Y = Gemm(X, W)"), loss="cross_entropy")


def test_logits_may_get_an_activation() -> None:
    logits = nncore.from_onnx(model("Y = Gemm(X, W)"))
    net = nncore.from_onnx(model("Y = Gemm(X, W)"), output_activation="softmax")
    assert net.loss == "cross_entropy"
    Z = np.exp(logits.predict(X))
    np.testing.assert_allclose(net.predict(X), Z / Z.sum(axis=1, keepdims=True), rtol=1e-5)
    with pytest.raises(ValueError, match="output_activation must be None"):
        nncore.from_onnx(model("Z = Gemm(X, W) Y = Tanh(Z)"), output_activation="softmax")


def test_output_may_be_chosen() -> None:
    made = model("A = Gemm(X, W) Y = Tanh(A)")
    made.graph.output.append(onnx.helper.make_tensor_value_info("A", 1, ["n", 3]))
    assert nncore.from_onnx(made, output="A").activation == ("identity",)
    made.graph.output[0].type.CopyFrom(made.graph.output[1].type)
    with pytest.raises(ValueError, match=r"output must be one of \['Y', 'A'\], got None"):
        nncore.from_onnx(made)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "crossentropy"}, ValueError, "loss must be one of"),
        ({"loss": 3}, TypeError, "loss must be one of"),
        ({"output": "Z"}, ValueError, "output must be one of"),
        ({"output": 0}, TypeError, "output must be the name"),
        ({"output_activation": "soft"}, ValueError, "output_activation must be one of"),
    ],
)
def test_invalid_arguments_are_named(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nncore.from_onnx(model("Y = Gemm(X, W)"), **options)


def test_source_must_be_a_path_or_a_model() -> None:
    source: Any = 3
    with pytest.raises(TypeError, match="path must be a str or os"):
        nncore.from_onnx(source)


# What is refused.


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("[n] Y = Sin(X)", r"node 'n' \(Sin\) is no part"),
        ("Z = Gemm(X, W) [n] Y = Sin(Z)", r"node 'n' \(Sin\) is no part"),
        ("Z = Gemm(X, W) Y = com.acme.Relu(Z)", r"node 'Y' \(com.acme.Relu\) is no part"),
        ("Z = Gemm(X, W) Y = LogSoftmax(Z)", r"\(LogSoftmax\) is no part"),
        ("[n] Y = Relu(X)", r"node 'n' \(Relu\) does not directly follow a matrix product"),
        ("Z = Gemm(X, W) A = Relu(Z) [n] Y = Tanh(A)", r"node 'n' \(Tanh\) does not directly"),
        ("[n] Y = Add(X, b)", r"node 'n' \(Add\) does not directly follow"),
        ("Z = Gemm(X, W) A = Relu(Z) [n] Y = Add(A, b)", r"node 'n' \(Add\) does not directly"),
        ("Z = Gemm(X, W) A = Softmax(Z) [n] Y = MatMul(A, U)", "node 'n' .* follows a softmax"),
        ("Z = Gemm(X, W) A = Relu(Z) [n] Y = Add(Z, A)", r"node 'n' \(Add\) must have a constant"),
        ("Z = Gemm(X, W) [n] Y = MatMul(X, Z)", r"node 'n' \(MatMul\) must have a constant"),
        ("[n] Y = Gemm<transA = 1>(X, W)", r"node 'n' \(Gemm\) transposes its input"),
        (
            "[n] Y = Gemm(X, V)",
            "input 'X' is for 4 columns, not 3",
        ),
        ("Z = Gemm(X, W) [n] Y = MatMul(Z, W4)", r"node 'n' \(MatMul\) is for 4 columns, not 3"),
        ("[n] Y = Gemm(X, b)", r"node 'n' \(Gemm\) must have weights of shape"),
        (
            "[n] Y = Gemm(X, W, c)",
            r"node 'n' \(Gemm\) must have a bias of shape \(3,\), got \(2,\)",
        ),
        ("Z = MatMul(X, v) [n] Y = Add(Z, b)", r"must have a bias of shape \(1,\), got \(3,\)"),
        ("Z = Gemm(X, W) [n] Y = Softmax<axis = 0>(Z)", r"node 'n' \(Softmax\) must have axis 1"),
        ("Z = Gemm(X, W) [n] Y = Cast<to = 7>(Z)", r"node 'n' \(Cast\) must cast to float"),
        ("Z = Gemm(X, W) [n] Y = Cast<to = 11>(Z)", r"node 'n' \(Cast\) must be in float32"),
        ("[n] F = Flatten<axis = 0>(X) Y = Gemm(F, W)", r"node 'n' \(Flatten\) must have axis 1"),
        (
            "s = Constant<value = int64[2] {1, -1}>() Z = Gemm(X, W) [n] Y = Reshape(Z, s)",
            r"node 'n' \(Reshape\) must keep rows, got shape \[1, -1\]",
        ),
        (
            "s = Constant<value = int64[2] {-1, 1}>() Z = Gemm(X, W) [n] Y = Reshape(Z, s)",
            r"node 'n' \(Reshape\) is for 1 columns, not 3",
        ),
        ("Z = Gemm(X, W) A, M = Dropout(Z) [n] Y = Gemm(M, U)", r"\(Dropout\) is no part"),
        (
            "t = Constant<value = bool {1}>() Z = Gemm(X, W) [n] Y = Dropout(Z, number, t)",
            r"node 'n' \(Dropout\) is in training mode",
        ),
        ("Z = Gemm(X, W) A = Relu(Z) [n] Y = Gemm(A, W2)", "must have a constant as input 1"),
        ("Z = Gemm(X, P) A = Relu(Z) Y = Gemm(A, P)", r"\(Gemm\) shares its weights"),
        ("Z = Gemm(X, W) [n] Y = Mul(Z, Z)", r"node 'n' \(Mul\) is no part"),
        ("Z = Gemm(X, W) S = Tanh(Z) [n] Y = Mul(Z, S)", r"node 'n' \(Mul\) is no part"),
        ('Z = Gemm(X, W) [n] Y = Gelu<approximate = "x">(Z)', r"\(Gelu\) has approximate b'x'"),
        ("Z = Gemm(X, W) [n] Y = Concat<axis = 1>(Z, Z)", r"node 'n' \(Concat\) is no part"),
        ("Y = Identity(W)", "'W' is neither computed by a node nor an input"),
        ("Y = Gemm(V, U)", "'V' is neither computed by a node nor an input"),
        (
            "s = Constant<value = int64 {4}>() [n] F = Reshape(X, s) Y = Gemm(F, W)",
            "must keep rows",
        ),
        (
            "Z = Gemm(X, W, b) [n] Y = Add(Z, b)",
            r"node 'n' \(Add\) follows a layer that has a bias",
        ),
        ("Y = Identity(X)", "it has no matrix product"),
        ("Y = Gemm(Q, W)", "'Q' is neither computed by a node nor an input"),
        ("Z = Gemm(X, W) A = Relu(Z) [n] Y = Gemm(A, D)", r"node 'n' \(Gemm\) must be in float32"),
    ],
)
def test_anything_else_is_refused_by_its_name(nodes: str, message: str) -> None:
    others: dict[str, Any] = {
        "W4": np.ones((4, 3), "f4"),
        "v": np.ones((4, 1), "f4"),
        "P": np.eye(4, dtype="f4"),
        "D": np.ones((3, 2)),
    }
    with pytest.raises(ValueError, match=f"^the model cannot be imported: .*({message})"):
        nncore.from_onnx(model(nodes, **others))


def test_input_must_be_rows_unless_it_is_flattened() -> None:
    with pytest.raises(ValueError, match="input 'X' must be a matrix, got 3 dimensions"):
        nncore.from_onnx(model("Y = MatMul(X, W)", source="float[n,5,4] X"))
    with pytest.raises(ValueError, match="input 'X' is for 6 columns, not 4"):
        nncore.from_onnx(model("F = Flatten(X) Y = MatMul(F, W)", source="float[n,2,3] X"))


@pytest.mark.parametrize("version", [1, 6])
def test_old_operators_are_refused(version: int) -> None:
    head = f'<ir_version: 3, opset_import: ["": {version}]>'
    with pytest.raises(ValueError, match=f"opset {version} is older than 7"):
        nncore.from_onnx(model("Y = Gemm(X, W)", head))


def test_operators_that_the_model_redefines_are_refused() -> None:
    made = model("Z = Gemm(X, W) Y = Relu(Z)")
    made.functions.add(name="Relu", domain="")
    with pytest.raises(ValueError, match="redefines operators"):
        nncore.from_onnx(made)
