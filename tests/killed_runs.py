"""Kills a training run at random moments, and resumes it to the end.

    python tests/killed_runs.py 200

Each life of the run is a process that is killed by SIGKILL, often while it writes a checkpoint. The
result must have the bits of a run that was never interrupted.
"""

import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import nncore
from nncore.callbacks import Checkpoint


class Counter:
    """A callback with a state."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __call__(self, end: nncore.EpochEnd) -> None:
        self.losses.append(end.loss)

    def state(self) -> dict[str, Any]:
        return {"losses": np.array(self.losses)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.losses = state["losses"].tolist()


def train(folder: Path, begins: Any = None, *, resume: bool = True) -> str:
    """Train to the end; return a digest of everything that must not depend on interruptions.

    The event `begins` is set when training begins.
    """
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(3000, 40)), rng.normal(size=(3000, 5))
    net = nncore.Network([40, 60, 5], activation="tanh", seed=0)
    optimizer, seed, counter = nncore.Adam(), np.random.default_rng(1), Counter()
    path = folder / "run.safetensors"
    if begins is not None:
        begins.set()
    history = net.fit(
        X,
        Y,
        epochs=60,
        batch_size=10,
        optimizer=optimizer,
        seed=seed,
        dropout=0.1,
        validation_data=(X[:100], Y[:100]),
        callbacks=[counter, Checkpoint(path, every_steps=5)] if resume else [counter],
        resume=path if resume else None,
    )
    result = [history.loss, history.validation_loss, counter.losses, optimizer.step_count]
    digest = hashlib.sha256(json.dumps([result, seed.bit_generator.state]).encode())
    for vector in (net.parameters, *optimizer.state):
        digest.update(vector.tobytes())
    return digest.hexdigest()


def main(n_kills: int) -> None:
    """Print how many kills there were, and how many of them during a write."""
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(time.time_ns())
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = train(folder, resume=False)
        seconds = time.perf_counter() - begin
        kills = writes = runs = 0
        while kills < n_kills:
            begins = context.Event()
            process = context.Process(target=train, args=(folder, begins))
            process.start()
            begins.wait()
            born = time.time_ns()
            process.join(rng.uniform(0, 0.1 * seconds))
            process.kill()
            process.join()
            if process.exitcode == 0:
                # The run has ended before its time; begin another one.
                runs += 1
                assert train(folder) == expected
                (folder / "run.safetensors").unlink()
            kills += process.exitcode != 0
            writes += any(left.stat().st_mtime_ns > born for left in folder.glob(".*.tmp"))
        assert train(folder) == expected
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["run.safetensors"], names
    print(f"{kills} kills, {writes} during a write, {runs + 1} runs completed: the same bits")


if __name__ == "__main__":
    main(int(sys.argv[1]))
