"""Files of networks that have a loss of the user's: they hold its name, not its code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from custom_losses import Array, ClassLoss, Custom
from helpers import make
from safetensors import safe_open
from safetensors.numpy import save_file

import nncore

CUSTOM = Custom()


def problem(loss: Any = CUSTOM) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 3], loss=loss, output="identity", dtype="float32")
    rng = np.random.default_rng(4)
    return net, rng.normal(size=(40, 5)).astype("f4"), rng.normal(size=(40, 3)).astype("f4")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


def test_a_loaded_network_predicts_and_names_the_loss_that_it_lacks(path: Path) -> None:
    net, X, Y = problem()
    net.save(path)
    loaded = nncore.load(path)
    assert loaded.predict(X).tobytes() == net.predict(X).tobytes()
    assert loaded.jacobian(X).tobytes() == net.jacobian(X).tobytes()
    assert "name='Custom'" in repr(loaded.loss)
    with pytest.raises(TypeError, match=r"without the code of its loss Custom; nncore\.load"):
        loaded.evaluate(X, Y)
    with pytest.raises(TypeError, match="without the code"):
        loaded.fit(X, Y)
    assert loaded.parameters.tobytes() == net.parameters.tobytes()


def test_a_network_loaded_with_its_loss_trains_on(path: Path) -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    net.fit(X, Y, optimizer=optimizer, seed=0)
    net.save(path, optimizer)
    loaded, its_optimizer = nncore.load(path, with_optimizer=True, loss=Custom())
    assert loaded.equals(net)
    for each, opt in ((net, optimizer), (loaded, its_optimizer)):
        each.fit(X, Y, optimizer=opt, seed=1)
    assert loaded.equals(net)


def test_saving_a_loaded_network_keeps_the_name(path: Path) -> None:
    net, _, _ = problem()
    net.save(path)
    nncore.load(path).save(path)
    assert nncore.load(path, loss=Custom()).equals(net)


def test_another_loss_is_refused(path: Path) -> None:
    problem()[0].save(path)
    with pytest.raises(ValueError, match=r"loss must be Custom, which .* got <.*ClassLoss"):
        nncore.load(path, loss=ClassLoss())
    with pytest.raises(TypeError, match="must be an instance"):
        nncore.load(path, loss=Custom)
    problem("squared_error")[0].save(path)
    with pytest.raises(ValueError, match="loss must be squared_error"):
        nncore.load(path, loss=Custom())


@pytest.mark.parametrize("loss", ['{"custom": 3}', '{"custom": "A", "code": "B"}', "{}", "[]"])
def test_other_descriptions_are_refused(path: Path, loss: str) -> None:
    problem()[0].save(path)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    metadata["architecture"] = metadata["architecture"].replace('{"custom":"Custom"}', loss)
    assert loss in metadata["architecture"]
    metadata["nncore"] = '{"version": 1}'
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="is not a file that"):
        nncore.load(path)


def test_a_checkpoint_continues_with_the_networks_own_loss(path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 8, "seed": 0, "resume": path}
    checkpoint = nncore.callbacks.Checkpoint(path)
    whole, X, Y = problem()
    whole.fit(X, Y, epochs=4, batch_size=8, seed=0)
    net, _, _ = problem()
    net.fit(X, Y, epochs=2, callbacks=[checkpoint], **options)
    resumed, _, _ = problem()
    resumed.fit(X, Y, epochs=4, **options)
    assert resumed.equals(whole)
    other, _, _ = problem(ClassLoss())
    with pytest.raises(ValueError, match=r"loss must be .*Custom.* got .*ClassLoss"):
        other.fit(X, Y, epochs=4, **options)


def test_the_best_model_is_saved(path: Path) -> None:
    net, X, Y = problem()
    best = nncore.callbacks.BestModel(path)
    net.fit(X, Y, epochs=2, seed=0, validation_split=0.2, callbacks=[best])
    assert nncore.load(path).sizes == net.sizes
