"""Many calls in one process: memory, descriptors and threads stay constant.

``python tests/soak.py FITS ESTIMATORS PREDICTIONS`` makes that many fits, fitted estimators, and
predictions from 8 threads, and fails if the process keeps growing after the first tenth of them.
``python tests/soak.py trouble SECONDS`` lets signals, forks and callbacks raise at random moments.
"""

import os
import random
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.base import clone

import nncore
from nncore.callbacks import Checkpoint
from nncore.sklearn import MLPClassifier

# What the allocator may keep in addition; a leak of one small object per call takes more.
SLACK = 2 << 20

X = np.random.default_rng(0).random((40, 5), np.float32)
Y = X[:, :2].copy()


def usage() -> tuple[int, int, int]:
    """Return the bytes, descriptors and threads of this process."""
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def repeat(name: str, call: Callable[[], object], n: int) -> None:
    """Call often; assert that the process does not grow after the first tenth of the calls."""
    for _ in range(max(n // 10, 1)):
        call()
    time.sleep(0.5)
    before = usage()
    for _ in range(n):
        call()
    limit = time.monotonic() + 10
    # The system counts a thread a moment longer than Python does.
    while (after := usage())[1:] > before[1:] and time.monotonic() < limit:
        time.sleep(0.01)
    print(f"{name}: {n} calls, {(after[0] - before[0]) / 1024:.0f} KiB more memory", flush=True)
    assert after[0] < before[0] + SLACK
    assert after[1] <= before[1]
    assert after[2] <= before[2]


def soak(n_fits: int, n_estimators: int, n_predictions: int) -> None:
    """Make fits, estimators and predictions."""
    net, optimizer = nncore.Network([5, 4, 2], seed=0), nncore.Adam()
    repeat("fits", lambda: net.fit(X, Y, optimizer=optimizer, n_threads=2), n_fits)
    classes = np.arange(len(X)) % 3
    estimator = MLPClassifier((4,), max_iter=2, random_state=0)
    repeat("estimators", lambda: clone(estimator).fit(X, classes), n_estimators)

    def predict(n: int) -> None:
        for _ in range(n):
            net.predict(X)

    def eight() -> None:
        threads = [threading.Thread(target=predict, args=(n_predictions // 800,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    repeat("rounds of predictions from 8 threads", eight, 100)


class TroubleError(Exception):
    """Raised at a random moment."""


def troubled_calls(
    folder: str, callback: Callable[[nncore.EpochEnd], None]
) -> list[Callable[[list[nncore.Network]], object]]:
    """Return calls, each of a pair of networks, that run several threads for some 10 ms."""
    files = [str(Path(folder, name)) for name in ("X.npy", "Y.npy")]
    many = [np.tile(array, (300, 1)) for array in (X, Y)]
    for file, array in zip(files, many, strict=True):
        np.save(file, array)
    stream = nncore.Stream(lambda: iter([(X, Y)] * 100), buffer=500)
    checkpoint = Checkpoint(Path(folder, "run"), every_steps=7)
    callbacks = (callback,)
    return [
        lambda nets: nets[0].fit(X, Y, epochs=60, n_threads=3, callbacks=[callback, checkpoint]),
        lambda nets: nets[0].fit(*files, epochs=3, n_threads=2, callbacks=callbacks),
        lambda nets: nets[0].fit(stream, epochs=3, n_threads=2, callbacks=callbacks),
        lambda nets: nncore.fit_many(nets, X, Y, epochs=60, n_threads=2, callbacks=callbacks),
        lambda nets: [net.predict(many[0], n_threads=3) for net in nets],
        lambda nets: [net.gradient(*many, n_threads=3) for net in nets],
        lambda nets: [net.evaluate(*files, n_threads=2) for net in nets],
    ]


def trouble(seconds: float, seed: int = 0) -> None:
    """Fit while handlers and callbacks raise and fork; the network stays usable and finite."""
    rng, outcomes = random.Random(seed), {"calls": 0, "exceptions": 0, "forks": 0}
    before = usage()[1:]
    process, children = os.getpid(), list[int]()
    forking = set[int]()

    def disturb() -> None:
        kind = rng.choice(["raise", "fork", "predict"])
        if kind == "fork":
            forking.add(threading.get_ident())
            child = os.fork()
            if not child:
                os._exit(0)
            forking.discard(threading.get_ident())
            children.append(child)
            outcomes["forks"] += 1
        elif kind == "predict":
            nncore.Network([5, 2], seed=0).predict(X, n_threads=2)
        else:
            raise TroubleError

    def handler(number: int, frame: Any) -> None:
        # Python itself hangs if a handler forks, or raises, in what it calls around a fork.
        if threading.get_ident() not in forking:
            disturb()

    def callback(end: nncore.EpochEnd) -> None:
        if rng.random() < 0.01:
            disturb()

    signal.signal(signal.SIGALRM, handler)
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        calls = troubled_calls(folder, callback)
        while time.monotonic() < end:
            nets = [nncore.Network([5, 300, 2], seed=i) for i in range(2)]
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, 0.05))
            try:
                rng.choice(calls)(nets)
            except TroubleError:
                outcomes["exceptions"] += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TroubleError:
                outcomes["exceptions"] += 1
            assert os.getpid() == process
            outcomes["calls"] += 1
            for net in nets:
                assert np.isfinite(net.predict(X, n_threads=2)).all()
            while children:
                assert os.waitpid(children.pop(), 0)[1] == 0
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    limit = time.monotonic() + 10
    while (after := usage()[1:]) > before and time.monotonic() < limit:
        time.sleep(0.01)
    print(outcomes, flush=True)
    assert after[0] <= before[0]
    # After a fork BLAS starts its threads anew when it needs them.
    assert after[1] <= before[1]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "trouble":
        trouble(float(sys.argv[2]))
    else:
        soak(*map(int, sys.argv[1:4]))
