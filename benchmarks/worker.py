"""What runs in a contestant's process: `start` once, then `ask` for the worker's methods."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from cases import AnyCase
from contestants import CONTESTANTS
from threadpoolctl import threadpool_info


class Worker:
    """A contestant at work."""

    def __init__(self, name: str, n_threads: int, source: Path | None) -> None:
        self.contestant_type, self.n_threads = CONTESTANTS[name], n_threads
        modules = [importlib.import_module(name) for name in self.contestant_type.packages]
        self.versions = {module.__name__: module.__version__ for module in modules}
        self.kernels: str | None = None
        if source is not None and not Path(str(modules[0].__file__)).is_relative_to(source):
            raise ImportError(f"imported {modules[0].__file__}, expected a file in {source}")

    def describe(self) -> dict[str, Any]:
        """Return versions, kernels and BLAS, once the contestant has worked."""
        keys = ("internal_api", "version", "architecture")
        blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        return {
            "versions": self.versions,
            "kernels": self.kernels,
            "blas": [{key: pool.get(key) for key in keys} for pool in blas],
        }

    def prepare(self, case: AnyCase, seconds: float) -> list[float]:
        """Start a case, warm up, choose how many repetitions make a sample; return the losses."""
        self.case, self.count = case, 1
        self.contestant = self.contestant_type(case, self.n_threads)
        self.kernels = self.contestant.kernels
        losses = self.contestant.warm_up()
        while (elapsed := self.sample() * self.count * case.steps) < seconds / 4:
            self.count *= 4
        self.count = max(1, round(self.count * seconds / elapsed))
        return losses

    def sample(self) -> float:
        """Return the seconds that a step takes, or a call."""
        start = time.perf_counter()
        self.contestant.repeat(self.count)
        return (time.perf_counter() - start) / (self.count * self.case.steps)

    def latencies(self, count: int, interval: float) -> list[float]:
        """Return the seconds of calls that begin `interval` seconds apart.

        A call that ends after the next one's time delays that one, but not those after it.
        """
        call, data = getattr(self.contestant, self.case.call), self.contestant.data()
        results, due = [], time.perf_counter()
        for _ in range(count):
            while (begin := time.perf_counter()) < due:
                pass
            call(*data)
            end = time.perf_counter()
            results.append(end - begin)
            due = max(due + interval, end)
        return results


_worker: Worker


def start(name: str, n_threads: int, source: Path | None) -> None:
    """Make this process the contestant's; it imports nncore from `source` where that is given."""
    global _worker
    # The comparison handles Ctrl-C, and what packages print would end up among its tables.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if source is not None:
        sys.path.insert(0, str(source))
    _worker = Worker(name, n_threads, source)


def ask(action: str, *arguments: Any) -> Any:
    return getattr(_worker, action)(*arguments)
