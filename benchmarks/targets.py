"""Which of its targets nncore reaches in a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cases import (
    ADAM_COST,
    FLOAT64_SHARE_BELOW,
    NO_SLOWER,
    PREDICT_ROW_SECONDS,
    PREDICT_ROWS_SHARE,
    TARGETS,
    TWO_THREADS_GAIN,
)
from contestants import COMPANIONS
from figures import Row, Spread, digits, share_of_peak, spread, threads, times_faster, title

WITH_ADAM, ON_ONE_THREAD = COMPANIONS


class Check(NamedTuple):
    """A figure, its spread over the rounds, and the limit for its median."""

    subject: str
    figure: str
    got: Spread
    limit: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        middle = self.got.middle
        return middle <= self.limit if self.at_most else middle >= self.limit

    @property
    def margin(self) -> float:
        """Above 1 where it is reached."""
        ratio = self.got.middle / self.limit
        return 1 / ratio if self.at_most else ratio


def checks(results: dict[str, Any]) -> list[Check]:
    """Return a check for each target that the comparison's rows have figures for.

    With kernels other than the processor's best, only the shares of large networks have a target.
    """
    found: list[Check] = []
    for row in results["training"]:
        if "nncore" in row["seconds"] and (row["optimizer"], row["activation"]) == (
            "sgd",
            "sigmoid",
        ):
            found += _training(row, best_kernels=results["kernels"] is None)
    if results["kernels"] is None:
        for row in results["prediction"]:
            if "nncore" in row["seconds"] and (row["dtype"], row["threads"]) == ("float32", 1):
                found += _prediction(row)
    return found


def _training(row: Row, best_kernels: bool) -> Iterator[Check]:
    target = TARGETS.get(row["network"])
    subject = f"{row['label']}, {row['dtype']}, {threads(row)}"
    if target is not None and row["threads"] == 1 and (best_kernels or target.large):
        share = share_of_peak(row, "nncore")
        allowance = FLOAT64_SHARE_BELOW if row["dtype"] == "float64" else 0
        if share is not None:
            yield Check(subject, "share of peak", share, target.share_of_peak - allowance)
    if not best_kernels:
        return
    if target is not None and row["dtype"] == "float32":
        ratios = {
            peer: times_faster(row, "nncore", peer)
            for peer in target.times_faster
            if peer in row["seconds"]
        }
        if row["threads"] == 1:
            for peer, ratio in ratios.items():
                yield Check(subject, f"× {title(peer)}", ratio, target.times_faster[peer])
        elif row["threads"] == 2 and ratios:
            best = min(ratios, key=lambda peer: ratios[peer].middle)
            figure = f"× the best peer, {title(best)}"
            yield Check(subject, figure, ratios[best], target.times_faster_than_best)
    if WITH_ADAM in row["seconds"]:
        cost = times_faster(row, "nncore", WITH_ADAM)
        yield Check(subject, "Adam's time over SGD's", cost, ADAM_COST, at_most=True)
    if ON_ONE_THREAD in row["seconds"]:
        large = target is not None and target.large and row["threads"] == 2
        gain = times_faster(row, "nncore", ON_ONE_THREAD)
        yield Check(subject, "× one thread", gain, TWO_THREADS_GAIN if large else NO_SLOWER)


def _prediction(row: Row) -> Iterator[Check]:
    subject = f"predict: {row['label']}, {row['dtype']}, {threads(row)}"
    if row["rows"] == 1:
        microseconds = spread(1e6 * t for t in row["seconds"]["nncore"])
        limit = 1e6 * PREDICT_ROW_SECONDS
        yield Check(subject, "µs per call", microseconds, limit, at_most=True)
    else:
        share = share_of_peak(row, "nncore")
        if share is not None:
            yield Check(subject, "share of peak", share, PREDICT_ROWS_SHARE)


def targets_table(results: dict[str, Any]) -> str:
    """Return a line per target, those that are missed furthest first, as Markdown."""
    ordered = sorted(checks(results), key=lambda check: check.margin)
    count = sum(check.reached for check in ordered)
    lines = [
        f"{count} of {len(ordered)} targets reached.",
        "",
        "| what | figure | target | median (quartiles) | |",
        "|---|---|--:|--:|---|",
    ]
    for check in ordered:
        low, middle, high = map(digits, check.got)
        sign = "≤" if check.at_most else "≥"
        verdict = "reached" if check.reached else "**not reached**"
        lines.append(
            f"| {check.subject} | {check.figure} | {sign} {check.limit:.3g} "
            f"| {middle} ({low}–{high}) | {verdict} |"
        )
    return "\n".join(lines)
