"""Tables and pictures of a comparison; run it on a ``compare.json`` to draw them again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

Row = dict[str, Any]

TITLES = {
    "numpy": "NumPy",
    "pytorch": "PyTorch",
    "jax": "JAX",
}
# Okabe and Ito's colours, which colour-blind readers tell apart, and a shape for each.
STYLES = {
    "nncore": ("#000000", "D"),
    "numpy": ("#E69F00", "s"),
    "scikit-learn": ("#0072B2", "^"),
    "pytorch": ("#D55E00", "o"),
    "jax": ("#009E73", "v"),
    "torch.compile": ("#CC79A7", "P"),
    "nn-engine-core": ("#56B4E9", "X"),
    "nncore before": ("#999999", "d"),
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
    seconds = row["seconds_per_step"]
    return spread(t / t_base for t, t_base in zip(seconds[peer], seconds[base], strict=True))


def share_of_peak(row: Row, name: str) -> Spread | None:
    """The step's operations over what the peak allows in its time, round by round."""
    peaks = row["peak_operations_per_second"]
    if not peaks:
        return None
    operations, seconds = row["operations_per_step"], row["seconds_per_step"][name]
    return spread(operations / (t * peak) for t, peak in zip(seconds, peaks, strict=True))


def beyond_gemm(row: Row) -> Spread | None:
    """The part of nncore's step that is not in its gemm calls."""
    gemms, seconds = row["gemm_seconds_per_step"], row["seconds_per_step"].get("nncore")
    if not gemms or not seconds:
        return None
    return spread(1 - gemm / t for gemm, t in zip(gemms, seconds, strict=True))


def peers(results: dict[str, Any]) -> list[str]:
    names: dict[str, None] = {}
    for row in results["rows"]:
        names.update(dict.fromkeys(row["seconds_per_step"]))
    names.pop(results["base"], None)
    return list(names)


def worst_ratio(row: Row, base: str) -> float:
    return min(
        (times_faster(row, base, peer).middle for peer in row["seconds_per_step"] if peer != base),
        default=float("inf"),
    )


def worst_first(results: dict[str, Any]) -> list[Row]:
    """Return the rows that the base took part in, its worst result first."""
    base = results["base"]
    rows = [row for row in results["rows"] if base in row["seconds_per_step"]]
    return sorted(rows, key=lambda row: worst_ratio(row, base))


def digits(value: float) -> str:
    """Write a number with about three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def progress_line(row: Row, base: str) -> str:
    times = ", ".join(
        f"{title(name)} {digits(1e6 * median(seconds))}"
        for name, seconds in row["seconds_per_step"].items()
        if seconds
    )
    share = share_of_peak(row, base) if base in row["seconds_per_step"] else None
    peak = f", {share.middle:.0%} of peak" if share else ""
    return f"{row['label']}, {row['dtype']}, {_threads(row)}: µs per step: {times}{peak}"


def _threads(row: Row) -> str:
    return "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"


def _table(header: list[str], lines: list[list[str]], left: int) -> str:
    rule = ["---"] * left + ["--:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])


def ratio_table(results: dict[str, Any]) -> str:
    """The base's time, share of peak and ratio to each peer, worst row first."""
    base, names = results["base"], peers(results)
    header = ["network, batch", "type", "threads", "µs per step", "share of peak", "beyond gemm"]
    header += [f"× {title(name)}" for name in names]
    lines = []
    for row in worst_first(results):
        worst = worst_ratio(row, base)
        share, beyond = share_of_peak(row, base), beyond_gemm(row)
        cells = [row["label"], row["dtype"], str(row["threads"])]
        cells.append(digits(1e6 * median(row["seconds_per_step"][base])))
        cells.append(f"{share.middle:.2f}" if share else "")
        cells.append(f"{beyond.middle:.0%}" if beyond else "")
        for name in names:
            if name not in row["seconds_per_step"]:
                cells.append("–")
                continue
            low, middle, high = times_faster(row, base, name)
            number = f"**{digits(middle)}**" if middle == worst else digits(middle)
            cells.append(f"{number} ({digits(low)}–{digits(high)})")
        lines.append(cells)
    return _table(header, lines, left=2)


