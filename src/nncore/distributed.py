"""Several processes that train one network: agreement among the ranks of an MPI communicator."""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ._checks import as_bool, one_of
from ._kernels import KERNELS
from ._threads import beside
from .parallel_steps import ParallelSteps, most_rows, own_places
from .persistence import encode_architecture
from .session import Session
from .training import Steps

if TYPE_CHECKING:
    from .network import Network
    from .optimizers import Optimizer

__all__ = ["ALONE", "Alone", "RankError", "Ranks", "as_ranks"]

T = TypeVar("T")

# What a rank tells the others instead of a number of examples after an exception.
_FAILED = -1

# How often a rank that waits yields before it sleeps, and for how many seconds. If other programs
# want the processors, a yield costs it a time slice of theirs for each part of a large message.
_YIELDS = 1000
_PAUSE = 2e-5

_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))


class RankError(RuntimeError):
    """Another rank raised an exception, so this one stops, too.

    Attributes
    ----------
    rank : int
        The rank that raised it.
    """

    def __init__(self, rank: int, what: str) -> None:
        super().__init__(rank, what)
        self.rank = rank
        self._what = what

    def __str__(self) -> str:
        return f"rank {self.rank} raised {self._what}"


class Alone:
    """A single process: what a fit does where `Ranks` would do it with others.

    Attributes
    ----------
    size : int
        The number of processes.
    is_first : bool
        Whether this is the process that runs callbacks and writes checkpoints.
    reduction : str
        How the gradients of parts of a batch are added; empty for batches without parts.
    n_shards : int
        How many processes have rows of their own; 1 if all have the same.
    """

    size = 1
    is_first = True
    reduction = ""
    n_shards = 1

    def together(self) -> AbstractContextManager[None]:
        """Return a context in which an exception of one rank ends the block on all of them."""
        return nullcontext()

    def check_equal(self, network: Network, optimizer: Optimizer, settings: Any) -> None:
        """Raise ValueError if the ranks differ in what determines the bits of a fit."""

    def on_first(self, function: Callable[[], T]) -> T:
        """Call a function on the first rank; return its result on all of them."""
        return function()

    def gathered(self, value: T) -> list[T]:
        """Return the values of all ranks, on the first one; on others their own."""
        return [value]

    def follow_first(self, network: Network, optimizer: Optimizer) -> None:
        """Give the ranks the first one's parameters and learning rate after its callbacks."""

    def share_of(self, batch_size: int) -> int:
        """Return how many examples of a batch come from the rows of this process."""
        return batch_size

    def merged(self, fingerprints: Mapping[str, str | None]) -> Mapping[str, str | None]:
        """Return what tells the data of all processes from others."""
        return fingerprints

    def rows_of(self, batch_size: int) -> int:
        """Return the most examples of a batch that a session takes at a time."""
        return batch_size

    def places(self, n_rows: int) -> slice:
        """Return the places of a batch with so many examples that this process computes with."""
        return slice(n_rows)

    def steps(self, session: Session) -> Steps:
        """Return what makes the steps of a run."""
        return session


ALONE = Alone()

_current: ContextVar[Alone] = ContextVar("ranks", default=ALONE)


