"""The number of threads that BLAS uses during and after nncore's calls."""

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from helpers import CALLS, blas_threads, data, every_call, make, snapshot

import nncore
from nncore import network
from nncore._threads import blas_on_one_thread


def results(call: Callable[..., Any], n_threads: int = 1) -> list[Any]:
    """Return the results of a call whose products are large enough for BLAS to use threads."""
    net = make([301, 203, 101, 5], dtype="float32")
    X, Y = data(net, 530, np.random.default_rng(8))
    seen: list[set[int]] = []
    options: dict[str, Any] = {}
    if call is CALLS["fit"]:
        options = {"seed": 0, "batch_size": 265}
        options["callbacks"] = [lambda end: seen.append(blas_threads())]
    got = call(net, X, Y, n_threads=n_threads, **options)
    if call is CALLS["fit"]:
        assert seen == [{1}]
    return snapshot(net, got.loss if isinstance(got, nncore.History) else got)


@pytest.fixture
def blas_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_BLAS", True)


def test_leaving_the_last_of_several_blocks_restores_the_number(on_blas: None) -> None:
    with blas_on_one_thread():
        with blas_on_one_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {3}


@every_call
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limits_of_the_main_thread_do_not_change_the_bits_of_other_threads(
    call: Callable[..., Any], limit: int, blas_only: None
) -> None:
    """threadpoolctl ignores numbers that other threads set while the main thread limits them."""
    expected = results(call)
    with threadpoolctl.threadpool_limits(limit, "blas"), ThreadPoolExecutor(1) as pool:
        assert results(call) == expected
        assert pool.submit(results, call).result() == expected
        assert pool.submit(results, call, 2).result() == expected
        assert blas_threads() == {limit}


@every_call
def test_other_threads_can_limit_blas_after_a_call(
    call: Callable[..., Any], blas_only: None
) -> None:
    def limit() -> set[int]:
        with threadpoolctl.threadpool_limits(3, "blas"):
            return blas_threads()

    results(call)
    before = blas_threads()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(limit).result() == {3}
        assert pool.submit(blas_threads).result() == before


def test_overlapping_fits_restore_the_number(on_blas: None) -> None:
    """Each fit begins during the one before it; they end in several orders."""
    net = make([7, 5])
    X, Y = data(net, 20, np.random.default_rng(8))
    begun, end = ([threading.Event() for _ in range(3)] for _ in range(2))

    def fit(i: int) -> None:
        def wait(_: nncore.EpochEnd) -> None:
            begun[i].set()
            assert end[i].wait(20)
            assert blas_threads() == {1}

        make([7, 5]).fit(X, Y, callbacks=[wait])

    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        with ThreadPoolExecutor(3) as pool:
            fits = []
            for i in range(3):
                fits.append(pool.submit(fit, i))
                assert begun[i].wait(20)
            for i in order:
                assert blas_threads() == {1}
                end[i].set()
                fits[i].result()
        assert blas_threads() == {3}
        for event in begun + end:
            event.clear()


def test_ctrl_c_while_threads_start_restores_the_number(
    on_blas: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> int:
        raise KeyboardInterrupt

    net = make([7, 5])
    monkeypatch.setattr(_thread, "start_new_thread", interrupt)
    # While the traceback exists, the garbage collector cannot close what the call left open.
    with pytest.raises(KeyboardInterrupt) as raised:
        net.predict(np.ones((50, 7)), n_threads=2)
    assert blas_threads() == {3}
    del raised
