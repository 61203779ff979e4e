"""Callbacks of `Network.fit`."""

import copy

import numpy as np
import pytest
from helpers import problem, refused, snapshot

import nncore
from nncore.callbacks import EarlyStopping


def test_callback_receives_what_the_epoch_led_to() -> None:
    net, X, Y = problem()
    ends: list[nncore.EpochEnd] = []
    optimizer = nncore.SGD()
    history = net.fit(
        X, Y, epochs=3, optimizer=optimizer, validation_data=(X, Y), callbacks=[ends.append]
    )
    assert [end.epoch for end in ends] == [1, 2, 3]
    assert [end.loss for end in ends] == history.loss
    assert [end.validation_loss for end in ends] == history.validation_loss
    assert [end.seconds for end in ends] == history.seconds
    assert all(end.network is net and end.optimizer is optimizer for end in ends)
    assert {(end.epochs, end.n_examples) for end in ends} == {(3, len(X))}
    net.fit(X, Y, callbacks=[ends.append])
    assert ends[-1].epoch == 1
    assert ends[-1].validation_loss is None


@pytest.mark.parametrize("answer", [True, np.True_])
def test_returning_true_stops_after_all_callbacks_ran(answer: object) -> None:
    net, X, Y = problem()
    calls: list[tuple[str, int]] = []

    def stop(end: nncore.EpochEnd) -> object:
        calls.append(("stop", end.epoch))
        return end.epoch == 2 and answer

    def after(end: nncore.EpochEnd) -> None:
        calls.append(("after", end.epoch))

    history = net.fit(X, Y, epochs=5, callbacks=[stop, after])
    assert len(history) == 2
    assert calls == [("stop", 1), ("after", 1), ("stop", 2), ("after", 2)]


@pytest.mark.parametrize("answer", [None, False, 0, np.False_, 0.3, "loss", [1], np.ones(3)])
def test_only_true_stops_training(answer: object) -> None:
    net, X, Y = problem()
    assert len(net.fit(X, Y, epochs=3, callbacks=[lambda end: answer])) == 3


def test_a_callback_can_stop_training_with_any_number_of_epochs() -> None:
    net, X, Y = problem()
    assert len(net.fit(X, Y, epochs=10**12, callbacks=[lambda end: end.epoch == 3])) == 3


def test_callback_sees_the_network_at_the_end_of_the_epoch_and_may_use_it() -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    seen: list[bytes] = []

    def use(end: nncore.EpochEnd) -> None:
        seen.append(end.network.parameters.tobytes())
        end.network.predict(X)
        end.network.gradient(X, Y)
        copy.deepcopy(end.network).fit(X, Y, epochs=2)

    optimizers = [nncore.Adam(), nncore.Adam()]
    net.fit(X, Y, epochs=3, optimizer=optimizers[0], shuffle=False, callbacks=[use])
    for parameters in seen:
        other.fit(X, Y, optimizer=optimizers[1], shuffle=False)
        assert other.parameters.tobytes() == parameters
    assert net.equals(other)


def test_callback_may_change_the_network() -> None:
    net, X, Y = problem()

    def reset(end: nncore.EpochEnd) -> None:
        end.network.parameters[:] = 0

    net.fit(X, Y, epochs=3, callbacks=[reset])
    assert (net.parameters == 0).all()


def test_exception_in_a_callback_leaves_the_network_at_the_end_of_the_epoch() -> None:
    (net, X, Y), (other, _, _) = problem(), problem()
    one, two = nncore.Adam(), nncore.Adam()

    def fail(end: nncore.EpochEnd) -> None:
        if end.epoch == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        net.fit(X, Y, epochs=5, optimizer=one, seed=0, callbacks=[fail])
    other.fit(X, Y, epochs=2, optimizer=two, seed=0)
    assert net.equals(other)
    assert snapshot(one) == snapshot(two)
    net.fit(X, Y, optimizer=one, seed=1)
    other.fit(X, Y, optimizer=two, seed=1)
    assert net.equals(other)


@pytest.mark.parametrize("last", [2, 5])
def test_functions_for_the_last_epoch_run_after_all_callbacks(last: int) -> None:
    net, X, Y = problem()
    calls: list[tuple[str, int]] = []

    def register(end: nncore.EpochEnd) -> None:
        end.when_last(lambda: calls.append(("when_last", end.epoch)))

    def stop(end: nncore.EpochEnd) -> bool:
        calls.append(("callback", end.epoch))
        return end.epoch == last

    net.fit(X, Y, epochs=5, callbacks=[register, stop])
    assert calls[-2:] == [("callback", last), ("when_last", last)]
    assert len(calls) == last + 1


def test_functions_for_the_last_epoch_do_not_run_after_an_exception() -> None:
    net, X, Y = problem()

    def fail(end: nncore.EpochEnd) -> None:
        end.when_last(lambda: pytest.fail("it ran"))
        raise LookupError

    with pytest.raises(LookupError):
        net.fit(X, Y, callbacks=[fail])


def test_a_copy_of_the_parameters_leaves_them_to_the_network() -> None:
    net, X, Y = problem()
    copied = net.copy_parameters()
    before = copied.tobytes()
    assert before == net.parameters.tobytes()
    net.fit(X, Y)
    assert copied.tobytes() == before
    copied[:] = 0
    assert net.parameters.all()


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    net, X, Y = problem()
    with refused(TypeError, "instances such as EarlyStopping(...)", unchanged=[net]):
        net.fit(X, Y, callbacks=[EarlyStopping])  # type: ignore[list-item]
