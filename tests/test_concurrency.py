"""Eight threads of Python at once: the results of one thread, with the GIL and without it."""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, blas_threads, data, every_optimizer, make, snapshot

import nncore
from nncore._threads import blas_on_one_thread
from nncore.session import Session

N = 8
ROUNDS = 40

pytestmark = pytest.mark.usefixtures("frequent_switches")


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads that have the GIL take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Return what the function returns for 0, ..., N - 1, each in a thread; all begin together."""
    barrier = threading.Barrier(N)

    def begin(i: int) -> Any:
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(N) as pool:
        return list(pool.map(begin, range(N)))


def problem(seed: int = 0, **options: Any) -> tuple[nncore.Network, Array, Array]:
    net = make([13, 17, 5], seed=seed, dtype="float32", **options)
    return net, *data(net, 150, np.random.default_rng(seed))


def every_result(net: nncore.Network, X: Array, Y: Array) -> list[Any]:
    return snapshot(
        net.predict(X[0]),
        net.predict(X[:9]),
        net.predict(X),
        net.predict(X, n_threads=2),
        *net.layer_outputs(X),
        net.evaluate(X, Y),
        net.gradient(X, Y),
        *net.backward(X, Y),
        net.jacobian(X[:2]),
        net.copy_parameters(),
    )


def test_calls_of_one_network_give_the_bits_of_one_thread() -> None:
    net, X, Y = problem()
    expected = every_result(net, X, Y)

    def work(i: int) -> bool:
        return all(every_result(net, X, Y) == expected for _ in range(ROUNDS))

    assert all(at_once(work))


@every_optimizer
def test_networks_train_as_in_one_thread(create: Callable[[], nncore.Optimizer]) -> None:
    def work(i: int) -> list[Any]:
        (net, X, Y), optimizer = problem(i), create()
        for _ in range(ROUNDS // 8):
            net.fit(X, Y, epochs=2, optimizer=optimizer, seed=i, n_threads=1 + i % 2)
            for begin in range(0, 60, 10):
                batch = slice(begin, begin + 10)
                net.train_on_batch(X[batch], Y[batch], optimizer, dropout=0.1, seed=i)
        return snapshot(net, optimizer)

    expected = [work(i) for i in range(N)]
    assert at_once(work) == expected


def test_networks_that_take_turns_in_a_session_get_their_own_parameters() -> None:
    """Sessions tell parameters by versions, which all threads count."""

    def work(i: int) -> bool:
        rng = np.random.default_rng(i)
        nets = [make([3, 4, 2], seed=seed, dtype="float32") for seed in (i, N + i)]
        X = data(nets[0], 40, rng)[0]
        idle: deque[Session] = deque()
        for _ in range(ROUNDS):
            new = [rng.normal(size=net.copy_parameters().shape) for net in nets]
            for net, values in zip(nets, new, strict=True):
                net.parameters = values
            for net in nets:
                with net.sessions_from(idle):
                    if not np.array_equal(net.predict(X)[:9], net.predict(X[:9])):
                        return False
        return True

    assert all(at_once(work))


def test_networks_of_fit_many_train_as_alone() -> None:
    def fit(n_threads: int) -> list[Any]:
        nets = [make([13, 17, 5], seed=seed) for seed in range(3 * N)]
        histories = nncore.fit_many(nets, X, Y, epochs=3, seeds=range(3 * N), n_threads=n_threads)
        return snapshot(*nets, [history.loss for history in histories])

    _, X, Y = problem()
    expected = fit(1)
    assert fit(N) == expected
    assert at_once(lambda i: fit(2)) == [expected] * N


def test_a_network_can_be_used_while_a_thread_trains_it() -> None:
    net, X, Y = problem()
    ended = threading.Event()

    def work(i: int) -> bool:
        if i == 0:
            try:
                for _ in range(ROUNDS):
                    net.fit(
                        X, Y, epochs=2, optimizer=nncore.SGD(0.01), callbacks=[lambda end: None]
                    )
            finally:
                ended.set()
            return True
        is_finite = True
        while not ended.is_set():
            results = net.predict(X[:3]), net.predict(X), net.gradient(X, Y), net.evaluate(X, Y)
            is_finite &= all(np.isfinite(result).all() for result in results)
        return is_finite

    assert all(at_once(work))
    # No session kept what it read while it was written.
    twin = make([13, 17, 5], dtype="float32")
    twin.parameters = net.copy_parameters()
    expected = every_result(twin, X, Y)
    assert at_once(lambda i: every_result(net, X, Y)) == [expected] * N


def test_an_optimizer_used_by_all_threads_stays_whole() -> None:
    """Its steps are then in no order, but nothing breaks."""
    optimizer = nncore.RMSprop(1e-3, momentum=0.5, centered=True)
    problems = [problem(i) for i in range(N)]

    def work(i: int) -> bool:
        net, X, Y = problems[i]
        for _ in range(ROUNDS // 4):
            net.fit(X, Y, optimizer=optimizer, seed=i)
            net.train_on_batch(X, Y, optimizer)
        return bool(np.isfinite(net.parameters).all())

    assert all(at_once(work))
    assert all(np.isfinite(vector).all() for vector in optimizer.state)


def test_coefficients_can_be_changed_while_a_thread_trains() -> None:
    (net, X, Y), optimizer = problem(), nncore.Adam()

    def work(i: int) -> None:
        for step in range(10 * ROUNDS):
            if i == 0:
                net.train_on_batch(X[:4], Y[:4], optimizer)
            elif i == 1:
                optimizer.learning_rate = 1e-3 / (1 + step)
                assert optimizer.rule().learning_rate == optimizer.learning_rate
            else:
                assert optimizer.rule().kind == "adam"

    at_once(work)


@pytest.mark.usefixtures("on_blas")
def test_blas_gets_its_threads_back_after_the_last_block() -> None:
    def work(i: int) -> None:
        for _ in range(ROUNDS):
            with blas_on_one_thread(), blas_on_one_thread():
                assert blas_threads() == {1}

    at_once(work)
    assert blas_threads() == {3}


def test_files_written_by_all_threads_are_whole(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "net.safetensors"
    nets = [make([13, 17, 5], seed=seed) for seed in range(N)]
    nets[0].save(path)

    def work(i: int) -> bool:
        known = True
        for _ in range(ROUNDS // 4):
            nets[i].save(path)
            loaded = nncore.load(path)
            known &= any(loaded.equals(net) for net in nets)
        return known

    assert all(at_once(work))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
