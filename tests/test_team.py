"""Workers that start late or never, and signals while a team works."""

import _thread
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from helpers import CALLS, assert_no_new_threads, data, every_call, make, snapshot

import nncore


@contextmanager
def handler_of(number: int, handler: Callable[..., None]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def start_after(event: threading.Event, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let workers begin only after the event; return the list that records their arrivals."""
    start, arrivals = _thread.start_new_thread, []

    def start_late(function: Callable[..., None], arguments: tuple[Any, ...]) -> int:
        def late() -> None:
            event.wait(20)
            arrivals.append("arrived")
            function(*arguments)

        return start(late, ())

    monkeypatch.setattr(_thread, "start_new_thread", start_late)
    return arrivals


@every_call
def test_workers_that_start_late_do_not_change_the_result(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(n_threads: int) -> list[Any]:
        net = make([37, 23, 5], dtype="float32")
        options = {"epochs": 20, "seed": 0} if call is CALLS["fit"] else {}
        got = call(net, *data(net, 2111, np.random.default_rng(8)), n_threads=n_threads, **options)
        return snapshot(net, got.loss if isinstance(got, nncore.History) else got)

    expected = result(1)
    event = threading.Event()
    arrivals = start_after(event, monkeypatch)
    threading.Timer(0.002, event.set).start()
    assert result(4) == expected
    assert len(arrivals) == 3


def test_the_leader_does_not_wait_for_workers_that_have_not_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fitted(n_threads: int, callbacks: Any = ()) -> bytes:
        net = make([37, 23, 5])
        X, Y = data(net, 200, np.random.default_rng(8))
        net.fit(X, Y, epochs=3, seed=0, n_threads=n_threads, callbacks=callbacks)
        return net.parameters.tobytes()

    expected = fitted(1)
    event, seen = threading.Event(), []
    arrivals = start_after(event, monkeypatch)

    def release(end: nncore.EpochEnd) -> None:
        seen.append(len(arrivals))
        if end.epoch == 2:
            event.set()

    assert fitted(3, [release]) == expected
    assert seen[:2] == [0, 0]
    assert len(arrivals) == 2


SETTRACE = """
import threading
import numpy as np
import nncore

def fail(*arguments):
    raise LookupError("no thread gets past this")

threading.settrace(fail)
X = np.random.default_rng(0).random((2000, 784), np.float32)
net = nncore.Network([784, 300, 10], seed=0)
expected = net.predict(X, n_threads=1)
assert net.predict(X, n_threads=2).tobytes() == expected.tobytes()
print("returned")
"""


def test_a_trace_hook_that_raises_in_new_threads_does_not_matter() -> None:
    process = subprocess.run(
        [sys.executable, "-c", SETTRACE], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.stdout == "returned\n", process.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_handler_that_raises_while_the_leader_waits_for_workers_to_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = make([37, 23, 5])
    X, _ = data(net, 50, np.random.default_rng(8))
    start, event, handled = _thread.start_new_thread, threading.Event(), []

    def start_late(function: Callable[..., None], arguments: tuple[Any, ...]) -> int:
        def late() -> None:
            # By now the leader has done all the work, or ends it for the signal.
            os.kill(os.getpid(), signal.SIGUSR1)
            event.wait(20)
            function(*arguments)

        return start(late, ())

    def handler(number: int, frame: Any) -> None:
        handled.append(number)
        # Send a second one, which the leader must handle as well while it waits.
        if len(handled) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            event.set()
        raise LookupError(f"handler {len(handled)}")

    monkeypatch.setattr(_thread, "start_new_thread", start_late)
    with (
        assert_no_new_threads(),
        handler_of(signal.SIGUSR1, handler),
        pytest.raises(LookupError, match="handler"),
    ):
        net.predict(X, n_threads=2)
    assert len(handled) == 2
    monkeypatch.undo()
    assert net.predict(X, n_threads=2).tobytes() == net.predict(X, n_threads=1).tobytes()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("n_threads", [3, 24])
def test_a_handler_that_raises_ends_training_after_a_whole_step(n_threads: int) -> None:
    n, batch_size = 200_000, 8
    rng = np.random.default_rng(0)
    X, Y = rng.random((n, 37), np.float32), rng.random((n, 5), np.float32)
    net, twin = (make([37, 700, 5], dtype="float32") for _ in range(2))
    one, other = nncore.Adam(1e-4), nncore.Adam(1e-4)
    options: dict[str, Any] = {"batch_size": batch_size, "shuffle": False}

    def handler(number: int, frame: Any) -> None:
        raise LookupError("from a handler")

    with assert_no_new_threads(), handler_of(signal.SIGALRM, handler):
        delay = 0.5
        while not one.step_count:  # a slow machine may need longer for the first
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(LookupError, match="from a handler"):
                net.fit(X, Y, epochs=1000, optimizer=one, n_threads=n_threads, **options)
            delay *= 2
    epochs, steps = divmod(one.step_count, n // batch_size)
    for rows, repeats in ((n, epochs), (steps * batch_size, min(steps, 1))):
        for _ in range(repeats):
            twin.fit(X[:rows], Y[:rows], optimizer=other, n_threads=1, **options)
    assert net.equals(twin)
    assert snapshot(one) == snapshot(other)
