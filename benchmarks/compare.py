"""Train the same networks with nncore and its peers, in turn, and compare the times.

Run ``python benchmarks/compare.py --help``; README.md in this directory holds the protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import report
from cases import ACCURACY_GOALS, NETWORKS, PREDICTIONS, TARGETS, USUAL_NETWORKS, Array, Case
from contestants import CONTESTANTS, USUAL_CONTESTANTS
from machine import HERE, UnavailableError, available_cpus, describe
from rounds import Comparison, Row, say
from worker import REMOVED_VARIABLES

PARTS = ["training", "prediction", "accuracy"]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )

    def several(option: str, default: list[str], choices: list[str], help: str) -> None:
        parser.add_argument(
            option, nargs="+", default=default, choices=choices, help=help, metavar=option[2:-1]
        )

    several("--parts", PARTS, PARTS, f"of {', '.join(PARTS)}")
    several("--networks", USUAL_NETWORKS, [*NETWORKS, "all"], f"of {', '.join(NETWORKS)}, or all")
    several("--dtypes", ["float32", "float64"], ["float32", "float64"], "of the whole training")
    several("--optimizers", ["sgd"], ["sgd", "adam"], "sgd is without momentum")
    several(
        "--activations", ["sigmoid"], ["sigmoid", "relu"], "relu comes with linear output units"
    )
    several(
        "--contestants",
        USUAL_CONTESTANTS,
        [*CONTESTANTS, "all"],
        f"of {', '.join(CONTESTANTS)}, or all; the ratios are to the first",
    )
    parser.add_argument(
        "--threads", nargs="+", default=["1", "all"], help="numbers of threads, or all"
    )
    parser.add_argument("--rounds", type=int, default=7, help="samples of each contestant")
    parser.add_argument("--seconds", type=float, default=0.2, help="wanted length of a sample")
    parser.add_argument("--seeds", type=int, default=5, help="trainings to an accuracy")
    parser.add_argument(
        "--full",
        action="store_true",
        help="all networks, contestants, optimizers and activations where no others are given",
    )
    parser.add_argument(
        "--targets",
        action="store_true",
        help="measure what nncore is meant to reach, with 1 and 2 threads, and say what it does",
    )
    parser.add_argument(
        "--keep-variables",
        action="store_true",
        help=f"leave {' and '.join(REMOVED_VARIABLES)} in the environment",
    )
    parser.add_argument(
        "--before",
        metavar="PYTHON",
        help="an interpreter with another nncore, which takes part as 'nncore before'",
    )
    parser.add_argument(
        "--output", type=Path, default=HERE / "results", help="directory for JSON and pictures"
    )
    parser.add_argument("--verbose", action="store_true", help="show what contestants print")
    if parser.parse_known_args(arguments)[0].full:
        parser.set_defaults(
            networks=["all"],
            contestants=["all"],
            optimizers=["sgd", "adam"],
            activations=["sigmoid", "relu"],
        )
    options = parser.parse_args(arguments)
    n_cpus = len(available_cpus())
    if options.targets:
        options.parts = ["training", "prediction"]
        options.optimizers, options.activations = ["sgd"], ["sigmoid"]
        compared = {peer for target in TARGETS.values() for peer in target.times_faster}
        options.contestants = ["nncore", *sorted(compared)]
        options.threads = ["1", str(min(2, n_cpus))]
    if "all" in options.networks:
        options.networks = list(NETWORKS)
    if "all" in options.contestants:
        options.contestants = list(CONTESTANTS)
    options.threads = sorted({n_cpus if n == "all" else int(n) for n in options.threads})
    if not 1 <= options.threads[0] <= options.threads[-1] <= n_cpus:
        parser.error(f"--threads: this process may use 1 to {n_cpus} CPUs")
    if min(options.rounds, options.seeds) < 1 or options.seconds <= 0:
        parser.error("--rounds, --seconds and --seeds must be positive")
    # nncore's own variable; the workers inherit it.
    options.kernels = os.environ.get("NNCORE_KERNELS") or None
    return options


def training_cases(options: argparse.Namespace) -> list[Case]:
    return [
        replace(Case(*NETWORKS[network]), dtype=dtype, optimizer=optimizer, activation=activation)
        for network, dtype, optimizer, activation in product(
            options.networks, options.dtypes, options.optimizers, options.activations
        )
    ]


def digits(directory: Path) -> Iterator[tuple[str, str, str]]:
    """Write what there is of real digits; yield a name, and the training and the test file."""
    from nncore.datasets import load_digits, load_mnist

    images, labels = load_digits()
    # One writer's digits stand together.
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:-360], order[-360:]
    sets = {"digits": ((images[train], labels[train]), (images[test], labels[test]))}
    try:
        sets["mnist"] = load_mnist(os.environ["NNCORE_MNIST"])
    except KeyError:
        say("left out: mnist: NNCORE_MNIST does not name its directory")
    except (OSError, ValueError) as error:
        say(f"left out: mnist: {error}")

    def write(name: str, X: Array, classes: Array) -> str:
        path = directory / f"{name}.npz"
        np.savez(path, X=X, Y=np.eye(10)[classes])
        return str(path)

    for name, (first, second) in sets.items():
        yield name, write(name, *first), write(f"{name}-test", *second)


# A line for the part in the JSON, and how to measure a row of it.
Job = tuple[str, Callable[[Comparison], Row]]


def jobs(options: argparse.Namespace, directory: Path) -> list[Job]:
    """Return every row to be measured, for each number of threads."""
    wanted: list[Job] = []
    if "training" in options.parts:
        wanted += [
            ("training", partial(Comparison.training, case=case))
            for case in training_cases(options)
        ]
    if "prediction" in options.parts:
        for (network, n_rows), dtype in product(PREDICTIONS, options.dtypes):
            case = replace(Case(*NETWORKS[network]), dtype=dtype)
            job = partial(Comparison.prediction, case=case, n_rows=n_rows)
            wanted.append(("prediction", job))
    if "accuracy" in options.parts:
        for name, data_file, test_file in digits(directory):
            goal = ACCURACY_GOALS[name]
            with np.load(data_file) as arrays:
                steps_per_epoch = len(arrays["Y"]) // goal.batch_size
            case = Case(
                goal.sizes,
                goal.batch_size,
                steps_per_epoch,
                activation="relu",
                own_learning_rate=goal.learning_rate,
            )
            job = partial(
                Comparison.accuracy,
                name=name,
                goal=goal,
                case=case,
                data_file=data_file,
                test_file=test_file,
            )
            wanted.append(("accuracy", job))
    return wanted


def git_commit() -> str | None:
    """Return the commit that is checked out, with a mark when files differ from it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every job for every number of threads; Ctrl-C keeps the rows that are finished."""
    start = time.perf_counter()
    present = [name for name in REMOVED_VARIABLES if name in os.environ]
    results: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "base": options.contestants[0],
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": describe(),
        "load_average": os.getloadavg()[0],
        "kept_variables" if options.keep_variables else "removed_variables": present,
        "kernels": options.kernels,
        "contestants": {},
        "left_out": {},
        **{part: [] for part in PARTS},
    }
    if results["load_average"] > 0.5:
        say(f"the machine is busy (load {results['load_average']:.1f}): expect noise")
    if present:
        verb = "kept in" if options.keep_variables else "taken out of"
        say(f"{verb} the environment: {', '.join(present)}")
    with tempfile.TemporaryDirectory() as directory:
        wanted = jobs(options, Path(directory))
        total, count = len(wanted) * len(options.threads), 0
        for n_threads in options.threads:
            with Comparison(options, n_threads, Path(directory)) as comparison:
                results["contestants"][str(n_threads)] = comparison.descriptions()
                results["left_out"].update(comparison.left_out)
                try:
                    for part, job in wanted:
                        row = job(comparison)
                        results[part].append(row)
                        count += 1
                        elapsed = f"[{count}/{total}, {time.perf_counter() - start:.0f} s]"
                        say(f"{elapsed} {report.progress_line(row, results['base'])}")
                except KeyboardInterrupt:
                    say("interrupted: the report covers the rows so far")
                    break
    return results


def main() -> int:
    options = parse_arguments()
    try:
        results = measure(options)
    except UnavailableError as error:
        say(f"nothing to compare with: {options.contestants[0]}: {error}")
        return 1
    if not any(row["seconds"] for part in PARTS for row in results[part]):
        say("nothing was measured")
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "compare.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {path}")
    report.write(results, options.output, with_targets=options.targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
