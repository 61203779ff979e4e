"""Resident memory while training on data ten times as large."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")

# Resident memory is what a process has beside the pages that files share with the system's cache.
TRAIN = """
import sys
from pathlib import Path
import numpy as np
import nncore

way, path, n = sys.argv[1], sys.argv[2], int(sys.argv[3])

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

def chunks():
    for _ in range(n // 2000):
        yield np.zeros((2000, 1024), dtype=np.float32), np.zeros(2000, dtype=np.float32)

Y = np.zeros(n, dtype=np.float32)
if way == "stream":
    X, Y = nncore.Stream(chunks, buffer=2000), None
elif way == "mapped":
    X = np.load(path, mmap_mode="r")
else:
    X = [path] * 4
    Y = np.concatenate([Y[: n // 4]] * 4)
net = nncore.Network([1024, 4, 1], seed=0)
options = {"batch_size": 64, "seed": 0, "n_threads": 1}
net.fit(np.zeros((64, 1024)), np.zeros(64), **options)
before = peak()
net.fit(X, Y, **options)
if way != "stream":
    net.evaluate(X, Y)
    net.predict(X)
print(peak() - before)
"""


@pytest.mark.parametrize("way", ["shards", "mapped", "stream"])
def test_memory_is_a_tenth_of_the_data(way: str, tmp_path: Path) -> None:
    n = 2**17
    path = tmp_path / "x.npy"
    rows = n // 4 if way == "shards" else n
    # A sparse file: it takes no place on the disk.
    np.lib.format.open_memmap(path, mode="w+", dtype="f4", shape=(rows, 1024))
    process = child(TRAIN, way, path, n)
    out, err = process.communicate(timeout=300)
    assert err == ""
    assert int(out) < n * 1024 * 4 / 10
