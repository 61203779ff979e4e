"""Too little memory: MemoryError, and everything is as before."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import child

import nncore

EXHAUST = """
import json
import os
import resource
import sys
import numpy as np
import nncore

LEVELS = 20
folder = sys.argv[2]
path, run, *files = (os.path.join(folder, name) for name in ("net", "run", "X.npy", "Y.npy"))
rng = np.random.default_rng(0)
X, Y = rng.random((3000, 200), np.float32), rng.random((3000, 300), np.float32)
np.save(files[0], X)
np.save(files[1], Y)
net, optimizer = nncore.Network([200, 400, 300], seed=0), nncore.Adam()
net.fit(X, Y, optimizer=optimizer, batch_size=1000)
net.save(path, optimizer)
options = {"optimizer": optimizer, "n_threads": 2}
calls = {
    "predict": lambda: net.predict(X, n_threads=2),
    "layer_outputs": lambda: net.layer_outputs(X),
    "evaluate": lambda: net.evaluate(X[:, ::-1], Y),
    "gradient": lambda: net.gradient(X, Y, n_threads=2),
    "train_on_batch": lambda: net.train_on_batch(X[:1500], Y[:1500], **options),
    "fit": lambda: net.fit(X, Y, batch_size=1500, **options),
    "fit with an evaluation": lambda: net.fit(
        X, Y, batch_size=1500, validation_data=(X, Y), **options
    ),
    "fit with checkpoints": lambda: net.fit(
        X, Y, batch_size=1500, callbacks=[nncore.callbacks.Checkpoint(run)], **options
    ),
    "fit from files": lambda: net.fit(*files, batch_size=1500, **options),
    "fit from a stream": lambda: net.fit(
        nncore.Stream(lambda: iter([(X, Y)])), batch_size=1500, **options
    ),
    "fit_many": lambda: nncore.fit_many([net], X, Y, batch_size=1500, optimizer=optimizer),
    "save": lambda: net.save(path, optimizer),
    "load": lambda: nncore.load(path, with_optimizer=True),
    "network": lambda: nncore.Network([1000, 2000, 2000]),
}
call = calls[sys.argv[1]]

def state():
    vectors = [net.copy_parameters(), *(vector.copy() for vector in optimizer.arrays)]
    return [vector.tobytes() for vector in vectors], optimizer.step_count, open(path, "rb").read()

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

_, hard = resource.getrlimit(resource.RLIMIT_AS)
outcomes = []
for level in range(LEVELS):
    before = state()
    extra = 0 if level == 0 else 10_000 * 2 ** (level * 16 // LEVELS)
    resource.setrlimit(resource.RLIMIT_AS, (used() + extra, hard))
    try:
        call()
        outcome = "done"
    except MemoryError:
        outcome = "MemoryError"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if outcome == "MemoryError":
        assert state() == before
    outcomes.append(outcome)
call()
print(json.dumps(outcomes))
"""

CALLS = [
    "predict",
    "layer_outputs",
    "evaluate",
    "gradient",
    "train_on_batch",
    "fit",
    "fit with an evaluation",
    "fit with checkpoints",
    "fit from files",
    "fit from a stream",
    "fit_many",
    "save",
    "load",
    "network",
]


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of the address space")
@pytest.mark.parametrize("call", CALLS)
def test_too_little_memory_raises_memory_error_and_changes_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise the C library has memory of its own, in which small calls succeed.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    process = child(EXHAUST, call, tmp_path)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    outcomes = json.loads(out)
    assert len(outcomes) == 20
    assert outcomes[-1] == "done"


def test_without_more_threads_the_calling_one_reads_files_and_writes_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    def trained(*data: Any) -> bytes:
        net = nncore.Network([7, 3], seed=0)
        checkpoint = nncore.callbacks.Checkpoint(tmp_path / "run")
        net.fit(*data, epochs=2, seed=0, callbacks=[checkpoint], n_threads=1)
        assert (nncore.load(tmp_path / "run").parameters == net.parameters).all()
        return net.parameters.tobytes()

    X = np.random.default_rng(0).random((3000, 7), np.float32)
    Y = X[:, :3].copy()
    files = [tmp_path / "X.npy", tmp_path / "Y.npy"]
    np.save(files[0], X)
    np.save(files[1], Y)
    expected = trained(X, Y)
    (tmp_path / "run").unlink()
    monkeypatch.setattr(threading, "_start_new_thread", refuse)
    assert trained(*files) == expected
