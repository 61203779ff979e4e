"""Memory that calls allocate and keep."""

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from helpers import make, problem

import nncore


def test_memory_does_not_grow_from_epoch_to_epoch() -> None:
    net, X, Y = problem(n=2000)
    held: list[int] = []

    def measure(end: nncore.EpochEnd) -> None:
        if end.epoch % 100 == 0:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        net.fit(X, Y, epochs=400, batch_size=100, validation_data=(X, Y), callbacks=[measure])
    finally:
        tracemalloc.stop()
    # The history takes three floats with their places in lists, some 100 bytes an epoch.
    assert len(held) == 4
    assert held[-1] - held[0] < 300 * 200


def test_memory_does_not_grow_from_call_to_call() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()

    def calls() -> None:
        for _ in range(100):
            net.train_on_batch(X, Y, optimizer)
            net.fit(X, Y, optimizer=optimizer, validation_data=(X, Y))
            net.predict(X)
            net.gradient(X, Y)
            net.layer_outputs(X)
            with pytest.raises(ValueError, match="finite"):
                net.evaluate(X * np.nan, Y)
        gc.collect()

    calls()
    tracemalloc.start()
    try:
        calls()
        before = tracemalloc.get_traced_memory()[0]
        calls()
        calls()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("classes", [False, True], ids=["rows", "classes"])
def test_data_of_the_networks_dtype_are_never_copied(classes: bool) -> None:
    net = make([100, 10, 50], loss="cross_entropy", dtype="float32")
    n = 20_000
    X = np.zeros((n, 100), dtype=np.float32)
    Y = np.zeros(n, dtype=np.intp) if classes else np.full((n, 50), 1 / 50, dtype=np.float32)
    calls: list[Callable[[], object]] = [
        lambda: net.fit(X, Y, epochs=2, batch_size=100, seed=0, validation_data=(X, Y)),
        lambda: net.evaluate(X, Y),
        lambda: net.gradient(X, Y),
    ]
    # The order of the examples, a mask or two of Y, and the batch; class indices are
    # copied, since they become addresses, here for training and for validation.
    allowed = 16 * n + (16 * n if classes else 4 * Y.size) + 1_200_000
    for call in calls:
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < allowed < X.nbytes


def test_only_a_rule_with_three_vectors_takes_memory_for_a_third() -> None:
    net, _, _ = problem()
    with net.session(8) as session:
        empty = session.n_bytes
        for optimizer in (nncore.Adam(), nncore.AdamW(), nncore.RMSprop(centered=True)):
            session.use(optimizer, optimizer.rule())
            assert session.n_bytes == empty
        amsgrad = nncore.Adam(amsgrad=True)
        session.use(amsgrad, amsgrad.rule())
        assert session.n_bytes >= empty + net.parameters.nbytes
