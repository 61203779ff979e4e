"""The tables and the picture of a comparison."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

Row = dict[str, Any]

# Heading, unit and units per second of each part of the results.
PARTS = {
    "training": ("Training", "µs per step", 1e6),
    "calls": ("Single steps", "µs per step", 1e6),
    "prediction": ("Prediction", "µs per call", 1e6),
    "estimators": ("Estimators", "ms per call", 1e3),
}
# Measured like the peers, but nobody to compete with: heads of their ratios and of their times.
YARDSTICKS = {"peak": ("share of peak", "floor at peak"), "gemm": ("× gemm alone", "gemm alone")}
# The peers' titles, colours (Okabe and Ito's, for colour-blind readers) and markers.
STYLES = {
    "numpy": ("NumPy", "#E69F00", "s"),
    "scikit-learn": ("scikit-learn", "#0072B2", "^"),
    "pytorch": ("PyTorch", "#D55E00", "o"),
    "jax": ("JAX", "#009E73", "v"),
}
NOTE = """\
“× peer” is the peer's time over that of {base}, above 1 where {base} is faster: medians of
{rounds} rounds of about {seconds} s, quartiles in parentheses. Bold is a row's worst, and the worst
rows come first. The share of peak counts the 2N(3P − n₀n₁) operations of a step, 2NP of a
prediction. “× gemm alone” is the time of a step's matrix products in SciPy's BLAS, and nothing
else, over that of the whole step. The output layer of scikit-learn's MLPRegressor is linear."""


