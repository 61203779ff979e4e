"""What a run needs, besides network and optimizer, to continue with the same bits."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._arrays import are_equal, as_vector
from ._checks import as_bool, as_coefficient, as_integer
from ._files import FilePath, as_path, refused
from ._kernels import KERNELS
from ._layout import Examples
from ._orders import shuffle
from .hints import hint
from .history import History
from .long_arrays import LongArray
from .monitors import EarlyStopping
from .optimizers import Optimizer
from .persistence import encode_architecture, read_stored
from .session import StepOptions
from .shards import Shards
from .streams import Streamed
from .training import Position

if TYPE_CHECKING:
    from .network import Network

__all__ = [
    "Record",
    "draw_order",
    "draw_orders",
    "fingerprints",
    "optimizer_settings",
    "orders_as_they_lie",
]

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]

# How many rows of the examples tell them from others.
_SAMPLE = 64

# NumPy's own, whose setters of the state accept too much.
_BIT_GENERATORS = (
    np.random.MT19937,
    np.random.PCG64,
    np.random.PCG64DXSM,
    np.random.Philox,
    np.random.SFC64,
)


def fingerprints(
    prefix: str,
    examples: Examples | Shards | Streamed,
    dtype: np.dtype[Any],
    chosen: Order | None = None,
) -> dict[str, str | None]:
    """Return a short description of each array, and of the chosen rows, to tell it from others."""
    if isinstance(examples, Streamed):
        return {prefix + "X": str(examples)}
    rows = np.linspace(0, examples.n - 1, min(examples.n, _SAMPLE)).astype(np.intp)
    described: dict[str, str | None] = {}
    for name, array in zip(("X", "Y", "sample_weight"), examples.arrays, strict=True):
        described[prefix + name] = None
        if array is not None:
            is_classes = array.dtype == np.intp
            with np.errstate(over="ignore"):
                sample = np.ascontiguousarray(array[rows], np.int64 if is_classes else dtype)
            described[prefix + name] = _describe(array, sample)
    if chosen is not None:
        described[prefix + "rows"] = _describe(chosen, chosen.astype(np.int64))
    return described


def _describe(array: Array | LongArray, sample: Array) -> str:
    checksum = zlib.crc32(sample.reshape(-1).view(np.uint8).data)
    return f"an array of shape {array.shape}, checksum {checksum:08x}"


class Record:
    """What a checkpoint holds besides network and optimizer.

    Parameters
    ----------
    settings : dict
        What determines the bits, by the names of arguments. Only runs with equal settings continue
        each other.
    rng : numpy.random.Generator
    options : StepOptions
    callbacks : iterable
        Those that have ``state`` and ``set_state`` take part. They may also have ``settings``, a
        dict of simple values, which belong to the run's settings, and ``finish(network)``, which
        does what `EpochEnd.when_last` would have done if a run resumes after its last epoch.
    n_batches : int or None
        Of an epoch, if it is known.

    Attributes
    ----------
    position : Position
    history : History
    options : StepOptions
    is_finished : bool
        Whether a callback has ended the run.
    parameters : ndarray of shape (n_parameters,) or None
        The parameters that a longer run continues with, if a callback gave the network others when
        the run ended.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        rng: np.random.Generator,
        options: StepOptions,
        callbacks: Iterable[Any],
        n_batches: int | None,
    ) -> None:
        self._callbacks = [
            callback
            for callback in callbacks
            if hasattr(callback, "state") and hasattr(callback, "set_state")
        ]
        self._settings = {
            **settings,
            "seed's generator": type(rng.bit_generator).__name__,
            "callbacks": tuple(type(callback).__name__ for callback in self._callbacks),
        }
        # Apart, since files of older versions have none of them. Classes may occur repeatedly.
        self._callback_settings: dict[str, list[Any]] = {}
        for callback in self._callbacks:
            for name, value in getattr(callback, "settings", {}).items():
                key = f"{type(callback).__name__}.{name}"
                self._callback_settings.setdefault(key, []).append(value)
        self._rng, self._n_batches = rng, n_batches
        # The generator's state before it drew the order of the epoch in progress.
        self._rng_state: Any = None
        self.position = Position(rng)
        self.history = History()
        self.options = options
        self.is_finished = False
        self.parameters: Array | None = None
        # The file that the run resumed from, and the place in it.
        self._resumed_from: tuple[str, tuple[int, int]] | None = None

    @property
    def place(self) -> tuple[int, int]:
        """The epochs, and the batches of the one in progress."""
        return self.position.epoch, self.position.batch

    def place_in(self, path: str) -> tuple[int, int] | None:
        """Return the place in a file if it is the one that the run resumed from."""
        file, place = self._resumed_from or (None, None)
        return place if file == os.path.realpath(path) else None

    def draw_order(self, rng: Any, last: Order | None, n: int | None) -> Order | int:
        """Return a random order, and keep the generator's state for a checkpoint in the epoch."""
        self._rng_state = rng.bit_generator.state
        return draw_order(rng, last, n)

    def values(self) -> dict[str, Any]:
        """Return everything."""
        position = self.position
        rng_state = self._rng_state if position.batch else None
        columns = {**vars(self.history)}
        del columns["error"]  # of a run that continues there is none
        before = {} if self._n_batches is not None else {"n_batches_before": position.n_batches}
        return {
            "settings": self._settings,
            "kernels": KERNELS,
            "dropout_seed": self.options.dropout_seed,
            "rng": rng_state or self._rng.bit_generator.state,
            "position": {
                "epoch": position.epoch,
                "batch": position.batch,
                "sums": position.sums[: position.batch],
                "seconds": position.seconds,
                **before,
            },
            "history": _as_arrays(columns),
            "callbacks": [callback.state() for callback in self._callbacks],
            "callback_settings": self._callback_settings,
            "is_finished": self.is_finished,
            "parameters": self.parameters,
        }

    def begin(self) -> None:
        """Draw what belongs to the run as a whole."""
        if any(self.options.dropout):
            seed = int(self._rng.integers(2**63))
            self.options = replace(self.options, dropout_seed=seed)

    def read(
        self, path: FilePath, network: Network, optimizer: Optimizer, epochs: int
    ) -> Callable[[], None] | None:
        """Read a checkpoint, and change nothing.

        Returns
        -------
        callable or None
            A function that continues from the checkpoint: it restores all of it, also in the
            network and the optimizer. None if there is no file.

        Raises
        ------
        OSError
            The file could not be read.
        ModuleNotFoundError
            safetensors is not installed.
        ValueError
            The file holds no checkpoint of a run like this one.
        """
        path = as_path(path)
        try:
            stored = read_stored(path)
        except FileNotFoundError:
            return None
        with refused(path):
            if "checkpoint" not in stored.sections or stored.optimizer is None:
                raise ValueError("it holds no checkpoint of a run")
            values = stored.sections["checkpoint"]
            theirs = {
                **encode_architecture(stored.architecture),
                # A coefficient that the file does not know is its default.
                **optimizer_settings(type(stored.optimizer)()),
                **values["settings"],
                **values.get("callback_settings", self._callback_settings),
            }
            ours = {
                **encode_architecture(network.architecture),
                **self._settings,
                **self._callback_settings,
            }
            different = [n for n in {**ours, **theirs} if ours.get(n) != theirs.get(n)]
        for name in different:
            raise ValueError(
                f"{name} must be {theirs.get(name)!r} to resume from {path!r}, "
                f"got {ours.get(name)!r}"
            )
        with refused(path):
            position = _as_position(self._rng, self._n_batches, **values["position"])
            history = _as_history(position.epoch, **values["history"])
            seed = as_integer("dropout_seed", values["dropout_seed"], low=0, high=2**63)
            is_finished = as_bool("is_finished", values["is_finished"])
            kernels = values["kernels"]
            if not isinstance(kernels, str):
                raise TypeError(f"kernels must be a name, got {kernels!r}")
            _check_generator(self._rng, values["rng"])
            states = list(zip(self._callbacks, values["callbacks"], strict=True))
            n, dtype = stored.architecture.n_parameters, stored.architecture.dtype
            for callback, state in states:
                if isinstance(callback, EarlyStopping):
                    best = state.get("best_parameters")
                    if best is not None:
                        state["best_parameters"] = as_vector("best_parameters", best, n, dtype)
            unfinished = values["parameters"]
            if unfinished is not None:
                unfinished = as_vector("parameters", unfinished, n, dtype)
        least = position.epoch + (position.batch > 0)
        if epochs < least:
            raise ValueError(
                f"epochs must be at least {least} to resume from {path!r}, got {epochs}"
            )
        if kernels != KERNELS:
            hint(
                f"{path!r} was written with the kernels {kernels}; with {KERNELS} the "
                "last digits may differ from those of an uninterrupted run"
            )

        stored_optimizer = stored.optimizer

        def restore() -> None:
            with refused(path):
                for callback, state in states:
                    callback.set_state(state)
            if unfinished is None or is_finished or position.epoch == epochs:
                network.parameters, self.parameters = stored.parameters, unfinished
            else:
                network.parameters = unfinished
            optimizer.restore(
                stored.architecture,
                stored_optimizer.coefficients,
                stored_optimizer.step_count,
                stored_optimizer.arrays,
            )
            self._rng.bit_generator.state = values["rng"]
            self.position, self.is_finished = position, is_finished
            self.options = replace(self.options, dropout_seed=seed)
            self.history = history
            self._resumed_from = os.path.realpath(path), self.place
            if position.epoch == epochs and not is_finished and unfinished is None:
                self._finish(network, stored.parameters)

        return restore

    def _finish(self, network: Network, before: Array) -> None:
        """Do what callbacks do after the last epoch, in a run that has no epoch left."""
        for callback in self._callbacks:
            if hasattr(callback, "finish"):
                callback.finish(network)
        if not are_equal(before, network.copy_parameters()):
            # The file has to be written again.
            self.parameters, self._resumed_from = before, None


