"""What the tests of several ranks run: ``mpiexec -n N python rank_program.py NAME ARGUMENTS``.

Rank 0 prints the values that the function NAME returned on every rank, as JSON.
"""

import json
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from threading import current_thread, main_thread
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

import nncore
from nncore.callbacks import Checkpoint, EarlyStopping, ReduceOnPlateau
from nncore.distributed import RankError, Ranks
from nncore.long_arrays import FileShard
from nncore.sklearn import MLPClassifier

COMM = MPI.COMM_WORLD

RNG = np.random.default_rng(0)
X = RNG.standard_normal((203, 20)).astype(np.float32)
Y = RNG.integers(0, 5, 203)
WEIGHTS = RNG.random(203) * (np.arange(203) % 7 > 0)

OPTIMIZERS: dict[str, Callable[[], nncore.Optimizer]] = {
    "gradient descent": lambda: nncore.SGD(0.1),
    "momentum": lambda: nncore.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": lambda: nncore.Adam(nncore.schedules.cosine(0.01, steps=30)),
    "AMSGrad": lambda: nncore.Adam(0.01, amsgrad=True),
    "AdamW": lambda: nncore.AdamW(0.01),
    "RMSprop": lambda: nncore.RMSprop(0.003, momentum=0.5, centered=True),
}


