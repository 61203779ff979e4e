"""Handlers of signals that fork while several threads work, and workers that nobody could close."""

import os
import sys
from typing import Any

import numpy as np
import pytest
from helpers import assert_no_new_threads, child, make

from nncore.session import Session

needs_fork = pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "fork"), reason="needs POSIX signals and fork"
)

SETUP = """
import _thread
import os
import signal
import sys
import threading
import numpy as np
import nncore
from nncore import _threads

def fork(number, frame):
    global child
    child = os.fork()
    if child:
        raise LookupError  # ends the parent's call

signal.signal(signal.SIGALRM, fork)
event = threading.Event()
"""

# Left alone, each call would take hours.
CALLS = (
    SETUP
    + """
create = lambda: nncore.Network([1, 300, 300, 1], seed=0)
net, other, optimizer = create(), create(), nncore.Adam()
one, n = np.ones((1, 1), np.float32), 2**26
X = np.broadcast_to(one, (n, 1)).view(np.memmap)
calls = {
    "predict": lambda: net.predict(X, n_threads=3),
    "evaluate": lambda: net.evaluate(X, X, n_threads=3),
    "gradient": lambda: net.gradient(X, X, n_threads=3),
    "fit": lambda: net.fit(X, X, optimizer=optimizer, shuffle=False, n_threads=3),
    "fit_many": lambda: nncore.fit_many([net, other], X, X, shuffle=False, n_threads=2),
}
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    calls[sys.argv[1]]()
except LookupError:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
except RuntimeError as error:
    assert "forked" in str(error)
    if sys.argv[1] != "fit_many":  # which keeps whole steps
        assert net.equals(other) and optimizer.step_count == 0
    rows = X[:1000]
    assert (net.predict(rows, n_threads=3) == net.predict(rows, n_threads=1)).all()
    os._exit(0)
"""
)


def assert_both_end(script: str, *arguments: str) -> None:
    """Assert that the process and its child end, and that neither raises an exception."""
    process = child(script, *arguments)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors


@needs_fork
@pytest.mark.parametrize("call", ["predict", "evaluate", "gradient", "fit", "fit_many"])
def test_a_forked_process_refuses_to_complete_a_call_of_several_threads(call: str) -> None:
    assert_both_end(CALLS, call)


WAITING = (
    SETUP
    + """
start = _thread.start_new_thread

def start_late(function, arguments):
    def late():
        os.kill(os.getpid(), signal.SIGALRM)
        event.wait()
        function(*arguments)
    return start(late, ())

def close():
    _thread.start_new_thread = start_late
    nncore.Network([37, 5]).predict(np.ones((50, 37)), n_threads=2)

def wait():
    thread = threading.Thread(target=event.wait, daemon=True)
    thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    _threads.wait_for(thread)

def fork(number, frame):
    global child
    child = os.fork()
    if child:
        event.set()

signal.signal(signal.SIGALRM, fork)
try:
    {"close": close, "wait": wait}[sys.argv[1]]()
except RuntimeError as error:
    assert not child and "forked" in str(error)
if not child:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)


@needs_fork
@pytest.mark.parametrize("who", ["close", "wait"])
def test_a_forked_process_waits_for_no_thread_of_its_parent(who: str) -> None:
    assert_both_end(WAITING, who)


IN_A_CALLBACK = (
    SETUP
    + """
def fitted(n_threads, *callbacks):
    net = nncore.Network([37, 23, 5], seed=0)
    X = np.random.default_rng(0).normal(size=(211, 37))
    net.fit(X, X[:, :5], epochs=3, seed=0, n_threads=n_threads, callbacks=callbacks)
    return net

def fork(end):
    global child
    if end.epoch == 2:
        child = os.fork()

expected = fitted(1)
assert fitted(3, fork).equals(expected)
if not child:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
)


@needs_fork
def test_a_process_forked_in_a_callback_goes_on_with_the_same_bits() -> None:
    assert_both_end(IN_A_CALLBACK)


@pytest.mark.parametrize("when", ["__enter__", "__exit__"])
def test_an_exception_between_session_and_team_leaves_no_workers(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal's handler may raise it, before the first or after the last line."""
    enter = Session.__enter__

    def interrupted(session: Session, *arguments: Any) -> None:
        if when == "__enter__":
            enter(session)
        raise KeyboardInterrupt

    net = make([37, 5])
    with assert_no_new_threads():
        monkeypatch.setattr(Session, when, interrupted)
        try:
            net.predict(np.ones((50, 37)), n_threads=3)
        except KeyboardInterrupt:
            pass
        else:
            pytest.fail("the exception is lost")
        monkeypatch.undo()