def draw_order(rng: Any, last: Order | None, n: int | None) -> Order | int:
    """Return a random order, that of ``rng.permutation(n)``, or the seed of one if n is unknown."""
    if n is None:
        return int(rng.integers(2**63))
    order = np.arange(n, dtype=np.intp)
    shuffle(rng, order)
    return order


def draw_orders(rng: Any, count: int, n: int) -> Order:
    """Return as many random orders, those of `draw_order`, one after the other."""
    orders = orders_as_they_lie(rng, count, n)
    shuffle(rng, orders, n)
    return orders


def orders_as_they_lie(rng: Any, count: int, n: int) -> Order:
    """Return the orders of epochs that are not shuffled."""
    return np.tile(np.arange(n, dtype=np.intp), count)


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return kind and coefficients of an optimizer, as a part of a run's settings."""
    return {
        "optimizer": type(optimizer).__name__,
        **{
            f"optimizer.{name}": repr(value) if callable(value) else value
            for name, value in optimizer.coefficients.items()
        },
    }


def _as_arrays(values: Any) -> Any:
    """Return lists of floats, one or a dict of them, as arrays."""
    if isinstance(values, dict):
        return {name: _as_arrays(value) for name, value in values.items()}
    return np.array(values, dtype=np.float64)


def _as_history(
    n: int,
    loss: Array,
    validation_loss: Array,
    seconds: Array,
    metrics: dict[str, Array] | None = None,
) -> History:
    """Undo `_as_arrays` for a history of n epochs. The oldest files have no metrics."""

    def as_list(values: Array, *lengths: int) -> list[float]:
        if values.dtype != np.float64 or values.ndim != 1 or len(values) not in lengths:
            raise ValueError("its history does not fit its position")
        numbers: list[float] = values.tolist()
        return numbers

    return History(
        as_list(loss, n),
        as_list(validation_loss, 0, n),
        {name: as_list(values, 0, n) for name, values in (metrics or {}).items()},
        as_list(seconds, n),
    )


