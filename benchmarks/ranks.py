"""What a step costs on several ranks, measured on this machine and modelled for clusters.

python benchmarks/ranks.py            measures; needs mpi4py and mpiexec
python benchmarks/ranks.py --model    prints the model of docs/scaling.md
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import nncore
from nncore import parallel_steps

# Sizes, batch size, and the batches of an epoch.
CASES = [([784, 512, 512, 10], 128, 20), ([1024] * 5, 1024, 2)]
REDUCTIONS = ("exact", "fast")

# The model: what a machine of 16 cores computes and copies per second, in float32; for each
# network the bytes per second and the seconds that a message takes.
FLOPS, MEMORY = 1.6e12, 50e9
NETWORKS = {"10 Gbit/s": (1.25e9, 20e-6), "100 Gbit/s": (12.5e9, 2e-6)}
EFFICIENCY = 0.8


def measure(rounds: int) -> dict[str, float]:
    """Return milliseconds per step, by case and way, on the ranks that call this."""
    from mpi4py import MPI

    from nncore.distributed import Ranks

    comm, rng = MPI.COMM_WORLD, np.random.default_rng(0)
    overlapping = parallel_steps.LEAST_BYTES
    # The ranks, and the least bytes of a message.
    ways: dict[str, tuple[Any, int]] = {}
    for name in REDUCTIONS:
        ranks = Ranks(comm, name)  # type: ignore[arg-type]
        ways[name] = ranks, overlapping
        if comm.size > 1:
            ways[f"{name}, sent at the end"] = ranks, sys.maxsize
    if comm.size == 1:
        ways["alone"] = None, overlapping
    best: dict[str, float] = {}
    for sizes, batch_size, n_batches in CASES:
        X, Y = (
            rng.standard_normal((batch_size * n_batches, n)).astype(np.float32)
            for n in (sizes[0], sizes[-1])
        )
        for way, (ranks, parallel_steps.LEAST_BYTES) in ways.items():
            net = nncore.Network(sizes, seed=0)
            history = net.fit(
                X, Y, epochs=rounds, batch_size=batch_size, optimizer=nncore.Adam(1e-4),
                n_threads=1, comm=ranks,
            )  # fmt: skip
            name = f"{'-'.join(map(str, sizes))}, {batch_size}: {way}"
            best[name] = 1e3 * min(history.seconds) / n_batches
    return best if comm.rank == 0 else {}


def launched(n_ranks: int, rounds: int) -> dict[str, float]:
    """Return `measure` of that many ranks."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mpiexec = shutil.which("mpiexec", path=path)
    assert mpiexec is not None, "mpiexec is missing: pip install mpich"
    command = [mpiexec, "-n", str(n_ranks), sys.executable, __file__, "--measure", str(rounds)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def exchange(n_parameters: int, n_ranks: int, bandwidth: float, latency: float) -> float:
    """Return the seconds in which gradients are added: a reduce-scatter and an allgather.

    Each rank sends a slice to every other one, twice; `agree` and the losses add a message per
    doubling of the ranks.
    """
    bytes_sent = 2 * 4 * n_parameters * (n_ranks - 1) / n_ranks
    messages = 2 * (n_ranks - 1) + 2 * math.ceil(math.log2(n_ranks))
    return bytes_sent / bandwidth + messages * latency


def least_batch(n_parameters: int, n_ranks: int, seconds: float) -> int:
    """Return the batch from which on a step is EFFICIENCY times as fast as the ranks allow.

    An example takes 6 operations per parameter. Adam's update, 28 bytes per parameter, is not
    divided among the ranks: T(R) = C N / R + U + exchange.
    """
    compute, update = 6 * n_parameters / FLOPS, 28 * n_parameters / MEMORY
    # (C N + U) / (R T(R)) >= E, solved for N.
    n = (EFFICIENCY * n_ranks * (update + seconds) - update) / (compute * (1 - EFFICIENCY))
    return math.ceil(n)


def model() -> None:
    """Print milliseconds per exchange, with those of latency, and the least batch."""
    links = [f"{link}: ms (latency) | batch" for link in NETWORKS]
    print(f"| network | ranks | {' | '.join(links)} |\n|---|--:|--:|--:|--:|--:|")
    for sizes, *_ in CASES:
        n = sum((n_prev + 1) * n for n_prev, n in pairwise(sizes))
        for n_ranks in (2, 8, 64, 1024):
            cells = []
            for bandwidth, latency in NETWORKS.values():
                seconds = exchange(n, n_ranks, bandwidth, latency)
                waiting = seconds - exchange(n, n_ranks, bandwidth, 0)
                cells.append(f"{1e3 * seconds:.2f} ({1e3 * waiting:.2f})")
                cells.append(f"{least_batch(n, n_ranks, seconds):,}")
            print(f"| {'-'.join(map(str, sizes))} | {n_ranks:,} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        model()
    elif options.measure:
        best = measure(options.measure)
        if best:
            print(json.dumps(best))
    else:
        for n_ranks in options.ranks:
            for name, milliseconds in launched(n_ranks, options.rounds).items():
                print(f"{n_ranks} ranks, {name}: {milliseconds:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
