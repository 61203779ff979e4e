"""Schedules as functions, and the rates of the steps that follow them."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Array, Stepper, Twin, assert_layers_close, linear_problem, problem, refused

import nncore
from nncore import schedules
from nncore._layout import Examples
from nncore.schedules import Schedule, constant, cosine, exponential, one_cycle, step
from nncore.training import ArrayData, Position, Run

ALL: dict[str, Schedule] = {
    "constant": constant(0.1),
    "step": step(0.1, every=7, factor=0.3),
    "exponential": exponential(0.1, decay=0.97),
    "cosine": cosine(0.1, steps=40, final=0.01),
    "warm-up": cosine(0.1, steps=40, warmup=13),
    "one cycle": one_cycle(0.1, steps=40),
    "no rise": one_cycle(0.1, steps=40, warmup_fraction=0),
    "short cycle": one_cycle(0.1, steps=3),
}
every_schedule = pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)


def by_hand(t: int) -> float:
    """Return a rate by a function that is no `Schedule`."""
    return 0.3 / (1 + t)


class Log:
    """A function of the step number that notes its arguments."""

    def __init__(self, rates: dict[int, Any] | None = None) -> None:
        self.rates = rates or {}
        self.steps: list[int] = []

    def __call__(self, t: int) -> Any:
        self.steps.append(t)
        return self.rates.get(t, 0.1)


# The functions


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (constant(0.1), lambda t: 0.1),
        (step(0.1, 7, 0.3), lambda t: 0.1 * 0.3 ** (t // 7)),
        (exponential(0.1, 0.97), lambda t: 0.1 * 0.97**t),
        (cosine(0.1, 40), lambda t: 0.05 * (1 + math.cos(math.pi * min(t, 40) / 40))),
        (cosine(0.1, 40, final=0.02), lambda t: 0.06 + 0.04 * math.cos(math.pi * min(t / 40, 1))),
        (
            cosine(0.1, 40, warmup=9),
            lambda t: (
                (t + 1) / 100 if t < 9 else 0.05 * (1 + math.cos(math.pi * min((t - 9) / 31, 1)))
            ),
        ),
        (
            one_cycle(0.1, 40, warmup_fraction=0.5, start_fraction=0.25, end_fraction=0.1),
            lambda t: (
                0.025 + 0.075 * (1 - math.cos(math.pi * t / 19)) / 2
                if t < 19
                else 0.01 + 0.09 * (1 + math.cos(math.pi * min((t - 19) / 20, 1))) / 2
            ),
        ),
    ],
    ids=str,
)
def test_rates_are_those_of_the_formula(
    schedule: Schedule, expected: Callable[[int], float]
) -> None:
    np.testing.assert_allclose(
        schedule.rates(0, 60), [expected(t) for t in range(60)], rtol=1e-14, atol=1e-17
    )


@every_schedule
def test_a_rate_does_not_depend_on_the_steps_it_is_asked_with(schedule: Schedule) -> None:
    alone = np.array([schedule(t) for t in range(300)])
    assert schedule.rates(0, 300).tobytes() == alone.tobytes()
    for begin in range(0, 40, 3):
        for count in (0, 1, 2, 5, 8, 33, 200):
            assert schedule.rates(begin, count).tobytes() == alone[begin:][:count].tobytes()


@every_schedule
def test_rates_are_finite_and_never_negative(schedule: Schedule) -> None:
    for begin in (0, 10**6, 2**40, 2**62):
        rates = schedule.rates(begin, 100)
        assert (rates >= 0).all()
        assert np.isfinite(rates).all()


def test_peaks_and_ends_are_exact() -> None:
    assert cosine(0.1, 40, warmup=9).rates(0, 50).max() == cosine(0.1, 40, warmup=9)(9) == 0.1
    assert cosine(0.1, 40, final=0.07)(40) == cosine(0.1, 40, final=0.07)(10**9) == 0.07
    cycle = one_cycle(0.1, 40, warmup_fraction=0.5)
    assert (cycle(0), cycle(19), cycle(39), cycle(1000)) == (0.004, 0.1, 4e-7, 4e-7)


@every_schedule
def test_schedule_is_a_value(schedule: Schedule) -> None:
    for other in (
        eval(repr(schedule), vars(schedules)),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
    ):
        assert other == schedule
        assert hash(other) == hash(schedule)
    assert schedule not in [other for name, other in ALL.items() if other is not schedule]
    with pytest.raises(AttributeError):
        schedule.rate = 1.0  # type: ignore[attr-defined]


def test_parameters_of_other_numeric_types_become_pythons() -> None:
    assert repr(cosine(np.float32(0.5), np.int64(9))) == (  # type: ignore[arg-type]
        "cosine(peak=0.5, steps=9, warmup=0, final=0.0)"
    )


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (lambda: constant(-1), "rate must be >= 0 and finite, got -1"),
        (lambda: constant(math.nan), "rate must be >= 0 and finite, got nan"),
        (lambda: step(0.1, 0, 0.5), "every must be at least 1, got 0"),
        (lambda: step(0.1, 3, 1.5), "factor must be in .0, 1., got 1.5"),
        (lambda: exponential(0.1, -0.5), "decay must be in .0, 1., got -0.5"),
        (lambda: cosine(math.inf, 3), "peak must be >= 0 and finite, got inf"),
        (lambda: cosine(0.1, 0), "steps must be at least 1, got 0"),
        (lambda: cosine(0.1, 3, warmup=3), "warmup must be less than steps=3, got 3"),
        (lambda: cosine(0.1, 3, warmup=-1), "warmup must be at least 0, got -1"),
        (lambda: cosine(0.1, 3, final=-1), "final must be >= 0 and finite, got -1"),
        (lambda: one_cycle(0.1, 9, 1.0), "warmup_fraction must be >= 0 and < 1, got 1.0"),
        (lambda: one_cycle(0.1, 9, start_fraction=2), "start_fraction must be in .0, 1., got 2"),
        (lambda: one_cycle(0.1, 9, end_fraction=-1), "end_fraction must be in .0, 1., got -1"),
        (lambda: constant(0.1)(-1), "step must be at least 0, got -1"),
        (lambda: constant(0.1).rates(0, -1), "count must be at least 0, got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(create: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        create()


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (lambda: constant("0.1"), "rate must be a real number, got '0.1'"),  # type: ignore[arg-type]
        (lambda: cosine(0.1, 10.0), "steps must be an integer, got 10.0"),  # type: ignore[arg-type]
        (lambda: constant(0.1)(1.0), "step must be an integer, got 1.0"),  # type: ignore[arg-type]
    ],
)
def test_parameters_of_other_types_are_refused(create: Callable[[], object], name: str) -> None:
    with pytest.raises(TypeError, match=name):
        create()


# In training


Step = Callable[[nncore.Network, Array, Array, nncore.Optimizer], object]


@pytest.mark.parametrize("schedule", [*ALL.values(), by_hand], ids=[*ALL, "function"])
@pytest.mark.parametrize("create", [nncore.SGD, nncore.Adam, nncore.AdamW, nncore.RMSprop])
def test_every_step_has_its_own_rate(
    create: Callable[[Any], nncore.Optimizer], schedule: Callable[[int], float]
) -> None:
    net, X, Y = problem()
    twin, optimizer = Twin(net), create(schedule)
    stepper = Stepper(twin, create(schedule))
    losses = [stepper.epoch(X, Y, 8) for _ in range(6)]
    history = net.fit(X, Y, epochs=6, batch_size=8, optimizer=optimizer, shuffle=False)
    np.testing.assert_allclose(history.loss, losses, rtol=1e-10)
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-10)


@pytest.mark.parametrize("options", [{}, {"gradient_clipping": 0.1}], ids=["plain", "clipped"])
def test_single_steps_have_the_rates_of_a_fit(options: dict[str, Any]) -> None:
    (by_fit, X, Y), (by_step, _, _) = problem(), problem()
    one, two = nncore.Adam(ALL["warm-up"]), nncore.Adam(ALL["warm-up"])
    by_fit.fit(X, Y, epochs=3, batch_size=8, optimizer=one, shuffle=False, **options)
    for _ in range(3):
        for begin in range(0, len(X), 8):
            rows = slice(begin, begin + 8)
            assert two.current_rate == ALL["warm-up"](two.step_count)
            by_step.train_on_batch(X[rows], Y[rows], two, **options)
    assert by_fit.equals(by_step)


def test_the_rate_follows_a_step_count_that_is_set() -> None:
    net, X, Y = problem()
    optimizer = nncore.SGD(ALL["cosine"])
    for t in (0, 30, 7, 10**6):
        optimizer.step_count = t
        expected = net.parameters - ALL["cosine"](t) * net.gradient(X, Y)
        net.train_on_batch(X, Y, optimizer)
        np.testing.assert_allclose(net.parameters, expected, rtol=1e-12)


def test_updates_with_given_gradients_have_the_rates_of_their_steps() -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    one, two = nncore.SGD(by_hand), nncore.SGD(by_hand)
    with net.session(len(X)) as session:
        session.use(one, one.rule())
        for _ in range(3):
            g = np.empty_like(other.parameters)
            session.gradient(g, Examples(X, Y), 1 / len(X))
            session.update(g, len(X))
        session.write_back()
    for _ in range(3):
        other.parameters -= two.current_rate * other.gradient(X, Y)
        two.step_count += 1
    np.testing.assert_allclose(net.parameters, other.parameters, rtol=1e-12)


def test_batches_without_weight_use_up_no_rate() -> None:
    net, X, Y = problem(n=40)
    twin, optimizer = Twin(net), nncore.SGD(ALL["exponential"])
    weights = np.ones(40)
    weights[8:24] = 0
    used = weights > 0
    stepper = Stepper(twin, nncore.SGD(ALL["exponential"]))
    for _ in range(3):
        stepper.epoch(X[used], Y[used], 8)
    net.fit(X, Y, epochs=3, batch_size=8, optimizer=optimizer, shuffle=False, sample_weight=weights)
    assert optimizer.step_count == 9
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 3, None])
def test_rates_depend_on_the_step_count_alone(chunk: int | None) -> None:
    """Chunks, interruptions and pickled copies in between change no bit."""
    (once, X, Y), (resumed, _, _) = problem(), problem()
    optimizer = nncore.Adam(ALL["one cycle"])
    once.fit(X, Y, epochs=8, batch_size=8, optimizer=optimizer, shuffle=False)
    its = nncore.Adam(ALL["one cycle"])
    for epochs in (3, 5, 8):
        its = pickle.loads(pickle.dumps(its))
        position = Position(epoch=its.step_count // 5, n_orders=its.step_count // 5)
        with resumed.session(len(X), batch_size=8) as session:
            run = Run(session, its, ArrayData(Examples(X, Y)), 8, position=position, chunk=chunk)
            list(run.epochs(epochs))
    assert resumed.equals(once)
    assert its.step_count == optimizer.step_count


def test_a_function_is_asked_once_for_every_step_made() -> None:
    net, X, Y = problem(n=40)
    log = Log()
    optimizer = nncore.SGD(log)
    optimizer.step_count = 100
    net.fit(X, Y, epochs=2, batch_size=8, optimizer=optimizer)
    # `fit` asks for the first one when it checks its arguments, too.
    assert log.steps[-10:] == list(range(100, 110))
    assert set(log.steps) == set(range(100, 110))


def test_schedule_may_be_replaced_by_a_number_and_back() -> None:
    net, X, Y = problem()
    twin, optimizer = Twin(net), nncore.SGD(by_hand)
    stepper = Stepper(twin, nncore.SGD(by_hand))
    rates: list[Any] = [0.01, ALL["cosine"], constant(0.02), 0.03]
    for rate in rates:
        stepper.epoch(X, Y, 8)
        stepper.optimizer.learning_rate = rate

    def change(end: nncore.EpochEnd) -> None:
        optimizer.learning_rate = rates[end.epoch - 1]

    net.fit(X, Y, epochs=4, batch_size=8, optimizer=optimizer, shuffle=False, callbacks=[change])
    assert_layers_close(twin, net.parameters, twin.parameters, 1e-12)
    assert optimizer.learning_rate == optimizer.current_rate == 0.03


def test_learning_rate_gives_back_the_schedule() -> None:
    rates: list[Any] = [*ALL.values(), by_hand, 0.5]
    for rate in rates:
        optimizer = nncore.RMSprop(rate)
        assert optimizer.learning_rate is rate
        assert optimizer.current_rate == (rate if isinstance(rate, float) else rate(0))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (-1, ValueError, "must be >= 0 and finite, got -1"),
        (math.nan, ValueError, "must be >= 0 and finite, got nan"),
        (math.inf, ValueError, "must be >= 0 and finite, got inf"),
        (None, TypeError, "must be a real number, got None"),
        ([0.1], TypeError, r"must be a real number, got [0.1]"),
    ],
)
@pytest.mark.parametrize("at", [0, 12])
def test_a_function_that_returns_no_rate_is_refused_naming_the_step(
    bad: Any, error: type[Exception], message: str, at: int
) -> None:
    (net, X, Y), (other, _, _) = problem(n=40), problem(n=40)
    optimizer, its = nncore.SGD(Log({at: bad})), nncore.SGD(0.1)
    with pytest.raises(error) as raised:
        net.fit(X, Y, epochs=5, batch_size=8, optimizer=optimizer, shuffle=False)
    assert f"learning_rate({at}) {message}" in str(raised.value)
    # The epochs before are complete, the one with the step has not begun.
    done = at // 5
    if done:
        other.fit(X, Y, epochs=done, batch_size=8, optimizer=its, shuffle=False)
    assert net.equals(other)
    assert optimizer.step_count == done * 5


def test_a_step_without_a_rate_changes_nothing() -> None:
    net, X, Y = problem()
    optimizer = nncore.Adam(Log({1: -1.0}))
    net.train_on_batch(X, Y, optimizer)
    with refused(ValueError, "learning_rate(1)", unchanged=[net, optimizer]):
        net.train_on_batch(X, Y, optimizer)


def test_divergence_names_the_rate_of_the_last_step() -> None:
    net, X, Y = linear_problem()
    optimizer = nncore.SGD(Log({12: 1e200}))
    with pytest.raises(nncore.DivergenceError) as raised:
        net.fit(X, Y, epochs=5, batch_size=8, optimizer=optimizer)
    assert raised.value.epoch == 3
    assert raised.value.learning_rate == 1e200
    assert optimizer.step_count == 10
