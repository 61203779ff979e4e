"""Tables and pictures of a comparison; run it on a ``compare.json`` to write them again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from figures import (
    Row,
    digits,
    gemm_alone,
    peers,
    share_of_peak,
    threads,
    times_faster,
    title,
    worst_first,
    worst_ratio,
)
from targets import targets_table


def progress_line(row: Row, base: str) -> str:
    times = ", ".join(
        f"{title(name)} {digits(1e6 * median(seconds))}"
        for name, seconds in row["seconds"].items()
        if seconds
    )
    share = share_of_peak(row, base) if base in row["seconds"] else None
    peak = f", {share.middle:.0%} of peak" if share else ""
    return f"{row['label']}, {row['dtype']}, {threads(row)}: µs: {times}{peak}"


def _table(header: list[str], lines: list[list[str]], left: int) -> str:
    rule = ["---"] * left + ["--:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def ratio_table(rows: list[Row], base: str, unit: str) -> str:
    """The base's time, whatever else is known of it, and ratio to each peer, worst row first."""
    names = peers(rows, base)
    columns: dict[str, Callable[[Row], str]] = {unit: lambda row: _time(row, base)}
    if any("accuracies" in row for row in rows):
        columns["epochs"] = lambda row: f"{_epochs(row, base):g}"
    if any(row.get("peak_operations_per_second") for row in rows):
        columns["share of peak"] = lambda row: _middle(share_of_peak(row, base))
    if any(row.get("gemm_seconds") for row in rows):
        columns["× gemm alone"] = lambda row: _middle(gemm_alone(row))
    header = ["what", "type", "threads", *columns, *(f"× {title(name)}" for name in names)]
    lines = []
    for row in worst_first(rows, base):
        worst = worst_ratio(row, base)
        cells = [row["label"], row["dtype"], str(row["threads"])]
        cells += [cell(row) for cell in columns.values()]
        for name in names:
            if name not in row["seconds"]:
                cells.append("–")
                continue
            low, middle, high = times_faster(row, base, name)
            number = f"**{digits(middle)}**" if middle == worst else digits(middle)
            cells.append(f"{number} ({digits(low)}–{digits(high)})")
        lines.append(cells)
    return _table(header, lines, left=2)


def time_table(rows: list[Row], base: str) -> str:
    """Everybody's median in microseconds, in the order in which they were measured."""
    names = [base, *peers(rows, base)]
    columns: dict[str, Callable[[Row], str]] = {}
    if any(row.get("peak_operations_per_second") for row in rows):
        columns["floor at peak"] = _floor
    if any(row.get("gemm_seconds") for row in rows):
        columns["gemm alone"] = lambda row: _microseconds(row["gemm_seconds"])
    lines = []
    for row in rows:
        cells = [row["label"], row["dtype"], str(row["threads"])]
        for name in names:
            epochs = f" in {_epochs(row, name):g}" if name in row.get("accuracies", ()) else ""
            cells.append(_time(row, name) + epochs)
        lines.append([*cells, *(cell(row) for cell in columns.values())])
    return _table(["what", "type", "threads", *map(title, names), *columns], lines, left=2)


def _time(row: Row, name: str) -> str:
    """Microseconds; milliseconds to an accuracy."""
    seconds = row["seconds"].get(name)
    if seconds and "accuracies" in row:
        return digits(1e3 * median(seconds))
    return _microseconds(seconds)


def _microseconds(seconds: list[float] | None) -> str:
    return digits(1e6 * median(seconds)) if seconds else "–"


def _floor(row: Row) -> str:
    peaks = row["peak_operations_per_second"]
    return digits(1e6 * row["operations"] / median(peaks)) if peaks else ""


def _middle(figure: Any) -> str:
    return f"{figure.middle:.2f}" if figure else ""


def _epochs(row: Row, name: str) -> float:
    return median(map(len, row["accuracies"][name]))


