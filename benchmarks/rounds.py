"""Rounds: the contestants' processes for one number of threads, asked in turn for samples."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import isclose
from pathlib import Path
from statistics import median
from typing import Any

from cases import TARGETS, AccuracyGoal, Case
from contestants import COMPANIONS, PREDICTING
from machine import PeakMeter, UnavailableError, available_cpus, compile_c
from worker import REMOVED_VARIABLES, Worker

# A BLAS's idle threads spin for about 0.1 s; the next contestant shall not pay for them.
SETTLING_SECONDS = 0.15
PEAK_SECONDS = 0.04
MAX_EPOCHS = 100

Row = dict[str, Any]
Samples = dict[str, list[float]]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Comparison:
    """Workers for one number of threads.

    Parameters
    ----------
    options : argparse.Namespace
        Those of ``compare.py``.
    build : Path
        A directory for compiled programs.
    """

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
                program = compile_c("fma_peak.c", build / "fma_peak")
                self.peak = PeakMeter(program, cpus, options.kernels)
                stack.callback(self.peak.close)
                library = compile_c("gemm_only.c", build / "gemm_only.so", "-shared", "-fPIC")
                self.gemm_library = str(library)
            except UnavailableError as error:
                say(f"left out: peak and gemm calls: {error}")
            self._stack = stack.pop_all()

    def _start_workers(self, stack: ExitStack, cpus: list[int]) -> None:
        wanted = {name: (name, cpus, sys.executable) for name in self.options.contestants}
        if self.options.before:
            wanted["nncore before"] = ("nncore", cpus, self.options.before)
        if self.options.targets:
            with_adam, on_one_thread = COMPANIONS
            if self.n_threads == 1:
                wanted[with_adam] = ("nncore", cpus, sys.executable)
            else:
                wanted[on_one_thread] = ("nncore", cpus[-1:], sys.executable)
        removed = () if self.options.keep_variables else REMOVED_VARIABLES
        for name, (contestant, its_cpus, python) in wanted.items():
            try:
                worker = Worker(
                    contestant,
                    its_cpus,
                    python,
                    quiet=not self.options.verbose,
                    removed_variables=removed,
                )
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

    def training(self, case: Case) -> Row:
        """Measure the steps of one case; return its raw samples."""
        target = TARGETS.get(case.network)
        with_adam, _ = COMPANIONS
        names = [
            name
            for name in self.workers
            if name != with_adam or (target is not None and target.large)
        ]
        seconds = self.options.seconds
        losses: dict[str, list[float]] = {}
        with self._turns(names, f"{case.label}, {case.dtype}") as turns:
            for name in names:
                own = replace(case, optimizer="adam") if name == with_adam else case
                answer = turns.ask(name, "prepare", case=own.to_json(), seconds=seconds)
                if answer is not None:
                    losses[name] = answer["losses"]
            gemm = "nncore" in turns.workers and self._prepare_gemm(turns.workers["nncore"])
            gemm_samples: list[float] = []
            samples, peaks = turns.rounds(
                self.options.rounds,
                "sample",
                case.dtype,
                gemm_samples=gemm_samples if gemm else None,
            )
            for name, loss in turns.ask_all("loss"):
                losses[name].append(loss)
            losses.pop(with_adam, None)
            _check_losses(case, losses, turns.workers)
        return {
            **case.to_json(),
            "label": case.label,
            "network": case.network,
            "threads": self.n_threads,
            "operations": case.operations_per_step,
            "seconds": samples,
            "gemm_seconds": gemm_samples,
            "peak_operations_per_second": peaks,
            "instruction_set": self.peak.instruction_set if self.peak is not None else None,
            "losses": losses,
            "errors": turns.errors,
        }

    def prediction(self, case: Case, n_rows: int) -> Row:
        """Measure calls with so many rows; return raw samples."""
        names = [name for name in self.workers if name.removesuffix(" before") in PREDICTING]
        label = f"{case.network}, {n_rows:,} row{'s' * (n_rows > 1)}"
        with self._turns(names, f"{label}, {case.dtype}") as turns:
            arguments = {"case": case.to_json(), "n_rows": n_rows, "seconds": self.options.seconds}
            for _ in turns.ask_all("prepare_prediction", **arguments):
                pass
            samples, peaks = turns.rounds(self.options.rounds, "sample_prediction", case.dtype)
        return {
            "label": label,
            "network": case.network,
            "rows": n_rows,
            "dtype": case.dtype,
            "threads": self.n_threads,
            "operations": case.operations_per_prediction(n_rows),
            "seconds": samples,
            "peak_operations_per_second": peaks,
            "errors": turns.errors,
        }

    def accuracy(
        self, name: str, goal: AccuracyGoal, case: Case, data_file: str, test_file: str
    ) -> Row:
        """Measure the time to an accuracy with several seeds; return raw samples and accuracies.

        First the epochs that it takes are counted, with an evaluation after each; then as many
        are timed in one go.
        """
        names = [worker for worker in self.workers if worker not in COMPANIONS]
        label = f"{name} to {goal.accuracy:.0%}, {case.network}, {case.batch_size}"
        samples: Samples = {}
        accuracies: dict[str, list[list[float]]] = {}
        with self._turns(names, label) as turns:
            for seed in range(self.options.seeds):
                own = replace(case, seed=seed, data_file=data_file)
                arguments = {
                    "case": own.to_json(),
                    "test_file": test_file,
                    "accuracy": goal.accuracy,
                    "max_epochs": MAX_EPOCHS,
                }
                for worker, shares in turns.ask_all("reach_accuracy", **arguments):
                    accuracies.setdefault(worker, []).append(shares)
                for worker, sample in turns.ask_all("sample_epochs", seconds=self.options.seconds):
                    samples.setdefault(worker, []).append(sample)
        return {
            "label": label,
            "data": name,
            "goal": goal.accuracy,
            "dtype": case.dtype,
            "threads": self.n_threads,
            "seconds": {worker: samples[worker] for worker in turns.workers},
            "accuracies": {worker: accuracies[worker] for worker in turns.workers},
            "errors": turns.errors,
        }

    @contextmanager
    def _turns(self, names: list[str], label: str) -> Iterator[_Turns]:
        yield (turns := _Turns(self, names, label))
        for name in turns.errors:
            if self.workers[name].process.poll() is not None:
                del self.workers[name]

    def _prepare_gemm(self, worker: Worker) -> bool:
        if self.gemm_library is None:
            return False
        try:
            worker.ask("prepare_gemm", library=self.gemm_library, seconds=self.options.seconds / 2)
        except UnavailableError as error:
            say(f"left out: gemm calls: {error}")
            return False
        return True


class _Turns:
    """The workers that take part in a row; one that fails is done without from then on."""

    def __init__(self, comparison: Comparison, names: list[str], label: str) -> None:
        self.workers = {name: comparison.workers[name] for name in names}
        self.errors: dict[str, str] = {}
        self._comparison, self._label = comparison, label

    def ask(self, name: str, action: str, **arguments: Any) -> Any:
        """Return a worker's answer, None from one that failed."""
        try:
            return self.workers[name].ask(action, **arguments)
        except UnavailableError as error:
            self.errors[name] = str(error)
            say(f"left out: {self._label}: {name}: {error}")
            del self.workers[name]
            return None

    def ask_all(self, action: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """Ask one after the other; yield the names and answers of those that did not fail."""
        for name in list(self.workers):
            self._settle()
            answer = self.ask(name, action, **arguments)
            if name in self.workers:
                yield name, answer

    def rounds(
        self, n_rounds: int, action: str, dtype: str, gemm_samples: list[float] | None = None
    ) -> tuple[Samples, list[float]]:
        """Return everybody's samples, and the peak's, in operations per second."""
        samples: Samples = {name: [] for name in self.workers}
        peaks: list[float] = []
        for _ in range(n_rounds):
            self._settle()
            if self._comparison.peak is not None:
                peaks.append(self._comparison.peak.sample(dtype, PEAK_SECONDS))
            for name, sample in self.ask_all(action):
                samples[name].append(sample)
            if gemm_samples is not None and "nncore" in self.workers:
                self._settle()
                gemm_samples.append(self.workers["nncore"].ask("sample_gemm"))
        return {name: samples[name] for name in self.workers}, peaks

    def _settle(self) -> None:
        if self._comparison.n_threads > 1:
            time.sleep(SETTLING_SECONDS)


def _check_losses(case: Case, losses: dict[str, list[float]], finished: dict[str, Worker]) -> None:
    """Warn of a contestant that is fast because it does not learn what the others learn.

    The losses are those of the first parameters, after two epochs, and in the end.
    """
    losses = {name: values for name, values in losses.items() if name in finished}
    typical = [median(values) for values in zip(*losses.values(), strict=True)]
    for name, (first, second, last) in losses.items():
        # Another first loss is that of other outputs, as scikit-learn's linear ones.
        alike = isclose(first, typical[0], rel_tol=1e-3)
        if not last < first or (alike and not isclose(second, typical[1], rel_tol=0.05)):
            figures = f"{first:.4g}, {second:.4g}, {last:.4g}"
            say(f"suspect: {case.label}, {case.dtype}: {name}: losses {figures}")
