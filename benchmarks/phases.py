"""Measure which share of the processor's peak each phase of a step reaches on one thread.

With --traffic, print instead how many bytes enter each cache in a step, by a model.
"""

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

# Bytes of a row of a panel, and the most rows of a register tile, as in csrc/tile_products.h.
PANEL_BYTES = {"avx512": 128, "avx2": 64, "baseline": 32, "neon": 32}
MOST_ROWS = {"avx512": 12, "avx2": 6, "baseline": 6, "neon": 12}
EXAMPLE_BLOCK = 256


def operations(sizes: tuple[int, ...], batch_size: int) -> tuple[float, float, float]:
    """Return the floating-point operations of (1), (4) and (5) in a step."""
    layers = [2.0 * batch_size * n_prev * n for n_prev, n in pairwise(sizes)]
    return sum(layers), sum(layers[1:]), sum(layers)


def traffic(case: cases.Case, span: int, tile_panels: int) -> str:
    """Return a row: MB that enter L1 / L2 in a step (in parentheses: GB/s at 100 GFLOP/s).

    A row tile of (1) and (4) reads a whole panel of W, and a panel of W all inputs of its span. In
    (5) a panel of inputs meets all deltas of its tile, one block of examples after the other. L2
    receives what each span and tile needs, as if nothing stayed there from the one before.
    """
    size, N = BITS[case.dtype] // 8, case.batch_size
    panel_bytes, rows = PANEL_BYTES[_kernels.KERNELS], MOST_ROWS[_kernels.KERNELS]
    side = tile_panels * panel_bytes // size
    n_spans, n_tiles = -(-N // span), -(-min(span, N) // rows)
    blocks = -(-N // EXAMPLE_BLOCK)
    levels = [[0.0, 0.0] for _ in range(3)]
    for l, (n_prev, n) in enumerate(case.shapes):
        for phase, n_in, n_out in ((0, n_prev, n), (1, n, n_prev)):
            if phase == 0 or l > 0:
                W, inputs, outputs = (size * x for x in (n_in * n_out, N * n_in, N * n_out))
                levels[phase][0] += n_spans * n_tiles * W + inputs * -(-n_out * size // panel_bytes)
                levels[phase][1] += n_spans * W + inputs + outputs
        A, delta, dW = (size * x for x in (N * n_prev, N * n, n_prev * n))
        levels[2][0] += delta * -(-n_prev * size // panel_bytes) + A * -(-n // side) + blocks * dW
        levels[2][1] += A * -(-n // side) + delta * -(-n_prev // side) + dW
    counts = operations(case.sizes, N)
    totals = [sum(column) for column in zip(*levels, strict=True)]
    cells = []
    for moved, count in zip([*levels, totals], [*counts, sum(counts)], strict=True):
        rates = [f"{x / 1e6:.3g} ({100 * x / count if count else 0:.1f})" for x in moved]
        cells.append(" / ".join(rates))
    return f"| {case.label} | {case.dtype} | {' | '.join(cells)} |"


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
    add("--traffic", action="store_true", help="measure nothing, print bytes by a model")
    options = parser.parse_args()
    columns = COLUMNS[:4] if options.traffic else COLUMNS
    print(f"{describe()['processor']}, kernels {_kernels.KERNELS}\n")
    print(f"| network, batch | type | {' | '.join(columns)} |\n|---|---|" + "--:|" * len(columns))
    names = [name for group in options.networks for name in cases.NETWORKS.get(group, [group])]
    for name in names:
        for dtype in options.dtypes:
            case = replace(cases.training(name), dtype=dtype)
            if options.traffic:
                row = traffic(case, options.span, options.tile)
            else:
                row = measure(case, options.span, options.tile, options.rounds, options.seconds)
            print(row, flush=True)


if __name__ == "__main__":
    main()
