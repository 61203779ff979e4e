"""What losses of users may do wrong, and what remains of a network then."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from custom_losses import Array, Custom, Recorder, residual, squared_error
from helpers import make, snapshot

import nncore


def problem(loss: Any, n: int = 40) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 3], loss=loss, output="identity", dtype="float32")
    rng = np.random.default_rng(4)
    return net, rng.normal(size=(n, 5)).astype("f4"), rng.normal(size=(n, 3)).astype("f4")


CALLS: dict[str, Callable[..., Any]] = {
    "evaluate": lambda net, X, Y: net.evaluate(X, Y),
    "gradient": lambda net, X, Y: net.gradient(X, Y),
    "train_on_batch": lambda net, X, Y: net.train_on_batch(X, Y, nncore.Adam()),
    "fit": lambda net, X, Y: net.fit(X, Y, batch_size=40),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
each_that_goes_back = pytest.mark.parametrize(
    "call", [CALLS[name] for name in ("gradient", "train_on_batch", "fit")]
)


@every_call
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda A, Y: squared_error(A, Y)[:, None], r"shape \(40,\), got shape \(40, 1\)"),
        (lambda A, Y: squared_error(A, Y).mean(), r"got shape \(\)"),
        (lambda A, Y: None, "got NoneType"),
        (lambda A, Y: squared_error(A, Y) + 1j, "got dtype complex64"),
        (lambda A, Y: [[1], [1, 2]], "got list"),
        (lambda A, Y: ["1"] * 40, "got dtype <U1"),
    ],
    ids=["column", "number", "none", "complex", "ragged", "text"],
)
def test_losses_of_another_form_are_refused(
    call: Callable[..., Any], value: Callable[[Array, Array], Any], message: str
) -> None:
    net, X, Y = problem(Custom(value=value))
    before = snapshot(net)
    with pytest.raises((TypeError, ValueError), match=rf"^Custom\.value must return .*{message}$"):
        call(net, X, Y)
    assert snapshot(net) == before


@each_that_goes_back
@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (lambda A, Y: A[:, :2], r"shape \(40, 3\), got shape \(40, 2\)"),
        (lambda A, Y: A.T, r"got shape \(3, 40\)"),
        (squared_error, r"got shape \(40,\)"),
        (lambda A, Y: object(), "got object"),
    ],
    ids=["columns", "transposed", "vector", "object"],
)
def test_derivatives_of_another_form_are_refused(
    call: Callable[..., Any], delta: Callable[[Array, Array], Any], message: str
) -> None:
    net, X, Y = problem(Custom(delta=delta))
    before = snapshot(net)
    with pytest.raises((TypeError, ValueError), match=rf"^Custom\.delta must return .*{message}$"):
        call(net, X, Y)
    assert snapshot(net) == before


@pytest.mark.parametrize("kind", [float, np.float16, np.int64, list])
def test_results_of_other_types_are_converted(kind: Any) -> None:
    def convert(x: Array) -> Any:
        return x.tolist() if kind is list else np.round(x).astype(kind)

    net, X, Y = problem(
        Custom(lambda A, Y: convert(squared_error(A, Y)), lambda A, Y: convert(residual(A, Y)))
    )
    expected, _ = net.backward(X, np.asarray(convert(net.predict(X) - Y), "f4"))
    np.testing.assert_allclose(40 * net.gradient(X, Y), expected, rtol=1e-4, atol=1e-4)


@each_that_goes_back
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_derivatives_that_are_not_finite_are_refused(call: Callable[..., Any], bad: float) -> None:
    def delta(A: Array, Y: Array) -> Array:
        dA = np.zeros(A.shape)
        dA[3, 1] = bad
        return dA

    net, X, Y = problem(Custom(delta=delta))
    before = snapshot(net)
    message = r"Custom\.delta must be finite .* got (nan|inf) in row 3, column 1"
    with pytest.raises(ValueError, match=message):
        call(net, X, Y)
    assert snapshot(net) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_divergence_under_its_name(bad: float) -> None:
    same, X, Y = problem(Custom())
    same.fit(X, Y, batch_size=10, optimizer=nncore.Adam(), seed=0)
    values: list[Array] = []

    def value(A: Array, Y: Array) -> Array:
        values.append(squared_error(A, Y))
        if len(values) == 7:
            values[-1][2] = bad
        return values[-1]

    net, _, _ = problem(Custom(value=value))
    with pytest.raises(nncore.DivergenceError, match=r"Custom\.value, became NaN .* in epoch 2"):
        net.fit(X, Y, epochs=3, batch_size=10, optimizer=nncore.Adam(), seed=0)
    assert net.parameters.tobytes() == same.parameters.tobytes()


def test_outputs_that_overflow_are_divergence() -> None:
    net, X, Y = problem(Custom(value=lambda A, Y: np.zeros(len(A))))
    with pytest.raises(nncore.DivergenceError), np.errstate(all="ignore"):
        net.fit(1e3 * X, Y, epochs=50, optimizer=nncore.SGD(1e3))
    assert np.isfinite(net.parameters).all()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["value", "delta"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_exception_leaves_the_network_as_after_the_last_step(
    n_threads: int, method: str, error: type[BaseException]
) -> None:
    def fail(name: str, count: int) -> None:
        if name == method and count == 8:
            raise error("mine")

    net, X, Y = problem(Recorder().loss(fail))
    same, _, _ = problem(Custom())
    optimizers = [nncore.Adam(), nncore.Adam()]
    with pytest.raises(error, match="mine"):
        net.fit(X, Y, epochs=3, batch_size=10, optimizer=optimizers[0], seed=0, n_threads=n_threads)
    # The second epoch had made 3 of its 4 steps.
    rng = np.random.default_rng(0)
    orders = [rng.permutation(40), rng.permutation(40)[:30]]
    for order in orders:
        same.fit(X[order], Y[order], batch_size=10, optimizer=optimizers[1], shuffle=False)
    assert net.parameters.tobytes() == same.parameters.tobytes()
    assert optimizers[0].step_count == optimizers[1].step_count == 7


@every_call
@pytest.mark.parametrize("method", ["value", "delta"])
def test_an_exception_in_the_first_batch_changes_nothing(
    call: Callable[..., Any], method: str
) -> None:
    def fail(name: str, count: int) -> None:
        if name == method and count == 1:
            raise KeyError("mine")

    recorder = Recorder()
    net, X, Y = problem(recorder.loss(fail))
    before = snapshot(net)
    if call is CALLS["evaluate"] and method == "delta":
        call(net, X, Y)
        assert not recorder.calls["delta"]
    else:
        with pytest.raises(KeyError, match="mine"):
            call(net, X, Y)
    assert snapshot(net) == before
    # The next call works.
    call(net, X, Y)


def test_an_exception_during_validation_leaves_the_network_as_after_the_epoch() -> None:
    def fail(name: str, count: int) -> None:
        if name == "value" and count == 5:
            raise KeyError("mine")

    net, X, Y = problem(Recorder().loss(fail))
    same, _, _ = problem(Custom())
    with pytest.raises(KeyError, match="mine"):
        net.fit(X, Y, epochs=3, batch_size=10, seed=0, validation_data=(X, Y))
    same.fit(X, Y, batch_size=10, seed=0)
    assert net.parameters.tobytes() == same.parameters.tobytes()


def test_examples_of_weight_zero_may_have_any_loss() -> None:
    net, X, Y = problem(Custom())
    Y[::3] = np.nan  # and so are their losses and derivatives
    weights = np.ones(40)
    weights[::3] = 0
    rest = weights > 0
    assert net.evaluate(X, Y, sample_weight=weights) == pytest.approx(
        net.evaluate(X[rest], Y[rest])
    )
    np.testing.assert_allclose(
        net.gradient(X, Y, sample_weight=weights), net.gradient(X[rest], Y[rest]), rtol=1e-4
    )


def test_a_method_that_writes_to_its_arguments_fails() -> None:
    def value(A: Array, Y: Array) -> Array:
        A -= Y
        return squared_error(A, 0 * Y)

    net, X, Y = problem(Custom(value=value))
    with pytest.raises(ValueError, match="read-only"):
        net.train_on_batch(X, Y, nncore.SGD())


@pytest.mark.parametrize("targets", [1.0, np.ones((39, 3)), np.ones(40) + 1j, ["a"] * 40], ids=repr)
def test_targets_that_are_not_a_row_of_numbers_per_example_are_refused(targets: Any) -> None:
    net, X, _ = problem(Custom())
    with pytest.raises((TypeError, ValueError), match=r"^Y must"):
        net.fit(X, targets)
