"""Without more threads from the system, fewer do the work, with the same bits."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from exhaustion import limits_threads, no_more_threads

import nncore
from nncore.callbacks import Checkpoint

Array = npt.NDArray[Any]

SIZES = [7, 300, 3]
X = np.random.default_rng(0).random((3000, 7), np.float32)
Y = X[:, :3].copy()


def network() -> nncore.Network:
    return nncore.Network(SIZES, seed=0)


def trained(*data: Any, **options: Any) -> list[Array]:
    net = network()
    history = net.fit(*data, epochs=2, batch_size=256, seed=0, n_threads=3, **options)
    return [net.parameters, np.array(history.loss + history.validation_loss)]


def trained_in_steps() -> list[Array]:
    net, optimizer = network(), nncore.Adam()
    losses = [net.train_on_batch(X, Y, optimizer, n_threads=3) for _ in range(2)]
    return [net.parameters, np.array(losses)]


def trained_together() -> list[Array]:
    nets = [nncore.Network([7, 20, 3], seed=i) for i in range(3)]
    nncore.fit_many(nets, X, Y, seeds=0, n_threads=3)
    return [net.parameters for net in nets]


def trained_with_checkpoints(folder: Path) -> list[Array]:
    checkpoint = Checkpoint(folder / "run", every_steps=5)
    vectors = trained(X, Y, callbacks=[checkpoint])
    assert (nncore.load(checkpoint.path).parameters == vectors[0]).all()
    again = trained(X, Y, resume=checkpoint.path, callbacks=[checkpoint])
    assert (again[0] == vectors[0]).all()
    Path(checkpoint.path).unlink()
    return vectors


def files(folder: Path) -> list[Path]:
    paths = [folder / "X.npy", folder / "Y.npy"]
    for path, array in zip(paths, (X, Y), strict=True):
        np.save(path, array)
    return paths


CALLS: dict[str, Callable[[Path], Any]] = {
    "predict": lambda _: network().predict(X, n_threads=3),
    "predict from files": lambda folder: network().predict(files(folder)[0], n_threads=3),
    "evaluate": lambda _: network().evaluate(X, Y, n_threads=3),
    "evaluate files": lambda folder: network().evaluate(*files(folder), n_threads=3),
    "gradient": lambda _: network().gradient(X, Y, n_threads=3),
    "backward": lambda _: network().backward(X, Y, n_threads=3),
    "jacobian": lambda _: network().jacobian(X, n_threads=3),
    "train_on_batch": lambda _: trained_in_steps(),
    "fit": lambda _: trained(X, Y, validation_split=0.2, metrics=["r2"]),
    "fit from files": lambda folder: trained(*files(folder), validation_data=files(folder)),
    "fit from a stream": lambda _: trained(nncore.Stream(lambda: iter([(X, Y)] * 2))),
    "fit with checkpoints": trained_with_checkpoints,
    "fit_many": lambda _: trained_together(),
}


@limits_threads
def test_the_system_refuses_threads() -> None:
    with no_more_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
        threading.Thread(target=print).start()


@limits_threads
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_give_the_same_bits(
    call: Callable[[Path], Any], tmp_path: Path, leaves_no_thread: None
) -> None:
    expected = call(tmp_path)
    with no_more_threads():
        result = call(tmp_path)
    np.testing.assert_equal(result, expected)
