"""Fits in other processes: after a fork, in workers, interrupted, with other kernels."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nncore import _kernels


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_affinity_mask_limits_the_threads() -> None:
    script = """
import os
from nncore import _threads
before = _threads.available_threads()
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(_threads.available_threads(), before)
"""
    process = run(script)
    assert process.stdout.split()[0] == "1", process.stderr


@pytest.mark.parametrize("name", ["", *_kernels.available()])
def test_kernels_are_those_that_the_environment_names(name: str) -> None:
    process = run("from nncore._kernels import KERNELS; print(KERNELS)", NNCORE_KERNELS=name)
    assert process.stdout.strip() == (name or _kernels.available()[-1]), process.stderr


@pytest.mark.parametrize(
    "name", sorted({"fastest", "neon", "avx2", "avx512"} - set(_kernels.available()))
)
def test_kernels_that_are_not_available_are_rejected(name: str) -> None:
    process = run("import nncore", NNCORE_KERNELS=name)
    assert process.returncode == 1
    message = process.stderr.splitlines()[-1]
    assert message.startswith("ImportError: NNCORE_KERNELS must be one of ")
    assert ", ".join(_kernels.available()) in message
    assert message.endswith(f"got {name!r}")


FIT = """
import hashlib
import sys
import numpy as np
import nncore

X = np.random.default_rng(0).normal(size=(211, 37)).astype(np.float32)

def fitted(n_threads, net=None):
    net = net or nncore.Network([37, 23, 5], seed=0)
    net.fit(X, X[:, :5], epochs=2, batch_size=53, seed=0, n_threads=n_threads)
    return hashlib.sha256(net.parameters.tobytes()).hexdigest()

"""

FORK = (
    FIT
    + """
import os

import threading
import threadpoolctl
from nncore._threads import blas_on_one_thread

def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

def compute():
    with blas_on_one_thread():
        inside.set()
        done.wait()

threadpoolctl.threadpool_limits(3, "blas")
net = nncore.Network([37, 23, 5], seed=0)
fitted(3, net)
before, inside, done = blas_threads(), threading.Event(), threading.Event()
if sys.argv[1] == "another":
    another = threading.Thread(target=compute)
    another.start()
    inside.wait()
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    assert status == 0
    done.set()
    if sys.argv[1] == "another":
        another.join()
print(fitted(3 if child else 2, net), flush=True)
seen = []
net.fit(X, X[:, :5], callbacks=[lambda end: seen.append(blas_threads())])
print(*set(seen[0]), flush=True)
assert blas_threads() == before
os._exit(0)
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kernels", ["blas", _kernels.available()[-1]])
@pytest.mark.parametrize("fitting", ["none", "another"])
def test_fit_works_in_a_forked_process(fitting: str, kernels: str) -> None:
    """With and without another thread at work, which the child process does not have."""
    process = run(FORK, fitting, NNCORE_KERNELS=kernels)
    assert process.returncode == 0, process.stderr
    child, parent = np.split(np.array(process.stdout.split()), 2)
    assert list(child) == list(parent)
    assert child[1] == ("1" if kernels == "blas" else "3")


IN_PROCESSES = (
    FIT
    + """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

if __name__ == "__main__":
    expected, method = fitted(3), sys.argv[1]
    if method == "loky":
        import joblib
        got = joblib.Parallel(n_jobs=2, backend="loky")(
            joblib.delayed(fitted)(n_threads) for n_threads in (1, 2, 3))
    else:
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            got = list(pool.map(fitted, (1, 2, 3)))
    print(len(got), set(got) == {expected})
"""
)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "loky"])
def test_fit_gives_the_same_bits_in_processes_that_others_start(
    method: str, tmp_path: Path
) -> None:
    if method == "loky":
        pytest.importorskip("joblib")
    elif method not in multiprocessing.get_all_start_methods():
        pytest.skip("the system has no such method")
    path = tmp_path / "fit_in_processes.py"
    path.write_text(IN_PROCESSES)
    process = subprocess.run(
        [sys.executable, path, method], capture_output=True, text=True, timeout=120, check=False
    )
    assert process.stdout == "3 True\n", process.stderr


