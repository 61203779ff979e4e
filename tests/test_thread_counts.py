"""How many threads a call uses."""

import _thread
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CALLS, Array, data, every_call, make, refused

import nncore
from nncore import _threads
from nncore._threads import available_threads


def problem(
    sizes: tuple[int, ...] = (37, 23, 19, 5), n: int = 211
) -> tuple[nncore.Network, Array, Array]:
    net = make(sizes, dtype="float32")
    return net, *data(net, n, np.random.default_rng(8))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of the worker threads started from now on."""
    threads = []
    start = _thread.start_new_thread

    def note(*arguments: Any) -> int:
        threads.append(start(*arguments))
        return threads[-1]

    monkeypatch.setattr(_thread, "start_new_thread", note)
    return threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Simulate eight processors and no other limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(_threads, "_cgroup_limit", lambda: math.inf)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return monkeypatch


@every_call
@pytest.mark.parametrize("n_threads", [1, 2, 5, np.int64(3)])
def test_an_explicit_number_of_threads_is_used_as_given(
    call: Callable[..., Any], n_threads: int, started: list[int]
) -> None:
    net, X, Y = problem()
    call(net, X, Y, n_threads=n_threads)
    assert len(started) == n_threads - 1


@every_call
def test_small_work_is_done_by_one_thread(
    call: Callable[..., Any], machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    net, X, Y = problem((5, 4, 3), n=20)
    call(net, X, Y)
    assert started == []


@every_call
def test_large_work_is_done_by_as_many_threads_as_are_available(
    call: Callable[..., Any], machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    machine.setenv("OMP_NUM_THREADS", "3")
    net, X, Y = problem((100, 1000, 1), n=400)
    options = {"batch_size": 400} if call is CALLS["fit"] else {}
    call(net, X, Y, **options)
    assert len(started) == 2


def test_a_short_call_starts_no_threads_for_its_steps(
    machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    net, X, Y = problem((100, 100, 1), n=64)
    net.fit(X, Y, epochs=2, batch_size=64)
    assert started == []
    net.fit(np.tile(X, (20, 1)), np.tile(Y, (20, 1)), batch_size=64)
    assert len(started) > 0


def test_calls_in_several_threads_share_the_processors(
    machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    net, X, Y = problem((100, 1000, 1), n=400)
    counts = []

    def fit() -> None:
        before = len(started)
        net.fit(X, Y, batch_size=400)
        counts.append(1 + len(started) - before)

    fit()
    with net.session(10**6, batch_size=400):
        fit()
        other = threading.Thread(target=fit)
        other.start()
        other.join()
    fit()
    assert counts == [8, 8, 4, 8]


@pytest.mark.parametrize(
    ("n_threads", "error", "got"),
    [
        (0, ValueError, "at least 1, got 0"),
        (-1, ValueError, "at least 1, got -1"),
        (2**31, ValueError, "got 2147483648"),
        (2.0, TypeError, "integer, got 2.0"),
        ("2", TypeError, "integer, got '2'"),
        (True, TypeError, "integer, got True"),
    ],
    ids=["0", "-1", "2**31", "2.0", "'2'", "True"],
)
@every_call
def test_wrong_numbers_of_threads_are_refused(
    call: Callable[..., Any], n_threads: Any, error: type[Exception], got: str
) -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    options = {"optimizer": optimizer} if call is CALLS["fit"] else {}
    with refused(error, "n_threads", got, unchanged=[net, optimizer]):
        call(net, X, Y, n_threads=n_threads, **options)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1),
        ("4", 4),
        (" 4 ", 4),
        ("4,2", 4),
        ("16", 8),
        ("", 8),
        ("0", 8),
        ("-2", 8),
        ("many", 8),
        ("²", 8),
        (",4", 8),
    ],
)
def test_omp_num_threads_limits_the_threads(
    value: str, expected: int, machine: pytest.MonkeyPatch
) -> None:
    machine.setenv("OMP_NUM_THREADS", value)
    assert available_threads() == expected


# The contents of the system's files; version 1 of cgroups has its own directory.
CGROUPS = {
    "unlimited": ({"cpu.max": "max 100000"}, 8),
    "two and a half": ({"cpu.max": "250000 100000"}, 3),
    "half": ({"cpu.max": "50000 100000"}, 1),
    "more than there are": ({"cpu.max": "1600000 100000"}, 8),
    "unreadable": ({"cpu.max": "all of them"}, 8),
    "without a period": ({"cpu.max": "50000 0"}, 8),
    "none": ({}, 8),
    "v1": ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    "v1, unlimited": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    "v1, without a period": ({"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "0"}, 8),
}


@pytest.mark.parametrize(("files", "expected"), CGROUPS.values(), ids=CGROUPS)
def test_quota_of_the_cgroup_limits_the_threads(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    # Without the cache: the quota is read once per process.
    monkeypatch.setattr(_threads, "_cgroup_limit", _threads._cgroup_limit.__wrapped__)
    monkeypatch.setattr(
        _threads, "Path", lambda name: tmp_path / Path(name).relative_to("/sys/fs/cgroup")
    )
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert available_threads() == expected
