"""Time of an epoch: shuffling, gathering and every step, nncore beside the plain NumPy loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cases import NETWORKS, Case
from contestants import Contestant, NNCore, NumPy

CONTESTANTS: dict[str, type[Contestant]] = {"nncore": NNCore, "numpy": NumPy}


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("network", ["784-30-10", "64-64-32-1", "784-128-64-10"])
def test_epoch(benchmark: Any, network: str, dtype: str, optimizer: str, name: str) -> None:
    case = replace(Case(*NETWORKS[network]), dtype=dtype, optimizer=optimizer)
    contestant = CONTESTANTS[name](case, n_threads=1)
    benchmark.group = f"epoch, {case.label}, {dtype}"
    benchmark.extra_info["steps"] = case.steps_per_epoch
    benchmark(contestant.fit, 1)
