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
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from math import isclose
from pathlib import Path
from statistics import median
from typing import Any

import report
from cases import NETWORKS, USUAL_NETWORKS, Case
from contestants import CONTESTANTS, USUAL_CONTESTANTS
from machine import HERE, PeakMeter, UnavailableError, available_cpus, compile_c, describe
from worker import REMOVED_VARIABLES, Worker

# A BLAS's idle threads spin for about 0.1 s; the next contestant shall not pay for them.
SETTLING_SECONDS = 0.15
PEAK_SECONDS = 0.04


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )

    def several(option: str, default: list[str], choices: list[str], help: str) -> None:
        parser.add_argument(
            option, nargs="+", default=default, choices=choices, help=help, metavar=option[2:-1]
        )

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
    parser.add_argument(
        "--before",
        metavar="PYTHON",
        help="an interpreter with another nncore, which takes part as 'nncore before'",
    )
    parser.add_argument(
        "--output", type=Path, default=HERE / "results", help="directory for JSON and pictures"
    )
    parser.add_argument("--verbose", action="store_true", help="show what contestants print")
    options = parser.parse_args(arguments)
    if "all" in options.networks:
        options.networks = list(NETWORKS)
    if "all" in options.contestants:
        options.contestants = list(CONTESTANTS)
    n_cpus = len(available_cpus())
    options.threads = sorted({n_cpus if n == "all" else int(n) for n in options.threads})
    if not 1 <= options.threads[0] <= options.threads[-1] <= n_cpus:
        parser.error(f"--threads: this process may use 1 to {n_cpus} CPUs")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    return options


def cases(options: argparse.Namespace) -> list[Case]:
    return [
        replace(Case(*NETWORKS[network]), dtype=dtype, optimizer=optimizer, activation=activation)
        for network, dtype, optimizer, activation in product(
            options.networks, options.dtypes, options.optimizers, options.activations
        )
    ]


class Comparison:
    """Workers for one number of threads, asked in turn for each case."""

    def __init__(self, options: argparse.Namespace, n_threads: int, build: Path) -> None:
        self.options, self.n_threads = options, n_threads
        # The last CPUs: the first one usually serves the interrupts.
        cpus = available_cpus()[-n_threads:]
        self.workers: dict[str, Worker] = {}
        self.left_out: dict[str, str] = {}
        self.gemm_library: str | None = None
        self.peak: PeakMeter | None = None
        with ExitStack() as stack:
            self._start_workers(stack, cpus)
            try:
                self.peak = PeakMeter(compile_c("fma_peak.c", build / "fma_peak"), cpus)
                stack.callback(self.peak.close)
                library = compile_c("gemm_only.c", build / "gemm_only.so", "-shared", "-fPIC")
                self.gemm_library = str(library)
            except UnavailableError as error:
                say(f"left out: peak and gemm calls: {error}")
            self._stack = stack.pop_all()

    def _start_workers(self, stack: ExitStack, cpus: list[int]) -> None:
        pythons = dict.fromkeys(self.options.contestants, sys.executable)
        if self.options.before:
            pythons["nncore before"] = self.options.before
        for name, python in pythons.items():
            contestant = name.removesuffix(" before")
            try:
                worker = Worker(contestant, cpus, python, quiet=not self.options.verbose)
            except UnavailableError as error:
                if name == self.options.contestants[0]:
                    raise
                self.left_out[name] = str(error)
                say(f"left out: {name}: {error}")
                continue
            stack.callback(worker.close)
            self.workers[name] = worker

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def descriptions(self) -> dict[str, Any]:
        return {name: worker.description for name, worker in self.workers.items()}

    def row(self, case: Case) -> dict[str, Any]:
        """Measure one case; return its raw samples."""
        errors: dict[str, str] = {}
        losses: dict[str, list[float]] = {}
        workers = dict(self.workers)

        def attempt(name: str, action: str, **arguments: Any) -> Any:
            """Ask a worker, and do without it from the first failure on."""
            try:
                return workers[name].ask(action, **arguments)
            except UnavailableError as error:
                errors[name] = str(error)
                say(f"left out: {case.label}, {case.dtype}: {name}: {error}")
                del workers[name]
                if self.workers[name].process.poll() is not None:
                    del self.workers[name]
                return None

        seconds = self.options.seconds
        for name in list(workers):
            answer = attempt(name, "prepare", case=case.to_json(), seconds=seconds)
            if answer is not None:
                losses[name] = answer["losses"]
        gemm = "nncore" in workers and self._prepare_gemm(workers["nncore"])

        samples: dict[str, list[float]] = {name: [] for name in workers}
        gemm_samples: list[float] = []
        peak_samples: list[float] = []
        for _ in range(self.options.rounds):
            if self.peak is not None:
                peak_samples.append(self.peak.sample(case.dtype, PEAK_SECONDS))
            for name in list(workers):
                self._settle()
                sample = attempt(name, "sample")
                if sample is not None:
                    samples[name].append(sample)
            if gemm and "nncore" in workers:
                self._settle()
                gemm_samples.append(workers["nncore"].ask("sample_gemm"))
            self._settle()
        for name in list(workers):
            loss = attempt(name, "loss")
            if loss is not None:
                losses[name].append(loss)
        check_losses(case, losses)
        return {
            **case.to_json(),
            "label": case.label,
            "threads": self.n_threads,
            "operations_per_step": case.operations_per_step,
            "seconds_per_step": {name: samples[name] for name in workers},
            "gemm_seconds_per_step": gemm_samples,
            "peak_operations_per_second": peak_samples,
            "instruction_set": self.peak.instruction_set if self.peak is not None else None,
            "losses": losses,
            "errors": errors,
        }

    def _prepare_gemm(self, worker: Worker) -> bool:
        if self.gemm_library is None:
            return False
        try:
            worker.ask("prepare_gemm", library=self.gemm_library, seconds=self.options.seconds / 2)
        except UnavailableError as error:
            say(f"left out: gemm calls: {error}")
            return False
        return True

    def _settle(self) -> None:
        if self.n_threads > 1:
            time.sleep(SETTLING_SECONDS)


