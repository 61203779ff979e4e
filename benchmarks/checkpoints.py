"""Measure what checkpoints cost while a network of 784-512-512-10 is trained with Adam.

    python benchmarks/checkpoints.py --rounds 7 --threads 1

Three kinds of fits take turns: without checkpoints; in chunks of steps, but without a checkpoint
before the end; and with a checkpoint every second, whose cost can be told from noise. Times are
those of the clock and of the process, over all its threads.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

import nncore
from nncore.callbacks import Checkpoint

SIZES, BATCH_SIZE, N = [784, 512, 512, 10], 128, 12_800

# The seconds between two checkpoints for which the cost is computed.
EVERY = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=8, help="epochs of a fit")
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    X, Y = rng.random((N, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], N)
    net = nncore.Network(SIZES, loss="cross_entropy", seed=0)
    optimizer = nncore.Adam()

    def seconds(*checkpoints: Checkpoint) -> npt.NDArray[np.float64]:
        """Return the two times of all epochs but the first, without the last checkpoint."""
        ends: list[list[float]] = []

        def note(end: nncore.EpochEnd) -> None:
            ends.append([time.perf_counter(), time.process_time()])

        net.fit(
            X,
            Y,
            epochs=arguments.epochs + 1,
            batch_size=BATCH_SIZE,
            optimizer=optimizer,
            callbacks=[note, *checkpoints],
            n_threads=arguments.threads,
        )
        return np.subtract(ends[-1], ends[0])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        often, rarely = Checkpoint(path, every_seconds=1), Checkpoint(path, every_seconds=1e9)
        seconds(often)
        rounds = [(seconds(), seconds(rarely), seconds(often)) for _ in range(arguments.rounds)]
        megabytes = path.stat().st_size / 1e6
    print(f"{megabytes:.1f} MB, {arguments.rounds} rounds of {np.mean(rounds):.1f} s")
    for kind, (without, chunks, each_second) in zip(
        ("clock", "process"), np.min(rounds, axis=0).T, strict=True
    ):
        cost = (chunks - without + (each_second - chunks) / EVERY) / without
        print(
            f"time of the {kind}: chunks {chunks / without - 1:+.2%}, a checkpoint every second "
            f"{each_second / without - 1:+.2%}, so every {EVERY} s {cost:+.2%}"
        )


if __name__ == "__main__":
    main()
