"""The types of names list what the tables hold, and type checkers refuse all other names."""

from collections.abc import Collection
from typing import Any, get_args

import numpy as np
import pytest

import nncore
from nncore.architecture import ACTIVATIONS, FLOATS, LOSSES
from nncore.initializers import INITIALIZERS
from nncore.metrics import METRICS
from nncore.optimizers import OPTIMIZERS
from nncore.typing import ActivationName, DTypeName, InitName, LossName, MetricName, OptimizerName


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (ActivationName, ACTIVATIONS),
        (LossName, LOSSES),
        (InitName, INITIALIZERS),
        (OptimizerName, OPTIMIZERS),
        (MetricName, METRICS),
        (DTypeName, [dtype.name for dtype in FLOATS]),
    ],
)
def test_the_type_of_a_name_lists_what_the_table_holds(names: Any, table: Collection[str]) -> None:
    assert sorted(get_args(names)) == sorted(table)


def test_type_checkers_refuse_misspelt_names() -> None:
    """As mypy does, which finds each of these comments unused if it does not."""
    with pytest.raises(ValueError, match="activation"):
        nncore.Network([2, 1], activation="rleu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation"):
        nncore.Network([2, 1, 1], activation=["rleu", "identity"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="output_activation"):
        nncore.Network([2, 1], output_activation="rleu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss"):
        nncore.Network([2, 1], loss="mse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="init"):
        nncore.Network([2, 1], init="xavier")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype"):
        nncore.Network([2, 1], dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="optimizer"):
        nncore.Network([2, 1]).fit([[0, 0]], [0], optimizer="adma")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="metrics"):
        nncore.Network([2, 1]).fit([[0, 0]], [0], metrics=["acuracy"])  # type: ignore[list-item]


def test_type_checkers_accept_a_networks_own_attributes() -> None:
    net = nncore.Network([2, 3, 1], activation="tanh", loss="huber", dtype=np.float64)
    twin = nncore.Network(net.sizes, activation=net.activation, loss=net.loss, dtype=net.dtype)
    assert twin.architecture == net.architecture
