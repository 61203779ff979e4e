"""The steps that several processes make together: parts of a batch, and the sum of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._layout import Examples
from .architecture import Architecture
from .optimizers import Optimizer, Rule
from .session import NO_OPTIONS, Session, StepOptions

if TYPE_CHECKING:
    from .distributed import Ranks

__all__ = ["ParallelSteps", "TreeSum", "most_rows", "n_parts"]

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]

# A batch has at least so many parts, and parts at most about so many examples.
_LEAST_PARTS = 8
_PART_ROWS = 128


def n_parts(n_rows: int) -> int:
    """Return how many parts a batch has: a power of two that depends on its examples alone."""
    most = min(max(_LEAST_PARTS, n_rows // _PART_ROWS), n_rows)
    return 1 << (most.bit_length() - 1)


def _shares(n: int, parts: int) -> list[tuple[int, int]]:
    """Return the bounds of about equal parts of n."""
    return [(n * i // parts, n * (i + 1) // parts) for i in range(parts)]


def _batches(begin: int, end: int, batch_size: int, epoch: int | None) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the batches of one or several epochs."""
    while begin < end:
        last = min(begin + batch_size, end)
        if epoch is not None:
            last = min(last, begin + epoch - begin % epoch)
        yield begin, last
        begin = last


def most_rows(reduction: str, size: int, batch_size: int) -> int:
    """Return the most examples of a part."""
    return -(-batch_size // (size if reduction == "fast" else n_parts(batch_size)))


class TreeSum:
    """The sum of vectors along a binary tree, added from left to right.

    The leaves are numbered, and two neighbouring subtrees of 2^k leaves are added if the left one
    begins at a multiple of 2^(k+1). So every process that adds a range of leaves computes nodes of
    the same tree, and the total has the same bits whoever added what.

    Attributes
    ----------
    nodes : list of (int, int, ndarray)
        The subtrees without a neighbour so far: first leaf, number of leaves, and their sum.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int, Array]] = []

    def add(self, first: int, count: int, vector: Array) -> None:
        """Add the subtree to the right of all others; earlier vectors are overwritten."""
        while self.nodes:
            left_first, left_count, left = self.nodes[-1]
            if left_count != count or left_first % (2 * count):
                break
            self.nodes.pop()
            left += vector
            first, count, vector = left_first, 2 * count, left
        self.nodes.append((first, count, vector))

    def total(self) -> Array:
        """Return the sum of all nodes, of which there may be several if leaves are no power of 2.

        Earlier vectors are overwritten.
        """
        _, _, total = self.nodes[-1]
        for _, _, left in reversed(self.nodes[:-1]):
            left += total
            total = left
        return total


class _Plan:
    """Who computes what of a batch with so many examples.

    Attributes
    ----------
    parts : list of (int, int, int)
        This rank's: the number of the leaf, and the range of examples.
    nodes : list of list of (int, int)
        The subtrees that each rank's parts add up to: first leaf and number of leaves.
    """

    def __init__(self, n_rows: int, ranks: Ranks) -> None:
        rank, size = ranks.rank, ranks.size
        is_shared = ranks.n_shards == 1
        in_tree = ranks.reduction == "exact" and is_shared
        self.total = n_parts(n_rows) if in_tree else size
        leaves = _shares(self.total, size)
        bounds = _shares(n_rows, self.total) if is_shared else [(0, n_rows)] * size
        self.parts = [(i, *bounds[i]) for i in range(*leaves[rank])]
        # Two numbers for each part.
        self.counts = [2 * (end - begin) for begin, end in leaves]
        self.nodes = [self._nodes(begin, end) for begin, end in leaves]
        self.rounds = max(len(nodes) for nodes in self.nodes)

    @staticmethod
    def _nodes(begin: int, end: int) -> list[tuple[int, int]]:
        tree, nothing = TreeSum(), np.empty(0)
        for i in range(begin, end):
            tree.add(i, 1, nothing)
        return [(first, count) for first, count, _ in tree.nodes]


class ParallelSteps:
    """The `training.Steps` of a `Session` whose batches several processes share.

    Parameters
    ----------
    session : Session
        This process's, for batches of `most_rows`.
    ranks : Ranks
    comm : mpi4py.MPI.Intracomm
    """

    def __init__(self, session: Session, ranks: Ranks, comm: Any) -> None:
        from mpi4py.MPI import IN_PLACE

        self._in_place = IN_PLACE
        self.architecture: Architecture = session.architecture
        self.write_back, self.discard = session.write_back, session.discard
        self.is_finite = session.is_finite
        self.done = 0
        self._session, self._ranks, self._comm = session, ranks, comm
        self._wait = ranks.wait
        self._plans: dict[int, _Plan] = {}
        self._step = 0
        n, dtype = self.architecture.n_parameters, self.architecture.dtype
        # The gradients of parts, as many as a tree leaves without a neighbour at a time.
        self._vectors: list[Array] = []
        self._mean = np.empty(n, dtype=dtype)
        self._slices = _shares(n, ranks.size)
        begin, end = self._slices[ranks.rank]
        self._own = slice(begin, end)
        self._received = np.empty((0, ranks.size, end - begin), dtype=dtype)

    @property
    def learning_rate(self) -> float:
        """As in `Session`."""
        return self._session.learning_rate

    def use(self, optimizer: Optimizer, rule: Rule, options: StepOptions = NO_OPTIONS) -> None:
        """Set the optimizer of the steps to come; see `Session.use`."""
        self._step = optimizer.step_count
        self._session.use(optimizer, rule, options)

    def train(
        self,
        examples: Examples,
        order: Rows | None,
        batch_size: int,
        begin: int,
        end: int,
        sums: npt.NDArray[np.float64],
        *,
        keep_going: bool = False,
        scales: npt.NDArray[np.float64] | None = None,
        epoch: int | None = None,
    ) -> None:
        """Make the steps of a range of examples; see `Session.train`."""
        self.done = begin
        for i, (first, last) in enumerate(_batches(begin, end, batch_size, epoch)):
            rows = np.arange(first, last) if order is None else order[first:last]
            plan = self._plan(len(rows))
            # Dropout depends on the place in the whole batch.
            place = self._ranks.rank * batch_size if self._ranks.n_shards > 1 else 0
            own_sums, tree = self._gradients(examples, rows, plan, place)
            self._ranks.agree()
            with self._ranks.exchanging():
                losses = np.empty((plan.total, 2))
                self._wait(self._comm.Iallgatherv(own_sums, [losses, plan.counts]))
                loss, weight = losses.sum(axis=0).tolist()
                sums[i] = loss, weight, 0
                makes_step = math.isfinite(loss) or keep_going
                if makes_step and (weight != 0 or scales is not None):
                    scale = 1 / weight if scales is None else float(scales[i])
                    self._reduce(tree, plan, scale)
                    sums[i, 2] = self._session.update(self._mean, 1 / scale)
                    self._step += 1
                self.done = last
            if not makes_step:
                return

    def _plan(self, n_rows: int) -> _Plan:
        plan = self._plans.get(n_rows)
        if plan is None:
            plan = self._plans[n_rows] = _Plan(n_rows, self._ranks)
        return plan

    def _gradients(
        self, examples: Examples, rows: Rows, plan: _Plan, place: int
    ) -> tuple[Array, TreeSum]:
        """Return loss and weight of each part of this rank, and the tree of their gradients."""
        weights = examples.arrays[2]
        sums, tree = np.empty((len(plan.parts), 2)), TreeSum()
        for (leaf, begin, end), row in zip(plan.parts, sums, strict=True):
            part = rows[begin:end]
            out = self._vector(len(tree.nodes))
            if len(part):
                row[0] = self._session.gradient(
                    out,
                    examples,
                    1.0,
                    rows=part,
                    dropout_step=self._step,
                    first_example=place + begin,
                )
            else:
                row[0], out[:] = 0, 0
            row[1] = len(part) if weights is None else weights[part].sum(dtype=np.float64)
            tree.add(leaf, 1, out)
        return sums, tree

    def _vector(self, i: int) -> Array:
        while len(self._vectors) <= i:
            self._vectors.append(np.empty_like(self._mean))
        return self._vectors[i]

    def _reduce(self, tree: TreeSum, plan: _Plan, scale: float) -> None:
        """Set the mean to `scale` times the sum of all ranks' gradients.

        Each rank adds the nodes of all ranks for its slice of the vector, then gets the others'
        slices: the reduce-scatter and allgather of R. Thakur, R. Rabenseifner, W. Gropp,
        Optimization of collective communication operations in MPICH (2005).
        """
        if self._ranks.reduction == "fast":
            total = self._vector(0)
            self._wait(self._comm.Iallreduce(self._in_place, total))
            np.multiply(total, scale, out=self._mean)
            return
        root = tree
        if self._ranks.size > 1:
            root = self._exchange_slices(tree, plan)
        np.multiply(root.total(), scale, out=self._mean[self._own])
        if self._ranks.size > 1:
            counts = [end - begin for begin, end in self._slices]
            self._wait(self._comm.Iallgatherv(self._in_place, [self._mean, counts]))

    def _exchange_slices(self, tree: TreeSum, plan: _Plan) -> TreeSum:
        """Return the tree of all ranks' nodes for this rank's slice."""
        rank, size = self._ranks.rank, self._ranks.size
        begins = [begin for begin, _ in self._slices]
        lengths = [end - begin for begin, end in self._slices]
        own = lengths[rank]
        if len(self._received) < plan.rounds:
            self._received = np.empty((plan.rounds, size, own), dtype=self._mean.dtype)
        nothing = [0] * size
        # The ranks may have different numbers of nodes.
        requests = [
            self._comm.Ialltoallv(
                [self._vector(i), (lengths if i < len(tree.nodes) else nothing, begins)],
                [received, [own * (i < len(nodes)) for nodes in plan.nodes]],
            )
            for i, received in enumerate(self._received[: plan.rounds])
        ]
        for request in requests:
            self._wait(request)
        combined, places = TreeSum(), [0] * plan.rounds
        for nodes in plan.nodes:
            for i, (first, count) in enumerate(nodes):
                combined.add(first, count, self._received[i, places[i]])
                places[i] += 1
        return combined
