"""How many threads to use, and BLAS's threads kept from joining in."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import threadpoolctl

from ._checks import as_integer

__all__ = ["as_n_threads", "available_threads", "blas_on_one_thread"]

# Below so many multiplications per thread another one loses more than it gains, at the barriers of
# a step or by being started for a call; measured in benchmarks/README.md.
_WORK_PER_STEP = 350_000
_WORK_PER_CALL = 10_000_000

# More than there are processors only wait for each other.
_MOST_THREADS = 1024


@functools.cache
def _cgroup_limit() -> float:
    """Return the processors that the container may use, infinity without a limit.

    Read once: the file takes as long as a small prediction.
    """
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        directory = Path("/sys/fs/cgroup/cpu")
        limit = int((directory / "cpu.cfs_quota_us").read_text())
        return limit / int((directory / "cpu.cfs_period_us").read_text()) if limit > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def available_threads() -> int:
    """Return how many threads can run at once.

    The affinity mask, a cgroup's quota and ``OMP_NUM_THREADS`` are respected.
    """
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    count = math.ceil(max(1.0, min(count, _cgroup_limit())))
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(count, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else count


def as_n_threads(n_threads: int | None, step: int, call: int) -> int:
    """Return the threads to use where a step, and a call, takes so many multiplications."""
    if n_threads is not None:
        return as_integer("n_threads", n_threads, high=_MOST_THREADS)
    wanted = min(step // _WORK_PER_STEP, call // _WORK_PER_CALL)
    return 1 if wanted < 2 else min(wanted, available_threads())


_lock = threading.Lock()
_controller: Any = None
_limiter: Any = None
# The thread of each block that is being run.
_users: list[int] = []


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Keep BLAS to the thread that calls it, until the last of all such blocks is left."""
    global _controller, _limiter
    with _lock:
        if not _users:
            if _controller is None:
                _controller = threadpoolctl.ThreadpoolController()
            _limiter = _controller.limit(limits=1, user_api="blas")
        _users.append(threading.get_ident())
    try:
        yield
    finally:
        with _lock:
            _users.remove(threading.get_ident())
            if not _users:
                _limiter.restore_original_limits()


def _forget_other_threads() -> None:
    """Leave the blocks of threads that a forked process does not have."""
    global _lock
    _lock = threading.Lock()
    was_limited = bool(_users)
    _users[:] = [user for user in _users if user == threading.get_ident()]
    if was_limited and not _users:
        _limiter.restore_original_limits()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