def time_table(results: dict[str, Any]) -> str:
    """Everybody's median microseconds per step, in the order in which they were measured."""
    names = [results["base"], *peers(results)]
    header = ["network, batch", "type", "threads", *map(title, names), "floor at peak", "gemm only"]
    lines = []
    for row in results["rows"]:
        cells = [row["label"], row["dtype"], str(row["threads"])]
        for name in names:
            seconds = row["seconds_per_step"].get(name)
            cells.append(digits(1e6 * median(seconds)) if seconds else "–")
        peaks, gemms = row["peak_operations_per_second"], row["gemm_seconds_per_step"]
        cells.append(digits(1e6 * row["operations_per_step"] / median(peaks)) if peaks else "")
        cells.append(digits(1e6 * median(gemms)) if gemms else "")
        lines.append(cells)
    return _table(header, lines, left=2)


def circumstances(results: dict[str, Any]) -> str:
    """One paragraph: machine, peak, versions, kernels."""
    machine = results["machine"]
    lines = [f"{machine['processor']}, {machine['cpus']} CPUs available, {machine['system']}."]
    peaks: dict[tuple[str, int], list[float]] = {}
    for row in results["rows"]:
        peaks.setdefault((row["dtype"], row["threads"]), []).extend(
            row["peak_operations_per_second"]
        )
    figures = [
        f"{dtype}, {_threads({'threads': threads})}: {median(values) / 1e9:.0f}"
        for (dtype, threads), values in peaks.items()
        if values
    ]
    if figures:
        sets = sorted({row["instruction_set"] for row in results["rows"]})
        lines.append(f"Fused-multiply-add peak ({', '.join(sets)}), GFLOP/s: {'; '.join(figures)}.")
    versions: dict[str, str] = {}
    kernels: dict[str, None] = {}
    for contestants in results["contestants"].values():
        for name, description in contestants.items():
            if not name.endswith(" before"):
                versions.update(description["versions"])
        for pool in contestants.get(results["base"], {}).get("blas", []):
            if pool["architecture"]:
                kernels[f"{pool['library']} {pool['version']} {pool['architecture']}"] = None
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    if kernels:
        lines.append(f"BLAS in {title(results['base'])}'s process: {', '.join(kernels)}.")
    lines.append(
        f"Commit {results['commit']}, {results['created']}; medians of {results['rounds']} rounds "
        f"of about {results['seconds']} s, quartiles in parentheses."
    )
    for name, reason in results["left_out"].items():
        lines.append(f"Left out: {title(name)}, {reason}.")
    return "\n".join(lines)


def markdown(results: dict[str, Any]) -> str:
    base = title(results["base"])
    notes = (
        f"“× peer” is the peer's time over that of {base}, above 1 where {base} is faster; "
        "bold is a row's worst, and the worst rows come first. The share of peak counts the "
        "2N(3P − n₀n₁) operations of a step. “Beyond gemm” is the part of a step outside its "
        "matrix products, as SciPy's BLAS makes them. scikit-learn's output layer is linear."
    )
    return "\n\n".join(
        [ratio_table(results), notes, time_table(results), circumstances(results), ""]
    )