GEVENT = """
import sys
import gevent.monkey

if sys.argv[1] == "before":
    gevent.monkey.patch_all()
import nncore
if sys.argv[1] == "after":
    gevent.monkey.patch_all()
import threading
import numpy as np

assert gevent.monkey.is_module_patched("threading")
X = np.random.default_rng(0).random((2000, 784), np.float32)

def results(n_threads):
    net = nncore.Network([784, 300, 10], seed=0)
    outputs = net.predict(X, n_threads=n_threads[0])
    history = net.fit(X, outputs, epochs=2, batch_size=100, seed=0, n_threads=n_threads[1])
    return outputs.tobytes(), net.parameters.tobytes(), history.loss

expected = results((1, 1))
assert results((2, 3)) == expected
green = []
threads = [threading.Thread(target=lambda: green.append(results((2, 3)))) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert green == [expected] * 2
print("returned")
"""


@pytest.mark.parametrize("patched", ["before", "after"])
@pytest.mark.parametrize("kernels", ["blas", _kernels.available()[-1]])
def test_green_threads_get_the_bits_of_one_thread(patched: str, kernels: str) -> None:
    """A green thread runs on the leader's own thread, so it cannot work at the same time."""
    pytest.importorskip("gevent", reason="needs gevent")
    process = run(GEVENT, patched, NNCORE_KERNELS=kernels)
    assert process.stdout == "returned\n", process.stderr


INTERRUPT = """
import json
import sys
import threading
import time
import numpy as np
import psutil
import threadpoolctl
import nncore

def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info()]

X = np.random.default_rng(0).random((400_000, 16), dtype=np.float32)
Y = X[:, :1].copy()
sizes, batch_size, n_threads = [16, *json.loads(sys.argv[1]), 1], *map(int, sys.argv[2:])
create = lambda: nncore.Network(sizes, seed=0)
net, optimizer = create(), nncore.Adam(1e-4)
net.fit(X[:64], Y[:64], batch_size=64, n_threads=1)
net = create()
before = psutil.Process().num_threads(), threading.active_count(), blas_threads()

def report():
    while psutil.Process().num_threads() < before[0] + n_threads:  # until the whole team is there
        pass
    begin = time.process_time()
    while time.process_time() < begin + 0.1:  # until it has made steps
        pass
    print("training", flush=True)

reporter = threading.Thread(target=report)
reporter.start()
try:
    net.fit(X, Y, batch_size=batch_size, optimizer=optimizer, shuffle=False, n_threads=n_threads,
            epochs=10**6)
except KeyboardInterrupt:
    reporter.join()
    rows = optimizer.step_count * batch_size
    twin, its = create(), nncore.Adam(1e-4)
    twin.fit(X[:rows], Y[:rows], batch_size=batch_size, optimizer=its, shuffle=False, n_threads=1)
    while psutil.Process().num_threads() > before[0]:
        pass  # until the system has noticed as well
    after = psutil.Process().num_threads(), threading.active_count(), blas_threads()
    print(json.dumps({
        "in the first epoch": 0 < rows < len(X),
        "whole steps": net.equals(twin) and all(
            (a == b).all() for a, b in zip(optimizer.state, its.state, strict=True)),
        "left nothing": after == before,
    }), flush=True)
    raise
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("kernels", ["blas", _kernels.available()[-1]])
@pytest.mark.parametrize(
    ("hidden", "batch_size", "n_threads"),
    # Steps so small, for so many threads, that they are all waiting.
    [([256, 256], 64, 3), ([], 1, 4 * (os.cpu_count() or 1))],
    ids=["large", "tiny"],
)
def test_ctrl_c_ends_a_team_after_a_whole_step(
    hidden: list[int], batch_size: int, n_threads: int, kernels: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPT, str(hidden), str(batch_size), str(n_threads)],
        env=os.environ | {"NNCORE_KERNELS": kernels},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "training\n"
    process.send_signal(signal.SIGINT)
    # Left alone it would train for days.
    out, err = process.communicate(timeout=60)
    findings = json.loads(out)
    assert all(findings.values()), findings
    assert err.rstrip().endswith("KeyboardInterrupt")