def circumstances(results: dict[str, Any]) -> str:
    """One paragraph: machine, peak, versions, kernels."""
    machine = results["machine"]
    lines = [f"{machine['processor']}, {machine['cpus']} CPUs available, {machine['system']}."]
    peaks: dict[tuple[str, int], list[float]] = {}
    for row in results["training"]:
        peaks.setdefault((row["dtype"], row["threads"]), []).extend(
            row["peak_operations_per_second"]
        )
    figures = [
        f"{dtype}, {threads({'threads': count})}: {median(values) / 1e9:.0f}"
        for (dtype, count), values in peaks.items()
        if values
    ]
    if figures:
        sets = sorted({row["instruction_set"] for row in results["training"]})
        lines.append(f"Fused-multiply-add peak ({', '.join(sets)}), GFLOP/s: {'; '.join(figures)}.")
    versions: dict[str, str] = {}
    blas: dict[str, None] = {}
    kernels: dict[str, None] = {}
    for contestants in results["contestants"].values():
        for name, description in contestants.items():
            if not name.endswith(" before"):
                versions.update(description["versions"])
        base = contestants.get(results["base"], {})
        if base.get("kernels"):
            kernels[base["kernels"]] = None
        for pool in base.get("blas", []):
            if pool["architecture"]:
                blas[f"{pool['library']} {pool['version']} {pool['architecture']}"] = None
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    if kernels:
        lines.append(f"nncore's kernels: {', '.join(kernels)}.")
    if blas:
        lines.append(f"BLAS in {title(results['base'])}'s process: {', '.join(blas)}.")
    if results.get("kept_variables"):
        lines.append(f"In the environment: {', '.join(results['kept_variables'])}.")
    lines.append(
        f"Commit {results['commit']}, {results['created']}; medians of {results['rounds']} rounds "
        f"of about {results['seconds']} s, quartiles in parentheses."
    )
    for name, reason in results["left_out"].items():
        lines.append(f"Left out: {title(name)}, {reason}.")
    return "\n".join(lines)


def markdown(results: dict[str, Any], with_targets: bool) -> str:
    base = results["base"]
    notes = {
        "training": (
            "The share of peak counts the 2N(3P − n₀n₁) operations of a step. “× gemm alone” is "
            "the time of its matrix products in SciPy's BLAS, and nothing else, over that of the "
            "whole step. scikit-learn's output layer is linear."
        ),
        "prediction": "A call of predict, checks included. The share counts 2NP operations.",
        "accuracy": (
            "The time until a share of unseen digits is recognized, without evaluations and "
            "compilation: medians over seeds."
        ),
    }
    units = {"training": "µs per step", "prediction": "µs per call", "accuracy": "ms"}
    sections = []
    if with_targets:
        sections += ["## Targets", targets_table(results)]
    for part, unit in units.items():
        rows = results[part]
        if not worst_first(rows, base):
            continue
        heading = "Time to an accuracy" if part == "accuracy" else part.capitalize()
        times = f"Everybody's {unit}" + (" in so many epochs" if part == "accuracy" else "") + ":"
        sections += [f"## {heading}", ratio_table(rows, base, unit), notes[part]]
        sections += [times, time_table(rows, base)]
    sections.append(
        f"“× peer” is the peer's time over that of {title(base)}, above 1 where {title(base)} is "
        "faster; bold is a row's worst, and the worst rows come first."
    )
    return "\n\n".join([*sections, circumstances(results), ""])


def write(results: dict[str, Any], directory: Path, *, with_targets: bool = False) -> None:
    """Print the tables and write them and the pictures to a directory."""
    text = markdown(results, with_targets)
    print(text)
    (directory / "compare.md").write_text(text, encoding="utf-8")
    try:
        import pictures
    except ImportError as error:
        print(f"left out: pictures: {error}", file=sys.stderr)
        return
    for path in pictures.draw(results, directory):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="a compare.json; the rest is written beside it")
    parser.add_argument("--targets", action="store_true", help="also say which ones are reached")
    options = parser.parse_args()
    path: Path = options.json
    results = json.loads(path.read_text(encoding="utf-8"))
    write(results, path.parent, with_targets=options.targets)
