"""Damaged and malicious ONNX files raise ValueError, and do nothing else."""

import itertools
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import make

import nncore

onnx = pytest.importorskip("onnx")


def small() -> Any:
    return make([3, 4, 2], "tanh", dtype="float32").to_onnx()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def refuse(model: Any, path: Path, message: str) -> None:
    """Assert that the model is refused for this reason, with little memory."""
    size = path.write_bytes(model.SerializeToString())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"model.onnx' cannot be imported: .*{message}"):
            nncore.from_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < (1 << 20) + 10 * size
    finally:
        tracemalloc.stop()


def test_file_returns_the_network(path: Path) -> None:
    net = make([3, 4, 2], dtype="float32")
    net.save_onnx(path)
    assert nncore.from_onnx(path).equals(net)
    assert nncore.from_onnx(str(path)).equals(net)


def test_missing_file_is_an_error_of_the_system(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nncore.from_onnx(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 100, b"not a model", b"\x0a\xff\xff\xff\xff\x07"],
    ids=["empty", "bits", "text", "huge length"],
)
def test_other_files_are_refused(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot be imported"):
        nncore.from_onnx(path)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_file_is_a_network_or_refused(seed: int, path: Path) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(small().SerializeToString())
    for _ in range(50):
        damaged = data.copy()
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        if rng.random() < 0.2:
            del damaged[rng.integers(len(data)) :]
        path.write_bytes(damaged)
        try:
            net = nncore.from_onnx(path)
        except ValueError:
            continue
        assert np.isfinite(net.parameters).all()


# Tensors that are not what they say.


def set_dims(*dims: int) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        tensor.dims[:] = dims

    return change


def change_values(**fields: Any) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        for name, value in fields.items():
            tensor.ClearField("raw_data")
            if isinstance(value, list):
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_dims(1 << 40, 1 << 40), "tensor 'weights.1' has shape .* but 12 values"),
        (set_dims(0, 1 << 40), "tensor 'weights.1' has shape .* but 12 values"),
        (set_dims(-3, -4), "tensor 'weights.1' must be a matrix or a vector"),
        (set_dims(*[1 << 60] * 100_000), "tensor 'weights.1' must be a matrix or a vector"),
        (set_dims(3, 5), "tensor 'weights.1' has shape .* but 12 values"),
        (set_dims(12), "must have weights of shape"),
        (set_dims(4, 3), r"must have a bias of shape \(3,\), got \(4,\)"),
        (change_values(raw_data=b"\0" * 47), "multiple of element size"),
        (change_values(raw_data=b"\0" * 44), "but 11 values"),
        (change_values(raw_data=b"\0" * 44 + b"\0\0\xc0\x7f"), "must be finite, got nan in row 2"),
        (change_values(float_data=[0.0] * 11 + [np.inf]), "must be finite, got inf in row 2"),
        (change_values(float_data=[0.0] * 13), "but 13 values"),
        (change_values(double_data=[0.0] * 12), "but 0 values"),
        (change_values(data_type=10), "must hold float32, float64, int64 or bool, got type 10"),
        (change_values(data_type=7, int64_data=[1] * 12), "must have weights of shape"),
    ],
)
def test_tensor_must_have_the_values_that_it_declares(
    change: Callable[[Any], None], message: str, path: Path
) -> None:
    model = small()
    change(model.graph.initializer[0])
    refuse(model, path, message)


def test_empty_weights_are_refused(path: Path) -> None:
    model = small()
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.empty((0, 1 << 40), "f4"), "weights.1")
    )
    refuse(model, path, "must have weights of shape")


def test_segment_is_refused(path: Path) -> None:
    model = small()
    model.graph.initializer[0].segment.begin = 1
    refuse(model, path, "must be stored as a whole")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "{}", '{"loss": ["huber", "x"]}', "3"])
def test_damaged_metadata_are_refused(text: str, path: Path) -> None:
    model = small()
    next(entry for entry in model.metadata_props if entry.key == "architecture").value = text
    refuse(model, path, "its metadata hold no architecture")


# Graphs that are none.


def test_cycle_is_refused(path: Path) -> None:
    model = small()
    model.graph.node[0].input[0] = "A.1"
    refuse(model, path, "is part of a cycle")


def test_cycle_of_a_node_with_many_outputs_takes_little_memory(path: Path) -> None:
    model = small()
    names = [f"A.{i}" for i in range(5000)]
    model.graph.node.append(onnx.helper.make_node("Relu", ["A.0"], names))
    model.graph.output[0].name = "A.0"
    del model.graph.node[:-1]
    refuse(model, path, r"node 'A.0' \(Relu\) is part of a cycle")


def test_value_of_two_nodes_is_refused(path: Path) -> None:
    model = small()
    model.graph.node.append(model.graph.node[0])
    refuse(model, path, "computes 'Z.1', which exists already")


def test_constants_that_name_each_other_are_refused(path: Path) -> None:
    model = small()
    model.graph.node[0].input[1] = "a"
    for names in (["a"], ["b"]), (["b"], ["a"]):
        model.graph.node.append(onnx.helper.make_node("Identity", *names))
    refuse(model, path, "must have a constant as input 1, got 'a'")


