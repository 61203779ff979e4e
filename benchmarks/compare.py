"""Do the same work with nncore and its peers, in turn, and compare the times."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cases
import report
from contestants import CONTESTANTS, ESTIMATORS, PEERS
from machine import GIT, HERE, available_cpus, circumstances, say
from rounds import Comparison

PARTS = ["training", "calls", "prediction"]
DTYPES = ["float32", "float64"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add, several = parser.add_argument, partial(parser.add_argument, nargs="+")
    several("--parts", default=PARTS, choices=PARTS, help="what to time")
    several("--networks", default=list(cases.NETWORKS), help="to train; or e.g. 784-30-10,32")
    several("--dtypes", default=DTYPES, choices=DTYPES, help="of networks")
    several("--optimizers", default=["sgd"], choices=["sgd", "adam"], help="to train with")
    several("--activations", default=["sigmoid"], choices=["sigmoid", "relu"], help="to train with")
    several("--contestants", default=list(PEERS), choices=list(CONTESTANTS), help="base first")
    several("--threads", default=["1", "all"], help="numbers of threads")
    add("--sklearn", action="store_true", help="compare nncore.sklearn's estimators instead")
    datasets = [name for name in cases.DATASETS if name != "mnist10k" or cases.MNIST]
    several("--datasets", default=datasets, choices=datasets, help="for --sklearn")
    add("--rounds", type=int, default=7, help="samples of each contestant")
    add("--seconds", type=float, default=0.2, help="wanted length of a sample")
    add("--before", metavar="COMMIT_OR_CHECKOUT", help="another nncore, which takes part as well")
    add("--output", type=Path, default=HERE / "results", help="directory for the results")
    add("--render", type=Path, metavar="JSON", help="measure nothing, show these results again")
    options = parser.parse_args()
    if options.sklearn:
        options.parts, options.contestants = ["estimators"], list(ESTIMATORS)
    n_cpus = len(available_cpus())
    options.threads = sorted({n_cpus if n == "all" else int(n) for n in options.threads})
    if not 1 <= options.threads[0] <= options.threads[-1] <= n_cpus:
        parser.error(f"--threads: this process may use 1 to {n_cpus} CPUs")
    return options


def wanted(options: argparse.Namespace, n_threads: int) -> Iterator[tuple[str, cases.AnyCase]]:
    """Yield every case to be measured, with its part of the results."""
    names = [name for group in options.networks for name in cases.NETWORKS.get(group, [group])]
    if "training" in options.parts:
        kinds = product(options.dtypes, options.optimizers, options.activations)
        for name, (dtype, optimizer, activation) in product(names, list(kinds)):
            case = replace(cases.training(name), dtype=dtype)
            yield "training", replace(case, optimizer=optimizer, activation=activation)
    for dtype in options.dtypes:
        # A network so small is trained on one thread.
        if "calls" in options.parts and n_threads == 1:
            yield from (("calls", case) for case in cases.single_steps(dtype))
        if "prediction" in options.parts:
            yield from (("prediction", case) for case in cases.predictions(dtype))
    if "estimators" in options.parts:
        yield from (("estimators", case) for case in cases.estimators(options.datasets))


def source_directory(before: str) -> Path:
    """Return the directory to import another nncore from; build it first if it is a commit."""
    if Path(before).is_dir():
        return Path(before).resolve() / "src"
    commit = f"{before}^{{commit}}"
    name = subprocess.check_output([*GIT, "rev-parse", "--short=12", commit], text=True).strip()
    tree = HERE.parent / "build" / "before" / name
    if not tree.exists():
        say(f"building {name}")
        partial = tree.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        archive = subprocess.check_output([*GIT, "archive", name])
        subprocess.run(["tar", "-x", "-C", str(partial)], input=archive, check=True)
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(command, cwd=partial, check=True)
        partial.rename(tree)
    return tree / "src"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every case for every number of threads; Ctrl-C keeps the rows that are finished."""
    start = time.perf_counter()
    source = source_directory(options.before) if options.before else None
    results: dict[str, Any] = {
        **circumstances(),
        "before": options.before,
        "base": options.contestants[0],
        "rounds": options.rounds,
        "seconds": options.seconds,
        "contestants": {},
        "left_out": {},
        **{part: [] for part in report.PARTS},
    }
    for n_threads in options.threads:
        todo = list(wanted(options, n_threads))
        with Comparison(options.contestants, source, n_threads) as comparison:
            results["left_out"] |= comparison.left_out
            try:
                for count, (part, case) in enumerate(todo, 1):
                    row = comparison.measure(case, options.rounds, options.seconds)
                    results[part].append(row)
                    elapsed = f"[{count}/{len(todo)}, {time.perf_counter() - start:.0f} s]"
                    say(f"{elapsed} {report.progress_line(row)}")
            except KeyboardInterrupt:
                say("interrupted: the report covers the rows so far")
                break
            finally:
                results["contestants"][str(n_threads)] = comparison.descriptions()
    return results


def main() -> int:
    options = parse_arguments()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.render is not None:
        report.write(report.load(options.render), options.output, options.render.stem)
        return 0
    results = measure(options)
    path = options.output / ("sklearn.json" if options.sklearn else "compare.json")
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {path}")
    report.write(results, options.output, path.stem)
    return int(any(row["errors"] for part in report.PARTS for row in results[part]))


if __name__ == "__main__":
    sys.exit(main())
