"""The steps that several processes make together: parts of a batch, and the sum of gradients."""

from __future__ import annotations

import math
import zlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._layout import Examples
from .architecture import Architecture, Layer
from .optimizers import Optimizer, Rule
from .session import NO_OPTIONS, Session, StepOptions

if TYPE_CHECKING:
    from .distributed import Ranks

__all__ = [
    "LEAST_BYTES",
    "Group",
    "ParallelSteps",
    "TreeSum",
    "groups",
    "most_rows",
    "n_parts",
    "own_places",
]

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]

# A batch has at least so many parts, and parts at most about so many examples.
_LEAST_PARTS = 8
_PART_ROWS = 128

# The least bytes of a gradient that are sent by themselves while the rest is computed: the time of
# some messages.
LEAST_BYTES = 1 << 18


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


class Group(NamedTuple):
    """Consecutive layers whose gradients the ranks exchange together.

    Attributes
    ----------
    begin, end : int
        Layers begin + 1 to end.
    place : slice
        Their part of a flat vector.
    """

    begin: int
    end: int
    place: slice


def groups(layers: Sequence[Layer], itemsize: int) -> list[Group]:
    """Return all layers in groups, the last ones first; several have `LEAST_BYTES` at least."""
    found, end, place_end = [], len(layers), layers[-1].b + layers[-1].n
    for begin in range(len(layers) - 1, -1, -1):
        place = layers[begin].W
        is_large = (place_end - place) * itemsize >= LEAST_BYTES
        if begin == 0 or (is_large and place * itemsize >= LEAST_BYTES):
            found.append(Group(begin, end, slice(place, place_end)))
            end, place_end = begin, place
    return found


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

    def part(self, place: slice) -> TreeSum:
        """Return the sum of a part of the vectors, of which it takes views."""
        part = TreeSum()
        part.nodes = [(first, count, vector[place]) for first, count, vector in self.nodes]
        return part

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


