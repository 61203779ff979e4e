"""Where a second thread begins to pay, and where the tiles do beside BLAS.

`n_threads=None` and the choice of kernels follow from the two tables that this prints; the figures
of one run are kept in README.md.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

ROUNDS = 7
WORK_PER_SAMPLE = 2e9
NETWORKS = [
    ((64, 30, 10), 10),
    ((64, 64, 32, 1), 32),
    ((784, 30, 10), 10),
    ((64, 64, 64, 10), 64),
    ((784, 30, 10), 32),
    ((784, 100, 10), 10),
    ((784, 64, 10), 32),
    ((784, 128, 64, 10), 64),
    ((784, 512, 512, 10), 128),
    ((1024, 1024, 1024, 1024), 1024),
]


def serve() -> None:
    """Answer each request, a line of JSON, with the seconds that a step takes."""
    import nncore

    networks: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        sizes, batch_size, dtype = request["sizes"], request["batch_size"], request["dtype"]
        step = 3 * batch_size * sum(m * n for m, n in itertools.pairwise(sizes))
        steps = int(max(2, min(8000 / batch_size, WORK_PER_SAMPLE / step)))
        key = str((sizes, batch_size, dtype))
        if key not in networks:
            rng = np.random.default_rng(0)
            n = steps * batch_size
            X, Y = rng.random((n, sizes[0]), dtype), rng.random((n, sizes[-1]), dtype)
            networks[key] = nncore.Network(sizes, dtype=dtype, seed=0), X, Y
        net, X, Y = networks[key]
        history = net.fit(
            X, Y, epochs=3, batch_size=batch_size, optimizer=nncore.SGD(0.01), seed=0,
            n_threads=request["n_threads"],
        )  # fmt: skip
        print(min(history.seconds) / steps, flush=True)


class Process:
    """A process of its own, with the kernels given or, without a name, those of nncore's choice."""

    def __init__(self, kernels: str | None) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        for variable in ("NNCORE_KERNELS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            environment.pop(variable, None)
        if kernels:
            environment["NNCORE_KERNELS"] = kernels
        self.process = subprocess.Popen(
            [sys.executable, __file__, "serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def seconds_per_step(self, **request: Any) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    tiles, blas = Process(None), Process("blas")
    for dtype in ("float32", "float64"):
        print(f"\n| {dtype}: network, batch | multiplications per step | µs, one thread |"
              " two threads: times faster | tiles: times faster than BLAS |")  # fmt: skip
        print("|---|---|---|---|---|")
        for sizes, batch_size in NETWORKS:
            step = 3 * batch_size * sum(m * n for m, n in itertools.pairwise(sizes))
            rounds: dict[str, list[float]] = {"one": [], "threads": [], "blas": []}
            for _ in range(ROUNDS):
                request = {"sizes": sizes, "batch_size": batch_size, "dtype": dtype}
                one = tiles.seconds_per_step(**request, n_threads=1)
                two = tiles.seconds_per_step(**request, n_threads=2)
                rounds["one"].append(one)
                rounds["threads"].append(one / two)
                rounds["blas"].append(blas.seconds_per_step(**request, n_threads=1) / one)
            one, threads, beside = (statistics.median(rounds[name]) for name in rounds)
            print(f"| {'-'.join(map(str, sizes))}, {batch_size} | {step / 1e6:.2f} M "
                  f"| {one * 1e6:.1f} | {threads:.2f} | {beside:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
