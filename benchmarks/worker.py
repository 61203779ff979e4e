"""A contestant's process, and the handle by which the comparison asks it for samples.

The two speak in lines of JSON. Whatever a contestant's package prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from cases import Case, mean_loss
from contestants import CONTESTANTS, Contestant
from machine import GemmSequence, UnavailableError, pinned

# Whoever has these set gets slower BLAS kernels than the users whom the figures are for.
REMOVED_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Worker:
    """A contestant in a process of its own, confined to some CPUs, with as many threads.

    Raises
    ------
    UnavailableError
        Its package is not installed, here and in `ask` when the contestant failed.
    """

    def __init__(
        self,
        name: str,
        cpus: Sequence[int],
        python: str = sys.executable,
        *,
        quiet: bool = True,
        removed_variables: Sequence[str] = REMOVED_VARIABLES,
    ) -> None:
        environment = {
            key: value for key, value in os.environ.items() if key not in removed_variables
        }
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(len(cpus))))
        environment["JAX_PLATFORMS"] = "cpu"
        if len(cpus) == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        with pinned(cpus):
            self.process = subprocess.Popen(
                [python, __file__, name, str(len(cpus))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if quiet else None,
                text=True,
                env=environment,
                # Ctrl-C is the comparison's to answer.
                start_new_session=True,
            )
        try:
            self.description = self.ask("describe")
        except UnavailableError:
            self.close()
            raise

    def ask(self, action: str, **arguments: Any) -> Any:
        """Have the worker do something and wait for what it returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([action, arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UnavailableError(f"its process ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise UnavailableError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait()


class _Server:
    """The worker's side: one method per action."""

    def __init__(self, name: str, n_threads: int) -> None:
        self.name, self.n_threads = name, n_threads
        self.contestant: Contestant
        self.gemm: GemmSequence

    def build(self, case: dict[str, Any]) -> None:
        self.case = Case.from_json(case)
        contestant, _ = CONTESTANTS[self.name]
        self.contestant = contestant(self.case, self.n_threads)

    def describe(self) -> dict[str, Any]:
        """Import the contestant's package by building a tiny network; return versions and BLAS."""
        contestant, distributions = CONTESTANTS[self.name]
        tiny = Case(sizes=(2, 2, 1), batch_size=1, steps_per_epoch=2, activation="relu")
        try:
            contestant(tiny, self.n_threads)
        except ImportError as error:
            raise UnavailableError(f"not installed ({error})") from error
        versions = {}
        for distribution in distributions:
            try:
                versions[distribution] = version(distribution)
            except PackageNotFoundError:
                versions[distribution] = "unknown"
        return {"versions": versions, "blas": _blas(), "kernels": _kernels()}

    def prepare(self, case: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Build the network, warm up, choose how many epochs make a sample."""
        self.build(case)
        losses = [self.loss()]
        self.epochs = 1
        self.sample()
        self.epochs = max(1, round(seconds / (self.sample() * self.case.steps_per_epoch)))
        # Two epochs behind everyone now: this loss is comparable, later ones are not.
        losses.append(self.loss())
        return {"epochs": self.epochs, "losses": losses}

    def sample(self) -> float:
        """Train; return seconds per step."""
        start = time.perf_counter()
        self.contestant.fit(self.epochs)
        elapsed = time.perf_counter() - start
        return elapsed / (self.epochs * self.case.steps_per_epoch)

    def loss(self) -> float:
        X, Y = self.case.data()
        return mean_loss(self.contestant.predict(X), Y)

    def prepare_prediction(self, case: dict[str, Any], n_rows: int, seconds: float) -> None:
        """Build the network, warm up, choose how many calls make a sample."""
        self.build(case)
        X, _ = self.case.data()
        self.rows = np.resize(X, (n_rows, X.shape[1]))
        self.calls = 1
        while (elapsed := self.sample_prediction() * self.calls) < seconds / 4:
            self.calls *= 4
        self.calls = max(1, round(self.calls * seconds / elapsed))

    def sample_prediction(self) -> float:
        """Predict; return seconds per call."""
        predict, rows = self.contestant.predict, self.rows
        start = time.perf_counter()
        for _ in range(self.calls):
            predict(rows)
        return (time.perf_counter() - start) / self.calls

    def reach_accuracy(
        self, case: dict[str, Any], test_file: str, accuracy: float, max_epochs: int
    ) -> list[float]:
        """Train until so large a share of the test data is right; return it after each epoch."""
        self.build(case)
        with np.load(test_file) as arrays:
            X, labels = arrays["X"].astype(self.case.dtype), arrays["Y"].argmax(axis=1)
        shares: list[float] = []
        while not shares or shares[-1] < accuracy:
            if len(shares) == max_epochs:
                raise UnavailableError(f"{max(shares):.1%} at best in {max_epochs} epochs")
            self.contestant.fit(1)
            outputs = self.contestant.predict(X)
            shares.append(float(np.mean(outputs.argmax(axis=1) == labels)))
        self.epochs = len(shares)
        return shares

    def sample_epochs(self, seconds: float) -> float:
        """Train as many epochs in one go, again and again; return the seconds of one go."""
        goes, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds or goes == 0:
            self.contestant.fit(self.epochs)
            goes += 1
        return elapsed / goes

    def prepare_gemm(self, library: str, seconds: float) -> None:
        self.gemm = GemmSequence(library, self.case)
        self.gemm.calibrate(seconds)

    def sample_gemm(self) -> float:
        """Make a step's gemm calls only; return seconds per step."""
        return self.gemm.seconds_per_step()

    def serve(self, requests: TextIO, answers: TextIO) -> None:
        for line in requests:
            action, arguments = json.loads(line)
            answer: dict[str, Any]
            try:
                answer = {"result": getattr(self, action)(**arguments)}
            except Exception as error:
                # Whatever goes wrong in a peer costs that peer its row, not the others their run.
                message = str(error).strip().splitlines() or [""]
                name = "" if isinstance(error, UnavailableError) else f"{type(error).__name__}: "
                answer = {"error": name + message[0]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _kernels() -> str | None:
    """Return which of its kernels nncore chose, in its own process."""
    module = sys.modules.get("nncore._kernels")
    return getattr(module, "KERNELS", None)


def _blas() -> list[dict[str, Any]]:
    """Return the kernels and threads of every BLAS and thread pool in this process."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    wanted = ("internal_api", "version", "architecture", "num_threads")
    return [
        {
            # Which package's copy it is, without the directory and the hash in its name.
            "library": re.sub(r"-[0-9a-f]{6,}", "", Path(pool["filepath"]).name),
            **{key: pool.get(key) for key in wanted},
        }
        for pool in threadpool_info()
    ]


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _Server(sys.argv[1], int(sys.argv[2])).serve(sys.stdin, answers)
