"""Teams of threads: the same bits for any number, how many there are, and what they leave."""

import _thread
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import threadpoolctl
from helpers import Array, data, make, refused, snapshot

import nncore
from nncore import _threads, network
from nncore._threads import available_threads, blas_on_one_thread
from nncore.network import Callback

DType = np.dtype[Any]
Optimizer = nncore.SGD | nncore.Adam

TEAMS = [2, 3, 4, 7]

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "plain": lambda: nncore.SGD(0.1),
    "decay": lambda: nncore.SGD(0.1, weight_decay=0.01),
    "momentum": lambda: nncore.SGD(0.1, momentum=0.9),
    "nesterov": lambda: nncore.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: nncore.Adam(0.01, weight_decay=0.01),
}
every_optimizer = pytest.mark.parametrize("create", OPTIMIZERS.values(), ids=OPTIMIZERS)

LAYERS: dict[str, dict[str, str]] = {
    "squared": {"hidden": "tanh", "output": "softplus"},
    "binary": {"hidden": "elu", "loss": "binary_cross_entropy"},
    "softmax": {"hidden": "relu", "loss": "cross_entropy"},
}
every_loss = pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)

# Sizes that nothing divides, with several spans in a batch; the second has W cut along both sides.
DEEP, WIDE = ([37, 23, 19, 5], 53, 211), ([523, 45, 7], 131, 300)

