"""What the compiled step offers to training loops other than `Network.fit`."""

from typing import Any, Literal

import numpy as np
import pytest
from helpers import Array, data, make

import nncore
from nncore import reference
from nncore._arrays import as_training_examples
from nncore._layout import Examples, FlatVector
from nncore.optimizers import Optimizer, Rule
from nncore.session import NO_OPTIONS, Session, StepOptions

Kind = Literal["gradient_descent", "momentum", "adam"]

N, BATCH, ALPHA, RATE = 37, 8, 0.3, 0.05


class Vectors(Optimizer):
    """An optimizer whose rule is given."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self._given, self.learning_rate = rule, rule.learning_rate

    def rule(self) -> Rule:
        return self._given


def rule_of(kind: Kind, **options: Any) -> Rule:
    options = {"learning_rate": RATE, "beta_1": 0.9, "beta_2": 0.99} | options
    return Rule(kind, epsilon=1e-3, momentum=0.8, **options)


def run(
    net: nncore.Network,
    examples: Examples,
    rule: Rule,
    options: StepOptions = NO_OPTIONS,
    *,
    order: Array | None = None,
    n_threads: int = 1,
    batch_size: int = BATCH,
    blas: bool = False,
    step_count: int = 0,
    keep_going: bool = False,
    chunk: int = N,
) -> tuple[Array, int]:
    """Make the steps of an epoch; return the batches' sums and the number of steps."""
    optimizer = Vectors(rule)
    optimizer.step_count = step_count
    vector = FlatVector(net.parameters)
    n = examples.n
    sums = np.full((-(-n // batch_size), 3), np.nan)
    with Session(net.architecture, vector, batch_size, n_threads, blas=blas) as session:
        session.use(optimizer, rule, options)
        for first in range(0, len(sums), chunk):
            end = min((first + chunk) * batch_size, n)
            session.train(
                examples,
                order,
                batch_size,
                first * batch_size,
                end,
                sums[first:],
                keep_going=keep_going,
            )
        session.write_back()
    return sums, optimizer.step_count


def weights_only(net: nncore.Network) -> Array:
    """Return the parameters with all biases 0."""
    copy = make(net.sizes, loss=net.loss)
    copy.parameters = net.parameters
    for b in copy.biases:
        b[...] = 0
    return copy.parameters


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("rule", ["gradient_descent", "momentum", "adam"])
@pytest.mark.parametrize("sizes", [[5, 6, 3], [40, 70, 33, 3]], ids=str)
def test_penalty_is_added_to_each_batchs_summed_loss(
    sizes: list[int], rule: Kind, weighted: bool
) -> None:
    net = make(sizes, loss="cross_entropy")
    rng = np.random.default_rng(6)
    X, Y = data(net, N, rng)
    weights = rng.uniform(0.2, 2, N) if weighted else np.ones(N)
    examples, _ = as_training_examples(X, Y, weights, net.architecture)
    weights = weights / 2 ** np.frexp(weights.max())[1]  # what as_training_examples makes of them
    expected = make(sizes, loss="cross_entropy")
    order = rng.permutation(N)
    sums, steps = run(net, examples, rule_of(rule, penalty=ALPHA), order=order)
    assert steps == 5

    m, v = np.zeros_like(net.parameters), np.zeros_like(net.parameters)
    for step, begin in enumerate(range(0, N, BATCH), start=1):
        rows = order[begin : begin + BATCH]
        loss = expected.evaluate(X[rows], Y[rows], sample_weight=weights[rows])
        W = weights_only(expected)
        total = weights[rows].sum()
        np.testing.assert_allclose(sums[step - 1], [loss * total, total, W @ W], rtol=1e-10)
        g = expected.gradient(X[rows], Y[rows], sample_weight=weights[rows])
        g = g + ALPHA * W / weights[rows].sum()
        if rule == "gradient_descent":
            expected.parameters -= RATE * g
        elif rule == "momentum":
            v = 0.8 * v - RATE * g
            expected.parameters += v
        else:
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
            m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.99**step)
            expected.parameters -= RATE * m_hat / (np.sqrt(v_hat) + 1e-3)
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-9, atol=1e-12)


def test_adams_epsilon_can_be_added_to_the_uncorrected_mean() -> None:
    net = make([5, 6, 3], loss="cross_entropy")
    X, Y = data(net, BATCH, np.random.default_rng(6))
    w, g = net.parameters.copy(), net.gradient(X, Y)
    run(net, Examples(X, Y), rule_of("adam", epsilon_uncorrected=True))
    w -= RATE * np.sqrt(1 - 0.99) / (1 - 0.9) * 0.1 * g / (np.sqrt(0.01 * g * g) + 1e-3)
    np.testing.assert_allclose(net.parameters, w, rtol=1e-10)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_sums_of_batches_are_the_same_for_any_number_of_threads(n_threads: int) -> None:
    runs = []
    for threads in (1, n_threads):
        net = make([40, 70, 33, 3], loss="cross_entropy")
        X, Y = data(net, N, np.random.default_rng(6))
        sums, _ = run(net, Examples(X, Y), rule_of("adam", penalty=ALPHA), n_threads=threads)
        runs.append((net.parameters.tobytes(), sums.tobytes()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("kind", ["gradient_descent", "momentum", "adam"])
def test_an_epoch_in_chunks_has_the_bits_of_one_in_a_piece(kind: Kind, chunk: int) -> None:
    results = []
    for batches in (N, chunk):
        net = make([5, 30, 20, 3], loss="cross_entropy")
        X, Y = data(net, N, np.random.default_rng(6))
        order = np.random.default_rng(2).permutation(N)
        options = StepOptions(max_norm=0.1, dropout=RATES, dropout_seed=SEED)
        rule = rule_of(kind, penalty=ALPHA)
        sums, steps = run(net, Examples(X, Y), rule, options, order=order, chunk=batches)
        results.append((net.parameters.tobytes(), sums.tobytes(), steps))
    assert results[0] == results[1]


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_loss_that_is_not_finite_ends_the_epoch_unless_keep_going(keep_going: bool) -> None:
    net = make([5, 6, 3])
    X, Y = data(net, N, np.random.default_rng(6))
    Y[BATCH, 0] = np.nan
    sums, steps = run(net, Examples(X, Y), rule_of("momentum"), keep_going=keep_going)
    assert steps == (5 if keep_going else 1)
    assert np.isfinite(net.parameters).all() == (not keep_going)
    assert np.isfinite(sums[:2, 0]).tolist() == [True, False]


def test_gradient_comes_with_the_sum_of_the_losses() -> None:
    net = make([5, 6, 3])
    X, Y = data(net, N, np.random.default_rng(6))
    out = np.empty_like(net.parameters)
    with net.session(N, batch_size=BATCH) as session:
        total = session.gradient(out, Examples(X, Y), 1 / N)
    np.testing.assert_allclose(total / N, net.evaluate(X, Y), rtol=1e-12)
    np.testing.assert_allclose(out, net.gradient(X, Y), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("blas", [False, True], ids=["tiles", "blas"])
@pytest.mark.parametrize("max_norm", [0.0, 1e-3])
@pytest.mark.parametrize("kind", ["gradient_descent", "momentum", "adam"])
def test_gradient_and_update_apart_equal_a_step(kind: Kind, max_norm: float, blas: bool) -> None:
    net, apart = (make([13, 40, 33, 3], loss="cross_entropy") for _ in range(2))
    X, Y = data(net, N, np.random.default_rng(6))
    rule = rule_of(kind, penalty=ALPHA, weight_decay=0.01)
    options = StepOptions(max_norm)
    run(net, Examples(X, Y), rule, options, batch_size=N, blas=blas)

    optimizer = Vectors(rule)
    vector = FlatVector(apart.parameters)
    gradient = np.empty_like(apart.parameters)
    with Session(apart.architecture, vector, N, 1, blas=blas) as session:
        session.use(optimizer, rule, options)
        session.gradient(gradient, Examples(X, Y), 1 / N)
        session.update(gradient, N)
        session.write_back()
    assert optimizer.step_count == 1
    if kind == "gradient_descent" and not max_norm:  # the fused form rounds differently
        np.testing.assert_allclose(apart.parameters, net.parameters, rtol=1e-12, atol=1e-14)
    else:
        assert apart.parameters.tobytes() == net.parameters.tobytes()


def test_gradients_of_parts_of_a_batch_drop_the_units_of_the_whole() -> None:
    net = make([5, 30, 20, 3], loss="cross_entropy")
    X, Y = data(net, N, np.random.default_rng(6))
    optimizer = nncore.SGD()
    options = StepOptions(dropout=RATES, dropout_seed=SEED)
    whole, part, total = (np.zeros_like(net.parameters) for _ in range(3))
    with net.session(N, batch_size=N) as session:
        session.use(optimizer, optimizer.rule(), options)
        session.gradient(whole, Examples(X, Y), 1 / N, dropout_step=3)
        for begin, end in [(0, 10), (10, 11), (11, N)]:
            examples = Examples(X[begin:end], Y[begin:end])
            session.gradient(part, examples, 1 / N, dropout_step=3, first_example=begin)
            total += part
        session.gradient(part, Examples(X, Y), 1 / N)
    np.testing.assert_allclose(total, whole, rtol=1e-10, atol=1e-14)
    assert not np.allclose(part, whole)


# Both through `Network.fit`


def test_fit_drops_units_and_clips_gradients() -> None:
    def fitted(**options: Any) -> Array:
        net = make([5, 30, 3], loss="cross_entropy")
        X, Y = data(net, N, np.random.default_rng(6))
        net.fit(X, Y, epochs=3, batch_size=BATCH, optimizer="sgd", seed=1, **options)
        return net.parameters

    plain = fitted()
    dropped = fitted(dropout=0.5)
    assert (dropped == fitted(dropout=[0.5], n_threads=3)).all()
    assert not np.allclose(dropped, plain)
    assert (fitted(gradient_clipping=1e6) == fitted(gradient_clipping=1e9)).all()
    start = make([5, 30, 3], loss="cross_entropy").parameters
    assert np.linalg.norm(fitted(gradient_clipping=1e-3) - start) <= 15 * 0.01 * 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": [0.1, 0.2]}, "each of the 1 hidden layers, got 2 numbers"),
        ({"dropout": [0.1, "a"]}, r"dropout\[1\] must be a real number, got 'a'"),
        ({"gradient_clipping": 0}, "gradient_clipping must be > 0, got 0"),
    ],
)
def test_impossible_dropout_and_clipping_are_refused(options: Any, message: str) -> None:
    net = make([5, 6, 3], loss="cross_entropy")
    X, Y = data(net, N, np.random.default_rng(6))
    before = net.parameters.copy()
    with pytest.raises((TypeError, ValueError), match=message):
        net.fit(X, Y, **options)
    assert (net.parameters == before).all()


# The limit of the gradient's norm


@pytest.mark.parametrize("blas", [False, True], ids=["tiles", "blas"])
@pytest.mark.parametrize("max_norm", [1e-3, 1e3])
@pytest.mark.parametrize("rule", ["gradient_descent", "momentum", "adam"])
@pytest.mark.parametrize("sizes", [[5, 6, 3], [40, 70, 33, 3]], ids=str)
def test_a_gradient_above_the_norm_is_scaled_to_it(
    sizes: list[int], rule: Kind, max_norm: float, blas: bool
) -> None:
    net, expected = make(sizes, loss="cross_entropy"), make(sizes, loss="cross_entropy")
    X, Y = data(net, N, np.random.default_rng(6))
    form = rule_of(rule, penalty=ALPHA, weight_decay=0.01)
    run(net, Examples(X, Y), form, StepOptions(max_norm), batch_size=N, blas=blas)

    W = weights_only(expected)
    g = expected.gradient(X, Y) + (ALPHA / N + 0.01) * W
    norm = float(np.linalg.norm(g))
    assert (norm > max_norm) == (max_norm < 1)
    g = g * min(1, max_norm / norm)
    v = np.zeros_like(g)
    if rule == "gradient_descent":
        reference.sgd(expected.parameters, g, RATE, 0)
    elif rule == "momentum":
        reference.momentum(expected.parameters, v, g, RATE, 0.8, False, 0)
    else:
        correction = np.sqrt(1 - 0.99)
        step_size = RATE * correction / (1 - 0.9)
        reference.adam(
            expected.parameters, v, v.copy(), g, step_size, 0.9, 0.99, 1e-3 * correction, 0
        )
    np.testing.assert_allclose(net.parameters, expected.parameters, rtol=1e-9, atol=1e-12)


# Dropout


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_its_share_of_the_units_and_keeps_the_mean(rate: float) -> None:
    A = np.ones((500, 401))
    reference.dropout(A, rate, seed=1, step=2, l=3)
    dropped = (A == 0).mean()
    spread = np.sqrt(rate * (1 - rate) / A.size)
    assert abs(dropped - rate) <= 4 * spread
    assert abs((A == 0).mean(axis=0) - rate).max() <= 5 * spread * np.sqrt(401)
    assert set(np.unique(A)) <= {0.0, 1 / (1 - rate)}


@pytest.mark.parametrize("other", [(2, 0, 1), (1, 1, 1), (1, 0, 2)])
def test_seed_step_and_layer_each_drop_other_units(other: tuple[int, int, int]) -> None:
    A, B = np.ones((100, 100)), np.ones((100, 100))
    reference.dropout(A, 0.5, 1, 0, 1)
    reference.dropout(B, 0.5, *other)
    agreeing = ((A == 0) == (B == 0)).mean()
    assert abs(agreeing - 0.5) < 4 * 0.5 / 100


RATES, SEED = (0.3, 0.5), 77


def loss_with_dropout(net: nncore.Network, X: Array, Y: Array, step: int) -> float:
    """Return the mean loss, all kernels being the reference's."""
    A = X
    for l, (W, b, layer) in enumerate(
        zip(net.weights, net.biases, net.architecture.layers, strict=True), start=1
    ):
        A_prev, A = A, np.empty((len(X), b.size))
        reference.forward(A, A_prev, W, b, layer.activation, slope=layer.slope)
        if l < len(net.weights):
            reference.dropout(A, RATES[l - 1], SEED, step, l)
    return reference.loss(A, Y, None, net.architecture.loss) / len(X)


@pytest.mark.parametrize("blas", [False, True], ids=["tiles", "blas"])
@pytest.mark.parametrize(
    "hidden", ["sigmoid", "tanh", "elu", "softplus", "silu", "identity", ("elu", -0.5)], ids=str
)
def test_gradient_with_dropout_equals_central_differences(hidden: Any, blas: bool) -> None:
    net = make([4, 19, 7, 3], hidden, "cross_entropy")
    X, Y = data(net, N, np.random.default_rng(6))
    before, h, step = net.parameters.copy(), 1e-5, 4
    slopes = np.empty_like(before)
    for i in range(before.size):
        losses = []
        for shifted in (before[i] + h, before[i] - h):
            net.parameters[i] = shifted
            losses.append(loss_with_dropout(net, X, Y, step))
        net.parameters[i] = before[i]
        slopes[i] = (losses[0] - losses[1]) / (2 * h)
    options = StepOptions(dropout=RATES, dropout_seed=SEED)
    rule = Rule("gradient_descent", 1.0)
    expected = loss_with_dropout(net, X, Y, step)
    sums, _ = run(net, Examples(X, Y), rule, options, batch_size=N, blas=blas, step_count=step)
    np.testing.assert_allclose(before - net.parameters, slopes, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sums[0, 0] / N, expected, rtol=1e-12)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_dropout_and_clipping_are_the_same_for_any_number_of_threads(n_threads: int) -> None:
    results = []
    for threads in (1, n_threads):
        net = make([40, 70, 33, 3], loss="cross_entropy")
        X, Y = data(net, 200, np.random.default_rng(6))
        options = StepOptions(0.1, RATES, SEED)
        run(net, Examples(X, Y), rule_of("adam"), options, n_threads=threads, batch_size=150)
        results.append(net.parameters.tobytes())
    assert results[0] == results[1]
