"""Teams of threads: the same bits for any number, and what a run leaves behind."""

import _thread
import os
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from custom_losses import Custom
from helpers import (
    CALLS,
    Array,
    blas_threads,
    data,
    every_call,
    every_optimizer,
    make,
    refused,
    snapshot,
)

import nncore
from nncore import _kernels, _threads
from nncore._layout import Examples
from nncore.history import Callback

DType = np.dtype[Any]

TEAMS = [2, 3, 4, 7]

LAYERS: dict[str, dict[str, str]] = {
    "squared": {"hidden": "tanh", "output": "softplus"},
    "binary": {"hidden": "elu", "loss": "binary_cross_entropy"},
    "softmax": {"hidden": "relu", "loss": "cross_entropy"},
}
every_loss = pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)

# Sizes that nothing divides, with several spans in a batch; the second has W cut along both sides.
DEEP, WIDE = ([37, 23, 19, 5], 53, 211), ([523, 45, 7], 131, 300)


def problem(
    sizes: list[int] | None = None, n: int = 211, **options: Any
) -> tuple[nncore.Network, Array, Array]:
    options.setdefault("dtype", "float32")
    net = make(sizes or DEEP[0], **options)
    return net, *data(net, n, np.random.default_rng(8))


def fitted(n_threads: int | None, **options: Any) -> list[Any]:
    """Return the results of a fit with that many threads."""
    net, X, Y = problem()
    optimizer = nncore.Adam(0.01)
    options = {"epochs": 2, "batch_size": 53, "seed": 3} | options
    history = net.fit(X, Y, n_threads=n_threads, optimizer=optimizer, **options)
    return snapshot(net, optimizer, history.loss)


# The same bits


@every_optimizer
@every_loss
@pytest.mark.parametrize(
    ("sizes", "batch_size", "n", "weighted"),
    [(*DEEP, False), (*WIDE, True)],
    ids=["deep", "wide and weighted"],
)
def test_fit_gives_the_same_bits_for_any_number_of_threads(
    create: Callable[[], nncore.Optimizer],
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


# Large enough to be cut into blocks if 3, 8 or 16 threads share a batch of 4 spans; with layers
# whose last panel has one column, and a layer of one unit.
UNEVEN = [401, 513, 1, 521, 170]

TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kept derivatives": ({"hidden": "gelu"}, {"batch_size": 121, "dropout": 0.3}),
    "softmax": ({"hidden": "relu", "loss": "cross_entropy"}, {"batch_size": 121}),
    "two blocks of rows": ({"hidden": "tanh"}, {"batch_size": 300, "dropout": [0.2, 0.0, 0.5]}),
    "a loss of the user's": (
        {"hidden": "silu", "loss": Custom(), "output": "identity"},
        {"batch_size": 121},
    ),
}


@pytest.mark.parametrize(("layers", "options"), TRAININGS.values(), ids=TRAININGS)
def test_layers_cut_into_blocks_give_the_bits_of_one_thread(
    layers: dict[str, Any], options: dict[str, Any], dtype: DType
) -> None:
    def result(n_threads: int) -> list[Any]:
        net, X, Y = problem(UNEVEN, 311, dtype=dtype, **layers)
        optimizer = nncore.Adam(0.01)
        history = net.fit(
            X, Y, optimizer=optimizer, sample_weight=weights, seed=4, n_threads=n_threads, **options
        )
        return snapshot(net, optimizer, history.loss)

    weights = np.arange(311) % 3
    expected = result(1)
    for n_threads in (2, 3, 5, 8, 16):
        assert result(n_threads) == expected


@pytest.mark.parametrize(
    ("n_threads", "are_blocks"), [(1, False), (2, False), (3, True), (16, True)]
)
def test_layers_are_cut_into_blocks_if_spans_would_leave_threads_idle(
    n_threads: int, are_blocks: bool
) -> None:
    net, X, Y = problem(UNEVEN, 121)
    with net.session(121, batch_size=121, n_threads=n_threads) as session:
        session.gradient(np.empty_like(net.parameters), Examples(X, Y), 1.0)
        assert session._workspace.in_blocks == (are_blocks and _kernels.KERNELS != "blas")


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
def test_fewer_threads_give_the_same_bits_if_the_system_has_no_more(
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
    """Use the chosen kernels, then BLAS."""
    if request.param == "blas":
        request.getfixturevalue("on_blas")


@pytest.mark.parametrize("n_threads", [1, 3])
def test_concurrent_fits_give_the_bits_of_consecutive_ones(
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
def test_fit_restores_blas_however_it_ends(
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
def test_ctrl_c_while_threads_start_changes_nothing(
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
def test_a_call_keeps_no_reference_to_the_data(call: Callable[..., Any]) -> None:
    net, X, Y = problem()
    references = [weakref.ref(X), weakref.ref(Y)]
    call(net, X, Y)
    del X, Y
    assert [reference() for reference in references] == [None, None]


def test_a_fit_keeps_no_reference_to_the_optimizers_state() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    net.fit(X, Y, optimizer=optimizer)
    references = [weakref.ref(vector) for vector in optimizer.state]
    del optimizer
    assert [reference() for reference in references] == [None, None]


def test_an_exception_while_a_thread_starts_is_raised_as_it_is() -> None:
    class Interrupted(threading.Thread):
        """Raises what Python raises if a signal's handler raises after the thread has begun."""

        def start(self) -> None:
            try:
                raise OSError("of a handler")
            except OSError:
                raise KeyError  # noqa: B904

    with pytest.raises(OSError, match="handler"):
        _threads.start(Interrupted())
