"""Call networks a thousand times a second, and report how long the slowest calls take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cases
import numpy as np
import report
from contestants import CONTESTANTS
from machine import circumstances
from rounds import Comparison

NAMES = ["nncore", "pytorch", "pytorch-fused", "torch.jit", "onnxruntime"]
# Everybody has a turn of so many calls after another.
TURN = 500
# The first calls of a turn find cold caches and are not counted.
WARM_UP = 50
QUANTILES = {"median": 0.5, "99 %": 0.99, "99.9 %": 0.999, "longest": 1.0}


def latencies(
    comparison: Comparison, case: cases.Case, count: int, interval: float
) -> dict[str, list[float]]:
    """Return the seconds of `count` calls of everybody who has the case's call."""
    names = [name for name in comparison.processes if case.call in CONTESTANTS[name].calls]
    for name in names:
        comparison.ask(name, "prepare", case, 0.1)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for begin in range(0, count, TURN):
        turn = min(TURN, count - begin)
        for name in names:
            seconds[name] += comparison.ask(name, "latencies", WARM_UP + turn, interval)[WARM_UP:]
    return seconds


def row(case: cases.Case, name: str, seconds: Sequence[float]) -> str:
    values = 1e6 * np.quantile(seconds, list(QUANTILES.values()), method="higher")
    return f"| {case.label} | {report.title(name)} | {' | '.join(map(report.digits, values))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--contestants", nargs="+", default=NAMES, choices=list(CONTESTANTS))
    parser.add_argument("--calls", type=int, default=5000, help="of each contestant")
    parser.add_argument("--interval", type=float, default=1e-3, help="seconds between calls")
    options = parser.parse_args()
    results = circumstances() | {"training": []}
    with Comparison(options.contestants, None, 1) as comparison:
        print(f"| µs per call | library | {' | '.join(QUANTILES)} |")
        print("| --- | --- |" + " --: |" * len(QUANTILES))
        for case in cases.online():
            samples = latencies(comparison, case, options.calls, options.interval)
            for name, seconds in samples.items():
                print(row(case, name, seconds), flush=True)
        results["contestants"] = {"1": comparison.descriptions()}
        results["left_out"] = comparison.left_out
    print(f"\n{report.circumstances(results)}")


if __name__ == "__main__":
    main()
