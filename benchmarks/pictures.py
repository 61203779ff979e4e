"""Pictures of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from figures import peers, share_of_peak, threads, times_faster, title, worst_first
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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


def _draw_ratios(results: dict[str, Any], path: Path) -> None:
    """One panel per number of threads; a row per network and type, the worst at the top."""
    rows = worst_first(results["training"], results["base"])
    base, names = title(results["base"]), peers(rows, results["base"])
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
                if name not in row["seconds"]:
                    continue
                low, middle, high = times_faster(row, results["base"], name)
                color, marker = STYLES[name]
                panel.plot([low, high], [position] * 2, color=color, linewidth=2, zorder=2)
                panel.plot(middle, position, marker, color=color, markersize=7, zorder=3)
        panel.set_yticks(range(len(shown)), [f"{row['label']}  {row['dtype']}" for row in shown])
        panel.set_ylim(len(shown) - 0.5, -0.5)
        panel.set_title(threads({"threads": count}), fontweight="bold")
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
    rows = sorted(results["training"], key=lambda row: row["operations"])
    # One line per contestant and type: of plain SGD with sigmoids, if that was measured.
    kinds = [(row["optimizer"], row["activation"]) for row in rows]
    shown = ("sgd", "sigmoid") if ("sgd", "sigmoid") in kinds else kinds[0]
    rows = [row for row, kind in zip(rows, kinds, strict=True) if kind == shown]
    names = [results["base"], *peers(rows, results["base"])]
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
    lines = dict(zip(dtypes, ("-", "--"), strict=False))
    for panel, count in zip(panels[0], counts, strict=True):
        for name, dtype in product(names, dtypes):
            points = [
                (row["operations"], share.middle)
                for row in rows
                if row["dtype"] == dtype
                and row["threads"] == count
                and name in row["seconds"]
                and (share := share_of_peak(row, name)) is not None
            ]
            if points:
                color, marker = STYLES[name]
                panel.plot(*zip(*points, strict=True), lines[dtype], color=color, marker=marker)
        panel.axhline(1, color="0.2", linewidth=1.2)
        panel.set_xscale("log")
        panel.set_xlim(rows[0]["operations"] / 2, rows[-1]["operations"] * 2)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_ylim(0, 1.05)
        panel.set_title(threads({"threads": count}), fontweight="bold")
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


def _draw_accuracy(results: dict[str, Any], path: Path) -> None:
    """Accuracy on unseen digits against the time of training, everybody's median seed."""
    rows = results["accuracy"]
    names = [results["base"], *peers(rows, results["base"])]
    data = list(dict.fromkeys(row["data"] for row in rows))
    counts = sorted({row["threads"] for row in rows})
    figure, panels = plt.subplots(
        len(data),
        len(counts),
        figsize=(5.6 * len(counts), 3.4 * len(data)),
        squeeze=False,
        layout="constrained",
    )
    for row in rows:
        panel = panels[data.index(row["data"])][counts.index(row["threads"])]
        for name in names:
            if name not in row["seconds"]:
                continue
            seeds = sorted(zip(row["seconds"][name], row["accuracies"][name], strict=True))
            seconds, shares = seeds[len(seeds) // 2]
            times = [seconds * (epoch + 1) / len(shares) for epoch in range(len(shares))]
            color, marker = STYLES[name]
            panel.plot(times, shares, color=color, alpha=0.8)
            panel.plot(times[-1], shares[-1], marker, color=color, markersize=7)
        panel.axhline(row["goal"], color="0.2", linewidth=1.2)
        panel.set_xscale("log")
        panel.set_title(f"{row['label']}, {threads(row)}", fontsize="medium", fontweight="bold")
        panel.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} s"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(color="0.88", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy on unseen digits")
    for panel in panels[-1]:
        panel.set_xlabel("time of training")
    handles = [
        Line2D([], [], color=STYLES[n][0], marker=STYLES[n][1], label=title(n)) for n in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def draw(results: dict[str, Any], directory: Path) -> Iterator[Path]:
    """Draw whatever there are rows for; yield the pictures' paths."""
    base, training = results["base"], results["training"]
    drawings: list[tuple[str, Callable[[dict[str, Any], Path], None]]] = []
    if peers(worst_first(training, base), base):
        drawings.append(("ratios.png", _draw_ratios))
    if any(row["peak_operations_per_second"] for row in training):
        drawings.append(("share_of_peak.png", _draw_share_of_peak))
    if results["accuracy"]:
        drawings.append(("accuracy.png", _draw_accuracy))
    for name, function in drawings:
        function(results, directory / name)
        yield directory / name