class SquaredLoss:
    def value(self, A: npt.NDArray[Any], T: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if COMM.rank == self.fails_on:
            raise OverflowError("too much")
        result: npt.NDArray[Any] = 0.5 * ((A - T) ** 2).sum(axis=1)
        return result

    def delta(self, A: npt.NDArray[Any], T: npt.NDArray[Any]) -> npt.NDArray[Any]:
        difference: npt.NDArray[Any] = A - T
        return difference

    def __init__(self, fails_on: int = -1) -> None:
        self.fails_on = fails_on


class DyingLoss(SquaredLoss):
    def __init__(self, dies_at: int) -> None:
        super().__init__()
        self.calls_left = dies_at

    def value(self, A: npt.NDArray[Any], T: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.calls_left -= 1
        if self.calls_left == 0 and COMM.rank == COMM.size - 1:
            os.kill(os.getpid(), 9)
        return super().value(A, T)


def network(dtype: str = "float32") -> nncore.Network:
    sizes = [20, 33, 17, 5]
    return nncore.Network(sizes, loss="cross_entropy", dtype=dtype, seed=0)  # type: ignore[arg-type]


def chunks(*arrays: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    for first in range(0, len(arrays[0]), 60):
        yield tuple(array[first : first + 60] for array in arrays)


def checksum(*arrays: npt.NDArray[Any]) -> int:
    total = 0
    for array in arrays:
        total = zlib.crc32(array.tobytes(), total)
    return total


def optimizers(comm: Any = COMM) -> dict[str, Any]:
    """Each optimizer with weights, dropout, clipping, threads, validation and metrics."""
    results = {}
    for name, optimizer in OPTIMIZERS.items():
        net = network()
        history = net.fit(
            X, Y, epochs=3, batch_size=50, optimizer=optimizer(), seed=1, sample_weight=WEIGHTS,
            dropout=0.2, gradient_clipping=0.5, validation_split=0.2, metrics=["accuracy"],
            n_threads=1 + COMM.rank % 2, comm=comm,
        )  # fmt: skip
        results[name] = [
            checksum(net.parameters),
            history.loss,
            history.metrics["validation_accuracy"],
        ]
    return results


def others(comm: Any = COMM) -> dict[str, Any]:
    """What else fits have: losses of users, callbacks that change the network, no seed."""
    results: dict[str, Any] = {}
    net = nncore.Network([20, 5], loss=SquaredLoss(), output_activation="identity", seed=0)
    history = net.fit(X, np.eye(5)[Y], epochs=2, seed=0, shuffle=False, comm=comm)
    results["loss of a user"] = [checksum(net.parameters), history.loss]

    net, optimizer = network("float64"), nncore.Adam(0.1)
    callbacks: Any = [EarlyStopping("loss", patience=2), ReduceOnPlateau("loss", patience=1)]
    history = net.fit(
        X, Y, epochs=20, batch_size=203, optimizer=optimizer, seed=1, callbacks=callbacks,
        dropout=0.5, comm=comm,
    )  # fmt: skip
    results["callbacks"] = [checksum(net.parameters), history.loss, optimizer.learning_rate]

    net = nncore.Network([20, 300, 300, 300, 5], loss="cross_entropy", dtype="float64", seed=0)
    history = net.fit(X, Y, epochs=1, batch_size=50, optimizer="sgd", seed=0, comm=comm)
    results["groups of layers"] = [checksum(net.parameters), history.loss]

    net = network()
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", X)
        history = net.fit(f"{folder}/X.npy", Y, epochs=2, batch_size=50, seed=1, comm=comm)
    results["file"] = [checksum(net.parameters), history.loss]

    net, stream = network(), nncore.Stream(lambda: chunks(X, Y, WEIGHTS), buffer=40)
    options: Any = {"validation_data": (X, Y), "metrics": ["accuracy"], "dropout": 0.1}
    history = net.fit(stream, epochs=2, batch_size=30, seed=1, comm=comm, **options)
    results["stream"] = [checksum(net.parameters), history.loss, history.metrics]

    with Ranks(COMM) if comm is not None else warnings.catch_warnings():
        for solver in ("sgd", "adam"):
            estimator = MLPClassifier(
                (30,), solver=solver, max_iter=4, n_iter_no_change=4, alpha=0.1, random_state=0,
                early_stopping=solver == "adam", dropout=0.1,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                estimator.fit(X, Y)
            results[solver] = [checksum(*estimator.coefs_), estimator.loss_curve_]
    return results


def fits() -> dict[str, Any]:
    return optimizers() | others()


def fits_without_comm() -> dict[str, Any]:
    return optimizers(None) | others(None)


def shards(*, weighted: bool, streamed: bool) -> float:
    """Return the difference between a fit on shards and one on batches of all of their rows."""
    options = dict[str, Any](epochs=2, dropout=0.3, seed=0, shuffle=False)
    rows = np.arange(60 * COMM.size).reshape(COMM.size, 60) % len(X)
    own, net, alone = rows[COMM.rank], network("float64"), network("float64")
    batch_size, ranks = 10 * COMM.size, Ranks(COMM, sharded=True)
    arrays = (X, Y, WEIGHTS) if weighted else (X, Y)
    mine: Any = [array[own] for array in arrays]
    given = [nncore.Stream(lambda: chunks(*mine))] if streamed else mine[:2]
    if weighted and not streamed:
        options["sample_weight"] = mine[2]
    history = net.fit(*given, batch_size=batch_size, comm=ranks, **options)
    batches = rows.reshape(COMM.size, 6, 10).swapaxes(0, 1).reshape(-1)
    if weighted:
        options["sample_weight"] = WEIGHTS[batches]
    expected = alone.fit(X[batches], Y[batches], batch_size=batch_size, **options)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-12)
    return float(np.abs(net.parameters - alone.parameters).max())


def rows_read() -> list[int]:
    """Return which rows of a file of inputs are read to train on them."""
    rows: list[int] = []
    read = FileShard.read

    def noted(shard: FileShard, file: Any, numbers: Any, *arguments: Any) -> None:
        if current_thread() is not main_thread():
            rows.extend(numbers.tolist())
        read(shard, file, numbers, *arguments)

    with tempfile.TemporaryDirectory() as folder, patch.object(FileShard, "read", noted):
        np.save(f"{folder}/X.npy", X)
        network().fit(f"{folder}/X.npy", Y, epochs=2, batch_size=50, seed=1, comm=COMM)
    return rows


def metrics_of_shards() -> float:
    """Return the largest difference of metrics from those of one process on the same rows."""
    share = len(X) // COMM.size
    own = np.arange(share) + share * COMM.rank
    n_held_out, net = round(0.25 * share), network("float64")
    history = net.fit(
        X[own], Y[own], batch_size=COMM.size * 10, sample_weight=WEIGHTS[own], shuffle=False,
        validation_split=0.25, metrics={"a": "accuracy", "n": lambda T, A: len(T) + A.max()},
        training_metrics=True, comm=Ranks(COMM, sharded=True),
    )  # fmt: skip
    rows = np.arange(share * COMM.size).reshape(COMM.size, share)
    differences = []
    for part, name in ((rows[:, :-n_held_out], ""), (rows[:, -n_held_out:], "validation_")):
        rows_of_part = part.reshape(-1)
        T, weights, A = Y[rows_of_part], WEIGHTS[rows_of_part], net.predict(X[rows_of_part])
        accuracy = np.average(A.argmax(axis=1) == T, weights=weights)
        differences.append(history.metrics[f"{name}a"][0] - accuracy)
        differences.append(history.metrics[f"{name}n"][0] - (len(T) + A.max()))
    loss = net.evaluate(X[rows_of_part], T, sample_weight=weights)
    assert history.validation_loss is not None
    differences.append(history.validation_loss[0] - loss)
    return float(np.abs(differences).max())


def special() -> dict[str, Any]:
    """Fits without a seed, on shards, with the fast reduction, and one that diverges."""
    results: dict[str, Any] = {"rows": rows_read(), "metrics of shards": metrics_of_shards()}
    net = network()
    net.fit(X, Y, epochs=2, comm=COMM)
    results["without seed"] = checksum(net.parameters)
    exact, net = network("float64"), network("float64")
    exact.fit(X, Y, epochs=3, batch_size=50, seed=1, comm=COMM)
    net.fit(X, Y, epochs=3, batch_size=50, seed=1, comm=Ranks(COMM, "fast"))
    results["fast"] = checksum(net.parameters)
    results["error"] = float(np.abs(net.parameters - exact.parameters).max())
    for weighted, streamed in product((False, True), repeat=2):
        error = shards(weighted=weighted, streamed=streamed)
        results[f"shards, weighted={weighted}, streamed={streamed}"] = error
    try:
        network().fit(X, Y, epochs=3, optimizer=nncore.SGD(1e30), seed=0, comm=COMM)
    except nncore.DivergenceError as error:
        results["divergence"] = str(error)
    return results


def resumed(path: str, dies_at: str) -> list[Any]:
    """Write checkpoints until the last rank kills itself in one of its calls of the loss."""
    net = nncore.Network([20, 33, 5], loss=DyingLoss(int(dies_at)), output_activation="identity",
                         seed=0)  # fmt: skip
    history = net.fit(
        X, np.eye(5)[Y], epochs=5, batch_size=50, optimizer=nncore.Adam(0.01), seed=1, dropout=0.2,
        callbacks=[Checkpoint(path, every_steps=3), EarlyStopping("loss")], comm=COMM, resume=path,
    )  # fmt: skip
    return [checksum(net.parameters), history.loss]


def fails(**options: Any) -> str:
    """Return the error of a fit with these arguments."""
    net = options.pop("network", None) or network()
    before = net.copy_parameters()
    arguments: dict[str, Any] = {"X": X, "Y": Y, "epochs": 2, "seed": 0, "comm": COMM}
    try:
        net.fit(**(arguments | options))
    except (OverflowError, RankError, ValueError) as error:
        unchanged = np.array_equal(before, net.parameters)
        return f"{type(error).__name__}: {error}" + " (unchanged)" * unchanged
    return "no error"


def estimator_on_shards() -> str:
    with Ranks(COMM, sharded=True):
        try:
            MLPClassifier().fit(X, Y)
        except ValueError as error:
            return str(error)
    return "no error"


def too_much(*arguments: object) -> float:
    raise OverflowError("too much")


def errors() -> dict[str, str]:
    """Arguments that the last rank has others of, and exceptions on one rank."""
    is_last = COMM.rank == COMM.size - 1
    other = network()
    other.parameters[3] += is_last
    loss = SquaredLoss(COMM.size - 1)
    custom = nncore.Network([20, 5], loss=loss, output_activation="identity", seed=0)
    return {
        "batch_size": fails(batch_size=50 + is_last),
        "seed": fails(seed=int(is_last)),
        "X": fails(X=X + is_last),
        "network.parameters": fails(network=other),
        "optimizer.learning_rate": fails(optimizer=nncore.SGD(0.1 + is_last)),
        "reduction": fails(comm=Ranks(COMM, "fast" if is_last else "exact")),
        "argument": fails(epochs=-1 if is_last else 2),
        "loss": fails(network=custom, Y=np.eye(5)[Y]),
        "callback": fails(callbacks=[too_much]),
        "shards of different length": fails(
            X=X[is_last:], Y=Y[is_last:], batch_size=30, comm=Ranks(COMM, sharded=True)
        ),
        "batches of shards": fails(batch_size=31, comm=Ranks(COMM, sharded=True)),
        "weights of one shard": fails(
            batch_size=30,
            sample_weight=WEIGHTS if is_last else None,
            comm=Ranks(COMM, sharded=True),
        ),
        "shorter stream": fails(
            X=nncore.Stream(lambda: chunks(X[: 203 - 10 * is_last], Y[: 203 - 10 * is_last])),
            Y=None,
            batch_size=50,
            shuffle=False,
        ),
        "other stream": fails(X=nncore.Stream(lambda: chunks(X + is_last, Y)), Y=None),
        "shorter stream of shards": fails(
            X=nncore.Stream(lambda: chunks(X[: 203 - 53 * is_last], Y[: 203 - 53 * is_last])),
            Y=None,
            batch_size=150,
            comm=Ranks(COMM, sharded=True),
        ),
        "estimator on shards": estimator_on_shards(),
        "metric": fails(validation_split=0.2, metrics={"mine": too_much}),
    }


if __name__ == "__main__":
    result = globals()[sys.argv[1]](*sys.argv[2:])
    gathered = COMM.gather(result, root=0)
    if COMM.rank == 0:
        print(json.dumps(gathered))
