"""Networks and optimizers in files: what comes back, and what is refused."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import every_optimizer, make, problem, refused
from safetensors.numpy import load_file

import nncore
from nncore._values import decode, encode

FILES = Path(__file__).parent / "files"


class OwnAdam(nncore.Adam):
    """Of a class that nncore does not know."""


def trained(dtype: Any = "float32", create: Callable[[], Any] = nncore.Adam) -> tuple[Any, Any]:
    net, X, Y = problem(dtype)
    optimizer = create()
    net.fit(X, Y, epochs=2, optimizer=optimizer, seed=0)
    return net, optimizer


# What comes back.


def test_network_returns_bit_for_bit(dtype: np.dtype[Any], tmp_path: Path) -> None:
    net = make([5, 7, 3], hidden="elu", loss="cross_entropy", dtype=dtype)
    net.save(tmp_path / "net")
    assert nncore.load(tmp_path / "net").equals(net)


@every_optimizer
def test_optimizer_returns_bit_for_bit(
    create: Callable[[], Any], dtype: np.dtype[Any], tmp_path: Path
) -> None:
    net, optimizer = trained(dtype, create)
    net.save(tmp_path / "net", optimizer)
    loaded, again = nncore.load(tmp_path / "net", with_optimizer=True)
    assert loaded.equals(net)
    assert type(again) is type(optimizer)
    assert again.coefficients == optimizer.coefficients
    assert again.step_count == optimizer.step_count
    assert [v.tobytes() for v in again.state] == [v.tobytes() for v in optimizer.state]


@every_optimizer
def test_training_continues_with_the_same_bits(create: Callable[[], Any], tmp_path: Path) -> None:
    net, optimizer = trained(create=create)
    net.save(tmp_path / "net", optimizer)
    loaded, again = nncore.load(tmp_path / "net", with_optimizer=True)
    _, X, Y = problem("float32")
    for network, own in ((net, optimizer), (loaded, again)):
        network.fit(X, Y, epochs=2, optimizer=own, seed=1)
    assert loaded.equals(net)


def test_coefficients_set_after_construction_return(tmp_path: Path) -> None:
    net, optimizer = trained(create=lambda: nncore.SGD(0.1, momentum=0.9, nesterov=True))
    optimizer.momentum = 0.0
    net.save(tmp_path / "net", optimizer)
    again = nncore.load(tmp_path / "net", with_optimizer=True)[1]
    assert again.coefficients == optimizer.coefficients
    assert len(again.state) == 1


@pytest.mark.parametrize("name", nncore.schedules.SCHEDULES)
def test_schedules_return(name: str, tmp_path: Path) -> None:
    parameters = {
        "constant": {"rate": 1 / 3},
        "step": {"rate": 1 / 3, "every": 7, "factor": 1 / 7},
        "exponential": {"rate": 1 / 3, "decay": 1 / 7},
        "cosine": {"peak": 1 / 3, "steps": 70, "warmup": 7, "final": 1 / 30},
        "one_cycle": {"peak": 1 / 3, "steps": 70, "warmup_fraction": 1 / 7, "end_fraction": 0.1},
    }[name]
    optimizer = nncore.Adam(getattr(nncore.schedules, name)(**parameters))
    make([4, 2]).save(tmp_path / "net", optimizer)
    again = nncore.load(tmp_path / "net", with_optimizer=True)[1]
    assert again.learning_rate == optimizer.learning_rate


def test_optimizer_without_steps_returns(tmp_path: Path) -> None:
    make([4, 2]).save(tmp_path / "net", nncore.Adam(0.5))
    again = nncore.load(tmp_path / "net", with_optimizer=True)[1]
    assert again.coefficients == nncore.Adam(0.5).coefficients
    assert again.step_count == 0
    assert again.state == ()


def test_saving_and_loading_keep_single_steps_fast(tmp_path: Path) -> None:
    """Vectors that count as shared would be packed again in every step."""
    net, X, Y = problem()
    optimizer = nncore.Adam()
    net.train_on_batch(X, Y, optimizer)
    net.save(tmp_path / "net", optimizer)
    loaded, again = nncore.load(tmp_path / "net", with_optimizer=True)
    vectors = [own.vectors(net.architecture) for own in (optimizer, again)]
    assert not any(vector.is_shared for pair in vectors for vector in pair)
    assert not loaded._vector.is_shared


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_path_may_have_any_type_of_paths(kind: Callable[[Any], Any], tmp_path: Path) -> None:
    net, path = make([4, 2]), kind(tmp_path / "net")
    net.save(path)
    assert nncore.load(path).equals(net)


def test_safetensors_reads_the_file_too(tmp_path: Path) -> None:
    net, optimizer = trained()
    net.save(tmp_path / "net", optimizer)
    tensors = load_file(tmp_path / "net")
    for l, (W, b) in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        np.testing.assert_array_equal(tensors.pop(f"weights.{l}"), W)
        np.testing.assert_array_equal(tensors.pop(f"biases.{l}"), b)
    assert sorted(tensors) == ["optimizer.state.0", "optimizer.state.1"]


def test_subclass_is_loaded_as_a_network(tmp_path: Path) -> None:
    class Named(nncore.Network):
        pass

    net = Named([4, 2], seed=0)
    net.name = "net"
    net.save(tmp_path / "net")
    assert type(nncore.load(tmp_path / "net")) is nncore.Network


# Files that earlier versions wrote. Never change them: add new ones.


def test_network_of_the_first_version_is_read() -> None:
    net = nncore.load(FILES / "network.safetensors")
    assert net.sizes == (3, 4, 2)
    assert net.activation == ("tanh", "softmax")
    assert net.loss == "cross_entropy"
    assert net.dtype == np.float32
    np.testing.assert_allclose(net.predict([[1, -1, 0.5]]), [[0.203394398, 0.796605587]], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "coefficients", "length"),
    [
        ("sgd", {"learning_rate": 0.1, "weight_decay": 0.01}, 0.0),
        ("nesterov", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}, 0.16818063),
        ("adam", {"learning_rate": 1 / 3, "beta_1": 0.8}, 0.13564971),
        (
            "amsgrad-schedule",
            {"learning_rate": nncore.schedules.cosine(1 / 3, steps=9, warmup=2), "amsgrad": True},
            0.07359497,
        ),
        ("adamw", {"learning_rate": 1 / 3, "weight_decay": 0.02}, 0.07631703),
        ("rmsprop", {"learning_rate": 1 / 3, "momentum": 0.5, "centered": True}, 297.05389),
    ],
)
def test_optimizer_of_the_first_version_is_read(
    name: str, coefficients: dict[str, Any], length: float
) -> None:
    net, optimizer = nncore.load(FILES / f"{name}.safetensors", with_optimizer=True)
    assert optimizer.step_count == 4
    assert coefficients.items() <= optimizer.coefficients.items()
    assert sum(np.abs(vector).sum() for vector in optimizer.state) == pytest.approx(length)
    _, X, Y = problem("float32")
    net.fit(X, Y, optimizer=optimizer)


# What cannot be stored.


def test_optimizers_of_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    net, optimizer = trained(create=OwnAdam)
    with refused(TypeError, "optimizer", "OwnAdam", "Adam", unchanged=[net, optimizer]):
        net.save(tmp_path / "net", optimizer)
    assert not list(tmp_path.iterdir())


def test_a_function_of_the_user_as_learning_rate_is_refused(tmp_path: Path) -> None:
    def own_schedule(step: int) -> float:
        return 0.1

    with pytest.raises(TypeError, match=r"learning_rate must hold .*schedules.*own_schedule"):
        make([4, 2]).save(tmp_path / "net", nncore.SGD(own_schedule))


@pytest.mark.parametrize("optimizer", ["adam", nncore.Adam])
def test_names_and_classes_of_optimizers_are_refused(optimizer: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="optimizer must be one of"):
        make([4, 2]).save(tmp_path / "net", optimizer)


def test_an_optimizer_of_another_network_is_refused(tmp_path: Path) -> None:
    _, optimizer = trained()
    with pytest.raises(ValueError, match=r"optimizer has the state of a network of sizes \[5, 6"):
        make([4, 2], dtype="float32").save(tmp_path / "net", optimizer)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    net = make([4, 3, 2])
    net.weights[1][2, 1] = value
    with pytest.raises(ValueError, match=f"weights.2 must be finite in a file, got {value}"):
        net.save(tmp_path / "net")


def test_paths_with_null_characters_are_refused() -> None:
    for call in (make([3, 2]).save, nncore.load):
        with pytest.raises(ValueError, match=r"path must hold no null character, got 'a\\x00b'"):
            call("a\0b")


def test_paths_of_other_types_are_refused() -> None:
    path: Any = 3
    for call in (lambda: make([4, 2]).save(path), lambda: nncore.load(path)):
        with pytest.raises(TypeError, match=r"path must be a str or os\.PathLike, got 3"):
            call()


def test_loading_an_optimizer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    make([4, 2]).save(tmp_path / "net")
    with pytest.raises(ValueError, match=r"net' holds no optimizer; net.save\(path, optimizer\)"):
        nncore.load(tmp_path / "net", with_optimizer=True)


@pytest.mark.parametrize(
    "keys",
    [
        list(itertools.product((-2, -1, 0, 1, 2), repeat=4)),
        [2**k for k in range(500)],
        [2.0**k for k in range(-300, 300)],
    ],
)
def test_keys_that_share_some_hashes_are_stored(keys: list[Any]) -> None:
    values = {key: i for i, key in enumerate(keys)}
    stored = json.loads(json.dumps(encode("state", values, {})))
    assert decode(stored, {}) == values


def test_keys_with_dots_and_empty_texts_are_stored() -> None:
    values = {"a": {"b": np.arange(3)}, "a.b": np.ones(2), "none": np.array([], "U5")}
    tensors: dict[str, Any] = {}
    restored = decode(encode("state", values, tensors), tensors)
    assert not tensors
    assert np.array_equal(restored["a"]["b"], np.arange(3))
    assert np.array_equal(restored["a.b"], np.ones(2))
    assert restored["none"].shape == (0,)
