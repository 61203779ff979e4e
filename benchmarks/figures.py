"""The figures that follow from a comparison's samples: ratios, shares of the peak, their spread."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median, quantiles
from typing import Any, NamedTuple

from contestants import COMPANIONS

Row = dict[str, Any]

TITLES = {
    "numpy": "NumPy",
    "pytorch": "PyTorch",
    "jax": "JAX",
}


def title(name: str) -> str:
    return TITLES.get(name, name)


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    middle: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    ordered = sorted(values)
    if len(ordered) < 2:
        return Spread(ordered[0], ordered[0], ordered[0])
    low, _, high = quantiles(ordered, n=4, method="inclusive")
    return Spread(low, median(ordered), high)


def times_faster(row: Row, base: str, peer: str) -> Spread:
    """How many times longer than the base the peer takes, round by round."""
    seconds = row["seconds"]
    return spread(t / t_base for t, t_base in zip(seconds[peer], seconds[base], strict=True))


def share_of_peak(row: Row, name: str) -> Spread | None:
    """The row's operations over what the peak allows in its time, round by round."""
    peaks = row.get("peak_operations_per_second")
    if not peaks:
        return None
    operations, seconds = row["operations"], row["seconds"][name]
    return spread(operations / (t * peak) for t, peak in zip(seconds, peaks, strict=True))


def gemm_alone(row: Row) -> Spread | None:
    """How many times longer than nncore's step SciPy's BLAS takes for the products alone."""
    gemms, seconds = row.get("gemm_seconds"), row["seconds"].get("nncore")
    if not gemms or not seconds:
        return None
    return spread(gemm / t for gemm, t in zip(gemms, seconds, strict=True))


def peers(rows: Iterable[Row], base: str) -> list[str]:
    """Return whom the base is compared with in any of the rows."""
    names = dict.fromkeys(name for row in rows for name in row["seconds"])
    return [name for name in names if name != base and name not in COMPANIONS]


def worst_ratio(row: Row, base: str) -> float:
    return min(
        (times_faster(row, base, peer).middle for peer in peers([row], base)),
        default=float("inf"),
    )


def worst_first(rows: Iterable[Row], base: str) -> list[Row]:
    """Return the rows that the base took part in, its worst result first."""
    return sorted(
        (row for row in rows if base in row["seconds"]), key=lambda row: worst_ratio(row, base)
    )


def digits(value: float) -> str:
    """Write a number with about three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def threads(row: Row) -> str:
    return "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
