"""`fit_many` trains each network as `Network.fit` does alone."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import OPTIMIZERS, assert_no_new_threads, data, make, problem

import nncore

RNG = np.random.default_rng(3)
N = 60
FOLDS = [RNG.permutation(N)[:40] for _ in range(3)]

# Networks that differ in everything, each with its own arguments.
NETWORKS: list[tuple[Callable[[], nncore.Network], dict[str, Any]]] = [
    (lambda: make([5, 6, 3], dtype="float32"), {"batch_size": 8}),
    (lambda: make([5, 3], hidden="relu"), {"epochs": 5, "sample_weight": RNG.random(N)}),
    (lambda: make([5, 40, 30, 3], dtype="float32"), {"dropout": (0.1, 0.2), "seed": 4}),
    (lambda: make([5, 7, 3], loss="huber"), {"batch_size": 60, "gradient_clipping": 0.01}),
    (lambda: make([5, 6, 3], output="sigmoid"), {"shuffle": False, "validation_split": 0.25}),
    (lambda: make([5, 9, 3], loss="poisson"), {"validation_data": problem(n=20)[1:]}),
]
DEFAULTS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "shuffle": True,
    "sample_weight": None,
    "validation_data": None,
    "validation_split": None,
    "dropout": 0.0,
    "gradient_clipping": None,
}


def examples(n: int = N) -> tuple[Any, Any]:
    return data(make([5, 6, 3]), n, np.random.default_rng(6))


def without_seconds(history: nncore.History) -> dict[str, list[Any]]:
    columns = history.to_dict()
    del columns["seconds"]
    return columns


def own_arguments() -> list[dict[str, Any]]:
    return [{**DEFAULTS, "seed": i, **given} for i, (_, given) in enumerate(NETWORKS)]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 20])
def test_each_network_ends_with_the_bits_and_the_history_of_training_alone(n_threads: int) -> None:
    X, Y = examples()
    alone = [create() for create, _ in NETWORKS]
    expected = [
        net.fit(X, Y, optimizer=nncore.Adam(0.01), **arguments)
        for net, arguments in zip(alone, own_arguments(), strict=True)
    ]

    networks = [create() for create, _ in NETWORKS]
    lists: dict[str, Any] = {
        name: [own[name] for own in own_arguments()] for name in [*DEFAULTS, "seed"]
    }
    lists["seeds"] = lists.pop("seed")
    histories = nncore.fit_many(
        networks, X, Y, optimizer=nncore.Adam(0.01), n_threads=n_threads, **lists
    )

    for net, twin in zip(networks, alone, strict=True):
        assert net.equals(twin)
    assert [*map(without_seconds, histories)] == [*map(without_seconds, expected)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_instance_for_all_networks_is_copied(name: str) -> None:
    X, Y = examples()
    optimizer = OPTIMIZERS[name]()
    networks, alone = ([make([5, 6, 3], seed=i) for i in range(4)] for _ in range(2))
    nncore.fit_many(networks, X, Y, epochs=3, optimizer=optimizer, seeds=7, n_threads=2)
    assert optimizer.step_count == 0
    for net, twin in zip(networks, alone, strict=True):
        twin.fit(X, Y, epochs=3, optimizer=OPTIMIZERS[name](), seed=7)
        assert net.equals(twin)


def test_instances_in_a_list_keep_their_state() -> None:
    X, Y = examples()
    networks, alone = ([make([5, n, 3], seed=n) for n in (4, 6)] for _ in range(2))
    optimizers, own = ([nncore.Adam(0.01), nncore.SGD(0.1, 0.9)] for _ in range(2))
    for _ in range(2):
        nncore.fit_many(networks, X, Y, optimizer=[*optimizers], seeds=range(2), n_threads=2)
        for i, twin in enumerate(alone):
            twin.fit(X, Y, optimizer=own[i], seed=i)
    assert all(net.equals(twin) for net, twin in zip(networks, alone, strict=True))
    assert [one.step_count for one in optimizers] == [one.step_count for one in own]


def masks(folds: list[Any]) -> list[Any]:
    return [np.isin(np.arange(N), fold) for fold in folds]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("split", [None, 0.25])
@pytest.mark.parametrize(
    "rows",
    [FOLDS, [fold.astype(np.uint8) for fold in FOLDS], masks(FOLDS), [[5, 5, 0, 3, 5, 9]] * 3],
    ids=["numbers", "bytes", "masks", "repeated"],
)
def test_rows_give_the_bits_of_training_on_copies_of_them(
    rows: list[Any], split: float | None, weighted: bool
) -> None:
    X, Y = examples()
    weights = np.random.default_rng(1).random(N) if weighted else None
    networks, alone = ([make([5, 6, 3], seed=i) for i in range(3)] for _ in range(2))
    options: Any = {"epochs": 2, "batch_size": 16, "validation_split": split}
    histories = nncore.fit_many(
        networks, X, Y, rows=rows, seeds=range(3), sample_weight=weights, n_threads=2, **options
    )
    for i, fold in enumerate(rows):
        its_weights = None if weights is None else weights[fold]
        twin = alone[i].fit(X[fold], Y[fold], seed=i, sample_weight=its_weights, **options)
        assert networks[i].equals(alone[i])
        assert histories[i].loss == pytest.approx(twin.loss, rel=1e-14)


def test_validation_rows_are_evaluated_like_a_copy_of_them() -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(3)]
    held_out = [~mask for mask in masks(FOLDS)]
    options: Any = {"metrics": ("mean_absolute_error",), "seeds": range(3), "rows": FOLDS}
    first = nncore.fit_many(networks, X, Y, validation_rows=held_out, **options)
    networks = [make([5, 6, 3], seed=i) for i in range(3)]
    copies = [(X[mask], Y[mask]) for mask in held_out]
    second = nncore.fit_many(networks, X, Y, validation_data=copies, **options)
    assert [*map(without_seconds, first)] == [*map(without_seconds, second)]


class Counted:
    """An array that counts how often it is converted."""

    def __init__(self, array: Any) -> None:
        self.array, self.count = array, 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        self.count += 1
        return self.array


def test_x_and_y_are_converted_once_per_dtype() -> None:
    rng = np.random.default_rng(0)
    X, Y = Counted(rng.integers(9, size=(N, 5))), Counted(rng.integers(2, size=(N, 3)))
    networks = [make([5, 6, 3], dtype=dtype) for dtype in ("float32", "float64") * 3]
    nncore.fit_many(networks, X, Y, rows=[FOLDS[0]] * 6)
    assert (X.count, Y.count) == (2, 2)


def linear(seed: int) -> nncore.Network:
    return make([5, 6, 3], hidden="identity", output="identity", seed=seed)


def test_a_network_that_diverges_is_reported_and_stops_no_other() -> None:
    X, Y = examples()
    networks = [linear(i) for i in range(4)]
    rates = [0.01, 1e200, 0.01, 0.02]
    histories = nncore.fit_many(
        networks, X, Y, epochs=4, optimizer=[nncore.SGD(rate) for rate in rates], n_threads=2
    )
    assert [len(history) for history in histories] == [4, 0, 4, 4]
    error = histories[1].error
    assert isinstance(error, nncore.DivergenceError)
    assert error.epoch == 1
    assert "learning_rate=1e+200" in repr(histories[1])
    assert [history.error for history in (histories[0], *histories[2:])] == [None] * 3
    assert networks[1].equals(linear(1))


def test_a_callback_that_returns_true_stops_its_network_only() -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(5)]
    callbacks: Any = [(lambda end, i=i: end.epoch == i,) for i in range(1, 6)]
    histories = nncore.fit_many(networks, X, Y, epochs=4, callbacks=callbacks, n_threads=2)
    assert [len(history) for history in histories] == [1, 2, 3, 4, 4]


def test_a_callback_for_all_networks_is_called_for_each() -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(3)]
    ends: list[nncore.EpochEnd] = []
    nncore.fit_many(networks, X, Y, epochs=2, callbacks=(ends.append,), n_threads=2)
    assert sorted(networks.index(end.network) for end in ends) == [0, 0, 1, 1, 2, 2]


def test_early_stopping_of_each_network_restores_its_best_parameters() -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(3)]
    stopping = [nncore.callbacks.EarlyStopping(patience=2) for _ in networks]
    histories = nncore.fit_many(
        networks, X, Y, epochs=200, optimizer=nncore.SGD(1.0), validation_split=0.3, n_threads=2,
        callbacks=[(one,) for one in stopping], seeds=range(3),
    )  # fmt: skip
    for net, one, history in zip(networks, stopping, histories, strict=True):
        assert one.best_epoch == 1 + int(np.argmin(history.validation_loss))
        assert one.best_parameters is not None
        assert np.array_equal(net.parameters, one.best_parameters)


def test_a_divergence_error_of_a_callback_is_an_exception_like_any_other() -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(3)]
    given = nncore.DivergenceError(7, 0.1, "as the callback says")

    def fail(end: nncore.EpochEnd) -> None:
        raise given

    with pytest.raises(nncore.DivergenceError) as raised:
        nncore.fit_many(networks, X, Y, callbacks=(fail,), n_threads=2)
    assert raised.value is given


@pytest.mark.usefixtures("leaves_no_thread")
@pytest.mark.parametrize("n_threads", [1, 2, 4])
def test_an_exception_of_a_callback_stops_all_networks_after_whole_steps(n_threads: int) -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(8)]
    optimizers = [nncore.Adam(0.01) for _ in networks]

    def fail(end: nncore.EpochEnd) -> None:
        if end.network is networks[0] and end.epoch == 3:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        nncore.fit_many(
            networks, X, Y, epochs=10**6, batch_size=N, optimizer=optimizers, seeds=0,
            callbacks=(fail,), n_threads=n_threads,
        )  # fmt: skip
    assert optimizers[0].step_count == 3
    for i, net in enumerate(networks):
        twin = make([5, 6, 3], seed=i)
        steps = optimizers[i].step_count
        if steps:
            twin.fit(X, Y, epochs=steps, batch_size=N, optimizer=nncore.Adam(0.01), seed=0)
        assert net.equals(twin)


def test_threads_end_with_the_call() -> None:
    X, Y = examples()
    with assert_no_new_threads():
        nncore.fit_many([make([5, 6, 3]) for _ in range(6)], X, Y, n_threads=4)


def test_trained_networks_keep_no_workspace() -> None:
    X, Y = examples()
    networks = [make([5, 6, 3], seed=i) for i in range(5)]
    nncore.fit_many(networks, X, Y, validation_split=0.2, n_threads=2)
    assert not any(net._idle for net in networks)


def test_more_threads_than_the_system_has_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    X, Y = examples()
    histories = nncore.fit_many([make([5, 6, 3]) for _ in range(3)], X, Y, n_threads=3)
    assert [len(history) for history in histories] == [1, 1, 1]


@pytest.mark.usefixtures("leaves_no_thread")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("has_started", [True, False])
def test_an_exception_while_threads_are_started_ends_those_that_were(
    error: type[BaseException], has_started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, begun = threading.Thread.start, list[threading.Thread]()

    def interrupted(thread: threading.Thread) -> None:
        if has_started or not begun:
            start(thread)
        begun.append(thread)
        if len(begun) == 2:
            raise error("a signal")

    X, Y = examples()
    networks, optimizers = (
        [make([5, 6, 3], seed=i) for i in range(6)],
        [nncore.Adam() for _ in range(6)],
    )
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(error, match="a signal"):
        nncore.fit_many(
            networks, X, Y, epochs=10**6, batch_size=N, optimizer=optimizers, seeds=0, n_threads=4
        )
    assert len(begun) == 2
    for i, (net, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
        twin, steps = make([5, 6, 3], seed=i), optimizer.step_count
        if steps:
            twin.fit(X, Y, epochs=steps, batch_size=N, seed=0)
        assert net.equals(twin)


def test_no_network_needs_no_training() -> None:
    assert nncore.fit_many([], [[0.0]], [0.0]) == []


def test_custom_losses_work_in_every_thread() -> None:
    class Squared:
        def value(self, A: Any, Y: Any) -> Any:
            return 0.5 * np.square(A - Y).sum(axis=1)

        def delta(self, A: Any, Y: Any) -> Any:
            return A - Y

    X, Y = examples()
    networks, alone = (
        [nncore.Network([5, 6, 3], loss=Squared(), seed=i) for i in range(4)] for _ in range(2)
    )
    nncore.fit_many(networks, X, Y, epochs=3, seeds=0, n_threads=3)
    for net, twin in zip(networks, alone, strict=True):
        twin.fit(X, Y, epochs=3, seed=0)
        assert np.array_equal(net.parameters, twin.parameters)
