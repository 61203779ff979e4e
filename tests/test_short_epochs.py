"""Short epochs are made several per call; they give what single ones give."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import OPTIMIZERS, linear_problem, problem, snapshot

import nncore
from nncore import training
from nncore.session import Session


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, epochs count as short."""
    monkeypatch.setattr(training, "_SECONDS_TOGETHER", 1e9)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the examples of each call of `Session.train` from now on."""
    counts: list[int] = []
    train = Session.train

    def note(*arguments: Any, **options: Any) -> None:
        _, _, _, _, begin, end, _ = arguments
        counts.append(end - begin)
        train(*arguments, **options)

    monkeypatch.setattr(Session, "train", note)
    return counts


def one_by_one(end: nncore.EpochEnd) -> None:
    """Be a callback, before which the network must be up to date."""


CASES: dict[str, dict[str, Any]] = {
    "partial batch": {"batch_size": 8},
    "whole batches": {"batch_size": 37},
    "large batch": {"batch_size": 100},
    "in order": {"shuffle": False},
    "dropout": {"dropout": 0.3, "batch_size": 5},
    "clipping": {"gradient_clipping": 0.01},
    "weights": {"sample_weight": np.arange(37.0)},
    "threads": {"n_threads": 3},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_together_they_give_the_same_bits(options: dict[str, Any], calls: list[int]) -> None:
    results = []
    for callbacks in ([], [one_by_one]):
        net, X, Y = problem()
        rng, optimizer = np.random.default_rng(3), nncore.Adam(0.01)
        history = net.fit(
            X, Y, epochs=9, optimizer=optimizer, seed=rng, callbacks=callbacks, **options
        )
        assert len(history.seconds) == 9
        results.append((history.loss, snapshot(net, optimizer, rng)))
    assert results[0] == results[1]
    assert calls == [37, 8 * 37, *[37] * 9]


@pytest.mark.parametrize("create", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_every_rule_gives_the_same_bits(create: Callable[[], nncore.Optimizer]) -> None:
    results = []
    for callbacks in ([], [one_by_one]):
        net, X, Y = problem("float32")
        optimizer = create()
        net.fit(X, Y, epochs=9, batch_size=8, optimizer=optimizer, seed=0, callbacks=callbacks)
        results.append(snapshot(net, optimizer))
    assert results[0] == results[1]


def test_there_is_a_limit_to_the_examples_of_a_call(
    calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_EXAMPLES_TOGETHER", 3 * 37 + 5)
    net, X, Y = problem()
    net.fit(X, Y, epochs=6)
    assert calls == [37, 3 * 37, 2 * 37]


@pytest.mark.parametrize("rate", [0.7, 3.0, 1e30])
def test_divergence_leads_back_to_the_end_of_the_last_finite_epoch(rate: float) -> None:
    results = []
    for callbacks in ([], [one_by_one]):
        net, X, Y = linear_problem()
        optimizer, rng = nncore.SGD(rate, momentum=0.9), np.random.default_rng(0)
        with pytest.raises(nncore.DivergenceError) as raised:
            net.fit(X, Y, epochs=10**4, optimizer=optimizer, seed=rng, callbacks=callbacks)
        results.append((str(raised.value), snapshot(net, optimizer)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "options",
    [
        {"callbacks": [one_by_one]},
        {"validation_split": 0.2},
        {"metrics": ["r2"], "training_metrics": True},
        {"optimizer": nncore.SGD(lambda step: 0.1)},
    ],
    ids=["callbacks", "validation", "metrics", "function"],
)
def test_every_epoch_is_a_call_if_somebody_looks_at_the_network(
    options: dict[str, Any], calls: list[int]
) -> None:
    net, X, Y = problem()
    net.fit(X, Y, epochs=4, **options)
    assert len(calls) == 4
