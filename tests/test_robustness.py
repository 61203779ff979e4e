"""State that users change, restore or interrupt, and numbers at the edge of the type."""

import copy
import gc
import mmap
import pickle
import signal
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, data, make, refused, snapshot

import nncore

DType = np.dtype[Any]


def problem(dtype: DType, n: int = 37) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 3], dtype=dtype)
    return net, *data(net, n, np.random.default_rng(6))


def test_labels_that_change_during_a_fit_have_no_effect(dtype: DType) -> None:
    X, labels = np.random.default_rng(0).random((64, 5)), np.arange(64) % 3
    fits = []
    for change in (False, True):
        net = nncore.Network([5, 3], loss="cross_entropy", dtype=dtype, seed=0)
        targets = labels.copy()
        callbacks = [lambda end, y=targets: y.fill(10**9)] if change else []
        net.fit(X, targets, epochs=3, callbacks=callbacks, seed=0)
        fits.append(net)
    assert fits[0].equals(fits[1])


def test_state_restored_from_lists_gives_the_same_bits(dtype: DType) -> None:
    (net, X, Y), (other, _, _) = problem(dtype), problem(dtype)
    one, two = nncore.Adam(), nncore.Adam()
    for network, optimizer in ((net, one), (other, two)):
        network.fit(X, Y, batch_size=8, optimizer=optimizer, seed=0)
    two.state = tuple(vector.tolist() for vector in one.state)
    net.fit(X, Y, batch_size=8, optimizer=one, seed=1)
    other.fit(X, Y, batch_size=8, optimizer=two, seed=1)
    assert net.equals(other)
    assert snapshot(one) == snapshot(two)


@pytest.mark.parametrize(
    ("attribute", "value", "error"),
    [
        ("state", (np.zeros(3), np.zeros(3)), ValueError),
        ("state", (["m"], ["v"]), TypeError),
        ("step_count", -1, ValueError),
        ("step_count", 1.5, TypeError),
        ("step_count", 10**30, ValueError),
        ("state", None, TypeError),
    ],
)
def test_wrong_state_is_rejected(
    dtype: DType, attribute: str, value: Any, error: type[Exception]
) -> None:
    net, X, Y = problem(dtype)
    before = net.parameters.copy()
    optimizer = nncore.Adam()

    def set_and_fit() -> None:
        # The shape of the state is checked when the network is known, the rest at once.
        setattr(optimizer, attribute, value)
        net.fit(X, Y, optimizer=optimizer)

    with pytest.raises(error, match=rf"optimizer\.{attribute}"):
        set_and_fit()
    assert (net.parameters == before).all()


def test_a_callback_may_not_set_the_state_to_none(dtype: DType) -> None:
    net, X, Y = problem(dtype)
    optimizer = nncore.Adam()

    def lose(end: nncore.EpochEnd) -> None:
        optimizer.state = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"optimizer\.state must be a tuple of vectors, got None"):
        net.fit(X, Y, optimizer=optimizer, callbacks=[lose])
    assert [vector.shape for vector in optimizer.state] == [net.parameters.shape] * 2


@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("_steps", 10**30, ValueError),
        ("_vectors", [np.zeros(3)] * 2, ValueError),
        ("_vectors", [np.full((1, 57), 0.5)] * 2, ValueError),
        ("_vectors", [np.array(["m"] * 57)] * 2, TypeError),
    ],
)
def test_a_pickled_optimizer_that_was_tampered_with_is_rejected(
    trained: bool, name: str, value: Any, error: type[Exception], dtype: DType
) -> None:
    net, X, Y = problem(dtype)
    assert net.parameters.size == 57
    optimizer = nncore.Adam()
    if trained:
        net.fit(X, Y, optimizer=optimizer)

    def restore_and_fit() -> None:
        # The shape is known only when the optimizer has trained a network.
        other = nncore.Adam()
        other.__setstate__(optimizer.__getstate__() | {name: value})
        net.fit(X, Y, optimizer=other)

    with refused(error, "optimizer.", unchanged=[net]):
        restore_and_fit()