def _check_generator(rng: np.random.Generator, state: Any) -> None:
    """Raise an error unless the generator can have the state, and leave it as it is.

    NumPy's own accept others, too, and then read beyond their memory or repeat a number forever.
    PCG64 can do so if its increment is even; its ``integers`` then need not return.
    """
    generator = rng.bit_generator
    before = generator.state
    try:
        generator.state = state
        outer: Any = generator.state
    finally:
        generator.state = before
    if type(generator) not in _BIT_GENERATORS:
        return
    inner = outer.get("state", {})
    if not (
        0 <= inner.get("pos", 0) <= len(inner.get("key", ()))  # of MT19937
        and 0 <= outer.get("buffer_pos", 0) <= len(outer.get("buffer", ()))  # of Philox
        and inner.get("inc", 1) % 2 == 1  # of PCG64
    ):
        raise ValueError(f"the state of its generator is invalid for {type(generator).__name__}")


def _as_position(
    rng: np.random.Generator,
    n_batches: int | None,
    epoch: int,
    batch: int,
    sums: Array,
    seconds: float,
    n_batches_before: int = 0,
) -> Position:
    """Return the position in a file, from which the order of the epoch is drawn again."""
    epoch = as_integer("epoch", epoch, low=0, high=None)
    batch = as_integer("batch", batch, low=0, high=None if n_batches is None else n_batches - 1)
    if n_batches is not None:
        n_batches_before = epoch * n_batches
    if sums.shape != (batch, 3) or sums.dtype != np.float64:
        raise ValueError("its sums do not fit its position")
    if not np.isfinite(sums).all() or (sums[:, 1] < 0).any():
        raise ValueError("its sums must be finite, and those of weights not negative")
    return Position(
        rng,
        epoch,
        batch,
        n_orders=epoch,
        sums=sums,
        seconds=as_coefficient("seconds", seconds),
        n_batches=as_integer("n_batches_before", n_batches_before, low=0, high=None),
    )
