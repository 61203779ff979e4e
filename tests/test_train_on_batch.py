"""Single steps by `train_on_batch` are the steps of `fit`, with all of its options."""

from typing import Any

import numpy as np
import pytest
from helpers import Setting, data, every_optimizer, make, refused

from nncore import SGD, Network

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "dropout per layer": {"dropout": [0.5, 0.0]},
    "clipping": {"gradient_clipping": 0.05},
    "both": {"dropout": 0.2, "gradient_clipping": 0.05},
}


def batch(net: Network, n: int = 12) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    return *data(net, n, rng), rng.uniform(0.5, 2, n)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@every_optimizer
def test_a_batch_alone_equals_an_epoch_of_one_batch(create: Any, options: dict[str, Any]) -> None:
    by_fit, by_batch = make([5, 6, 4, 3]), make([5, 6, 4, 3])
    one, two = create(), create()
    X, Y, weights = batch(by_fit)
    # `fit` draws the seed of dropout from its generator.
    seed = int(np.random.default_rng(7).integers(2**63))
    for _ in range(3):
        history = by_fit.fit(
            X, Y, optimizer=one, shuffle=False, seed=7, sample_weight=weights, **options
        )
        loss = by_batch.train_on_batch(X, Y, two, sample_weight=weights, seed=seed, **options)
        assert loss == history.loss[0]
    assert by_batch.equals(by_fit)


def test_dropout_drops_other_units_in_each_step_and_with_each_seed(setting: Setting) -> None:
    gradients = []
    for seed in (0, 0, 1):
        net = make([4, 50, 2], dtype="float32")
        before = net.parameters.copy()
        net.train_on_batch(setting.X, setting.Y, SGD(0.1), dropout=0.5, seed=seed)
        gradients.append(before - net.parameters)
    assert np.array_equal(gradients[0], gradients[1])
    assert not np.array_equal(gradients[0], gradients[2])
    net = make([4, 50, 2], dtype="float32")
    start, optimizer = net.parameters.copy(), SGD(0.1)
    net.train_on_batch(setting.X, setting.Y, optimizer, dropout=0.5)
    net.parameters = start
    net.train_on_batch(setting.X, setting.Y, optimizer, dropout=0.5)
    assert not np.array_equal(start - net.parameters, gradients[0])


def test_clipping_limits_the_step_and_ends_with_the_call(setting: Setting) -> None:
    net, optimizer = setting.net, SGD(0.1)
    before = net.parameters.copy()
    net.train_on_batch(setting.X, setting.Y, optimizer, gradient_clipping=1e-3)
    assert np.linalg.norm(net.parameters - before) <= 0.1 * 1e-3 * (1 + 1e-4)
    before = net.parameters.copy()
    net.train_on_batch(setting.X, setting.Y, optimizer)
    assert np.linalg.norm(net.parameters - before) > 0.1 * 1e-3


@pytest.mark.parametrize(
    ("options", "error", "fragments"),
    [
        ({"dropout": 1.0}, ValueError, ["dropout must be in [0, 1)", "1.0"]),
        ({"dropout": [0.1, 0.1]}, ValueError, ["dropout", "1 hidden", "2 numbers"]),
        ({"dropout": "half"}, TypeError, ["dropout", "'half'"]),
        ({"gradient_clipping": 0}, ValueError, ["gradient_clipping must be > 0", "0"]),
        ({"dropout": 0.5, "seed": -1}, ValueError, ["seed must be at least 0", "-1"]),
        ({"dropout": 0.5, "seed": None}, TypeError, ["seed", "None"]),
    ],
)
def test_impossible_options_are_refused(
    setting: Setting, options: dict[str, Any], error: type[Exception], fragments: list[str]
) -> None:
    with refused(error, *fragments, unchanged=setting.everything):
        setting.net.train_on_batch(setting.X, setting.Y, setting.optimizer, **options)