def _draw_ratios(results: dict[str, Any], path: Path) -> None:
    """One panel per number of threads; a row per network and type, the worst at the top."""
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    base, names = title(results["base"]), peers(results)
    rows = worst_first(results)
    counts = sorted({row["threads"] for row in rows})
    longest = max(sum(row["threads"] == count for row in rows) for count in counts)
    figure, panels = plt.subplots(
        1,
        len(counts),
        figsize=(6.4 * len(counts), 1.7 + 0.36 * longest),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, count in zip(panels[0], counts, strict=True):
        shown = [row for row in rows if row["threads"] == count]
        for position, row in enumerate(shown):
            panel.axhline(position, color="0.92", linewidth=8, zorder=0)
            for name in names:
                if name not in row["seconds_per_step"]:
                    continue
                low, middle, high = times_faster(row, results["base"], name)
                color, marker = STYLES[name]
                panel.plot([low, high], [position] * 2, color=color, linewidth=2, zorder=2)
                panel.plot(middle, position, marker, color=color, markersize=7, zorder=3)
        panel.set_yticks(range(len(shown)), [f"{row['label']}  {row['dtype']}" for row in shown])
        panel.set_ylim(len(shown) - 0.5, -0.5)
        panel.set_title(_threads({"threads": count}), fontweight="bold")
        panel.set_xscale("log")
        panel.set_xlabel(f"peer's time per step ÷ {base}'s")
        panel.grid(axis="x", color="0.85", linewidth=0.6, zorder=0)
        panel.tick_params(axis="y", length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    left, right = panels[0][0].get_xlim()
    left, right = min(left, 0.9), max(right, 1.1)
    for panel in panels[0]:
        panel.set_xlim(left, right)
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right < 50 * left else (1, 3)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.axvspan(left, 1, color="#D55E00", alpha=0.08, linewidth=0, zorder=0)
        panel.axvline(1, color="0.2", linewidth=1.2, zorder=1)
    handles = [
        Line2D([], [], color=STYLES[n][0], marker=STYLES[n][1], linewidth=2, label=title(n))
        for n in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(f"How many times faster {base} trains (shaded: slower), worst rows first")
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _draw_share_of_peak(results: dict[str, Any], path: Path) -> None:
    """Share of the peak against the operations of a step, a panel per number of threads."""
    from matplotlib import pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    names = [results["base"], *peers(results)]
    rows = sorted(results["rows"], key=lambda row: row["operations_per_step"])
    counts = sorted({row["threads"] for row in rows})
    dtypes = sorted({row["dtype"] for row in rows})
    figure, panels = plt.subplots(
        1,
        len(counts),
        figsize=(5.6 * len(counts), 4.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    training = {(row["dtype"], row["optimizer"], row["activation"]) for row in rows}
    lines = dict(zip(dtypes, ("-", "--"), strict=False))
    for panel, count in zip(panels[0], counts, strict=True):
        for name, kind in product(names, sorted(training)):
            points = [
                (row["operations_per_step"], share.middle)
                for row in rows
                if (row["dtype"], row["optimizer"], row["activation"]) == kind
                and row["threads"] == count
                and name in row["seconds_per_step"]
                and (share := share_of_peak(row, name)) is not None
            ]
            if points:
                color, marker = STYLES[name]
                panel.plot(*zip(*points, strict=True), lines[kind[0]], color=color, marker=marker)
        panel.axhline(1, color="0.2", linewidth=1.2)
        panel.set_xscale("log")
        panel.set_xlim(rows[0]["operations_per_step"] / 2, rows[-1]["operations_per_step"] * 2)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_ylim(0, 1.05)
        panel.set_title(_threads({"threads": count}), fontweight="bold")
        panel.set_xlabel("floating-point operations of a step")
        panel.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
        panel.grid(color="0.88", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("share of the fused-multiply-add peak")
    handles = [
        Line2D([], [], color=STYLES[n][0], marker=STYLES[n][1], label=title(n)) for n in names
    ]
    handles += [
        Line2D([], [], color="0.4", linestyle=line, label=dtype) for dtype, line in lines.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def write(results: dict[str, Any], directory: Path) -> None:
    """Print the tables and write them and the pictures to a directory."""
    if not worst_first(results):
        print(f"{title(results['base'])} finished no row: nothing to compare", file=sys.stderr)
        return
    text = markdown(results)
    print(text)
    (directory / "compare.md").write_text(text, encoding="utf-8")
    try:
        import matplotlib
    except ImportError:
        print("left out: pictures: matplotlib is not installed", file=sys.stderr)
        return
    matplotlib.use("agg")
    pictures: list[tuple[str, Callable[[dict[str, Any], Path], None]]] = []
    if peers(results):
        pictures.append(("ratios.png", _draw_ratios))
    if any(row["peak_operations_per_second"] for row in results["rows"]):
        pictures.append(("share_of_peak.png", _draw_share_of_peak))
    for name, draw in pictures:
        draw(results, directory / name)
        print(f"wrote {directory / name}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, help="a compare.json; the rest is written beside it")
    path: Path = parser.parse_args().json
    write(json.loads(path.read_text(encoding="utf-8")), path.parent)