class Ranks(Alone):
    """The processes of an MPI communicator, which train one network together.

    ``net.fit(..., comm=MPI.COMM_WORLD)`` is the same as ``comm=Ranks(MPI.COMM_WORLD)``. As a
    context manager it applies to every fit in its block that has no `comm`, of networks and of
    estimators. Creating one is a call that all ranks make.

    Each batch is cut into parts, by its number of examples alone. Every rank computes the gradients
    of its parts, the parts' gradients are added along a fixed binary tree, and every rank makes the
    step. So the result has the same bits for any number of ranks, one included, and of threads.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
    reduction : {"exact", "fast"}, default "exact"
        "fast" leaves the sum of the ranks' gradients to MPI's Allreduce. Its bits depend on the
        number of ranks.
    sharded : bool, default False
        Whether each rank has rows of its own, or a stream, of the same length on all of them,
        instead of all rows. Every batch then has the same number of examples of each rank, so
        `batch_size` must be a multiple of the ranks, and the examples are shuffled within each
        rank's. Sample weights count as they are, as in a `nncore.Stream`. `validation_data` are the
        same on all ranks; `validation_split` holds out rows of each rank. Estimators need all rows
        on all ranks.

    Raises
    ------
    ImportError
        mpi4py is not installed.
    TypeError, ValueError
        An argument is invalid.

    Notes
    -----
    Every rank must make the same calls with the same arguments, on networks with the same
    parameters. Ranks compare settings, parameters and samples of the data before training, and
    raise `ValueError` if they differ. Of inputs and targets in files, each rank then reads the rows
    of its parts only.
    Callbacks, metrics and validation run on rank 0, which also writes checkpoints; the
    other ranks get its results. If a rank raises an exception, the others raise `RankError`.
    """

    def __init__(
        self,
        comm: Any,
        reduction: Literal["exact", "fast"] = "exact",
        *,
        sharded: bool = False,
    ) -> None:
        try:
            from mpi4py import MPI
        except ModuleNotFoundError:
            raise ImportError(
                "training on several machines needs mpi4py and MPI: pip install 'nncore[mpi]'"
            ) from None
        if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
            raise TypeError(
                f"comm must be a communicator of mpi4py such as MPI.COMM_WORLD, got {comm!r}"
            )
        self.reduction = one_of("reduction", reduction, {name: name for name in ("exact", "fast")})
        self._comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.is_first = self.rank == 0
        self.n_shards = self.size if as_bool("sharded", sharded) else 1
        # What this rank and all of them tell in `agree`.
        self._told = np.zeros(2, dtype=np.int64), np.zeros((self.size, 2), dtype=np.int64)
        self._is_exchanging = False
        self._sharing = self._processes_on_same_cores(MPI)
        self._tokens: list[Any] = []

    def _processes_on_same_cores(self, MPI: Any) -> int:
        """Return how many ranks share the processors that this one may use."""
        if os.environ.get("OMP_NUM_THREADS") or not hasattr(os, "sched_getaffinity"):
            return 1
        machine = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        mine = os.sched_getaffinity(0)
        count = machine.allgather(mine).count(mine)
        machine.Free()
        return int(count)

    def __enter__(self) -> Ranks:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(self, *error: object) -> None:
        _current.reset(self._tokens.pop())

    @contextmanager
    def together(self) -> Iterator[None]:  # noqa: D102 - described in the base class
        with beside(self._sharing - 1):
            try:
                yield
            except RankError:
                raise
            except BaseException as error:
                self._fail(error)
                raise
            self.agree()

    @staticmethod
    def wait(request: Any) -> None:
        """Wait for a non-blocking call, and leave the processor to ranks that need it meanwhile."""
        yields = 0
        while not request.Test():
            if yields < _YIELDS:
                _yield()
                yields += 1
            else:
                time.sleep(_PAUSE)

    @contextmanager
    def exchanging(self) -> Generator[None]:
        """Mark the part of a step in which ranks depend on each other's messages."""
        self._is_exchanging = True
        yield
        self._is_exchanging = False

    def agree(self, n_rows: int = 0, checksum: int = 0) -> None:
        """Wait for all ranks.

        Parameters
        ----------
        n_rows : int, default 0
            The examples of the batch that the ranks are at; 0 outside of a batch.
        checksum : int, default 0
            Of what else they have in common.

        Raises
        ------
        RankError
            Another rank left a block of `together` by an exception.
        ValueError
            The ranks are at different batches, or have different examples.
        """
        told = self._tell(n_rows, checksum)
        rank = _first_failure(told)
        if rank is not None:
            raise RankError(rank, self._comm.bcast(None, root=rank))
        rank = int(np.argmax((told != told[0]).any(axis=1)))
        if rank:
            theirs, first = (
                f"a batch of {n} examples, checksum {crc:08x}," if n else "the end of an epoch"
                for n, crc in told[[rank, 0]].tolist()
            )
            raise ValueError(
                f"X must have as many examples on all ranks, and the same unless sharded=True, "
                f"got {first} on rank 0 where there is {theirs} on rank {rank}"
            )

    def _tell(self, n_rows: int, checksum: int = 0) -> npt.NDArray[np.int64]:
        """Return what each rank tells now."""
        mine, all_of_them = self._told
        mine[:] = n_rows, checksum
        self.wait(self._comm.Iallgather(mine, all_of_them))
        return all_of_them

    def _fail(self, error: BaseException) -> None:
        """Tell the other ranks, where they wait next, what was raised on this one."""
        what = type(error).__name__ + (f": {error}" if str(error) else "")
        if self._is_exchanging:
            print(f"nncore: rank {self.rank} raised {what}", file=sys.stderr, flush=True)
            self._comm.Abort(1)
        rank = _first_failure(self._tell(_FAILED))
        assert rank is not None
        self._comm.bcast(what if rank == self.rank else None, root=rank)

    def check_equal(  # noqa: D102
        self, network: Network, optimizer: Optimizer, settings: Mapping[str, Any]
    ) -> None:
        mine = {
            **encode_architecture(network.architecture),
            **settings,
            "kernels": KERNELS,
            "network.parameters": _describe(network.copy_parameters()),
            "optimizer.step_count": optimizer.step_count,
            "optimizer.state": tuple(map(_describe, optimizer.arrays)),
        }
        # The address of a function tells nothing.
        mine = {
            name: re.sub(" at 0x[0-9a-f]+", "", value) if isinstance(value, str) else value
            for name, value in mine.items()
        }
        self.agree()
        first, *others = self._comm.allgather(mine)
        for rank, theirs in enumerate(others, 1):
            for name in {**first, **theirs}:
                if first.get(name) != theirs.get(name):
                    raise ValueError(
                        f"{name} must be the same on all ranks, got {first.get(name)!r} on rank 0 "
                        f"and {theirs.get(name)!r} on rank {rank}"
                    )

    def on_first(self, function: Callable[[], T]) -> T:  # noqa: D102
        value = function() if self.is_first else None
        self.agree()
        result: T = self._comm.bcast(value, root=0)
        return result

    def gathered(self, value: T) -> list[T]:  # noqa: D102
        self.agree()
        return self._comm.gather(value, root=0) or [value]

    def follow_first(self, network: Network, optimizer: Optimizer) -> None:  # noqa: D102
        rate = self.on_first(
            lambda: None if callable(optimizer.learning_rate) else optimizer.learning_rate
        )
        if rate is not None and rate != optimizer.learning_rate:
            optimizer.learning_rate = rate
        parameters = network.copy_parameters()
        self._comm.Bcast(parameters, root=0)
        if not self.is_first:
            network.parameters = parameters

    def share_of(self, batch_size: int) -> int:  # noqa: D102
        if batch_size % self.n_shards:
            raise ValueError(
                f"batch_size must be a multiple of the {self.n_shards} ranks, got {batch_size}"
            )
        return batch_size // self.n_shards

    def merged(  # noqa: D102
        self, fingerprints: Mapping[str, str | None]
    ) -> Mapping[str, str | None]:
        if self.n_shards == 1:
            return fingerprints
        self.agree()
        shards = self._comm.allgather(fingerprints)
        merged: dict[str, str | None] = {}
        for name in fingerprints:
            described = [shard[name] for shard in shards if shard.get(name) is not None]
            if 0 < len(described) < self.size:
                raise ValueError(f"{name} must be given on all ranks or on none")
            merged[name] = "; ".join(described) if described else None
        return merged

    def rows_of(self, batch_size: int) -> int:  # noqa: D102
        if self.n_shards > 1:
            return batch_size
        return most_rows(self.reduction, self.size, batch_size)

    def places(self, n_rows: int) -> slice:  # noqa: D102
        return own_places(n_rows, self)

    def steps(self, session: Session) -> Steps:  # noqa: D102
        return ParallelSteps(session, self, self._comm)


def _first_failure(told: npt.NDArray[np.int64]) -> int | None:
    failed = told[:, 0] == _FAILED
    return int(np.argmax(failed)) if failed.any() else None


def _describe(array: npt.NDArray[Any]) -> str:
    return f"checksum {zlib.crc32(array.view(np.uint8).data):08x}"


def as_ranks(comm: Any) -> Alone:
    """Return the processes of a fit: those of `comm`, or of the block of `Ranks` it is in."""
    if comm is None:
        return _current.get()
    return comm if isinstance(comm, Alone) else Ranks(comm)