def own_places(n_rows: int, ranks: Ranks) -> slice:
    """Return the places of a batch with so many examples that this rank's parts consist of."""
    parts = _Plan(n_rows, ranks).parts
    return slice(parts[0][1], parts[-1][2]) if parts else slice(0)


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
        # By the first layer of a group, the nodes that come from other ranks.
        self._received: dict[int, Array] = {}
        self._groups = groups(self.architecture.layers, dtype.itemsize)

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
            own_sums, tree = self._begin_gradients(examples, rows, plan, place)
            self._ranks.agree(len(rows), self._checksum(examples, order, rows))
            with self._ranks.exchanging():
                losses = np.empty((plan.total, 2))
                self._wait(self._comm.Iallgatherv(own_sums, [losses, plan.counts]))
                loss, weight = losses.sum(axis=0).tolist()
                sums[i] = loss, weight, 0
                makes_step = math.isfinite(loss) or keep_going
                if makes_step and (weight != 0 or scales is not None):
                    scale = 1 / weight if scales is None else float(scales[i])
                    self._sum_gradients(tree, plan, scale)
                    sums[i, 2] = self._session.update(self._mean, 1 / scale)
                    self._step += 1
                self.done = last
            if not makes_step:
                return

    def _checksum(self, examples: Examples, order: Rows | None, rows: Rows) -> int:
        """Return a sample of a batch whose examples come as they lie, as those of a stream do."""
        if order is not None or self._ranks.n_shards > 1:
            return 0
        return zlib.crc32(np.ascontiguousarray(examples.arrays[0][rows[0]]).view(np.uint8).data)

    def _plan(self, n_rows: int) -> _Plan:
        plan = self._plans.get(n_rows)
        if plan is None:
            plan = self._plans[n_rows] = _Plan(n_rows, self._ranks)
        return plan

    def _begin_gradients(
        self, examples: Examples, rows: Rows, plan: _Plan, place: int
    ) -> tuple[Array, TreeSum]:
        """Return loss and weight of each part of this rank, and the tree of all but the last.

        Of that part, (5) is left to `_sum_gradients`.
        """
        weights = examples.arrays[2]
        sums, tree = np.empty((len(plan.parts), 2)), TreeSum()
        for i, (leaf, begin, end) in enumerate(plan.parts):
            part = rows[begin:end]
            is_last = i == len(plan.parts) - 1
            out = None if is_last else self._vector(len(tree.nodes))
            loss = 0.0
            if len(part):
                loss = self._session.gradient(
                    out,
                    examples,
                    1.0,
                    rows=part,
                    dropout_step=self._step,
                    first_example=place + begin,
                )
            weight = len(part) if weights is None else weights[part].sum(dtype=np.float64)
            sums[i] = loss, weight
            if out is not None:
                tree.add(leaf, 1, out)
        return sums, tree

    def _vector(self, i: int) -> Array:
        while len(self._vectors) <= i:
            self._vectors.append(np.empty_like(self._mean))
        return self._vectors[i]

    def _sum_gradients(self, tree: TreeSum, plan: _Plan, scale: float) -> None:
        """Set the mean to `scale` times the sum of all ranks' gradients.

        While a group of layers is under way to other ranks, the next one's gradient is computed.
        """
        vector = self._vector(len(tree.nodes))
        exchanges: list[Generator[None]] = []
        for group in self._groups:
            part = tree.part(group.place)
            for leaf, begin, end in plan.parts[-1:]:
                if begin == end:
                    vector[group.place] = 0
                else:
                    self._session.layer_gradients(vector, group.begin, group.end)
                part.add(leaf, 1, vector[group.place])
            exchange = self._exchange_sums if self._ranks.reduction == "fast" else self._exchange
            exchanges.append(exchange(part, plan, scale, group))
            # All ranks begin their collective calls in this order.
            for one in reversed(exchanges):
                next(one, None)
        for one in exchanges:
            for _ in one:
                pass

    def _exchange_sums(
        self, part: TreeSum, plan: _Plan, scale: float, group: Group
    ) -> Generator[None]:
        """Let MPI add the ranks' sums."""
        ((_, _, total),) = part.nodes
        request = self._comm.Iallreduce(self._in_place, total)
        yield
        self._wait(request)
        np.multiply(total, scale, out=self._mean[group.place])

    def _exchange(self, part: TreeSum, plan: _Plan, scale: float, group: Group) -> Generator[None]:
        """Add all ranks' nodes of the tree, and yield while messages are under way.

        Each rank adds the nodes of all ranks for its slice, then gets the others' slices: the
        reduce-scatter and allgather of R. Thakur, R. Rabenseifner, W. Gropp, Optimization of
        collective communication operations in MPICH (2005).
        """
        rank, size, mean = self._ranks.rank, self._ranks.size, self._mean[group.place]
        if size == 1:
            np.multiply(part.total(), scale, out=mean)
            return
        slices = _shares(len(mean), size)
        begins = [begin for begin, _ in slices]
        lengths = [end - begin for begin, end in slices]
        own, nothing = lengths[rank], [0] * size
        received = self._received.get(group.begin, mean[:0])
        if len(received) < plan.rounds:
            received = np.empty((plan.rounds, size, own), dtype=mean.dtype)
            self._received[group.begin] = received
        # The ranks may have different numbers of nodes.
        requests = [
            self._comm.Ialltoallv(
                [
                    part.nodes[i][2] if i < len(part.nodes) else mean,
                    (lengths if i < len(part.nodes) else nothing, begins),
                ],
                [received[i], [own * (i < len(nodes)) for nodes in plan.nodes]],
            )
            for i in range(plan.rounds)
        ]
        yield
        for request in requests:
            self._wait(request)
        combined, places = TreeSum(), [0] * plan.rounds
        for nodes in plan.nodes:
            for i, (first, count) in enumerate(nodes):
                combined.add(first, count, received[i, places[i]])
                places[i] += 1
        begin, end = slices[rank]
        np.multiply(combined.total(), scale, out=mean[begin:end])
        request = self._comm.Iallgatherv(self._in_place, [mean, lengths])
        yield
        self._wait(request)