def load(path: Path) -> dict[str, Any]:
    """Read saved results, also those of when the yardsticks had fields of their own."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for row in results["training"] + results["prediction"]:
        if peaks := row.pop("peak_operations_per_second", None):
            row["seconds"]["peak"] = [row["operations"] / peak for peak in peaks]
        if gemms := row.pop("gemm_seconds", None):
            row["seconds"]["gemm"] = gemms
    return results


def title(name: str) -> str:
    return STYLES[name][0] if name in STYLES else name


def threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def digits(value: float) -> str:
    """Write a number with about three significant digits."""
    places = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4
    return f"{value:,.{places}f}"


def ratios(row: Row, base: str, peer: str) -> tuple[float, float, float]:
    """Return the quartiles over the rounds of the peer's time over the base's."""
    pairs = zip(row["seconds"][peer], row["seconds"][base], strict=True)
    values = [t / t_base for t, t_base in pairs]
    low, middle, high = quantiles(values if len(values) > 1 else values * 2, method="inclusive")
    return low, middle, high


def peers(rows: Iterable[Row], base: str) -> list[str]:
    """Return whom the base competes with in any of the rows."""
    names = dict.fromkeys(name for row in rows for name in row["seconds"])
    return [name for name in names if name != base and name not in YARDSTICKS]


def worst_ratio(row: Row, base: str) -> float:
    return min((ratios(row, base, peer)[1] for peer in peers([row], base)), default=float("inf"))


def progress_line(row: Row) -> str:
    times = [f"{title(name)} {digits(1e6 * median(t))}" for name, t in row["seconds"].items()]
    return f"{row['label']}, {row['dtype']}, {threads(row['threads'])}: µs: {', '.join(times)}"


def tables(rows: Sequence[Row], base: str, unit: str, per_second: float) -> list[str]:
    """Return the base's ratios to everybody, worst row first, and everybody's times."""
    competitors = peers(rows, base)
    yardsticks = [name for name in YARDSTICKS if any(name in row["seconds"] for row in rows)]

    def time(row: Row, name: str) -> str:
        return digits(per_second * median(row["seconds"][name]))

    def ratio(row: Row, name: str) -> str:
        low, middle, high = map(digits, ratios(row, base, name))
        if name in YARDSTICKS:
            return middle
        bold = "**" if ratios(row, base, name)[1] == worst_ratio(row, base) else ""
        return f"{bold}{middle}{bold} ({low}–{high})"

    def table(rows: Sequence[Row], columns: dict[str, tuple[str, Callable[..., str]]]) -> str:
        lines = [
            ["what", "type", "threads", *columns],
            ["---", "---", *["--:"] * (len(columns) + 1)],
        ]
        for row in rows:
            cells = [cell(row, n) if n in row["seconds"] else "–" for n, cell in columns.values()]
            lines.append([row["label"], row["dtype"], str(row["threads"]), *cells])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    relative = {unit: (base, time)}
    relative |= {YARDSTICKS[name][0]: (name, ratio) for name in yardsticks}
    relative |= {f"× {title(name)}": (name, ratio) for name in competitors}
    absolute = {title(name): (name, time) for name in [base, *competitors]}
    absolute |= {YARDSTICKS[name][1]: (name, time) for name in yardsticks}
    worst_first = sorted(rows, key=lambda row: worst_ratio(row, base))
    return [table(worst_first, relative), f"Everybody's {unit}:", table(rows, absolute)]


def circumstances(results: dict[str, Any]) -> str:
    """Return what the figures depend on: machine, peak, versions, kernels."""
    machine = results["machine"]
    lines = [f"{machine['processor']}; {machine['cpus']} CPUs, {machine['system']}."]
    peaks: dict[str, list[float]] = {}
    for row in results["training"]:
        rates = [row["operations"] / t / 1e9 for t in row["seconds"].get("peak", ())]
        peaks.setdefault(f"{row['dtype']}, {threads(row['threads'])}", []).extend(rates)
    lines += [f"Peak in {what}: {digits(median(r))} GFLOP/s." for what, r in peaks.items() if r]
    versions: dict[str, str] = {}
    for contestants in results["contestants"].values():
        for name, description in contestants.items():
            versions |= description["versions"]
            if description["kernels"]:
                lines.append(f"Kernels of {name}: {description['kernels']}.")
            for pool in description["blas"]:
                lines.append("BLAS: {internal_api} {version} {architecture}.".format(**pool))
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    lines += [f"Left out: {title(n)}: {reason}." for n, reason in results["left_out"].items()]
    lines.append(f"Commit {results['commit']}, {results['created']}.")
    return "\n".join(dict.fromkeys(lines))


def write(results: dict[str, Any], directory: Path, stem: str) -> None:
    """Print the tables; write them, and the picture of the training, to a directory."""
    base, sections = results["base"], []
    for part, (heading, unit, per_second) in PARTS.items():
        results[part] = [row for row in results.get(part, ()) if base in row["seconds"]]
        if results[part]:
            sections += [f"## {heading}", *tables(results[part], base, unit, per_second)]
    note = NOTE.format(base=base, rounds=results["rounds"], seconds=results["seconds"])
    text = "\n\n".join([*sections, note, circumstances(results), ""])
    print(text)
    (directory / f"{stem}.md").write_text(text, encoding="utf-8")
    if results["training"]:
        draw(results["training"], base, directory / f"{stem}.png")


def draw(rows: Sequence[Row], base: str, path: Path) -> None:
    """Draw the ratios: a panel per number of threads, a line per row, the worst at the top."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    rows = sorted(rows, key=lambda row: worst_ratio(row, base))
    panels = {n: [row for row in rows if row["threads"] == n] for n in {r["threads"] for r in rows}}
    figure, axes = plt.subplots(
        ncols=len(panels),
        figsize=(6.4 * len(panels), 1.7 + 0.36 * max(map(len, panels.values()))),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (count, shown) in zip(axes[0], sorted(panels.items()), strict=True):
        for name in peers(rows, base):
            label, color, marker = STYLES.get(name, (name, "#999999", "d"))
            style = {"color": color, "marker": marker}
            axis.plot([], [], label=label, **style)
            for y, row in enumerate(shown):
                if name in row["seconds"]:
                    low, middle, high = ratios(row, base, name)
                    axis.plot([low, middle, high], [y] * 3, markevery=[1], **style)
        axis.set_yticks(range(len(shown)), [f"{row['label']}  {row['dtype']}" for row in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set(title=threads(count), xlabel=f"peer's time ÷ {base}'s", xscale="log")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")
        axis.axvline(1, color="0.2")
        axis.grid(color="0.9")
        axis.spines[["top", "right", "left"]].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
    figure.suptitle(f"How many times faster {base} trains, worst rows first")
    figure.savefig(path, dpi=160)
    plt.close(figure)
