"""What a user may change, restore or interrupt while a network trains, and what is at the edge of
the numbers."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, data, make, snapshot

import nncore

DType = np.dtype[Any]


def problem(dtype: DType, n: int = 37) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 3], dtype=dtype)
    return net, *data(net, n, np.random.default_rng(6))


def test_labels_that_change_during_a_fit_change_nothing(dtype: DType) -> None:
    X, labels = np.random.default_rng(0).random((64, 5)), np.arange(64) % 3
    fits = []
    for change in (False, True):
        net = nncore.Network(
            [5, 3], activation="softmax", loss="cross_entropy", dtype=dtype, seed=0
        )
        targets = labels.copy()
        callbacks = [lambda end, y=targets: y.fill(10**9)] if change else []
        net.fit(X, targets, epochs=3, callbacks=callbacks, seed=0)
        fits.append(net)
    assert fits[0].equals(fits[1])


def test_state_restored_from_lists_continues_as_if_never_lost(dtype: DType) -> None:
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
def test_state_that_does_not_fit_is_refused(
    dtype: DType, attribute: str, value: Any, error: type[Exception]
) -> None:
    net, X, Y = problem(dtype)
    before = net.parameters.copy()
    optimizer = nncore.Adam()

    # What no network could have is refused when it is set, the rest when the network is known.
    def set_and_fit() -> None:
        setattr(optimizer, attribute, value)
        net.fit(X, Y, optimizer=optimizer)

    with pytest.raises(error, match=rf"optimizer\.{attribute}"):
        set_and_fit()
    assert (net.parameters == before).all()


def test_a_callback_may_begin_the_state_anew(dtype: DType) -> None:
    net, X, Y = problem(dtype)
    optimizer = nncore.Adam()

    def reset(end: nncore.EpochEnd) -> None:
        optimizer.state, optimizer.step_count = (), 0

    net.fit(X, Y, epochs=3, optimizer=optimizer, callbacks=[reset])
    assert optimizer.state == ()


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
def test_clipped_gradient_has_the_norm_that_it_may_have(dtype: DType, ratio: float) -> None:
    net = nncore.Network([3, 2], activation="identity", dtype=dtype, seed=0)
    before = net.parameters.copy()
    X, Y = np.ones((4, 3)), np.full((4, 2), 1.0)
    norm = float(np.linalg.norm(net.gradient(X, Y)))
    net.fit(X, Y, batch_size=4, optimizer=nncore.SGD(1e3), gradient_clipping=ratio * norm)
    step = float(np.linalg.norm(net.parameters.astype(np.float64) - before)) / 1e3
    # What a step adds is rounded beside the parameter that it is added to.
    rounding = float(np.finfo(dtype).eps) / 1e3
    assert step == pytest.approx(ratio * norm, rel=1e-5, abs=4 * rounding)
    assert step > 0 or ratio * norm < rounding


@pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="the system has no timers of that kind"
)
def test_interrupt_during_a_batch_of_everything_leaves_the_network_as_it_was() -> None:
    """The first phase of the one step takes longer than the timer, and changes nothing."""
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


def test_large_workspaces_are_not_kept() -> None:
    net = nncore.Network([100, 100], seed=0)
    X = np.ones((100_000, 100), np.float32)
    net.train_on_batch(X, X, nncore.SGD(0.1))
    assert not net._idle
    net.train_on_batch(X[:10], X[:10], nncore.SGD(0.1))
    assert len(net._idle) == 1


def test_subnormal_numbers_in_the_users_own_arithmetic_stay() -> None:
    """A run flushes them, in its own threads and until its end."""
    tiny = np.finfo(np.float32).smallest_subnormal
    seen = []
    net = nncore.Network([3, 2], seed=0)
    X = np.ones((50, 3))
    net.fit(X, X[:, :2], epochs=2, callbacks=[lambda end: seen.append(np.float32(tiny) * 3)])
    assert seen == [np.float32(tiny) * 3] * 2
    assert seen[0] > 0