def test_few_weights_for_many_nodes_are_refused(path: Path) -> None:
    model = small()
    del model.graph.node[:]
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.eye(3, dtype="f4"), tensor.name))
    names = ["X", *(f"A.{l}" for l in range(1, 1000)), "Y"]
    for source, result in itertools.pairwise(names):
        model.graph.node.append(onnx.helper.make_node("MatMul", [source, tensor.name], [result]))
    refuse(model, path, "shares its weights with another node")


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan", "ConstantOfShape", "Expand"])
def test_nodes_that_compute_weights_are_refused(operator: str, path: Path) -> None:
    model = small()
    del model.graph.initializer[0]
    model.graph.node.insert(0, onnx.helper.make_node(operator, ["s"], ["weights.1"]))
    refuse(model, path, "must have a constant as input 1, got 'weights.1'")


@pytest.mark.parametrize("n", [0, 1])
def test_node_without_its_inputs_is_refused(n: int, path: Path) -> None:
    model = small()
    del model.graph.node[0].input[n:]
    refuse(model, path, "must have a constant as input 1, got ''")


def test_attribute_of_another_type_is_refused(path: Path) -> None:
    model = small()
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("alpha", "1"))
    refuse(model, path, "has an attribute 'alpha' of the wrong type")


def test_input_of_very_many_dimensions_is_refused(path: Path) -> None:
    model = small()
    model.graph.node[0].input[0] = "F"
    model.graph.node.insert(0, onnx.helper.make_node("Flatten", ["X"], ["F"]))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for _ in range(1000):
        dims.add(dim_value=(1 << 62))
    refuse(model, path, "must be a matrix, got 1002 dimensions")


# Weights in other files.


def externalize(model: Any, location: str, **entries: Any) -> None:
    """Let the first weights be in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))


def test_weights_in_the_models_directory_are_read(path: Path) -> None:
    net = make([3, 4, 2], "tanh", dtype="float32")
    onnx.save(net.to_onnx(), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert (path.parent / "weights").stat().st_size >= 4 * net.parameters.size
    assert nncore.from_onnx(path).equals(net)


@pytest.mark.parametrize(
    "location", ["../weights", "/etc/passwd", "sub/weights", "", ".", "..", "a\0b"]
)
def test_weights_elsewhere_are_refused(location: str, path: Path) -> None:
    (path.parent.parent / "weights").write_bytes(b"\0" * 48)
    model = small()
    externalize(model, location)
    refuse(model, path, "must lie in the model's directory|embedded null byte")


@pytest.mark.skipif(os.name != "posix", reason="needs links and pipes of POSIX")
def test_links_and_pipes_are_refused(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "weights"
    outside.write_bytes(b"\0" * 48)
    (path.parent / "link").symlink_to(outside)
    os.mkfifo(path.parent / "pipe")
    (path.parent / "folder").mkdir()
    for location in ("link", "pipe", "folder", "missing"):
        model = small()
        externalize(model, location)
        refuse(model, path, f"tensor 'weights.1' needs the file '{location}'")


@pytest.mark.parametrize(
    "entries",
    [{"offset": 1}, {"offset": -1}, {"length": 47}, {"length": -1}, {"offset": 1 << 70}],
)
def test_weights_beyond_their_file_are_refused(entries: dict[str, int], path: Path) -> None:
    (path.parent / "weights").write_bytes(b"\0" * 48)
    model = small()
    externalize(model, "weights", **entries)
    refuse(model, path, "tensor 'weights.1' needs 48 bytes of the file 'weights'")


@pytest.mark.parametrize("entries", [{"offset": "x"}, {"length": "1e3"}])
def test_offset_and_length_must_be_numbers(entries: dict[str, str], path: Path) -> None:
    (path.parent / "weights").write_bytes(b"\0" * 48)
    model = small()
    externalize(model, "weights", **entries)
    refuse(model, path, "invalid literal")


def test_huge_weights_in_a_small_file_are_refused(path: Path) -> None:
    (path.parent / "weights").write_bytes(b"\0" * 48)
    model = small()
    externalize(model, "weights")
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    refuse(model, path, "needs .* bytes of the file 'weights'")


@pytest.mark.parametrize("name", ["weights", "same"])
def test_overlapping_weights_are_refused(name: str, path: Path) -> None:
    (path.parent / "weights").write_bytes(b"\0" * 48)
    (path.parent / "same").hardlink_to(path.parent / "weights")
    model = small()
    externalize(model, "weights")
    again = model.graph.initializer[2]
    again.CopyFrom(model.graph.initializer[0])
    again.name, again.dims[:] = "weights.2", [4, 2]
    again.external_data[0].value = name
    refuse(model, path, "overlaps another tensor in the file 'weights'")


def test_model_in_memory_has_no_other_files() -> None:
    model = small()
    externalize(model, "weights")
    with pytest.raises(ValueError, match="pass the path of the model"):
        nncore.from_onnx(model)
