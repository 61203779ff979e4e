"""Memory and speed of training on files: `python benchmarks/larger_than_memory.py --gigabytes 4`.

Each way trains one epoch of 784-100-10 in a process of its own, on shards of 784 float32 columns
that hold random rows again and again. The way "memory" has as many of them as one shard, all others
have all shards.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nncore

N_SHARDS = 8
WAYS = ["memory", "shards, shuffled", "shards, in order", "mapped shards", "stream"]


def resident_megabytes() -> float:
    """Return the most memory that the process has had, without the system's cache of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e3
    raise SystemExit("this benchmark needs Linux's /proc")


def train(way: str, folder: Path) -> None:
    """Print microseconds per example and megabytes."""
    paths = sorted(folder.glob("x*.npy"))
    labels = str(folder / "labels.npy")
    net = nncore.Network([784, 100, 10], loss="cross_entropy", seed=0)
    options: dict[str, Any] = {"batch_size": 128, "seed": 0, "shuffle": "order" not in way}
    X: Any = paths
    Y: Any = [labels] * len(paths)
    if way == "memory":
        X, Y = np.load(paths[0]), np.load(labels)
    elif way == "mapped shards":
        X = [np.load(path, mmap_mode="r") for path in paths]
    elif way == "stream":

        def chunks() -> Iterator[Any]:
            targets = np.load(labels)
            for path in paths:
                mapped = np.load(path, mmap_mode="r")
                for first in range(0, len(mapped), 5000):
                    with path.open("rb") as file:
                        file.seek(mapped.offset + first * 784 * 4)
                        rows = np.fromfile(file, np.float32, 5000 * 784).reshape(-1, 784)
                    yield rows, targets[first : first + len(rows)]

        X, Y = nncore.Stream(chunks), None
    net.fit(np.zeros((256, 784), np.float32), np.zeros(256, int), **options)
    begin = time.perf_counter()
    history = net.fit(X, Y, **options)
    seconds = time.perf_counter() - begin
    assert np.isfinite(history.loss[0])
    n = len(np.load(paths[0], mmap_mode="r")) * (1 if way == "memory" else len(paths))
    print(1e6 * seconds / n, resident_megabytes())


def measure(gigabytes: float, rounds: int) -> None:
    """Print a table."""
    n = int(gigabytes * 2**30 / N_SHARDS / 784 / 4)
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(0)
        some = rng.random((min(n, 10_000), 784), dtype=np.float32)
        for i in range(N_SHARDS):
            path = folder / f"x{i}.npy"
            shard = np.lib.format.open_memmap(path, mode="w+", dtype="f4", shape=(n, 784))
            for first in range(0, n, len(some)):
                shard[first : first + len(some)] = some[: n - first]
        np.save(folder / "labels.npy", rng.integers(0, 10, n))
        results: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--train", way, "--folder", name]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                results[way].append([float(word) for word in output.split()])
    fastest = {way: np.min(values, axis=0) for way, values in results.items()}
    print(f"{gigabytes:g} GiB in {N_SHARDS} shards of {n} rows, 784-100-10, batches of 128")
    for way, (micros, megabytes) in fastest.items():
        ratio = micros / fastest["memory"][0]
        print(f"{way:18} {micros:6.2f} us per example, {ratio:5.2f} times, {megabytes:6.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, arguments.folder)
    else:
        measure(arguments.gigabytes, arguments.rounds)
