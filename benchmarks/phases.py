"""Measure which share of the processor's peak each phase of a step reaches on one thread."""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import cases
from contestants import Peak
from machine import describe, load_c

import nncore
from nncore import _kernels

# The last column is the time of the transposes relative to that of the products.
COLUMNS = ("forward (1)", "delta (4)", "gradient (5)(6)", "together", "transposing W")
BITS = {"float32": 32, "float64": 64}


def operations(sizes: tuple[int, ...], batch_size: int) -> tuple[float, float, float]:
    """Return the floating-point operations of (1), (4) and (5) in a step."""
    layers = [2.0 * batch_size * n_prev * n for n_prev, n in pairwise(sizes)]
    return sum(layers), sum(layers[1:]), sum(layers)


def measure(case: cases.Case, span: int, tile_panels: int, rounds: int, seconds: float) -> str:
    """Return a row of the table: medians over rounds, the peak measured in each of them."""
    name = f"{_kernels.KERNELS}_f{BITS[case.dtype]}".replace("neon", "baseline")
    library = load_c(
        "phases.c",
        "-ffp-contract=off",
        "-fno-math-errno",
        f"-I{nncore.get_include()}",
        f"-DTABLE=nncore_{name}",
        f'-DTABLE_SOURCE="{name}.c"',
    )
    sizes = (ctypes.c_ssize_t * len(case.sizes))(*case.sizes)
    arguments = len(case.sizes) - 1, sizes, *map(ctypes.c_ssize_t, (case.batch_size, span))

    def phases(steps: int) -> list[float]:
        times = (ctypes.c_double * 4)()
        if not library.add_seconds(times, *arguments, ctypes.c_ssize_t(tile_panels), steps):
            raise MemoryError(f"{case.sizes} with batches of {case.batch_size}")
        return [total / steps for total in times]

    steps = max(1, round(seconds / sum(phases(1))))
    peak = Peak(case, 1)
    shares: list[list[float]] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        peak.library.run_operations(ctypes.c_double(1e11 * seconds))
        rate = 1e11 * seconds / (time.perf_counter() - begin)
        *times, transpose = phases(steps)
        ideal = [count / rate for count in operations(case.sizes, case.batch_size)]
        shares.append([ideal[i] / times[i] if times[i] else 1.0 for i in range(3)])
        shares[-1] += [sum(ideal) / (sum(times) + transpose), transpose / sum(times)]
    *products, whole, transpose = (
        statistics.median(column) for column in zip(*shares, strict=True)
    )
    cells = [f"{share:.2f}" for share in (*products, whole)] + [f"{transpose:.1%}"]
    network = f"{'-'.join(map(str, case.sizes))}, {case.batch_size}"
    return f"| {network} | {case.dtype} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add: Any = parser.add_argument
    add("--networks", nargs="+", default=list(cases.NETWORKS), help="or e.g. 784-30-10,32")
    add("--dtypes", nargs="+", default=list(BITS), choices=BITS)
    add("--span", type=int, default=64, help="examples that go through all layers together")
    add("--tile", type=int, default=8, help="panels of a tile of W, and of its inputs")
    add("--rounds", type=int, default=7)
    add("--seconds", type=float, default=0.1, help="wanted length of a round")
    options = parser.parse_args()
    print(f"{describe()['processor']}, kernels {_kernels.KERNELS}\n")
    print(f"| network, batch | type | {' | '.join(COLUMNS)} |\n|---|---|" + "--:|" * len(COLUMNS))
    names = [name for group in options.networks for name in cases.NETWORKS.get(group, [group])]
    for name in names:
        for dtype in options.dtypes:
            case = replace(cases.training(name), dtype=dtype)
            print(
                measure(case, options.span, options.tile, options.rounds, options.seconds),
                flush=True,
            )


if __name__ == "__main__":
    main()
