"""The architecture: an immutable value, the layout of flat vectors, and the names behind it."""

import dataclasses
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from custom_losses import Custom

import nncore
from nncore.architecture import OUTPUT_ACTIVATIONS, Architecture
from nncore.enums import Activation, Loss


def architecture() -> Architecture:
    return Architecture.from_names([5, 4, 3], ["tanh", "softmax"], "cross_entropy", "float32")


def test_architectures_with_the_same_parts_are_equal_and_hash_alike() -> None:
    assert architecture() == architecture()
    assert hash(architecture()) == hash(architecture())
    assert architecture() != dataclasses.replace(architecture(), dtype=np.dtype("float64"))
    assert nncore.Network([5, 4, 3], activation="tanh").architecture != architecture()


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        architecture().loss = Loss.HUBER  # type: ignore[misc]


def test_an_architecture_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(architecture()))
    assert again == architecture()
    assert again.layers == architecture().layers


def test_views_cover_a_flat_vector_once_and_in_order() -> None:
    vector = np.arange(architecture().n_parameters, dtype=np.float32)
    weights, biases = architecture().views(vector)
    assert [W.shape for W in weights] == [(5, 4), (4, 3)]
    assert [b.shape for b in biases] == [(4,), (3,)]
    parts = [part.ravel() for pair in zip(weights, biases, strict=True) for part in pair]
    assert np.concatenate(parts).tolist() == vector.tolist()
    weights[1][2, 1] = -1
    assert (vector == -1).sum() == 1


def test_networks_of_an_architecture_share_it() -> None:
    net = nncore.Network.from_architecture(architecture())
    assert net.architecture == architecture()
    assert (net.parameters == 0).all()


@pytest.mark.parametrize("loss", Loss)
def test_every_pair_of_loss_and_output_is_allowed_or_refused(loss: Loss) -> None:
    custom_loss = Custom() if loss is Loss.CUSTOM else None
    for output in Activation:
        parts = ((3, 2), (output,), loss, np.dtype("float64"), custom_loss)
        if output in OUTPUT_ACTIVATIONS[loss]:
            assert Architecture(*parts).activations == (output,)
        else:
            with pytest.raises(ValueError, match=f"loss '{loss.name.lower()}' needs an output"):
                Architecture(*parts)


@pytest.mark.parametrize(("loss", "custom_loss"), [(Loss.CUSTOM, None), (Loss.HUBER, Custom())])
def test_only_the_custom_loss_has_an_object(loss: Loss, custom_loss: Custom | None) -> None:
    with pytest.raises(ValueError, match="custom_loss must be an object for the loss CUSTOM"):
        Architecture((3, 2), (Activation.IDENTITY,), loss, np.dtype("float64"), custom_loss)


def test_names_are_numbered_as_in_the_header() -> None:
    header = (Path(nncore.get_include()) / "nncore.h").read_text()
    for table, enum in (("activation", Activation), ("loss", Loss)):
        names = re.search(rf"enum nncore_{table} \{{(.*?)\}}", header, re.DOTALL)
        assert names is not None
        assert re.findall(r"NNCORE_(\w+)", names[1]) == [member.name for member in enum]
    assert [*Activation] == [*range(len(Activation))]
    assert [*Loss] == [*range(len(Loss))]


def test_architecture_and_reference_import_no_compiled_module() -> None:
    """Neither directly nor through what they import, the package itself aside."""
    code = """
import sys, types
package = types.ModuleType("nncore")
package.__path__ = [sys.argv[1]]
sys.modules["nncore"] = package
import nncore.reference
print(*sorted(name for name in sys.modules if name.startswith("nncore.")))
"""
    source = str(Path(nncore.__file__).parent)
    process = subprocess.run(
        [sys.executable, "-c", code, source], capture_output=True, text=True, check=True
    )
    names = ["_checks", "architecture", "enums", "reference", "typing"]
    assert process.stdout.split() == [f"nncore.{name}" for name in names]
