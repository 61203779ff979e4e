"""Calls with too little memory, and calls without more threads."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import child

limits_memory = pytest.mark.skipif(
    sys.platform != "linux", reason="needs limits of the address space"
)
limits_threads = pytest.mark.skipif(sys.platform != "linux", reason="needs pthread_create to fail")

# Follows a script that defines `call` and `state`.
_EXHAUST = """
import json
import resource

LEVELS = 20

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

_, hard = resource.getrlimit(resource.RLIMIT_AS)
outcomes = []
for level in range(LEVELS):
    before = state()
    extra = 0 if level == 0 else int(10_000 * 2 ** (level * 16 / LEVELS))
    resource.setrlimit(resource.RLIMIT_AS, (used() + extra, hard))
    error = None
    try:
        call()
    except MemoryError as raised:
        error = raised
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if error is not None and state() != before:
        raise AssertionError(f"changed with {extra} bytes") from error
    outcomes.append("done" if error is None else "MemoryError")
call()
print(json.dumps(outcomes))
"""


def check_exhaustion(setup: str, call: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a call with little memory, then more; assert that it raises MemoryError or succeeds.

    Parameters
    ----------
    setup : str
        A script with the arguments `call` and `folder`. It defines ``call()``, and ``state()``,
        which returns what MemoryError must not change.
    call : str
    folder : path
    monkeypatch : MonkeyPatch
    """
    # Otherwise the C library has memory of its own, in which small calls succeed.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    process = child(setup + _EXHAUST, call, folder)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    outcomes = json.loads(out)
    assert len(outcomes) == 20
    assert outcomes[-1] == "done"


@contextmanager
def no_more_threads() -> Iterator[None]:
    """Let the system refuse to start threads: no stack is as large as they would need."""
    threading.stack_size(1 << 60)
    try:
        yield
    finally:
        threading.stack_size(0)
