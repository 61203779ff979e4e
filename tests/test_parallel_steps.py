"""The parts of a batch, and the tree along which their gradients are added."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from nncore import Network
from nncore.parallel_steps import LEAST_BYTES, TreeSum, groups, n_parts


def total(leaves: npt.NDArray[np.float32], bounds: list[int]) -> npt.NDArray[np.float32]:
    """Add the leaves between bounds to nodes, then all nodes."""
    combined = TreeSum()
    for begin, end in pairwise(bounds):
        tree = TreeSum()
        for i in range(begin, end):
            tree.add(i, 1, leaves[i].copy())
        for node in tree.nodes:
            combined.add(*node)
    ((first, count, vector),) = combined.nodes
    assert (first, count) == (0, len(leaves))
    return vector


@pytest.mark.parametrize("n", [1, 2, 8, 32])
def test_the_sum_has_the_same_bits_wherever_its_leaves_are_cut(n: int) -> None:
    rng = np.random.default_rng(0)
    leaves = rng.standard_normal((n, 1000)).astype(np.float32)
    expected = total(leaves, [0, n])
    np.testing.assert_allclose(expected, leaves.sum(axis=0, dtype=np.float64), atol=1e-4)
    for n_ranks in range(2, 2 * n):
        bounds = np.sort(rng.integers(0, n + 1, n_ranks - 1)).tolist()
        np.testing.assert_array_equal(total(leaves, [0, *bounds, n]), expected)


def test_the_sum_is_that_of_a_balanced_tree() -> None:
    leaves = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
    a, b, c, d = leaves
    np.testing.assert_array_equal(total(leaves, [0, 1, 4]), (a + b) + (c + d))


@pytest.mark.parametrize(
    ("n_rows", "expected"), [(1, 1), (3, 2), (8, 8), (100, 8), (1024, 8), (2047, 8), (2048, 16)]
)
def test_a_batch_has_parts_in_a_power_of_two(n_rows: int, expected: int) -> None:
    assert n_parts(n_rows) == expected


@pytest.mark.parametrize(
    ("sizes", "ends"),
    [
        ([20, 10, 3], [2]),
        ([784, 512, 512, 10], [3, 1]),
        ([1024, 1024, 1024, 1024], [3, 2, 1]),
        ([4, 1024, 1024, 1024, 4], [4, 2]),
    ],
)
def test_layers_are_sent_in_large_groups_the_last_ones_first(
    sizes: list[int], ends: list[int]
) -> None:
    architecture = Network(sizes).architecture
    found = groups(architecture.layers, 4)
    assert [group.end for group in found] == ends
    assert [group.begin for group in found] == [*ends[1:], 0]
    places = [group.place for group in reversed(found)]
    bounds = [0, *(place.stop for place in places)]
    assert [(place.start, place.stop) for place in places] == list(pairwise(bounds))
    assert bounds[-1] == architecture.n_parameters
    least = min(place.stop - place.start for place in places)
    assert len(found) == 1 or least * 4 >= LEAST_BYTES
