"""How many threads to use, and how to keep BLAS to one."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import threadpoolctl

from ._checks import as_integer

__all__ = [
    "as_n_threads",
    "at_work",
    "available_threads",
    "beside",
    "blas_on_one_thread",
    "forked",
    "is_large",
    "start",
    "wait_for",
]

# A thread pays for itself from so many multiplications on: per step because of the barriers, per
# call because of its start. benchmarks/README.md has the measurement.
_WORK_PER_STEP = 350_000
_WORK_PER_CALL = 10_000_000

# More would only wait for each other.
_MOST_THREADS = 1024

# What Python says if the system has no more threads.
_NO_MORE_THREADS = "can't start new thread"

# How long to wait for a thread before looking whether the process was forked meanwhile, in seconds.
_PATIENCE = 0.5

# Of what follows, which all threads use, and handlers of signals while their thread has it.
_lock = threading.RLock()

# The threads in blocks of `at_work`; keys tell the blocks apart. Negative numbers are processes.
_at_work: dict[object, int] = {}


@functools.cache
def _cgroup_limit() -> float:
    """Return how many processors the container may use, infinity without a limit.

    Cached, since reading the file takes as long as a small prediction.
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
    """Return how many threads the affinity mask, the cgroup and ``OMP_NUM_THREADS`` allow."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    count = math.ceil(max(1.0, min(count, _cgroup_limit())))
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(count, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else count


def as_n_threads(n_threads: int | None, step: int, call: int) -> int:
    """Return the number of threads for steps, and a call, of so many multiplications."""
    if n_threads is not None:
        return as_integer("n_threads", n_threads, high=_MOST_THREADS)
    wanted = min(step // _WORK_PER_STEP, call // _WORK_PER_CALL)
    return 1 if wanted < 2 else min(wanted, max(1, available_threads() // (1 + _others_at_work())))


def is_large(step: int) -> bool:
    """Whether steps of so many multiplications may take several threads."""
    return step >= 2 * _WORK_PER_STEP


def start(thread: threading.Thread) -> bool:
    """Start a thread; return False if the system has no more of them.

    What a signal's handler raises meanwhile is raised here.

    Python raises KeyError instead if the thread has begun by then: it removes the thread from its
    list of those that are starting, which the thread has done itself.
    """
    try:
        thread.start()
    except KeyError as error:
        raise error.__context__ or error from None
    except RuntimeError as error:
        if str(error) != _NO_MORE_THREADS:
            raise
        return False
    return True


def wait_for(thread: threading.Thread) -> None:
    """Wait until a thread has ended, which in a process forked meanwhile it has."""
    while thread.is_alive():
        thread.join(_PATIENCE)


def forked() -> RuntimeError:
    """Return the error of a process that a handler or callback forked while threads worked."""
    return RuntimeError(
        "this process was forked while a call used several threads, which it does not have; only "
        "the process that forked completes the call"
    )


@contextmanager
def at_work() -> Iterator[None]:
    """Count the calling thread among those that share the processors, each with an equal part.

    So calls in several threads, of a thread pool or of joblib, do not start more threads than there
    are processors.
    """
    key = object()
    with _lock:
        _at_work[key] = threading.get_ident()
    try:
        yield
    finally:
        with _lock:
            del _at_work[key]


@contextmanager
def beside(n_processes: int) -> Iterator[None]:
    """Count so many other processes among those that share the processors, like threads."""
    keys = [object() for _ in range(n_processes)]
    with _lock:
        _at_work.update({key: -1 - i for i, key in enumerate(keys)})
    try:
        yield
    finally:
        with _lock:
            for key in keys:
                del _at_work[key]


def _others_at_work() -> int:
    with _lock:
        return len({*_at_work.values(), threading.get_ident()}) - 1


# The blocks that keep BLAS to one thread at present, each as the thread that runs it, and what to
# set when the last of them is left: functions, each with the number of threads found.
_users: list[int] = []
_original: list[tuple[_BlasThreads, int]] = []


class _BlasThreads:
    """The number of threads of a BLAS library, read and set directly.

    threadpoolctl's own limits take effect in the one thread of a process that set the first, and
    keep other threads from setting any; so they do not serve code that may run in every thread.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._setter: Callable[[int], object] = library.set_num_threads
        if library.internal_api == "openblas":
            for getter in library.check_symbols:
                name = getter.replace("_get_num_threads", "_set_num_threads")
                if hasattr(library.dynlib, name):
                    self._setter = getattr(library.dynlib, name)

    def get(self) -> int:
        count: int = self._library.get_num_threads()
        return count

    def set(self, count: int) -> None:
        self._setter(count)


@functools.cache
def _blas_libraries() -> list[_BlasThreads]:
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return [_BlasThreads(library) for library in libraries]


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Keep BLAS to the thread that calls it, until the last of all such blocks is left."""
    with _lock:
        if not _users:
            _original[:] = [(library, library.get()) for library in _blas_libraries()]
        for library, _ in _original:
            library.set(1)
        _users.append(threading.get_ident())
    try:
        yield
    finally:
        with _lock:
            _users.remove(threading.get_ident())
            if not _users:
                _restore()


def _restore() -> None:
    """Give libraries their threads back, unless others have changed the number meanwhile."""
    for library, count in _original:
        if library.get() == 1:
            library.set(count)


def _forget_other_threads() -> None:
    """Leave the blocks of threads that a forked process does not have."""
    global _lock
    _lock = threading.RLock()
    was_limited = bool(_users)
    here = threading.get_ident()
    for key in [key for key, thread in _at_work.items() if thread != here]:
        del _at_work[key]
    _users[:] = [user for user in _users if user == here]
    if was_limited and not _users:
        _restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
