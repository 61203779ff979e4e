"""Shuffling with the numbers of NumPy's generators."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncore._orders import shuffle

GENERATORS: dict[str, Callable[[], Any]] = {
    "RandomState": lambda: np.random.RandomState(3),
    "RandomState of PCG64": lambda: np.random.RandomState(np.random.PCG64(3)),
    "PCG64": lambda: np.random.default_rng(3),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(3)),
    "Philox": lambda: np.random.Generator(np.random.Philox(3)),
    "SFC64": lambda: np.random.Generator(np.random.SFC64(3)),
}

every_generator = pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)


@every_generator
@pytest.mark.parametrize("n", [0, 1, 2, 3, 64, 65, 70_000])
def test_shuffle_gives_the_order_of_numpy(make: Callable[[], Any], n: int) -> None:
    rng, twin = make(), make()
    order = np.arange(n, dtype=np.intp)
    expected = order.copy()
    for _ in range(3):
        shuffle(rng, order)
        twin.shuffle(expected)
        np.testing.assert_array_equal(order, expected)


@every_generator
def test_generator_goes_on_as_after_numpys_shuffle(make: Callable[[], Any]) -> None:
    rng, twin = make(), make()
    order = np.arange(1001, dtype=np.intp)
    shuffle(rng, order)
    twin.shuffle(order)
    np.testing.assert_array_equal(rng.standard_normal(9), twin.standard_normal(9))
    np.testing.assert_array_equal(rng.permutation(1000), twin.permutation(1000))


def test_shuffled_order_shuffled_again_is_a_permutation_of_it() -> None:
    rng, twin = np.random.RandomState(3), np.random.RandomState(3)
    order = np.arange(101, dtype=np.intp)
    shuffle(rng, order)
    last = order.copy()
    shuffle(rng, order)
    twin.permutation(101)
    np.testing.assert_array_equal(order, last[twin.permutation(101)])
