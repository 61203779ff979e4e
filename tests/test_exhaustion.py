"""Too little memory: MemoryError, and everything is as before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exhaustion import check_exhaustion, limits_memory
from helpers import Setting, refused

import nncore
from nncore._layout import FlatVector
from nncore.callbacks import Checkpoint, EarlyStopping

SETUP = """
import os
import sys
import numpy as np
import nncore

folder = sys.argv[2]
names = "net", "run", "old", "X.npy", "Y.npy"
path, run, old, *files = (os.path.join(folder, name) for name in names)
rng = np.random.default_rng(0)
X, Y = rng.random((3000, 200), np.float32), rng.random((3000, 300), np.float32)
np.save(files[0], X)
np.save(files[1], Y)
net, optimizer = nncore.Network([200, 400, 300], seed=0), nncore.Adam()
net.fit(X, Y, optimizer=optimizer, batch_size=1000)
net.save(path, optimizer)
nncore.load(path)  # imports what it needs
interrupted = {
    "batch_size": 1500, "seed": 0, "validation_data": (X, Y), "optimizer": nncore.Adam(),
    "callbacks": [nncore.callbacks.EarlyStopping(), nncore.callbacks.Checkpoint(old)],
}
if sys.argv[1] == "resume":
    nncore.Network([200, 400, 300], seed=1).fit(X, Y, epochs=2, **interrupted)
options = {"optimizer": optimizer, "n_threads": 2}
calls = {
    "predict": lambda: net.predict(X, n_threads=2),
    "predict from files": lambda: net.predict(files[0], n_threads=2),
    "layer_outputs": lambda: net.layer_outputs(X),
    "evaluate": lambda: net.evaluate(X[:, ::-1], Y),
    "gradient": lambda: net.gradient(X, Y, n_threads=2),
    "backward": lambda: net.backward(X, Y, n_threads=2),
    "jacobian": lambda: net.jacobian(X[:30], n_threads=2),
    "train_on_batch": lambda: net.train_on_batch(X[:1500], Y[:1500], **options),
    "fit": lambda: net.fit(X, Y, batch_size=1500, **options),
    "fit with weights": lambda: net.fit(
        X, Y, batch_size=1500, sample_weight=np.arange(3000.0), **options
    ),
    "fit with an evaluation": lambda: net.fit(
        X, Y, batch_size=1500, validation_data=(X, Y), **options
    ),
    "fit with metrics": lambda: net.fit(
        X, Y, validation_split=0.3, metrics=["r2"], training_metrics=True, **options
    ),
    "fit with checkpoints": lambda: net.fit(
        X, Y, batch_size=1500, callbacks=[nncore.callbacks.Checkpoint(run)], **options
    ),
    "fit from files": lambda: net.fit(*files, batch_size=1500, **options),
    "fit from a stream": lambda: net.fit(
        nncore.Stream(lambda: iter([(X, Y)])), batch_size=1500, **options
    ),
    "resume": lambda: net.fit(
        X, Y, epochs=3, resume=old, **{**interrupted, "optimizer": optimizer}
    ),
    "fit_many": lambda: nncore.fit_many([net], X, Y, batch_size=1500, optimizer=[optimizer]),
    "fold_scaling": lambda: net.fold_scaling(1.0, 2.0),
    "save": lambda: net.save(path, optimizer),
    "load": lambda: nncore.load(path, with_optimizer=True),
    "network": lambda: nncore.Network([1000, 2000, 2000]),
}
call = calls[sys.argv[1]]

def state():
    vectors = [net.copy_parameters(), *(vector.copy() for vector in optimizer.arrays)]
    return [vector.tobytes() for vector in vectors], optimizer.step_count, open(path, "rb").read()
"""

CALLS = [
    "predict",
    "predict from files",
    "layer_outputs",
    "evaluate",
    "gradient",
    "backward",
    "jacobian",
    "train_on_batch",
    "fit",
    "fit with weights",
    "fit with an evaluation",
    "fit with metrics",
    "fit with checkpoints",
    "fit from files",
    "fit from a stream",
    "resume",
    "fit_many",
    "fold_scaling",
    "save",
    "load",
    "network",
]


@limits_memory
@pytest.mark.parametrize("call", CALLS)
def test_too_little_memory_raises_memory_error_and_changes_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_exhaustion(SETUP, call, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "place", ["nncore.evaluation.Part", "nncore.session.Session", "nncore.checkpoints.Writer"]
)
def test_a_run_that_lacks_memory_to_resume_changes_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Setting
) -> None:
    def refuse(*arguments: Any) -> None:
        raise MemoryError

    stopping, path = EarlyStopping(), tmp_path / "run"
    X, Y = setting.X, setting.Y
    options: dict[str, Any] = {"validation_data": (X, Y), "callbacks": [stopping, Checkpoint(path)]}
    setting.fit(X, Y, epochs=2, **options)
    setting.fit(X, Y)
    stopping.best_epoch = 0
    monkeypatch.setattr(f"{place}.reserve", refuse)
    with refused(MemoryError, unchanged=setting.everything):
        setting.fit(X, Y, epochs=3, resume=path, **options)
    assert stopping.best_epoch == 0


def test_an_optimizer_without_memory_for_its_state_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allocated: list[FlatVector] = []

    class Scarce(FlatVector):
        @staticmethod
        def zeros(architecture: nncore.Architecture) -> FlatVector:
            if allocated:
                raise MemoryError
            allocated.append(FlatVector.zeros(architecture))
            return allocated[0]

    net, optimizer = nncore.Network([3, 2], seed=0), nncore.Adam()
    rng = np.random.default_rng(0)
    with monkeypatch.context() as patch:
        patch.setattr("nncore._optimizer.FlatVector", Scarce)
        with pytest.raises(MemoryError):
            net.fit(np.zeros((4, 3)), np.zeros((4, 2)), optimizer=optimizer, seed=rng)
    assert optimizer.arrays == ()
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    other = nncore.Network([4, 2], seed=0)
    other.fit(np.zeros((4, 4)), np.zeros((4, 2)), optimizer=optimizer)
