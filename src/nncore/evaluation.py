"""The examples of a fit in two parts, for training and for validation, and their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from types import FunctionType, GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import as_training_examples
from ._checks import as_real
from ._layout import Examples
from .architecture import Architecture
from .metrics import BLOCK_BYTES, VALIDATION, Metric
from .shards import ShardData, Shards, are_shards
from .streams import Stream, StreamData, Streamed
from .training import ArrayData, Data

if TYPE_CHECKING:
    from .distributed import Alone
    from .network import Network

__all__ = ["UNKNOWN_N", "Evaluation", "Part", "as_part"]

# The number of examples to assume, for the number of threads, where it is not known.
UNKNOWN_N = 1 << 30

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]


class Outputs(NamedTuple):
    """What the loss and the metrics of a part follow from.

    Attributes
    ----------
    loss, weight : float
        The loss, summed with the examples' weights, and the sum of these.
    A, Y : ndarray or None
        Outputs and targets.
    sample_weight : ndarray of shape (n,) or None
    """

    loss: float
    weight: float
    A: Array | None = None
    Y: Array | None = None
    sample_weight: Array | None = None


class Part:
    """Some of the examples of a call, or all of them; nothing is copied.

    Parameters
    ----------
    examples : Examples, Shards or Streamed
    weight : float or None
        The sum of the weights of the part; None for a stream.
    rows : ndarray of intp, optional
        The examples of the part, in any order, some perhaps several times; by default all.
    is_shard : bool, default False
        Whether the other processes of a fit have examples of their own in this part.

    Attributes
    ----------
    n : int or None
        The number of examples of the part.
    data : Data
        To train on the part, or to evaluate it.
    """

    def __init__(
        self,
        examples: Examples | Shards | Streamed,
        weight: float | None,
        rows: Rows | None = None,
        *,
        is_shard: bool = False,
    ) -> None:
        self.examples, self.is_shard = examples, is_shard
        self.weight = weight
        self.rows = rows
        self.n = examples.n if rows is None else len(rows)
        self.data: Data
        if isinstance(examples, Streamed):
            self.data = StreamData(examples)
        elif isinstance(examples, Shards):
            self.data = ShardData(examples, rows)
        else:
            self.data = ArrayData(examples, rows)

    def data_of(self, places: Callable[[int], slice]) -> Data:
        """Return the data of which only these places of a batch are used; see `ShardData`."""
        if isinstance(self.examples, Shards):
            return ShardData(self.examples, self.rows, places)
        return self.data

    def take(self, rows: Rows, name: str) -> Part:
        """Return the part of these of its examples.

        Raises
        ------
        ValueError
            Their weights are all 0; `name` says whose.
        """
        assert not isinstance(self.examples, Streamed)
        if self.rows is not None:
            rows = self.rows[rows]
        weights = self.examples.arrays[2]
        weight = float(len(rows) if weights is None else weights[rows].sum(dtype=np.float64))
        if weight == 0:
            raise ValueError(f"sample_weight must have a sum above 0, got zeros only for {name}")
        return Part(self.examples, weight, rows, is_shard=self.is_shard)

    def split(self, validation_split: float, *, shuffled: bool) -> tuple[Part, Part]:
        """Return two parts of this one, for training and for validation.

        Parameters
        ----------
        validation_split : float
            The share for validation, in (0, 1); each part gets at least one example.
        shuffled : bool
            Whether to take that from everywhere, always the same examples, or else the last ones.
        """
        share, n = as_real("validation_split", validation_split), self.n
        if n is None:
            raise ValueError("validation_split needs arrays; with a stream give validation_data")
        if not 0 < share < 1:
            raise ValueError(f"validation_split must be between 0 and 1, got {validation_split!r}")
        if n < 2:
            raise ValueError(f"validation_split needs at least 2 examples, got {n}")
        n_held_out = min(max(round(share * n), 1), n - 1)
        is_held_out = np.zeros(n, dtype=bool)
        if shuffled:
            # A seed of its own: another fit must not train on examples held out from this one.
            rng = np.random.default_rng(0)
            is_held_out[rng.choice(n, n_held_out, replace=False, shuffle=False)] = True
        else:
            is_held_out[n - n_held_out :] = True
        training = self.take(np.flatnonzero(~is_held_out), "training")
        return training, self.take(np.flatnonzero(is_held_out), "validation")

    def reserve(self, network: Network, metrics: Sequence[Metric], n_threads: int | None) -> None:
        """Allocate what `evaluate` takes, and release it or keep it for the next call.

        Raises
        ------
        MemoryError
            There is too little memory.
        """
        with network.session(self.n or UNKNOWN_N, n_threads=n_threads):
            if metrics and self.n is not None:
                _ = self._given
                _ = np.empty((self.n, network.sizes[-1]), network.dtype), np.empty(BLOCK_BYTES, "b")

    def evaluate(
        self,
        network: Network,
        metrics: Sequence[Metric],
        n_threads: int | None,
        check: Callable[[], object] | None = None,
    ) -> dict[str, float]:
        """Return the mean loss, under "loss", and the metrics, from one pass over the part."""
        outputs = self.outputs(network, n_threads, check, keeps_all=bool(metrics))
        return _values([outputs], metrics)

    def outputs(
        self,
        network: Network,
        n_threads: int | None,
        check: Callable[[], object] | None = None,
        *,
        keeps_all: bool,
    ) -> Outputs:
        """Return what loss and metrics follow from, the arrays only if they are to be kept."""
        outputs: list[Array] = []
        given: list[tuple[Array, Array | None]] = []
        total = weight = 0.0
        A, done = None, 0
        if keeps_all and self.n is not None:
            A = np.empty((self.n, network.sizes[-1]), dtype=network.dtype)
        with (
            network.session(self.n or UNKNOWN_N, n_threads=n_threads) as session,
            closing(self.data.pieces(None, session.loss_batch, 0)) as pieces,
        ):
            session.watch(check)
            for piece in pieces:
                n, out = piece.end - piece.begin, None
                if A is not None:
                    out = A[done : done + n]
                    done += n
                elif keeps_all:
                    out = np.empty((n, network.sizes[-1]), dtype=network.dtype)
                    outputs.append(out)
                total = session.total_loss(piece.examples, piece.order, out, total)
                if self.n is None:
                    _, Y, weights = piece.examples.arrays
                    weight += n if weights is None else float(weights.sum(dtype=np.float64))
                    if keeps_all:
                        assert Y is not None
                        # The memory of a piece is used again.
                        given.append((Y.copy(), None if weights is None else weights.copy()))
        weight = weight if self.weight is None else self.weight
        if not keeps_all:
            return Outputs(total, weight)
        A = _joined(outputs) if A is None else A
        return Outputs(total, weight, A, *(_both_joined(given) or self._given))

    @cached_property
    def _given(self) -> tuple[Array, Array | None]:
        """The targets and the weights of a part whose number of examples is known."""
        assert not isinstance(self.examples, Streamed)
        _, Y, weights = self.examples.arrays
        assert Y is not None
        rows: Any = slice(None) if self.rows is None else self.rows
        Y = Y[rows]
        # Metrics are functions of users, and class indices become addresses.
        Y.flags.writeable = False
        return Y, None if weights is None else weights[rows].astype(np.float64)


def _joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def _both_joined(
    parts: Sequence[tuple[Array, Array | None]],
) -> tuple[Array, Array | None] | None:
    """Return the targets and weights of all parts, if there are any."""
    if not parts:
        return None
    weights = [part for _, part in parts if part is not None]
    Y = _joined([targets for targets, _ in parts])
    return Y, _joined(weights).astype(np.float64, copy=False) if weights else None


def _values(parts: Sequence[Outputs], metrics: Sequence[Metric]) -> dict[str, float]:
    """Return the mean loss of all parts together, under "loss", and their metrics."""
    values = {"loss": sum(part.loss for part in parts) / sum(part.weight for part in parts)}
    if metrics:
        A = _joined([part.A for part in parts if part.A is not None])
        A.flags.writeable = False
        given = _both_joined([(part.Y, part.sample_weight) for part in parts if part.Y is not None])
        assert given is not None
        Y, weights = given
        Y.flags.writeable = False
        for metric in metrics:
            values[metric.name] = metric(Y, A, weights)
    return values


def as_part(
    X: object,
    Y: object,
    sample_weight: object | None,
    architecture: Architecture,
    names: tuple[str, str, str] = ("X", "Y", "sample_weight"),
    *,
    is_shard: bool = False,
) -> Part:
    """Return the checked examples of a call as a part that has all of them; see `Part`."""
    if isinstance(X, Stream):
        for name, value in zip(names[1:], (Y, sample_weight), strict=True):
            if value is not None:
                raise TypeError(f"{name} must come in the chunks of a stream, got an argument")
        return Part(Streamed(X, architecture), None, is_shard=is_shard)
    if isinstance(X, (FunctionType, GeneratorType)):
        raise TypeError(
            f"{names[0]} must be an array, got a {type(X).__name__}; nncore.Stream(chunks) takes a "
            "function that returns an iterator of chunks"
        )
    if are_shards(X) or are_shards(Y):
        shards = Shards(X, Y, sample_weight, architecture, names=names, scales_weights=not is_shard)
        return Part(shards, shards.weight, is_shard=is_shard)
    examples, weight = as_training_examples(
        X, Y, sample_weight, architecture, names=names, scales_weights=not is_shard
    )
    return Part(examples, weight, is_shard=is_shard)


class Evaluation:
    """What a fit computes after each epoch.

    Parameters
    ----------
    network : Network
    training : Part or None
        The part whose metrics are reported under their names; None for no such report.
    validation : Part or None
        The part whose loss and metrics are reported under names that begin with "validation_".
    metrics : sequence of Metric
    n_threads : int or None
    ranks : Alone
        The processes of the fit.

    Attributes
    ----------
    names : list of str
        Of what `report` returns.
    """

    def __init__(
        self,
        network: Network,
        training: Part | None,
        validation: Part | None,
        metrics: Sequence[Metric],
        n_threads: int | None,
        ranks: Alone,
    ) -> None:
        if metrics and training is None and validation is None:
            raise ValueError(
                "metrics need validation_data, validation_split or training_metrics=True"
            )
        if training is not None and not metrics:
            raise ValueError("training_metrics=True needs metrics, such as metrics=['accuracy']")
        self._network = network
        self._training, self._validation = training, validation
        self._metrics = metrics
        self._n_threads = n_threads
        self._ranks = ranks
        names = [metric.name for metric in metrics]
        self.names = names if training else []
        if validation:
            self.names += [VALIDATION + name for name in ("loss", *names)]

    def reserve(self) -> None:
        """Raise MemoryError if there is too little memory for `report`, before training begins."""
        # Training data, most often the larger part, need their memory beside the other's targets.
        for part in (self._validation, self._training):
            if part:
                part.reserve(self._network, self._metrics, self._n_threads)

    def report(self, check: Callable[[], object] | None = None) -> dict[str, float]:
        """Return the losses and metrics of the current parameters, on all processes.

        Parameters
        ----------
        check : callable, optional
            As in `Session.watch`.
        """
        report: dict[str, float] = {}
        if self._training:
            report |= self._evaluate(self._training, check)
            del report["loss"]
        if self._validation:
            values = self._evaluate(self._validation, check)
            report |= {VALIDATION + name: value for name, value in values.items()}
        return report

    def _evaluate(self, part: Part, check: Callable[[], object] | None) -> dict[str, float]:
        network, metrics, n_threads = self._network, self._metrics, self._n_threads
        if part.is_shard:
            own = part.outputs(network, n_threads, check, keeps_all=bool(metrics))
            shards = self._ranks.gathered(own)
            return self._ranks.on_first(lambda: _values(shards, metrics))
        return self._ranks.on_first(lambda: part.evaluate(network, metrics, n_threads, check))
