"""Files whose contents nncore refuses to read."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import problem
from safetensors.numpy import load_file, save_file

import nncore


def trained() -> tuple[nncore.Network, nncore.Optimizer]:
    net, X, Y = problem("float32")
    optimizer = nncore.Adam()
    net.fit(X, Y, epochs=2, optimizer=optimizer, seed=0)
    return net, optimizer


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file whose checksum is absent, so that the other checks decide."""
    net, optimizer = trained()
    path = tmp_path / "net"
    net.save(path, optimizer)
    header, data = parts(path)
    header["__metadata__"]["nncore"] = '{"version": 1}'
    write(path, header, data)
    return path


def assert_refused(path: Path, reason: str = "") -> None:
    with pytest.raises(ValueError, match="not a file that this version of nncore can read") as got:
        nncore.load(path)
    assert str(path) in str(got.value)
    assert reason in str(got.value)


def test_a_file_without_checksum_is_read(saved: Path) -> None:
    assert nncore.load(saved).equals(trained()[0])


def edit(path: Path, section: str, **values: Any) -> None:
    """Replace values in a section of the metadata."""
    header, data = parts(path)
    content = json.loads(header["__metadata__"][section])
    header["__metadata__"][section] = json.dumps({**content, **values})
    write(path, header, data)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("architecture", {"sizes": [5, 6, 4]}),
        ("architecture", {"sizes": [5, 6, 3, 3]}),
        ("architecture", {"sizes": [6, 5, 3]}),
        ("architecture", {"sizes": [5.0, 6.0, 3.0]}),
        ("architecture", {"sizes": [5, True, 3]}),
        ("architecture", {"sizes": [5, -6, 3]}),
        ("architecture", {"sizes": "563"}),
        ("architecture", {"sizes": None}),
        ("architecture", {"sizes": {"5": 6}}),
        ("architecture", {"sizes": [[5, 6, 3]]}),
        ("architecture", {"sizes": [2**31, 2**31, 2**31]}),
        ("architecture", {"sizes": [2**40, 3]}),
        ("architecture", {"activation": ["tanh", "softmax"]}),
        ("architecture", {"activation": ["tanh", "unknown"]}),
        ("architecture", {"activation": [1, 1]}),
        ("architecture", {"activation": "tanh"}),
        ("architecture", {"activation": ["tanh"]}),
        ("architecture", {"loss": "unknown"}),
        ("architecture", {"loss": 1}),
        ("architecture", {"dtype": "float64"}),
        ("architecture", {"dtype": "float16"}),
        ("architecture", {"dtype": None}),
        ("architecture", {"dtype": "f4," * 1000}),
        ("architecture", {"dtype": {"names": ["a"], "formats": ["f4"]}}),
        ("architecture", {"unknown": 1}),
        ("optimizer", {"kind": "unknown"}),
        ("optimizer", {"kind": "sgd"}),
        ("optimizer", {"kind": ["adam"]}),
        ("optimizer", {"coefficients": {"learning_rate": -1}}),
        ("optimizer", {"coefficients": {"learning_rate": "1"}}),
        ("optimizer", {"coefficients": {"learning_rate": {"$float": "nan"}}}),
        ("optimizer", {"coefficients": {"learning_rate": {"$schedule": 1}}}),
        ("optimizer", {"coefficients": {"learning_rate": {"$schedule": ["open", {}]}}}),
        ("optimizer", {"coefficients": {"learning_rate": {"$schedule": ["constant", {}]}}}),
        ("optimizer", {"coefficients": {"learning_rate": {"$schedule": ["constant", [1]]}}}),
        (
            "optimizer",
            {"coefficients": {"learning_rate": {"$schedule": ["constant", {"rate": -1}]}}},
        ),
        ("optimizer", {"coefficients": {"step_count": 1}}),
        ("optimizer", {"coefficients": {"state": []}}),
        ("optimizer", {"coefficients": [1]}),
        ("optimizer", {"step_count": -1}),
        ("optimizer", {"step_count": 2**70}),
        ("optimizer", {"step_count": 1.5}),
        ("optimizer", {"unknown": 1}),
        ("nncore", {"version": "1"}),
        ("nncore", {"version": 0}),
        ("nncore", {"unknown": 1}),
        ("nncore", {"crc32": 1}),
    ],
)
def test_a_section_with_a_wrong_value_is_refused(
    section: str, values: dict[str, Any], saved: Path
) -> None:
    edit(saved, section, **values)
    assert_refused(saved)


def test_a_newer_file_is_refused_by_its_version(saved: Path) -> None:
    edit(saved, "nncore", version=2)
    assert_refused(saved, "version 2")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '"a"', "nan", "[" * 100_000, '{"sizes": [5, 6, 3]}', "\x00"],
)
@pytest.mark.parametrize("section", ["nncore", "architecture", "optimizer"])
def test_a_section_that_is_not_an_object_is_refused(section: str, text: str, saved: Path) -> None:
    header, data = parts(saved)
    header["__metadata__"][section] = text
    write(saved, header, data)
    assert_refused(saved)


@pytest.mark.parametrize("section", ["nncore", "architecture"])
def test_a_missing_section_is_refused(section: str, saved: Path) -> None:
    header, data = parts(saved)
    del header["__metadata__"][section]
    write(saved, header, data)
    assert_refused(saved)


def test_an_unknown_section_is_refused(saved: Path) -> None:
    header, data = parts(saved)
    header["__metadata__"]["unknown"] = "{}"
    write(saved, header, data)
    assert_refused(saved, "unknown")


def test_keys_with_one_hash_are_refused(saved: Path) -> None:
    """Python would compare each with all others."""
    header, data = parts(saved)
    keys = [[k * sys.hash_info.modulus, 0] for k in range(2000)]
    header["__metadata__"]["checkpoint"] = json.dumps({"$dict": keys})
    write(saved, header, data)
    assert_refused(saved, "same hash")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["weights.2", "biases.1", "optimizer.state.1"])
def test_a_tensor_that_is_not_finite_is_refused(name: str, value: float, saved: Path) -> None:
    metadata, tensors = parts(saved)[0]["__metadata__"], load_file(saved)
    tensors[name].reshape(-1)[1] = value
    save_file(tensors, saved, metadata)
    assert_refused(saved, name)


def test_a_file_written_by_safetensors_is_read(saved: Path) -> None:
    save_file(load_file(saved), saved, parts(saved)[0]["__metadata__"])
    assert nncore.load(saved).equals(trained()[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("weights.1"),
        lambda tensors: tensors.pop("biases.2"),
        lambda tensors: tensors.update({"weights.1": tensors["weights.1"].T.copy()}),
        lambda tensors: tensors.update({"weights.1": tensors["weights.1"].astype("f8")}),
        lambda tensors: tensors.update({"weights.1": tensors["weights.1"].view("i4")}),
        lambda tensors: tensors.update({"biases.1": tensors["biases.1"][:, np.newaxis]}),
        lambda tensors: tensors.update({"weights.3": tensors["weights.1"]}),
        lambda tensors: tensors.update({"optimizer.state.0": tensors["biases.1"]}),
        lambda tensors: tensors.update({"optimizer.state.3": tensors["optimizer.state.0"]}),
    ],
)
def test_tensors_that_do_not_fit_the_architecture_are_refused(
    change: Callable[[dict[str, Any]], object], saved: Path
) -> None:
    metadata, tensors = parts(saved)[0]["__metadata__"], load_file(saved)
    change(tensors)
    save_file(tensors, saved, metadata)
    assert_refused(saved)
