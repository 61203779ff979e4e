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
from nncore import training

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
        "has begun": steps > 0,
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

INTERRUPT_MANY = """
import json
import threading
import time
import numpy as np
import nncore

rng = np.random.default_rng(0)
n, batch_size = 100_000, 16
X = rng.random((n, 16), dtype=np.float32)
Y = X[:, :1].copy()
create = lambda: [nncore.Network([16, 512, 512, 1], seed=i) for i in range(3)]
nets, optimizers = create(), [nncore.Adam(1e-4) for _ in range(3)]

def report():
    while not (optimizers[0].state and optimizers[1].state):
        time.sleep(0.01)
    time.sleep(0.2)
    print("training", flush=True)

reporter = threading.Thread(target=report)
reporter.start()
try:
    nncore.fit_many(nets, X, Y, epochs=10**6, batch_size=batch_size, optimizer=optimizers,
                    shuffle=False, n_threads=2)
except KeyboardInterrupt:
    reporter.join()
    steps = [optimizer.step_count for optimizer in optimizers]
    twins, whole = create(), [nncore.Adam(1e-4) for _ in range(3)]
    for twin, optimizer, count in zip(twins, whole, steps):
        rows = slice(min(count * batch_size, n))
        if count:
            twin.fit(X[rows], Y[rows], batch_size=batch_size, optimizer=optimizer, shuffle=False)
    print(json.dumps({
        "two have begun": [count > 0 for count in steps] == [True, True, False],
        "in the first epoch": max(steps) * batch_size < n,
        "whole steps": all(net.equals(twin) for net, twin in zip(nets, twins)) and all(
            (a == b).all() for one, its in zip(optimizers, whole)
            for a, b in zip(one.state, its.state)),
        "no thread is left": threading.active_count() == 1,
        "goes on": all(map(len, nncore.fit_many(nets, X[:64], Y[:64], optimizer=optimizers))),
    }), flush=True)
    raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("script", [INTERRUPT, INTERRUPT_MANY], ids=["fit", "fit_many"])
def test_ctrl_c_ends_training_after_a_whole_step(script: str) -> None:
    process = child(script)
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    # Left alone it would train for days.
    out, err = process.communicate(timeout=30)
    findings = json.loads(out)
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


def test_ctrl_c_ends_epochs_that_are_made_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_SECONDS_TOGETHER", 1e9)
    net, twin = (nncore.Network([5, 300, 300, 3], seed=0) for _ in range(2))
    X, Y = np.ones((37, 5)), np.zeros((37, 3))
    optimizer = nncore.Adam(1e-6)
    begun = threading.Event()
    pressing = interrupt_after(begun)
    begun.set()
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, Y, epochs=10**6, batch_size=20, optimizer=optimizer, shuffle=False)
    pressing.join()
    epochs, rest = divmod(optimizer.step_count, 2)
    assert epochs > 1
    its = nncore.Adam(1e-6)
    twin.fit(X, Y, epochs=epochs, batch_size=20, optimizer=its, shuffle=False)
    if rest:
        twin.fit(X[:20], Y[:20], optimizer=its)
    assert net.equals(twin)


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
