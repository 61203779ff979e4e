"""Networks and optimizers in files: `Network.save` and `load`.

docs/internals.md describes the format. Estimators and checkpoints add sections of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from ._arrays import first_nonfinite
from ._checks import as_bool, as_custom_loss, one_of
from ._files import Contents, FilePath, as_path, read, refused, write
from ._values import decode, encode
from .architecture import FLOATS, Architecture
from .losses import StoredLoss
from .optimizers import OPTIMIZERS, Optimizer
from .typing import CustomLoss

if TYPE_CHECKING:
    from .network import Network

__all__ = [
    "Stored",
    "encode_architecture",
    "encode_optimizer",
    "encode_stored",
    "load",
    "read_stored",
    "save",
]

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

# By name, since NumPy finds a dtype in any text, even in a very long one.
_DTYPES = {dtype.name: dtype for dtype in FLOATS}

# The sections besides "architecture" and "optimizer".
_OTHERS = ("estimator", "checkpoint")


@dataclass(frozen=True)
class Stored:
    """What a file holds.

    Attributes
    ----------
    architecture : Architecture
    parameters : ndarray of shape (n_parameters,)
    optimizer : Optimizer, optional
    sections : dict, optional
        The values of other sections, by their names.
    """

    architecture: Architecture
    parameters: Array
    optimizer: Optimizer | None = None
    sections: dict[str, Any] = field(default_factory=dict)


def save(path: FilePath, stored: Stored) -> None:
    """Write a file; `Network.save` describes errors and guarantees."""
    write(path, encode_stored(stored))


def encode_stored(stored: Stored) -> Contents:
    """Return the contents of a file, whose tensors are the arrays themselves.

    Raises
    ------
    TypeError
        The optimizer or a value cannot be stored.
    ValueError
        A parameter or the optimizer's state is not finite.
    """
    architecture = stored.architecture
    tensors: Tensors = {}
    sections: dict[str, Any] = {"architecture": encode_architecture(architecture)}
    for l, (W, b) in enumerate(zip(*architecture.views(stored.parameters), strict=True), start=1):
        tensors[f"weights.{l}"], tensors[f"biases.{l}"] = W, b
    if stored.optimizer is not None:
        sections["optimizer"] = encode_optimizer(stored.optimizer, architecture, tensors)
    for name, array in tensors.items():
        _check_finite(name, array)
    for name, value in stored.sections.items():
        sections[name] = encode(name, value, tensors)
    return Contents(sections, tensors)


def encode_architecture(architecture: Architecture) -> Any:
    """Return an architecture as JSON. Of a loss of the user's it has the class's name."""
    custom_loss = architecture.custom_loss
    return {
        "sizes": architecture.sizes,
        "activation": architecture.given_activations,
        "loss": (
            architecture.given_loss
            if custom_loss is None
            else {"custom": StoredLoss.of(custom_loss).name}
        ),
        "dtype": architecture.dtype.name,
    }


def encode_optimizer(optimizer: Optimizer, architecture: Architecture, tensors: Tensors) -> Any:
    """Return an optimizer as JSON, and add its state to `tensors`.

    Raises
    ------
    TypeError, ValueError
        The optimizer or its schedule is not one of nncore's, or it belongs to a network of another
        shape.
    """
    kinds: dict[type, str] = {cls: kind for kind, cls in OPTIMIZERS.items()}
    if type(optimizer) not in kinds:
        raise TypeError(
            f"optimizer must be one of {sorted(cls.__name__ for cls in kinds)} to be stored in a "
            f"file, got {optimizer!r}"
        )
    optimizer.check(architecture)
    tensors |= {f"optimizer.state.{i}": array for i, array in enumerate(optimizer.arrays)}
    return {
        "kind": kinds[type(optimizer)],
        "coefficients": encode("optimizer", optimizer.coefficients, tensors),
        "step_count": optimizer.step_count,
    }


def read_stored(path: FilePath) -> Stored:
    """Read a file, and check everything in it against its architecture.

    Raises
    ------
    OSError
        The file could not be read.
    ValueError
        The file is damaged, of another origin, or of a newer version.
    """
    sections, tensors = read(path)
    with refused(as_path(path)):
        section = sections.pop("architecture")
        # One name alone would mean what it means to this version's `Network`.
        activation = list(section.pop("activation"))
        loss = section.pop("loss")
        if isinstance(loss, dict):
            loss = _decode_loss(**loss)
        dtype = one_of("dtype", section.pop("dtype"), _DTYPES)
        architecture = Architecture.from_names(
            activation=activation, loss=loss, dtype=dtype, **section
        )
        # Nothing is allocated for the architecture before the file is known to hold all of it.
        parts = []
        for l, layer in enumerate(architecture.layers, start=1):
            W = _take(tensors, f"weights.{l}", (layer.n_prev, layer.n), architecture)
            b = _take(tensors, f"biases.{l}", (layer.n,), architecture)
            parts += [W.reshape(-1), b]
        optimizer = None
        if "optimizer" in sections:
            optimizer = _decode_optimizer(sections.pop("optimizer"), architecture, tensors)
        others = [name for name in _OTHERS if name in sections]
        values = {name: decode(sections.pop(name), tensors) for name in others}
        if sections or tensors:
            raise ValueError(f"it holds unknown entries {sorted([*sections, *tensors])}")
        return Stored(architecture, np.concatenate(parts), optimizer, values)


def _decode_loss(custom: object) -> StoredLoss:
    if not isinstance(custom, str):
        raise TypeError(f"its loss must have a name, got {custom!r}")
    return StoredLoss(custom)


def _decode_optimizer(section: Any, architecture: Architecture, tensors: Tensors) -> Optimizer:
    optimizer = OPTIMIZERS[section.pop("kind")]()
    vectors: list[Array] = []
    while (name := f"optimizer.state.{len(vectors)}") in tensors:
        vectors.append(_take(tensors, name, (architecture.n_parameters,), architecture))
    section["coefficients"] = decode(section["coefficients"], tensors)
    optimizer.restore(architecture, vectors=vectors, **section)
    return optimizer


def _take(tensors: Tensors, name: str, shape: tuple[int, ...], architecture: Architecture) -> Array:
    """Remove and return the tensor of that name."""
    array, dtype = tensors.pop(name), architecture.dtype
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}, the architecture needs "
            f"{shape} and {dtype}"
        )
    array = np.ascontiguousarray(array, dtype=dtype)
    _check_finite(name, array)
    return array


def _check_finite(name: str, array: Array) -> None:
    at = first_nonfinite(array)
    if at is not None:
        raise ValueError(f"{name} must be finite in a file, got {array.reshape(-1)[at]}")


@overload
def load(
    path: FilePath, with_optimizer: Literal[False] = False, *, loss: CustomLoss | None = None
) -> Network: ...


@overload
def load(
    path: FilePath, with_optimizer: Literal[True], *, loss: CustomLoss | None = None
) -> tuple[Network, Optimizer]: ...


def load(
    path: FilePath, with_optimizer: bool = False, *, loss: CustomLoss | None = None
) -> Network | tuple[Network, Optimizer]:
    """Return the network in a file.

    Loading executes no code, and takes no more memory than a small multiple of the file's size.

    Parameters
    ----------
    path : str or path
        A file written by `Network.save`, `nncore.callbacks.Checkpoint`, or an estimator's ``save``.
    with_optimizer : bool, default False
        Whether to return the optimizer, too.
    loss : CustomLoss, optional
        The object, if the network has a loss of yours, of which files hold the class's name only.
        Without it the network computes outputs and `Network.backward`, but no losses.

    Returns
    -------
    Network, or (Network, Optimizer)
        With the parameters, the state and the coefficients that were saved, to the last bit.

    Raises
    ------
    OSError
        The file could not be read.
    ModuleNotFoundError
        safetensors is not installed.
    ValueError
        The file is damaged, has another origin, was written by a newer version of nncore, or holds
        no optimizer; or `loss` is of another class than the network's.

    Examples
    --------
    >>> import nncore, os, tempfile
    >>> net = nncore.Network([4, 3, 2], seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "net.safetensors")
    ...     net.save(path)
    ...     nncore.load(path).equals(net)
    True
    """
    from .network import Network  # which imports this module

    with_optimizer = as_bool("with_optimizer", with_optimizer)
    stored = read_stored(path)
    architecture = stored.architecture
    if loss is not None:
        given, known = StoredLoss.of(as_custom_loss(loss)), architecture.custom_loss
        if given != known:
            has = architecture.loss_name if known is None else StoredLoss.of(known).name
            raise ValueError(f"loss must be {has}, which {as_path(path)!r} has, got {loss!r}")
        architecture = replace(architecture, custom_loss=loss)
    network = Network.from_architecture(architecture)
    network.parameters = stored.parameters
    if not with_optimizer:
        return network
    if stored.optimizer is None:
        raise ValueError(
            f"{as_path(path)!r} holds no optimizer; net.save(path, optimizer) stores one"
        )
    return network, stored.optimizer
