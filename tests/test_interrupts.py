"""Ctrl-C during training and long calls."""

import json
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from helpers import child

import nncore

INTERRUPT = """
import json
import threading
import time
import numpy as np
import nncore

rng = np.random.default_rng(0)
n, batch_size = 100_000, 16
X = rng.random((n, 16), dtype=np.float32)
Y = X[:, :1].copy()
create = lambda: nncore.Network([16, 1024, 1024, 1], seed=0)
net, optimizer = create(), nncore.Adam(1e-4)
before = net.parameters.copy()

def report():
    while not optimizer.state:
        time.sleep(0.01)
    time.sleep(0.2)  # parameters show from outside at the end of an epoch only
    print("training", flush=True)

reporter = threading.Thread(target=report)
reporter.start()
try:
    net.fit(X, Y, epochs=10**6, batch_size=batch_size, optimizer=optimizer, shuffle=False)
except KeyboardInterrupt:
    reporter.join()
    steps = optimizer.step_count
    twin, its = create(), nncore.Adam(1e-4)
    twin.fit(X[: steps * batch_size], Y[: steps * batch_size], batch_size=batch_size,
             optimizer=its, shuffle=False)
    print(json.dumps({
        "steps": steps,
        "in the first epoch": steps * batch_size < n,
        "finite": bool(np.isfinite(net.parameters).all()),
        "changed": bool((net.parameters != before).any()),
        "whole steps": net.equals(twin) and all(
            (a == b).all() for a, b in zip(optimizer.state, its.state)),
        "usable": net.predict(X[:3]).shape == (3, 1),
        "goes on": len(net.fit(X[:64], Y[:64], epochs=2, optimizer=optimizer)) == 2,
    }), flush=True)
    raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_training_after_a_whole_step() -> None:
    process = child(INTERRUPT)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    # Left alone it would train for days.
    out, err = process.communicate(timeout=30)
    findings = json.loads(out)
    assert findings.pop("steps") > 0
    assert all(findings.values()), findings
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT


def interrupt_after(begun: threading.Event) -> threading.Thread:
    """Raise SIGINT after this process has computed for 0.1 s since `begun` was set."""

    def press() -> None:
        begun.wait()
        begin = time.process_time()
        while time.process_time() < begin + 0.1:
            pass
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("call", ["predict", "evaluate", "gradient"])
def test_ctrl_c_ends_calls_over_many_rows(call: str) -> None:
    net = nncore.Network([1, 1000, 1000, 1], seed=0)
    # One number broadcast to very many rows: no memory, but hours of work.
    source: Any = np.memmap
    X = np.broadcast_to(np.ones((1, 1), dtype=np.float32), (2**26, 1)).view(source)
    Y = np.broadcast_to(np.ones((1, 1), dtype=np.float32), (2**26, 1)).view(source)
    before = net.parameters.tobytes()
    arguments = (X,) if call == "predict" else (X, Y)
    begun = threading.Event()
    pressing = interrupt_after(begun)
    begun.set()
    with pytest.raises(KeyboardInterrupt):
        getattr(net, call)(*arguments)
    pressing.join()
    assert net.parameters.tobytes() == before
    assert np.isfinite(net.predict([[1.0]])).all()
