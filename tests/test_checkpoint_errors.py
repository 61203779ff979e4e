"""What a resumed run refuses, and errors while checkpoints are written."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import linear_problem, refused
from runs import Run

import nncore
from nncore import checkpoints, resuming
from nncore.callbacks import Checkpoint, EarlyStopping
from nncore.persistence import read_stored, save
from nncore.sklearn import MLPRegressor


class InterruptionError(Exception):
    """Ends a run in the middle of an epoch."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.fixture
def stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint after 3 of 5 steps of the first epoch."""

    class Writer(checkpoints.Writer):
        def end_chunk(self, position: Any) -> None:
            super().end_chunk(position)
            raise InterruptionError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "Writer", Writer)
        with pytest.raises(InterruptionError):
            Run().fit(Checkpoint(path, every_steps=3))
    return path


# Other runs.

X, Y = Run().X, Run().Y
MT19937 = np.random.Generator(np.random.MT19937(0))


@pytest.mark.parametrize(
    ("changes", "name", "expected", "got"),
    [
        ({"batch_size": 9}, "batch_size", "8", "9"),
        ({"shuffle": False}, "shuffle", "True", "False"),
        ({"dropout": 0.5}, "dropout", "()", "(0.5,)"),
        ({"gradient_clipping": 1.0}, "gradient_clipping", "None", "1.0"),
        ({"seed": 3}, "seed", "None", "3"),
        ({"seed": MT19937}, "generator", "'PCG64'", "'MT19937'"),
        ({"optimizer": "sgd"}, "optimizer", "'Adam'", "'SGD'"),
        ({"optimizer": nncore.Adam(0.01)}, "optimizer.learning_rate", "0.001", "0.01"),
        ({"sample_weight": np.ones(37)}, "sample_weight", "None", "'an array of shape (37,)"),
        ({"validation_data": (X, Y)}, "validation X", "None", "'an array of shape (37, 5)"),
        ({"callbacks": []}, "callbacks", "('Decay',)", "()"),
        ({"callbacks": [EarlyStopping("loss")]}, "callbacks", "('Decay',)", "('EarlyStopping',)"),
        ({"data": (X[:30], Y[:30])}, "X", "'an array of shape (37, 5)", "'an array of shape (30"),
        ({"data": (X + 0.1, Y)}, "X", "'an array of shape (37, 5), checksum", "checksum"),
        ({"data": (X, Y[::-1])}, "Y", "'an array of shape (37, 3), checksum", "checksum"),
    ],
)
def test_a_run_with_another_setting_is_refused(
    changes: dict[str, Any], name: str, expected: str, got: str, stored: Path
) -> None:
    run = Run()
    texts = f"{name} must be {expected}", f"to resume from '{stored}', got ", got
    with refused(ValueError, *texts, unchanged=[run.net, run.optimizer, run.seed]):
        run.fit(resume=stored, **changes)
    assert run.decay.rates == []


@pytest.mark.parametrize(
    ("changes", "name", "expected", "got"),
    [
        ({"sizes": [5, 7, 3]}, "sizes", "(5, 6, 3)", "(5, 7, 3)"),
        ({"activation": "relu"}, "activation", "('tanh', 'sigmoid')", "('relu', 'sigmoid')"),
        ({"loss": "huber"}, "loss", "'squared_error'", "'huber'"),
        ({"dtype": "float64"}, "dtype", "'float32'", "'float64'"),
    ],
)
def test_another_network_is_refused(
    changes: dict[str, Any], name: str, expected: str, got: str, stored: Path
) -> None:
    options = {"sizes": [5, 6, 3], "activation": "tanh", "output_activation": "sigmoid", **changes}
    run = Run()
    run.net = nncore.Network(**options)
    texts = f"{name} must be {expected} to resume from '{stored}', got {got}"
    with refused(ValueError, texts, unchanged=[run.net]):
        run.fit(resume=stored)


def test_fewer_epochs_than_completed_are_refused(stored: Path, path: Path) -> None:
    run = Run()
    run.fit(Checkpoint(path))
    with pytest.raises(ValueError, match=r"epochs must be at least 4 to resume from .*, got 3"):
        Run().fit(resume=path, epochs=3)


def test_data_of_another_type_with_the_same_values_continue(stored: Path) -> None:
    whole, resumed = Run(), Run()
    whole.fit()
    resumed.fit(resume=stored, data=(X.astype("f8"), Y.tolist()))
    assert resumed.result() == whole.result()


@pytest.mark.parametrize("seed", [0, None])
def test_a_seed_that_differs_is_refused(seed: Any, path: Path) -> None:
    Run(seed=1).fit(Checkpoint(path))
    with pytest.raises(ValueError, match=f"seed must be 1 to resume from .*, got {seed}"):
        Run(seed=seed).fit(resume=path)


def test_a_file_without_its_kernels_is_refused(stored: Path) -> None:
    content = read_stored(stored)
    del content.sections["checkpoint"]["kernels"]
    save(stored, content)
    with pytest.raises(ValueError, match="kernels"):
        Run().fit(resume=stored)


def test_other_kernels_are_reported(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "KERNELS", "other")
    with pytest.warns(UserWarning, match="with other the last digits may differ"):
        Run().fit(resume=stored)


# Files that are no checkpoints.


def test_files_without_a_checkpoint_are_refused(path: Path) -> None:
    run = Run()
    run.net.save(path, run.optimizer)
    with refused(ValueError, str(path), "it holds no checkpoint", unchanged=[run.net]):
        run.fit(resume=path)


def test_a_checkpoint_cut_at_any_length_is_refused(stored: Path) -> None:
    content, run = stored.read_bytes(), Run()
    for length in range(0, len(content), 7):
        stored.write_bytes(content[:length])
        with refused(ValueError, str(stored), unchanged=[run.net, run.optimizer, run.seed]):
            run.fit(resume=stored)


def test_a_directory_and_other_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - PermissionError on Windows
        Run().fit(resume=tmp_path)
    with pytest.raises(TypeError, match=r"path must be a str or os\.PathLike, got 3"):
        Run().fit(resume=3)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("position", {"epoch": 1, "batch": 5, "sums": np.zeros((5, 3)), "seconds": 0.0}),
        ("position", {"epoch": -1, "batch": 0, "sums": np.zeros((0, 3)), "seconds": 0.0}),
        ("position", {"epoch": 0, "batch": 3, "sums": np.zeros((2, 3)), "seconds": 0.0}),
        ("position", {"epoch": 0, "batch": 3}),
        ("position", {"epoch": 0, "batch": 1, "sums": np.ones((1, 3)), "seconds": np.nan}),
        ("position", {"epoch": 0, "batch": 1, "sums": np.full((1, 3), np.inf), "seconds": 0.0}),
        ("position", {"epoch": 0, "batch": 1, "sums": np.full((1, 3), -8.0), "seconds": 0.0}),
        ("history", {"loss": np.zeros(3)}),
        ("history", {"loss": {}, "validation_loss": np.zeros(0), "seconds": np.zeros(0)}),
        ("history", 1),
        ("rng", {"bit_generator": "PCG64"}),
        ("rng", None),
        ("dropout_seed", -1),
        ("is_finished", "no"),
        ("callbacks", []),
        ("parameters", np.zeros(3)),
        ("settings", None),
        ("settings", {"batch_size": np.ones(3)}),
        ("kernels", np.ones(3)),
    ],
)
def test_a_wrong_entry_is_refused(entry: str, value: Any, stored: Path) -> None:
    content = read_stored(stored)
    content.sections["checkpoint"][entry] = value
    save(stored, content)
    run = Run()
    with refused(ValueError, str(stored), unchanged=[run.net, run.optimizer, run.seed]):
        run.fit(resume=stored)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("MT19937", {"state": {"key": np.ones(624, np.uint32), "pos": 10**9}}),
        ("MT19937", {"state": {"key": np.ones(624, np.uint32), "pos": -1}}),
        ("MT19937", {"state": {"key": np.ones(623, np.uint32), "pos": 0}}),
        ("Philox", {"buffer_pos": -(10**9)}),
        ("Philox", {"buffer_pos": 5}),
        ("PCG64", {"state": {"state": 0, "inc": 0}}),
        ("PCG64", {"state": {"state": 2**128 - 2**64, "inc": 2**70}}),
        ("PCG64DXSM", {"state": {"state": 1, "inc": 2}}),
        ("SFC64", {"state": {"state": np.zeros(3, np.uint64)}}),
    ],
)
def test_a_state_that_no_generator_has_is_refused(
    kind: str, change: dict[str, Any], path: Path
) -> None:
    """NumPy would read beyond its memory, or draw the same number forever."""

    def generator() -> np.random.Generator:
        return np.random.Generator(getattr(np.random, kind)(0))

    Run(seed=generator()).fit(Checkpoint(path))
    content = read_stored(path)
    content.sections["checkpoint"]["rng"] |= change
    save(path, content)
    run = Run(seed=generator())
    with refused(ValueError, str(path), unchanged=[run.net, run.optimizer, run.seed]):
        run.fit(resume=path)


class Flat(np.random.PCG64):
    """A bit generator whose state holds no dict."""

    @property
    def state(self) -> Any:
        state: Any = super().state
        return {**state, **state["state"]}

    @state.setter
    def state(self, value: Any) -> None:
        descriptor: Any = np.random.PCG64.state
        descriptor.__set__(self, {**value, "state": {n: value[n] for n in ("state", "inc")}})


def test_a_bit_generator_of_a_users_own_continues(path: Path) -> None:
    whole, first, resumed = (Run(seed=np.random.Generator(Flat(0))) for _ in range(3))
    whole.fit()
    first.fit(Checkpoint(path), epochs=2)
    resumed.fit(resume=path)
    assert resumed.result() == whole.result()
    states = [run.options["seed"].bit_generator.state for run in (whole, resumed)]
    assert states[0] == states[1]


def test_what_the_setter_of_a_bit_generator_refuses_is_refused(path: Path) -> None:
    Run(seed=np.random.Generator(Flat(0))).fit(Checkpoint(path))
    content = read_stored(path)
    content.sections["checkpoint"]["rng"]["state"] = "state"
    save(path, content)
    run = Run(seed=np.random.Generator(Flat(0)))
    with refused(ValueError, str(path), unchanged=[run.net, run.optimizer, run.options["seed"]]):
        run.fit(resume=path)


@pytest.mark.parametrize("best", [np.ones(3), np.full(57, 1e300), np.full(57, "a"), 3])
def test_other_best_parameters_are_refused(best: Any, path: Path) -> None:
    Run(callbacks=[EarlyStopping("loss")]).fit(Checkpoint(path))
    content = read_stored(path)
    state = content.sections["checkpoint"]["callbacks"][0]
    assert state["best_parameters"].shape == (57,)
    state["best_parameters"] = best
    save(path, content)
    stopping = EarlyStopping("loss")
    run = Run(callbacks=[stopping])
    texts = str(path), "best_parameters"
    with refused(ValueError, *texts, unchanged=[run.net, run.optimizer, run.seed]):
        run.fit(resume=path)
    assert stopping.best_parameters is None


# What cannot be stored is found before training.


class OwnAdam(nncore.Adam):
    """Of a class that nncore does not know."""


class Odd:
    """A callback whose state is an object."""

    def __call__(self, end: nncore.EpochEnd) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {"network": Run().net}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"optimizer": OwnAdam()}, "to be stored in a file, got OwnAdam"),
        ({"optimizer": nncore.Adam(lambda step: 0.1), "callbacks": []}, "learning_rate must hold"),
        ({"callbacks": [Odd()]}, "checkpoint.callbacks.0.network must hold numbers"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_training(
    changes: dict[str, Any], text: str, path: Path
) -> None:
    run = Run()
    with refused(TypeError, text, unchanged=[run.net, run.seed]):
        run.fit(Checkpoint(path), **changes)
    assert not path.exists()


def test_a_missing_directory_is_reported_before_training(tmp_path: Path) -> None:
    run = Run()
    with refused(FileNotFoundError, "missing", unchanged=[run.net]):
        run.fit(Checkpoint(tmp_path / "missing" / "run"), resume=tmp_path / "missing" / "run")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_epochs": 0}, ValueError, "every_epochs must be at least 1, got 0"),
        ({"every_steps": 1.5}, TypeError, "every_steps must be an integer, got 1.5"),
        ({"every_seconds": 0}, ValueError, "every_seconds must be > 0, got 0"),
        ({"every_seconds": float("nan")}, ValueError, "every_seconds must be > 0, got nan"),
        ({"every_seconds": "1"}, TypeError, "every_seconds must be a real number"),
        ({"path": 1}, TypeError, "path must be a str or os.PathLike, got 1"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Checkpoint(**{"path": "run", **arguments})


def test_two_checkpoints_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="callbacks must hold at most one Checkpoint, got 2"):
        Run().fit(Checkpoint(path), Checkpoint(path))


def test_estimators_refuse_a_checkpoint(path: Path) -> None:
    with pytest.raises(TypeError, match=r"Checkpoint works in Network\.fit only"):
        MLPRegressor(callbacks=[Checkpoint(path)]).fit(X, Y)


# Errors while a checkpoint is written.


@pytest.mark.usefixtures("leaves_no_thread")
@pytest.mark.parametrize("when", [{"every_steps": 1}, {"every_epochs": 1}, {"every_seconds": 1e9}])
def test_an_error_of_the_disk_reaches_the_caller(
    when: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    run.fit(Checkpoint(path))
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    run = Run()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        run.fit(Checkpoint(path, **when))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert run.optimizer.step_count >= 1
    assert np.isfinite(run.net.parameters).all()
    run.fit()


@pytest.mark.usefixtures("leaves_no_thread")
def test_an_error_of_a_callback_leaves_no_thread_and_the_last_checkpoint(path: Path) -> None:
    def fail(end: nncore.EpochEnd) -> None:
        if end.epoch == 3:
            raise InterruptionError

    whole, run, resumed = Run(), Run(), Run()
    whole.fit()
    with pytest.raises(InterruptionError):
        run.fit(fail, Checkpoint(path))
    resumed.fit(resume=path)
    assert resumed.result() == whole.result()


def test_ctrl_c_keeps_the_last_checkpoint(path: Path) -> None:
    def interrupt(end: nncore.EpochEnd) -> None:
        if end.epoch == 2:
            raise KeyboardInterrupt

    run, resumed, whole = Run(), Run(), Run()
    with pytest.raises(KeyboardInterrupt):
        run.fit(interrupt, Checkpoint(path))
    resumed.fit(resume=path)
    whole.fit()
    assert resumed.result() == whole.result()


# Divergence.


def test_divergence_after_resuming_leaves_the_network_as_in_the_checkpoint(
    path: Path,
) -> None:
    def fit(**options: Any) -> nncore.Network:
        net, X, Y = linear_problem("float32")
        optimizer = nncore.SGD(1e30)
        with pytest.raises(nncore.DivergenceError) as got:
            net.fit(X, Y, batch_size=8, epochs=9, optimizer=optimizer, seed=0, **options)
        assert got.value.epoch == 1
        messages.append(str(got.value))
        return net

    messages: list[str] = []
    fit(callbacks=[Checkpoint(path, every_steps=1)])
    net = fit(resume=path)
    assert "the network is as it was before" in messages[0]
    assert "as in the middle of epoch 1, where the run resumed" in messages[1]
    stored, optimizer = nncore.load(path, with_optimizer=True)
    assert net.equals(stored)
    assert optimizer.step_count == 1


@pytest.mark.parametrize("n_threads", [0, None])
def test_a_refused_fit_has_not_resumed(n_threads: int | None, stored: Path) -> None:
    run = Run()
    # Without a number of threads it is the directory of the next checkpoint that is refused.
    checkpoint = Checkpoint(stored if n_threads == 0 else stored.parent / "missing" / "run")
    with refused((ValueError, OSError), unchanged=[run.net, run.optimizer, run.seed]):
        run.fit(checkpoint, resume=stored, n_threads=n_threads)