CALLS: dict[str, Callable[..., Any]] = {
    "predict": lambda net, X, Y, **options: net.predict(X, **options),
    "evaluate": lambda net, X, Y, **options: net.evaluate(X, Y, **options),
    "gradient": lambda net, X, Y, **options: net.gradient(X, Y, **options),
    "train_on_batch": lambda net, X, Y, **options: net.train_on_batch(
        X, Y, nncore.SGD(0.1), **options
    ),
    "fit": lambda net, X, Y, **options: net.fit(X, Y, **options),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def problem(
    sizes: list[int] | None = None, n: int = 211, **options: Any
) -> tuple[nncore.Network, Array, Array]:
    options.setdefault("dtype", "float32")
    net = make(sizes or DEEP[0], **options)
    return net, *data(net, n, np.random.default_rng(8))


def fitted(n_threads: int | None, **options: Any) -> list[Any]:
    """Return what a fit with that many threads leads to."""
    net, X, Y = problem()
    optimizer = nncore.Adam(0.01)
    options = {"epochs": 2, "batch_size": 53, "seed": 3} | options
    history = net.fit(X, Y, n_threads=n_threads, optimizer=optimizer, **options)
    return snapshot(net, optimizer, history.loss)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the workers' threads that begin from now on."""
    threads = []
    start = _thread.start_new_thread

    def note(*arguments: Any) -> int:
        threads.append(start(*arguments))
        return threads[-1]

    monkeypatch.setattr(_thread, "start_new_thread", note)
    return threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend that there are eight processors and nothing else that limits threads."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(_threads, "_cgroup_limit", lambda: math.inf)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return monkeypatch


@pytest.fixture
def on_blas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Form the products in BLAS, whose own threads are three outside of nncore."""
    monkeypatch.setattr(network, "_BLAS", True)
    with threadpoolctl.threadpool_limits(3, "blas"):
        yield


def blas_threads() -> set[int]:
    return {
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    }


@pytest.fixture
def leaves_no_thread() -> Iterator[None]:
    """Assert that there are as many threads after the test as before it, Python's and others."""
    problem()[0].predict(np.ones((1, 37)))
    process, python = psutil.Process(), threading.active_count()
    before = process.num_threads()
    yield
    assert threading.active_count() == python
    # The system counts a thread a moment longer than Python does.
    end = time.monotonic() + 10
    while process.num_threads() > before and time.monotonic() < end:
        os.sched_yield()
    assert process.num_threads() <= before


# The same bits


@every_optimizer
@every_loss
@pytest.mark.parametrize(
    ("sizes", "batch_size", "n", "weighted"),
    [(*DEEP, False), (*WIDE, True)],
    ids=["deep", "wide and weighted"],
)
def test_fit_gives_the_same_bits_for_any_number_of_threads(
    create: Callable[[], Optimizer],
    layers: dict[str, str],
    sizes: list[int],
    batch_size: int,
    n: int,
    weighted: bool,
    dtype: DType,
    rng: np.random.Generator,
) -> None:
    def result(n_threads: int) -> list[Any]:
        net, X, Y = problem(sizes, n, dtype=dtype, **layers)
        optimizer = create()
        history = net.fit(
            X,
            Y,
            epochs=2,
            batch_size=batch_size,
            optimizer=optimizer,
            seed=1,
            sample_weight=weights,
            validation_data=(X, Y),
            n_threads=n_threads,
        )
        return snapshot(net, optimizer, history.loss, history.validation_loss)

    weights = rng.uniform(0, 2, n) if weighted else None
    expected = result(1)
    for n_threads in TEAMS:
        assert result(n_threads) == expected


@every_call
@every_loss
def test_every_call_gives_the_same_bits_for_any_number_of_threads(
    call: Callable[..., Any], layers: dict[str, str], dtype: DType
) -> None:
    def result(n_threads: int) -> list[Any]:
        net, X, Y = problem(DEEP[0], 1111, dtype=dtype, **layers)
        options = {"seed": 0} if call is CALLS["fit"] else {}
        got = call(net, X, Y, n_threads=n_threads, **options)
        return snapshot(net, got.loss if isinstance(got, nncore.History) else got)

    expected = result(1)
    for n_threads in TEAMS:
        assert result(n_threads) == expected


def test_class_indices_give_the_same_bits_for_any_number_of_threads() -> None:
    def result(n_threads: int) -> bytes:
        net, X, _ = problem(loss="cross_entropy", hidden="relu")
        net.fit(X, np.arange(len(X)) % 5, batch_size=53, seed=0, n_threads=n_threads)
        return net.parameters.tobytes()

    expected = result(1)
    for n_threads in TEAMS:
        assert result(n_threads) == expected


def test_many_more_threads_than_processors_give_the_same_bits(leaves_no_thread: None) -> None:
    assert fitted(16 * (os.cpu_count() or 1)) == fitted(1)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_threads_without_work_give_the_same_bits(batch_size: int) -> None:
    assert fitted(4, batch_size=batch_size) == fitted(1, batch_size=batch_size)


@pytest.mark.parametrize("available", [0, 1, 2])
def test_fewer_threads_give_the_same_bits_where_no_more_can_be_started(
    available: int, monkeypatch: pytest.MonkeyPatch, leaves_no_thread: None
) -> None:
    expected = fitted(1)
    tries = []
    start = _thread.start_new_thread

    def refuse(*arguments: Any) -> int:
        tries.append(arguments)
        if len(tries) > available:
            raise RuntimeError("can't start new thread")
        return start(*arguments)

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert fitted(4) == expected
    assert len(tries) == available + 1


# Several fits at once


@pytest.fixture(params=["chosen", "blas"])
def products(request: pytest.FixtureRequest) -> None:
    """Form the products as the environment says, and in BLAS."""
    if request.param == "blas":
        request.getfixturevalue("on_blas")


@pytest.mark.parametrize("n_threads", [1, 3])
def test_fits_at_once_give_the_bits_of_fits_in_turn(
    n_threads: int, products: None, leaves_no_thread: None
) -> None:
    def work(seed: int) -> list[Any]:
        if together is not None:
            together.wait()
        return fitted(n_threads, seed=seed, epochs=5)

    together: threading.Barrier | None = None
    expected = [work(seed) for seed in range(4)]
    before = blas_threads()
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == expected
    assert blas_threads() == before


def test_blas_has_its_threads_back_when_the_last_of_several_blocks_is_left(on_blas: None) -> None:
    with blas_on_one_thread():
        with blas_on_one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {3}


# What a run leaves behind


def raise_in_callback(end: nncore.EpochEnd) -> None:
    if end.epoch == 2:
        raise LookupError("enough")


def diverge_after_an_epoch(end: nncore.EpochEnd) -> None:
    end.network.weights[-1][...] = 1e30


def stop(end: nncore.EpochEnd) -> bool:
    return True


ENDINGS: dict[str, tuple[Callback, type[BaseException] | None]] = {
    "stopped": (stop, None),
    "exception": (raise_in_callback, LookupError),
    "divergence": (diverge_after_an_epoch, nncore.DivergenceError),
    "interrupt": (lambda end: signal.raise_signal(signal.SIGINT), KeyboardInterrupt),
}


@pytest.mark.parametrize(("callback", "error"), ENDINGS.values(), ids=ENDINGS)
def test_fit_leaves_blas_as_it_was_however_it_ends(
    callback: Callback,
    error: type[BaseException] | None,
    on_blas: None,
    leaves_no_thread: None,
) -> None:
    net, X, Y = problem(output="identity")
    inside = []

    def look(end: nncore.EpochEnd) -> None:
        inside.append(blas_threads())

    def fit() -> None:
        net.fit(X, Y, epochs=3, batch_size=53, callbacks=[look, callback], n_threads=3)

    if error is None:
        fit()
    else:
        with pytest.raises(error):
            fit()
    assert inside[0] == {1}
    assert blas_threads() == {3}


@pytest.mark.parametrize(("callback", "error"), ENDINGS.values(), ids=ENDINGS)
def test_fit_leaves_the_same_bits_however_it_ends(
    callback: Callback, error: type[BaseException] | None, leaves_no_thread: None
) -> None:
    def result(n_threads: int) -> list[Any]:
        net, X, Y = problem(output="identity")
        optimizer = nncore.SGD(0.1, momentum=0.9)
        options: dict[str, Any] = {"batch_size": 53, "optimizer": optimizer, "seed": 0}
        options |= {"epochs": 3, "n_threads": n_threads, "callbacks": [callback]}
        if error is None:
            net.fit(X, Y, **options)
        else:
            with pytest.raises(error):
                net.fit(X, Y, **options)
        assert np.isfinite(net.parameters).all()
        return snapshot(net, optimizer)

    assert result(3) == result(1)


@every_call
def test_ctrl_c_while_the_team_gathers_leaves_everything_as_it_was(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, leaves_no_thread: None
) -> None:
    start = _thread.start_new_thread
    gathered: list[int] = []

    def interrupt(*arguments: Any) -> int:
        if len(gathered) == 2:
            raise KeyboardInterrupt
        gathered.append(start(*arguments))
        return gathered[-1]

    net, X, Y = problem()
    monkeypatch.setattr(_thread, "start_new_thread", interrupt)
    with refused(KeyboardInterrupt, unchanged=[net, X, Y]):
        call(net, X, Y, n_threads=4)
    assert len(gathered) == 2


@every_call
def test_data_are_let_go_after_a_call(call: Callable[..., Any]) -> None:
    net, X, Y = problem()
    references = [weakref.ref(X), weakref.ref(Y)]
    call(net, X, Y)
    del X, Y
    assert [reference() for reference in references] == [None, None]


def test_state_of_an_optimizer_is_let_go_after_a_fit() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    net.fit(X, Y, optimizer=optimizer)
    references = [weakref.ref(vector) for vector in optimizer.state]
    del optimizer
    assert [reference() for reference in references] == [None, None]


# How many threads


@every_call
@pytest.mark.parametrize("n_threads", [1, 2, 5, np.int64(3)])
def test_as_many_threads_work_as_were_asked_for(
    call: Callable[..., Any], n_threads: int, started: list[int]
) -> None:
    net, X, Y = problem()
    call(net, X, Y, n_threads=n_threads)
    assert len(started) == n_threads - 1


@every_call
def test_small_work_is_done_by_one_thread(
    call: Callable[..., Any], machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    net, X, Y = problem([5, 4, 3], n=20)
    call(net, X, Y)
    assert started == []


@every_call
def test_large_work_is_done_by_as_many_threads_as_are_available(
    call: Callable[..., Any], machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    machine.setenv("OMP_NUM_THREADS", "3")
    net, X, Y = problem([100, 1000, 1], n=400)
    options = {"batch_size": 400} if call is CALLS["fit"] else {}
    call(net, X, Y, **options)
    assert len(started) == 2


def test_a_call_that_is_soon_over_starts_no_threads_for_its_steps(
    machine: pytest.MonkeyPatch, started: list[int]
) -> None:
    net, X, Y = problem([100, 100, 1], n=64)
    net.fit(X, Y, epochs=2, batch_size=64)
    assert started == []
    net.fit(np.tile(X, (20, 1)), np.tile(Y, (20, 1)), batch_size=64)
    assert len(started) > 0


@pytest.mark.parametrize(
    ("n_threads", "error", "got"),
    [
        (0, ValueError, "at least 1, got 0"),
        (-1, ValueError, "at least 1, got -1"),
        (2**31, ValueError, "got 2147483648"),
        (2.0, TypeError, "integer, got 2.0"),
        ("2", TypeError, "integer, got '2'"),
        (True, TypeError, "integer, got True"),
    ],
    ids=["0", "-1", "2**31", "2.0", "'2'", "True"],
)
@every_call
def test_wrong_numbers_of_threads_are_refused(
    call: Callable[..., Any], n_threads: Any, error: type[Exception], got: str
) -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    options = {"optimizer": optimizer} if call is CALLS["fit"] else {}
    with refused(error, "n_threads", got, unchanged=[net, optimizer]):
        call(net, X, Y, n_threads=n_threads, **options)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1),
        ("4", 4),
        (" 4 ", 4),
        ("4,2", 4),
        ("16", 8),
        ("", 8),
        ("0", 8),
        ("-2", 8),
        ("many", 8),
        ("²", 8),
        (",4", 8),
    ],
)
def test_omp_num_threads_limits_the_threads(
    value: str, expected: int, machine: pytest.MonkeyPatch
) -> None:
    machine.setenv("OMP_NUM_THREADS", value)
    assert available_threads() == expected


# What the system's files say; those of the first version have a directory of their own.
CGROUPS = {
    "unlimited": ({"cpu.max": "max 100000"}, 8),
    "two and a half": ({"cpu.max": "250000 100000"}, 3),
    "half": ({"cpu.max": "50000 100000"}, 1),
    "more than there are": ({"cpu.max": "1600000 100000"}, 8),
    "unreadable": ({"cpu.max": "all of them"}, 8),
    "without a period": ({"cpu.max": "50000 0"}, 8),
    "none": ({}, 8),
    "v1": ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    "v1, unlimited": ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    "v1, without a period": ({"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "0"}, 8),
}


@pytest.mark.parametrize(("files", "expected"), CGROUPS.values(), ids=CGROUPS)
def test_quota_of_the_cgroup_limits_the_threads(
    files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    # Without its memory: the quota is read once per process.
    monkeypatch.setattr(_threads, "_cgroup_limit", _threads._cgroup_limit.__wrapped__)
    monkeypatch.setattr(
        _threads, "Path", lambda name: tmp_path / Path(name).relative_to("/sys/fs/cgroup")
    )
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert available_threads() == expected