def test_a_callback_may_reset_the_state(dtype: DType) -> None:
    net, X, Y = problem(dtype)
    optimizer = nncore.Adam()

    def reset(end: nncore.EpochEnd) -> None:
        optimizer.state, optimizer.step_count = (), 0

    net.fit(X, Y, epochs=3, optimizer=optimizer, callbacks=[reset])
    assert optimizer.state == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": np.zeros(5)}, r"parameters must have shape \(57,\), got \(5,\)"),
        ({"parameters": np.zeros((57, 1))}, r"parameters must have shape \(57,\), got \(57, 1\)"),
        ({"parameters": np.full(57, np.nan)}, "parameters must be finite, got nan"),
        ({"parameters": np.zeros(57, int)}, "dtype must be float32 or float64"),
        ({"sizes": (5, 6, 4)}, r"parameters must have shape \(64,\), got \(57,\)"),
        ({"sizes": (5,)}, "sizes must list at least"),
        ({"activation": ("tanh", "foo")}, "activation must be one of .* got 'foo'"),
        ({"activation": ("softmax", "tanh")}, "softmax is for the output layer only"),
        ({"loss": "foo"}, "loss must be one of .* got 'foo'"),
        ({"loss": "cross_entropy"}, "loss 'cross_entropy' needs an output layer"),
    ],
)
def test_a_pickled_network_that_was_tampered_with_is_rejected(
    changes: dict[str, Any], message: str, dtype: DType
) -> None:
    net, X, _ = problem(dtype)
    before = net.predict(X).tobytes()
    with pytest.raises(ValueError, match=message):
        net.__setstate__(net.__getstate__() | changes)
    assert net.predict(X).tobytes() == before


def test_dropout_is_checked_without_hidden_layers_too() -> None:
    net = make([5, 3])
    X, Y = data(net, 20, np.random.default_rng(6))
    with refused(ValueError, "dropout must be in [0, 1), got 5", unchanged=[net]):
        net.fit(X, Y, dropout=5)
    assert len(net.fit(X, Y, dropout=0.5)) == 1


def test_adams_epsilon_must_be_a_normal_number_of_the_networks_type() -> None:
    (single, X, Y), (double, _, _) = problem(np.dtype("f4")), problem(np.dtype("f8"))
    optimizer = nncore.Adam(epsilon=1e-60)
    for call in (single.fit, single.train_on_batch):
        with refused(ValueError, "epsilon", "float32", "1e-60", unchanged=[single, optimizer]):
            call(X, Y, optimizer=optimizer)
    assert len(double.fit(X, Y, optimizer=optimizer)) == 1


@pytest.mark.parametrize(
    ("thing", "name", "meant"),
    [
        (nncore.Network([5, 3]), "wieghts", "weights"),
        (nncore.Network([5, 3]), "bias", "biases"),
        (nncore.Adam(), "lr", "learning_rate"),
        (nncore.SGD(), "learning_rte", "learning_rate"),
        (nncore.SGD(), "beta_1", None),
        (nncore.Network([5, 3]), "zzz", None),
    ],
    ids=["wieghts", "bias", "lr", "learning_rte", "beta_1", "zzz"],
)
def test_unknown_attributes_are_rejected_with_a_suggestion(
    thing: Any, name: str, meant: str | None
) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'") as raised:
        setattr(thing, name, 3)
    assert not hasattr(thing, name)
    assert ("did you mean" in str(raised.value)) == (meant is not None)
    assert meant is None or repr(meant) in str(raised.value)


class TaggedNetwork(nncore.Network):
    """A user's class with an attribute of its own."""

    def __init__(self, tag: str) -> None:
        super().__init__([5, 3], seed=0)
        self.tag = tag


class SlottedNetwork(nncore.Network):
    __slots__ = ("tag",)
    tag: str


class TaggedSGD(nncore.SGD):
    tag: str


def test_subclasses_may_have_attributes_of_their_own() -> None:
    net, slotted, optimizer = TaggedNetwork("mine"), SlottedNetwork([5, 3]), TaggedSGD()
    slotted.tag = optimizer.tag = "mine"
    for thing in (net, slotted, optimizer):
        assert thing.tag == "mine"
        assert copy.deepcopy(thing).tag == "mine"
        assert pickle.loads(pickle.dumps(thing)).tag == "mine"
    X = np.ones((4, 5))
    assert copy.deepcopy(net).predict(X).tobytes() == net.predict(X).tobytes()


def test_networks_are_freed_without_the_garbage_collector(dtype: DType) -> None:
    net, X, Y = problem(dtype)
    gc.disable()
    try:
        net.fit(X, Y)
        net.train_on_batch(X, Y, nncore.SGD())
        net.predict(np.tile(X, (20, 1)))
        reference = weakref.ref(net)
        del net
        assert reference() is None
    finally:
        gc.enable()


