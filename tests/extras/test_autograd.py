"""`backward` and `jacobian` against PyTorch's automatic differentiation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import HIDDEN, SIZES, Array, make_lively

import nncore

torch = pytest.importorskip("torch")

SIGMA: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": torch.nn.LeakyReLU(0.01),
    "elu": torch.nn.ELU(),
    "softplus": torch.nn.Softplus(),
    "exponential": torch.exp,
    "silu": torch.nn.SiLU(),
    "gelu": torch.nn.GELU(),
    "gelu_tanh": torch.nn.GELU(approximate="tanh"),
    "softmax": torch.nn.Softmax(dim=1),
}
OUTPUTS = dict.fromkeys(HIDDEN, "squared_error")
OUTPUTS |= {"exponential": "poisson", "softmax": "cross_entropy"}
CASES = [
    pytest.param(sizes, hidden, output, id=f"{hidden}-{output}-{len(sizes) - 1}")
    for output in OUTPUTS
    for hidden in HIDDEN
    for sizes in SIZES
]


def outputs(net: nncore.Network, X: Any, parameters: Any) -> Any:
    """Return the outputs of a network, computed by PyTorch."""
    for layer, name in zip(net.architecture.layers, net.activation, strict=True):
        W = parameters[layer.W : layer.b].reshape(layer.n_prev, layer.n)
        X = SIGMA[str(name)](X @ W + parameters[layer.b : layer.b + layer.n])
    return X


def assert_close(actual: Array, expected: Any) -> None:
    expected = expected.numpy()
    assert actual.shape == expected.shape
    assert np.linalg.norm(actual - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize(("sizes", "hidden", "output"), CASES)
def test_derivatives_equal_those_of_pytorch(sizes: list[int], hidden: str, output: str) -> None:
    net = make_lively(sizes, hidden, OUTPUTS[output], output, seed=12)
    rng = np.random.default_rng(3)
    X, dA = rng.normal(size=(9, sizes[0])), rng.normal(size=(9, sizes[-1]))
    x = torch.tensor(X, requires_grad=True)
    parameters = torch.tensor(net.parameters, requires_grad=True)
    outputs(net, x, parameters).backward(torch.tensor(dA))
    gradient, dX = net.backward(X, dA)
    assert_close(gradient, parameters.grad)
    assert_close(dX, x.grad)

    fixed = parameters.detach()
    rows = torch.func.vmap(torch.func.jacrev(lambda row: outputs(net, row[None], fixed)[0]))
    assert_close(net.jacobian(X), rows(x.detach()))
