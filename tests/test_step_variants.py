"""Variants of the step, which other libraries' rules need: biases, momentum, scales."""

from typing import Any

import numpy as np
import pytest
from helpers import Array, Twin, data, make
from test_step import Vectors

import nncore
from nncore import reference
from nncore._layout import Examples, FlatVector
from nncore.optimizers import Rule
from nncore.schedules import Schedule, cosine, exponential
from nncore.session import NO_OPTIONS, Session, StepOptions

N, BATCH = 37, 8
N_BATCHES = 5

RULES: dict[str, Rule] = {
    "plain": Rule("gradient_descent", 0.1, 0.2, bias_decay=0.3),
    "momentum": Rule("momentum", 0.1, 0.2, bias_decay=0.3, momentum=0.8),
    "nesterov": Rule("momentum", 0.1, momentum=0.8, nesterov=True),
    "adam": Rule("adam", 0.01, 0.2, bias_decay=0.3, beta_1=0.9, beta_2=0.99, epsilon=1e-3),
    "adamw": Rule("adam", 0.01, 0, 0.2, 0, 0.3, beta_1=0.9, beta_2=0.99, epsilon=1e-3),
    "rmsprop": Rule("rmsprop", 0.01, 0.2, bias_decay=0.3, momentum=0.5, rho=0.9, epsilon=1e-3),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def run(
    net: nncore.Network,
    X: Array,
    Y: Array,
    rule: Rule,
    options: StepOptions = NO_OPTIONS,
    *,
    weights: Array | None = None,
    scales: Array | None = None,
    n_threads: int = 1,
    blas: bool = False,
) -> tuple[Array, ...]:
    """Make the steps of an epoch; return the parameters and the running vectors."""
    optimizer, vector = Vectors(rule), FlatVector(net.parameters.copy())
    sums = np.empty((N_BATCHES, 3))
    with Session(net.architecture, vector, BATCH, n_threads, blas=blas) as session:
        session.use(optimizer, rule, options)
        session.train(Examples(X, Y, weights), None, BATCH, 0, N, sums, scales=scales)
        session.write_back()
    return (vector.array, *optimizer.arrays)


def update(rule: Rule, t: int, w: Array, state: list[Array], g: Array, is_weight: bool) -> None:
    """Make step t, counted from 1, with the kernels of the reference."""
    rate: Any = rule.learning_rate
    rate = rate(t - 1) if callable(rate) else rate
    momenta = rule.momenta
    momentum = rule.momentum if momenta is None else momenta(t - 1)
    beta_1 = rule.beta_1 if momenta is None else momenta(t - 1)
    decay = rule.weight_decay if is_weight else rule.bias_decay
    w *= 1 - rate * (rule.decoupled_decay if is_weight else rule.decoupled_bias_decay)
    if rule.kind == "gradient_descent":
        reference.sgd(w, g, rate, decay)
    elif rule.kind == "momentum":
        reference.momentum(w, state[0], g, rate, momentum, rule.nesterov, decay, rule.accumulates)
    elif rule.kind == "rmsprop":
        v, u = state
        reference.rmsprop(w, v, None, u, g, rate, rule.rho, momentum, rule.epsilon, decay)
    else:
        root = np.sqrt(1 - rule.beta_2**t)
        step_size, epsilon = rate * root / (1 - beta_1**t), rule.epsilon * root
        m, v = state
        reference.adam(w, m, v, g, step_size, beta_1, rule.beta_2, epsilon, decay)


def expected(
    net: nncore.Network,
    X: Array,
    Y: Array,
    rule: Rule,
    *,
    weights: Array | None = None,
    scales: Array | None = None,
    has_bias: tuple[bool, ...] = (True, True),
) -> tuple[Array, ...]:
    twin = Twin(net)
    state = [np.zeros_like(twin.parameters) for _ in range(rule.n_vectors)]
    for t in range(1, N_BATCHES + 1):
        rows = slice((t - 1) * BATCH, t * BATCH)
        weight = np.ones(len(X[rows])) if weights is None else weights[rows]
        g = np.zeros_like(twin.parameters)
        if weight.any():
            g = twin.gradient(X[rows], Y[rows], weight)
            if scales is not None:
                g *= weight.sum() * scales[t - 1]
        vectors = [twin.parameters, *state, g]
        for biased, layer in zip(
            has_bias, zip(*map(twin.layers, vectors), strict=True), strict=True
        ):
            for i in range(1 + biased):
                w, *moments, gradient = (pair[i].reshape(-1) for pair in layer)
                update(rule, t, w, moments, gradient, i == 0)
    return (twin.parameters, *state)


def problem() -> tuple[nncore.Network, Array, Array]:
    net = make([5, 19, 3], init="normal")
    return net, *data(net, N, np.random.default_rng(6))


def assert_close(actual: tuple[Array, ...], wanted: tuple[Array, ...]) -> None:
    for vector, target in zip(actual, wanted, strict=True):
        np.testing.assert_allclose(vector, target, rtol=1e-9, atol=1e-12)


@every_rule
@pytest.mark.parametrize("blas", [False, True], ids=["tiles", "blas"])
def test_biases_decay_as_the_rule_says(rule: Rule, blas: bool) -> None:
    net, X, Y = problem()
    assert_close(run(net, X, Y, rule, blas=blas), expected(net, X, Y, rule))


@every_rule
@pytest.mark.parametrize("max_norm", [0.0, 1e9])
def test_biases_can_be_left_alone(rule: Rule, max_norm: float) -> None:
    net, X, Y = problem()
    options = StepOptions(max_norm, biases=(True, False))
    has_bias = (True, False)
    assert_close(run(net, X, Y, rule, options), expected(net, X, Y, rule, has_bias=has_bias))


@pytest.mark.parametrize("name", ["plain", "momentum", "adam", "rmsprop"])
def test_a_limit_of_the_norm_includes_the_decay_of_biases(name: str) -> None:
    (net, X, Y), rule = problem(), RULES[name]
    limited = run(net, X, Y, rule, StepOptions(1e9))
    assert_close(limited, run(net, X, Y, rule))


def test_gradients_include_biases_that_steps_leave_alone() -> None:
    net, X, Y = problem()
    rule, out = RULES["plain"], np.full_like(net.parameters, np.nan)
    with Session(net.architecture, FlatVector(net.parameters.copy()), BATCH) as session:
        session.use(Vectors(rule), rule, StepOptions(biases=(False, False)))
        session.gradient(out, Examples(X, Y), 1 / N)
    np.testing.assert_allclose(out, net.gradient(X, Y), rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_accumulated_gradients_take_the_rate_of_each_step(nesterov: bool) -> None:
    net, X, Y = problem()
    options: dict[str, Any] = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.1}
    rule = Rule("momentum", exponential(0.2, 0.5), accumulates=True, **options)
    assert_close(run(net, X, Y, rule), expected(net, X, Y, rule))
    # With one rate for all steps both forms are the same.
    both = [
        run(net, X, Y, Rule("momentum", 0.1, accumulates=accumulates, **options))
        for accumulates in (False, True)
    ]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(both[0][1], -0.1 * both[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["momentum", "adam", "rmsprop"])
def test_momenta_change_from_step_to_step(name: str) -> None:
    net, X, Y = problem()
    rates: Schedule = cosine(0.02, steps=N_BATCHES)
    rule = Rule(**{**vars(RULES[name]), "learning_rate": rates, "momenta": exponential(0.9, 0.7)})
    assert_close(run(net, X, Y, rule), expected(net, X, Y, rule))


@every_rule
@pytest.mark.parametrize("n_threads", [1, 2])
def test_scales_replace_the_reciprocals_of_the_weights(rule: Rule, n_threads: int) -> None:
    net, X, Y = problem()
    rng = np.random.default_rng(3)
    weights, scales = rng.uniform(0.5, 2, N), rng.uniform(0.05, 0.3, N_BATCHES)
    weights[BATCH : 2 * BATCH] = 0  # a batch without weight makes a step, too
    actual = run(net, X, Y, rule, weights=weights, scales=scales, n_threads=n_threads)
    assert_close(actual, expected(net, X, Y, rule, weights=weights, scales=scales))