def test_read_only_parameters_are_not_trained(dtype: DType) -> None:
    net, X, Y = problem(dtype)
    net.parameters.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        net.fit(X, Y)


def test_batch_of_the_lightest_examples_does_not_overflow(dtype: DType) -> None:
    net, X, Y = problem(dtype, 4)
    least = 2.0**-100 if dtype == np.float32 else 2.0**-900
    optimizer = nncore.SGD(0.1)
    weights = np.array([0.5, 4 * least, least / 4, 1e-300])
    net.fit(X, Y, batch_size=1, shuffle=False, optimizer=optimizer, sample_weight=weights)
    assert optimizer.step_count == 2
    assert np.isfinite(net.parameters).all()


@pytest.mark.parametrize("ratio", [0.5, 1e-3, 1e-6, 1e-9, 1e-12])
def test_a_clipped_gradient_has_the_largest_norm_allowed(dtype: DType, ratio: float) -> None:
    net = nncore.Network([3, 2], dtype=dtype, seed=0)
    before = net.parameters.copy()
    X, Y = np.ones((4, 3)), np.full((4, 2), 1.0)
    norm = float(np.linalg.norm(net.gradient(X, Y)))
    net.fit(X, Y, batch_size=4, optimizer=nncore.SGD(1e3), gradient_clipping=ratio * norm)
    step = float(np.linalg.norm(net.parameters.astype(np.float64) - before)) / 1e3
    # A step is rounded when it is added to a parameter.
    rounding = float(np.finfo(dtype).eps) / 1e3
    assert step == pytest.approx(ratio * norm, rel=1e-5, abs=4 * rounding)
    assert step > 0 or ratio * norm < rounding


@pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="the system has no timers of that kind"
)
def test_interrupt_before_the_first_step_changes_nothing() -> None:
    """The first phase of the only step takes longer than the timer."""
    rng = np.random.default_rng(0)
    X, Y = rng.random((60_000, 200), np.float32), rng.random((60_000, 300), np.float32)
    net = nncore.Network([200, 300, 300, 300], seed=0)
    before = net.parameters.copy()

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            net.fit(X, Y, batch_size=60_000, epochs=1000, n_threads=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert (net.parameters == before).all()


def test_nan_in_a_mapped_file_is_found_by_predict(dtype: DType, tmp_path: Path) -> None:
    net = nncore.Network([3, 2], dtype=dtype, seed=0)
    X = np.memmap(tmp_path / "X", dtype=dtype, mode="w+", shape=(100, 3))
    X[:] = 1
    net.predict(X)
    X[70, 1] = np.nan
    with pytest.raises(ValueError, match="X must be finite, got nan in row 70"):
        net.predict(X)


def trained_on_large_batches(n_steps: int) -> tuple[nncore.Network, nncore.Optimizer]:
    net, optimizer = nncore.Network([100, 100], seed=0), nncore.Adam(0.1)
    X = np.ones((100_000, 100), np.float32)
    for _ in range(n_steps):
        net.train_on_batch(X, X, optimizer)
    return net, optimizer


def test_large_workspaces_are_not_kept_if_the_system_cannot_take_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(mmap, "MADV_FREE", raising=False)
    net, optimizer = trained_on_large_batches(1)
    assert not net._idle
    X = np.ones((10, 100), np.float32)
    net.train_on_batch(X, X, optimizer)
    assert len(net._idle) == 1


@pytest.mark.skipif(not hasattr(mmap, "MADV_FREE"), reason="the system cannot take memory back")
def test_training_continues_with_the_same_bits_after_the_system_took_the_workspace() -> None:
    net, optimizer = trained_on_large_batches(2)
    (session,) = net._idle
    for mapping in session._workspace.mappings:
        mapping.madvise(mmap.MADV_DONTNEED)
    X = np.ones((100_000, 100), np.float32)
    net.train_on_batch(X, X, optimizer)
    assert net._idle[0] is session
    assert (net.parameters == trained_on_large_batches(3)[0].parameters).all()


def test_callbacks_keep_subnormal_numbers() -> None:
    """Steps flush them, in their own threads."""
    tiny = np.finfo(np.float32).smallest_subnormal
    seen = []
    net = nncore.Network([3, 2], seed=0)
    X = np.ones((50, 3))
    net.fit(X, X[:, :2], epochs=2, callbacks=[lambda end: seen.append(np.float32(tiny) * 3)])
    assert seen == [np.float32(tiny) * 3] * 2
    assert seen[0] > 0
