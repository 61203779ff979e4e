"""Sessions and runs: when they write back, and how a run continues from a position."""

import copy
import pickle
import signal
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from helpers import Array, data, every_optimizer, make, problem, snapshot

import nncore
from nncore._layout import Examples
from nncore.optimizers import Optimizer
from nncore.session import StepOptions
from nncore.training import ArrayData, Position, Run

N, BATCH, EPOCHS = 37, 5, 3
DROPOUT = StepOptions(max_norm=0.5, dropout=(0.4,), dropout_seed=3)


class StoppedError(Exception):
    """Raised to end a run between two chunks."""


def shuffled(rng: np.random.Generator, last: Array | None, n: int) -> Array:
    return rng.permutation(n)


def chained(rng: np.random.Generator, last: Array | None, n: int) -> Array:
    """Draw an order that depends on the last one."""
    order = rng.permutation(n)
    return order if last is None else last[order]


def rolled(rng: np.random.Generator, last: Array | None, n: int) -> Array:
    """Derive an order from the last one alone, so that an interrupted call can be repeated."""
    return np.arange(n) if last is None else np.roll(last, 7)


def train(
    net: nncore.Network,
    optimizer: Optimizer,
    X: Array,
    Y: Array,
    position: Position,
    *,
    n_threads: int = 1,
    **options: Any,
) -> list[float]:
    """Run to the end of the last epoch; return the epochs' losses."""
    with net.session(N, batch_size=BATCH, n_threads=n_threads) as session:
        run = Run(
            session, optimizer, ArrayData(Examples(X, Y)), BATCH, position=position, **options
        )
        return [epoch.loss for epoch in run.epochs(EPOCHS)]