def check_losses(case: Case, losses: dict[str, list[float]]) -> None:
    """Warn of a contestant that is fast because it does not learn what the others learn.

    The losses are those of the first parameters, after two epochs, and in the end.
    """
    typical = [median(values) for values in zip(*losses.values(), strict=True)]
    for name, (first, second, last) in losses.items():
        # Another first loss is that of other outputs, as scikit-learn's linear ones.
        alike = isclose(first, typical[0], rel_tol=1e-3)
        if not last < first or (alike and not isclose(second, typical[1], rel_tol=0.05)):
            figures = f"{first:.4g}, {second:.4g}, {last:.4g}"
            say(f"suspect: {case.label}, {case.dtype}: {name}: losses {figures}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def git_commit() -> str | None:
    """Return the commit that is checked out, with a mark when files differ from it."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every case for every number of threads; Ctrl-C keeps the rows that are finished."""
    start = time.perf_counter()
    results: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "base": options.contestants[0],
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": describe(),
        "load_average": os.getloadavg()[0],
        "removed_variables": [name for name in REMOVED_VARIABLES if name in os.environ],
        "contestants": {},
        "left_out": {},
        "rows": [],
    }
    if results["load_average"] > 0.5:
        say(f"the machine is busy (load {results['load_average']:.1f}): expect noise")
    if results["removed_variables"]:
        say(f"taken out of the environment: {', '.join(results['removed_variables'])}")
    wanted = cases(options)
    total = len(wanted) * len(options.threads)
    with tempfile.TemporaryDirectory() as build:
        for n_threads in options.threads:
            with Comparison(options, n_threads, Path(build)) as comparison:
                results["contestants"][str(n_threads)] = comparison.descriptions()
                results["left_out"].update(comparison.left_out)
                try:
                    for case in wanted:
                        row = comparison.row(case)
                        results["rows"].append(row)
                        elapsed = time.perf_counter() - start
                        count = f"[{len(results['rows'])}/{total}, {elapsed:.0f} s]"
                        say(f"{count} {report.progress_line(row, results['base'])}")
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
    if not any(len(row["seconds_per_step"]) for row in results["rows"]):
        say("nothing was measured")
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "compare.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    say(f"wrote {path}")
    report.write(results, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
