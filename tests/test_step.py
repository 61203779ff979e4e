"""What the compiled step offers to training loops other than `Network.fit`."""

from typing import Any, Literal

import numpy as np
import pytest
from helpers import Array, data, make

import nncore
from nncore._checks import as_examples
from nncore._step import Examples, Update, Workspace, span_of

Rule = Literal["gradient_descent", "momentum", "adam"]

N, BATCH, ALPHA, RATE = 37, 8, 0.3, 0.05


def run(
    net: nncore.Network,
    examples: Examples,
    update: Update,
    order: Array | None = None,
    n_threads: int = 1,
    batch_losses: Array | None = None,
) -> float:
    """Make the steps of an epoch."""
    workspace = Workspace(
        net.sizes,
        net._activations,
        net._loss,
        net.parameters,
        BATCH,
        span_of(BATCH, False),
        n_threads,
        blas=False,
    )
    workspace.load(update)
    total = workspace.train(examples, order, BATCH, batch_losses)
    workspace.store()
    return total


def update_of(rule: Rule, net: nncore.Network, **options: Any) -> Update:
    n_vectors = {"gradient_descent": 0, "momentum": 1, "adam": 2}[rule]
    state = tuple(np.zeros_like(net.parameters) for _ in range(n_vectors))
    options = {"learning_rate": RATE, "weight_decay": 0.0, "beta_1": 0.9, "beta_2": 0.99} | options
    return Update(rule, state, 0, epsilon=1e-3, momentum=0.8, **options)


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
    sizes: list[int], rule: Rule, weighted: bool
) -> None:
    net = make(sizes, loss="cross_entropy")
    rng = np.random.default_rng(6)
    X, Y = data(net, N, rng)
    weights = rng.uniform(0.2, 2, N) if weighted else np.ones(N)
    examples, _ = as_examples(X, Y, weights, net.sizes, net._loss, net.dtype)
    weights = weights / 2 ** np.frexp(weights.max())[1]  # what as_examples makes of them
    expected = make(sizes, loss="cross_entropy")
    order = rng.permutation(N)
    batch_losses = np.full(5, np.nan)
    run(net, examples, update_of(rule, net, penalty=ALPHA), order, batch_losses=batch_losses)

    m, v = np.zeros_like(net.parameters), np.zeros_like(net.parameters)
    for step, begin in enumerate(range(0, N, BATCH), start=1):
        rows = order[begin : begin + BATCH]
        loss = expected.evaluate(X[rows], Y[rows], sample_weight=weights[rows])
        W = weights_only(expected)
        loss += 0.5 * ALPHA * W @ W / weights[rows].sum()
        np.testing.assert_allclose(batch_losses[step - 1], loss, rtol=1e-10)
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
    run(net, Examples(X, Y), update_of("adam", net, epsilon_uncorrected=True))
    w -= RATE * np.sqrt(1 - 0.99) / (1 - 0.9) * 0.1 * g / (np.sqrt(0.01 * g * g) + 1e-3)
    np.testing.assert_allclose(net.parameters, w, rtol=1e-10)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_batch_losses_are_the_same_for_any_number_of_threads(n_threads: int) -> None:
    runs = []
    for threads in (1, n_threads):
        net = make([40, 70, 33, 3], loss="cross_entropy")
        X, Y = data(net, N, np.random.default_rng(6))
        batch_losses = np.full(5, np.nan)
        update = update_of("adam", net, penalty=ALPHA)
        run(net, Examples(X, Y), update, None, threads, batch_losses)
        runs.append((net.parameters.tobytes(), batch_losses.tobytes()))
    assert runs[0] == runs[1]


def test_a_loss_that_is_not_finite_ends_the_epoch_unless_batch_losses_are_asked_for() -> None:
    net = make([5, 6, 3])
    X, Y = data(net, N, np.random.default_rng(6))
    Y[BATCH, 0] = np.nan
    update = update_of("momentum", net)
    assert np.isnan(run(net, Examples(X, Y), update))
    assert update.step_count == 1
    assert np.isfinite(net.parameters).all()

    batch_losses = np.zeros(5)
    update = update_of("momentum", net)
    run(net, Examples(X, Y), update, batch_losses=batch_losses)
    assert update.step_count == 5
    assert np.isfinite(batch_losses).tolist() == [True, False, False, False, False]


def test_gradient_comes_with_the_sum_of_the_losses() -> None:
    net = make([5, 6, 3])
    X, Y = data(net, N, np.random.default_rng(6))
    with net._workspace(BATCH, span_of(BATCH, False), 1) as workspace:
        workspace.load()
        out = np.empty_like(net.parameters)
        total = workspace.add_gradient(out, Examples(X, Y), 1 / N)
    np.testing.assert_allclose(total / N, net.evaluate(X, Y), rtol=1e-12)
    np.testing.assert_allclose(out, net.gradient(X, Y), rtol=1e-10, atol=1e-14)