OPTIONS: dict[str, dict[str, Any]] = {
    "in order": {},
    "shuffled": {"draw_order": shuffled},
    "dropout": {"draw_order": chained, "options": DROPOUT},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@every_option
@every_optimizer
@pytest.mark.parametrize("chunk", [1, 2, 3, 8, 100])
def test_a_run_in_chunks_has_the_bits_of_one_in_a_piece(
    chunk: int, create: Any, options: dict[str, Any]
) -> None:
    (whole, X, Y), (parts, _, _) = problem(), problem()
    one, two, positions = create(), create(), []

    def record(position: Position) -> None:
        positions.append((position.epoch, position.batch))

    expected = train(whole, one, X, Y, Position(np.random.default_rng(1)), **options)
    position = Position(np.random.default_rng(1))
    losses = train(parts, two, X, Y, position, chunk=chunk, on_chunk=record, **options)
    assert losses == expected
    assert snapshot(whole, one) == snapshot(parts, two)
    assert positions == [(e, b) for e in range(EPOCHS) for b in range(chunk, 8, chunk)]


@every_option
@every_optimizer
@pytest.mark.parametrize("stop", [(0, 1), (0, 6), (1, 3), (2, 7)])
def test_a_run_continues_from_a_pickled_position_with_the_same_bits(
    stop: tuple[int, int], create: Any, options: dict[str, Any]
) -> None:
    (whole, X, Y), (parts, _, _) = problem(), problem()
    one, two = create(), create()
    expected = train(whole, one, X, Y, Position(np.random.default_rng(1)), **options)

    def stop_there(position: Position) -> None:
        if (position.epoch, position.batch) == stop:
            raise StoppedError

    position = Position(np.random.default_rng(1))
    with pytest.raises(StoppedError):
        train(parts, two, X, Y, position, chunk=1, on_chunk=stop_there, **options)
    assert (position.epoch, position.batch) == stop
    parts, two, position = pickle.loads(pickle.dumps((parts, two, position)))
    losses = train(parts, two, X, Y, position, n_threads=2, **options)
    assert losses == expected[stop[0] :]
    assert snapshot(whole, one) == snapshot(parts, two)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@every_option
@pytest.mark.parametrize("delay", [0.01, 0.1])
def test_a_run_continues_after_ctrl_c_with_the_same_bits(
    delay: float, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.random((3000, 50)), rng.random((3000, 5))
    if "draw_order" in options:
        options = options | {"draw_order": rolled}
    n_batches = len(X) // BATCH

    def run(net: nncore.Network, optimizer: Optimizer, position: Position, epochs: int) -> None:
        with net.session(len(X), batch_size=BATCH, n_threads=1) as session:
            data = ArrayData(Examples(X, Y))
            run = Run(session, optimizer, data, BATCH, position=position, **options)
            for _ in run.epochs(epochs):
                pass

    whole, parts = (nncore.Network([50, 300, 5], dtype="float64", seed=0) for _ in range(2))
    one, two = nncore.Adam(), nncore.Adam()
    position = Position(np.random.default_rng(1))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        with pytest.raises(KeyboardInterrupt):
            run(parts, two, position, 10**9)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # On a busy machine the signal may come before the first step.
    assert two.step_count == position.epoch * n_batches + position.batch
    epochs = position.epoch + 1
    run(parts, two, position, epochs)
    run(whole, one, Position(np.random.default_rng(1)), epochs)
    assert snapshot(whole, one) == snapshot(parts, two)


def test_an_interrupted_epoch_keeps_its_order() -> None:
    class Fails(ArrayData):
        fails = True

        def pieces(self, *arguments: Any) -> Any:
            if self.fails:
                raise StoppedError
            return super().pieces(*arguments)

    (whole, X, Y), (parts, _, _) = problem(), problem()
    one, two = nncore.Adam(), nncore.Adam()
    train(whole, one, X, Y, Position(np.random.default_rng(1)), draw_order=shuffled)
    data, position = Fails(Examples(X, Y)), Position(np.random.default_rng(1))
    with parts.session(N, batch_size=BATCH) as session:
        run = Run(session, two, data, BATCH, position=position, draw_order=shuffled)
        with pytest.raises(StoppedError):
            list(run.epochs(EPOCHS))
        data.fails = False
        list(run.epochs(EPOCHS))
    assert snapshot(whole, one) == snapshot(parts, two)


def test_a_session_writes_nothing_before_write_back() -> None:
    net, X, Y = problem()
    optimizer, examples, sums = nncore.Adam(), Examples(X, Y), np.empty((1, 3))
    net.train_on_batch(X, Y, optimizer)
    parameters, state = net.parameters, optimizer.state
    before = snapshot(parameters, *state)
    with net.session(N, batch_size=N) as session:
        session.use(optimizer, optimizer.rule())
        for _ in range(3):
            session.train(examples, None, N, 0, N, sums)
        session.gradient(np.empty_like(parameters), examples, 1.0)
        session.total_loss(examples)
        session.update(np.ones_like(parameters), 1.0)
        assert snapshot(parameters, *state) == before
        assert optimizer.step_count == 1
        session.write_back()
        assert all(a != b for a, b in zip(snapshot(parameters, *state), before, strict=True))
        assert optimizer.step_count == 5


def test_discarded_steps_leave_no_trace() -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    one, two, sums = nncore.Adam(), nncore.Adam(), np.empty((1, 3))
    for optimizer, network in ((one, net), (two, other)):
        network.train_on_batch(X, Y, optimizer)
    with net.session(N, batch_size=N) as session:
        session.use(one, one.rule())
        session.train(Examples(X, Y), None, N, 0, N, sums)
        session.discard()
        np.testing.assert_array_equal(session.outputs(Examples(X)), other.predict(X))
    for optimizer, network in ((one, net), (two, other)):
        network.train_on_batch(X, Y, optimizer)
    assert snapshot(net, one) == snapshot(other, two)


CHANGES: dict[str, Any] = {
    "parameters in place": lambda net, held: held[0].__imul__(0.5),
    "a view of the weights": lambda net, held: held[1][0].__imul__(0.5),
    "assigned parameters": lambda net, held: setattr(net, "parameters", net.parameters / 2),
    "nothing": lambda net, held: None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("held", [False, True], ids=["taken then", "held from before"])
def test_parameters_changed_between_two_steps_are_seen(change: Any, held: bool) -> None:
    net, X, Y = problem()
    optimizer, views = nncore.Adam(), None
    if held:
        views = net.parameters, net.weights
    for _ in range(3):
        net.train_on_batch(X, Y, optimizer)
        change(net, views or (net.parameters, net.weights))
        # A copy has no session that could hold the parameters of the last step.
        fresh, its = copy.deepcopy((net, optimizer))
        assert net.predict(X).tobytes() == fresh.predict(X).tobytes()
        assert net.train_on_batch(X, Y, optimizer) == fresh.train_on_batch(X, Y, its)
        assert snapshot(net, optimizer) == snapshot(fresh, its)


@pytest.mark.parametrize("held", [False, True], ids=["taken then", "held from before"])
@pytest.mark.parametrize("assigned", [False, True], ids=["in place", "assigned"])
def test_state_changed_between_two_steps_is_seen(held: bool, assigned: bool) -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam()
    net.train_on_batch(X, Y, optimizer)
    state = optimizer.state if held else None
    for _ in range(3):
        net.train_on_batch(X, Y, optimizer)
        if assigned:
            optimizer.state = tuple(2 * vector for vector in optimizer.state)
        else:
            for vector in state or optimizer.state:
                vector *= 2
        optimizer.step_count += 10
        fresh, its = copy.deepcopy((net, optimizer))
        for network, its_optimizer in ((net, optimizer), (fresh, its)):
            network.train_on_batch(X, Y, its_optimizer)
        assert snapshot(net, optimizer) == snapshot(fresh, its)


def test_one_optimizer_may_serve_two_networks_of_a_shape_in_turn() -> None:
    (a, X, Y), (b, _, _) = problem(), problem()
    b.parameters *= 2
    optimizer = nncore.Adam()
    fresh = copy.deepcopy((a, b, optimizer))
    for _ in range(4):
        fresh = copy.deepcopy(fresh)
        for net, its in (
            (a, optimizer),
            (b, optimizer),
            (fresh[0], fresh[2]),
            (fresh[1], fresh[2]),
        ):
            net.train_on_batch(X, Y, its)
        assert snapshot(a, b, optimizer) == snapshot(*fresh)


def test_copies_made_by_a_callback_continue_with_the_same_bits() -> None:
    net, X, Y = problem()
    optimizer, copies = nncore.Adam(), []

    def pickled(end: nncore.EpochEnd) -> None:
        copies.append(pickle.dumps((end.network, optimizer)))

    net.fit(X, Y, epochs=3, shuffle=False, optimizer=optimizer, callbacks=[pickled])
    other, its = pickle.loads(copies[0])
    other.fit(X, Y, epochs=2, shuffle=False, optimizer=its)
    assert snapshot(net, optimizer) == snapshot(other, its)


@pytest.mark.parametrize("error", [None, StoppedError])
def test_steps_of_a_session_left_without_write_back_are_discarded(
    error: type[Exception] | None,
) -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    one, two = nncore.Adam(), nncore.Adam()
    with suppress(StoppedError), net.session(N, batch_size=N) as session:
        session.use(one, one.rule())
        session.train(Examples(X, Y), None, N, 0, N, np.empty((1, 3)))
        if error:
            raise error
    for optimizer, network in ((one, net), (two, other)):
        network.train_on_batch(X, Y, optimizer)
    assert snapshot(net, one) == snapshot(other, two)


@pytest.mark.parametrize("shared", [False, True], ids=["unshared", "shared"])
def test_a_session_computes_with_the_steps_that_it_has_made(shared: bool) -> None:
    """The flat vectors are out of date until `write_back`, held by others or not."""
    (net, X, Y), (other, _, _) = problem(), problem()
    one, two, examples = nncore.Adam(), nncore.Adam(), Examples(X, Y)
    for optimizer, network in ((one, net), (two, other)):
        network.train_on_batch(X, Y, optimizer)
    held = (net.parameters, one.state) if shared else None
    gradient, sums = np.empty(net.architecture.n_parameters), np.empty((1, 3))
    with net.session(N, batch_size=N) as session:
        session.use(one, one.rule())
        for _ in range(2):
            session.gradient(gradient, examples, 1 / N)
            assert gradient.tobytes() == other.gradient(X, Y).tobytes()
            session.update(gradient, N)
            other.train_on_batch(X, Y, two)
            mean = session.total_loss(examples) / N
            assert mean == pytest.approx(other.evaluate(X, Y), rel=1e-14)
            np.testing.assert_array_equal(session.outputs(examples), other.predict(X))
            session.train(examples, None, N, 0, N, sums)
            other.train_on_batch(X, Y, two)
        session.write_back()
    del held
    assert snapshot(net, one) == snapshot(other, two)


@pytest.mark.parametrize("ranges", [[(0, 4)], [(3, 4), (1, 3), (0, 1)]])
def test_a_gradient_may_be_computed_layer_by_layer(ranges: list[tuple[int, int]]) -> None:
    net = make([5, 40, 33, 6, 3], dtype="float32")
    X, Y = data(net, N, np.random.default_rng(6))
    examples, rows = Examples(X, Y), np.arange(3, N - 2)
    whole, in_parts = (np.empty_like(net.parameters) for _ in range(2))
    with net.session(N, batch_size=N) as session:
        loss = session.gradient(whole, examples, 0.3, rows=rows)
        assert session.gradient(None, examples, 0.3, rows=rows) == loss
        for begin, end in ranges:
            session.layer_gradients(in_parts, begin, end)
    np.testing.assert_array_equal(in_parts, whole)


def test_state_that_another_rule_did_not_use_is_checked_again() -> None:
    net, X, Y = problem()
    adam, sgd = nncore.Adam(), nncore.SGD()
    infinite = np.full(net.architecture.n_parameters, np.inf)
    adam.restore(net.architecture, adam.coefficients, 1, [infinite, infinite])
    with net.session(len(X), batch_size=len(X), n_threads=1) as session:
        session.use(adam, adam.rule())
        session.use(sgd, sgd.rule())
        session.train(Examples(X, Y), None, len(X), 0, len(X), np.empty((1, 3)))
        assert session.is_finite()
        session.write_back()
        session.use(adam, adam.rule())
        assert not session.is_finite()
