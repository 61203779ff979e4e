"""Measure what checkpoints cost while a network of 784-512-512-10 is trained with Adam.

    python benchmarks/checkpoints.py --rounds 7 --threads 1

Fits without checkpoints and with one every second take turns. Their ratio shows the cost if nothing
else runs; one checkpoint in 30 s costs a thirtieth. On a busy machine the second result is the one
to trust: what the training thread spends on checkpoints, and the writing thread's time on a CPU.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nncore
from nncore import checkpoints
from nncore._files import write
from nncore.callbacks import Checkpoint

SIZES, BATCH_SIZE, N = [784, 512, 512, 10], 128, 12_800

# The seconds between two checkpoints for which the cost is computed.
EVERY = 30

# The seconds of a chunk of steps.
CHUNK = 0.15

seconds: dict[str, float] = defaultdict(float)
calls: dict[str, int] = defaultdict(int)


def timed(name: str, function: Callable[..., Any], clock: Callable[[], float]) -> Any:
    """Return the function, which adds its time to `seconds` and counts its calls."""

    def call(*arguments: Any) -> Any:
        begin = clock()
        result = function(*arguments)
        seconds[name] += clock() - begin
        calls[name] += 1
        return result

    return call


class Writer(checkpoints.Writer):
    """A writer that measures itself."""

    chunk = timed("chunk", checkpoints.Writer.chunk, time.perf_counter)
    end_chunk = timed("copy", checkpoints.Writer.end_chunk, time.perf_counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of a fit")
    arguments = parser.parse_args()

    checkpoints.Writer = Writer  # type: ignore[misc]
    checkpoints.write = timed("write", write, time.thread_time)  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    X, Y = rng.random((N, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], N)
    net = nncore.Network(SIZES, loss="cross_entropy", seed=0)
    optimizer = nncore.Adam()

    def fit(*callbacks: Checkpoint) -> float:
        """Return the seconds of all epochs but the first."""
        history = net.fit(
            X,
            Y,
            epochs=arguments.epochs + 1,
            batch_size=BATCH_SIZE,
            optimizer=optimizer,
            callbacks=callbacks,
            n_threads=arguments.threads,
        )
        return sum(history.seconds[1:])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        checkpoint = Checkpoint(path, every_seconds=1)
        fit(checkpoint)
        seconds.clear()
        calls.clear()
        rounds = np.array([(fit(), fit(checkpoint)) for _ in range(arguments.rounds)])
        megabytes = path.stat().st_size / 1e6

    ratio = np.median(rounds[:, 1] / rounds[:, 0]) - 1
    copying, writing = (seconds[name] / calls["write"] for name in ("copy", "write"))
    chunks = seconds["chunk"] / calls["chunk"] * EVERY / CHUNK
    total = (copying + chunks + writing) / EVERY
    print(f"checkpoints of {megabytes:.1f} MB, {arguments.rounds} rounds of {rounds.mean():.1f} s")
    print(f"one a second: {ratio:+.2%} time, so one in {EVERY} s: {ratio / EVERY:+.2%}")
    print(
        f"in {EVERY} s the training thread copies for {1e3 * copying:.1f} ms and cuts steps into "
        f"chunks for {1e3 * chunks:.1f} ms; the other writes for {1e3 * writing:.1f} ms of a "
        f"CPU: {total:.2%}"
    )


if __name__ == "__main__":
    main()
