"""Rounds: the contestants' processes for one number of threads, asked in turn for samples."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from math import isclose
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import worker
from cases import AnyCase
from contestants import CONTESTANTS
from machine import available_cpus, say

# A BLAS's idle threads spin for about 0.1 s, which the next contestant must not pay for.
SETTLING_SECONDS = 0.15


class Comparison(ExitStack):
    """A process per contestant, confined to as many CPUs as there are threads, until it is closed.

    The first contestant is the base. With `source`, a directory with another nncore, it takes part
    once more, as the base "before".
    """

    def __init__(self, contestants: Sequence[str], source: Path | None, n_threads: int) -> None:
        super().__init__()
        self.n_threads = n_threads
        self.processes: dict[str, ProcessPoolExecutor] = {}
        self.left_out: dict[str, str] = {}
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(n_threads)
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(n_threads > 1).lower()}"
        if sys.platform == "linux":
            # The processes inherit the mask. The first CPU usually serves the interrupts.
            cpus = available_cpus()
            os.sched_setaffinity(0, cpus[-n_threads:])
            self.callback(os.sched_setaffinity, 0, cpus)
        base = contestants[0]
        wanted: dict[str, Path | None] = dict.fromkeys(contestants)
        if source is not None:
            wanted[f"{base} before"] = source
        for name, its_source in wanted.items():
            process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self.callback(process.shutdown)
            contestant = name.removesuffix(" before")
            try:
                process.submit(worker.start, contestant, n_threads, its_source).result()
                self.processes[name] = process
            except Exception as error:
                if contestant == base:
                    self.close()
                    sys.exit(f"nothing to compare: {name}: {error}")
                self.left_out[name] = str(error)
                say(f"left out: {name}: {error}")

    def ask(self, name: str, *request: Any) -> Any:
        return self.processes[name].submit(worker.ask, *request).result()

    def descriptions(self) -> dict[str, Any]:
        return {name: self.ask(name, "describe") for name in self.processes}

    def measure(self, case: AnyCase, n_rounds: int, seconds: float) -> dict[str, Any]:
        """Return a row: the seconds per step, or per call, of everybody in each round.

        A contestant that fails is left out of the row.
        """
        answers: dict[str, list[Any]] = {
            name: []
            for name in self.processes
            if case.call in CONTESTANTS[name.removesuffix(" before")].calls
        }
        errors: dict[str, str] = {}
        for request in [("prepare", case, seconds), *[("sample",)] * n_rounds]:
            for name in list(answers):
                if self.n_threads > 1:
                    time.sleep(SETTLING_SECONDS)
                try:
                    answers[name].append(self.ask(name, *request))
                except Exception as error:
                    # What goes wrong in a peer costs that peer its row, not the others their run.
                    errors[name] = f"{type(error).__name__}: {error}"
                    say(f"left out: {case.label}, {case.dtype}: {name}: {errors[name]}")
                    del answers[name]
        losses = {name: values for name, (values, *_) in answers.items() if values}
        _check_losses(f"{case.label}, {case.dtype}", losses)
        return {
            **asdict(case),
            "label": case.label,
            "threads": self.n_threads,
            "operations": case.operations,
            "seconds": {name: samples for name, (_, *samples) in answers.items()},
            "losses": losses,
            "errors": errors,
        }


def _check_losses(what: str, losses: Mapping[str, Sequence[float]]) -> None:
    """Warn of a contestant that is fast because it does not compute what the others compute."""
    typical = [median(values) for values in zip(*losses.values(), strict=True)]
    for name, (first, second) in losses.items():
        # Another first loss is that of other outputs, as scikit-learn's linear ones.
        alike = isclose(first, typical[0], rel_tol=1e-3)
        if not second <= first or (alike and not isclose(second, typical[1], rel_tol=0.05)):
            say(f"suspect: {what}: {name}: losses {first:.4g}, {second:.4g}")
