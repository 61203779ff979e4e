"""The optimizers against the formulas of papers and of PyTorch, and against PyTorch itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import Array, data, make

import nncore
from nncore.schedules import cosine, exponential, one_cycle, step

N_STEPS = 200
# So small that the steps do not jump about a minimum, which would magnify differences.
RATE = 0.003


def problem() -> tuple[nncore.Network, Array, Array]:
    net = make([5, 6, 4, 3], output="identity", init="normal")
    return net, *data(net, 37, np.random.default_rng(6))


class State(dict[str, Any]):
    """Running vectors, which are 0 at first."""

    def __missing__(self, name: str) -> float:
        return 0.0


# A step t = 1, 2, ... of each rule in place: parameters w, gradient g, and a mask that is 1 for
# weights and 0 for biases. The formulas are those in the documentation of torch.optim, but for
# momentum, which is Sutskever's: they differ once the rate changes.


def sgd_momentum(w: Array, g: Array, weights: Array, s: State, rate: float, t: int) -> None:
    g = g + 0.02 * weights * w
    s["b"] = 0.9 * s["b"] - rate * g
    w += s["b"]


def adam(
    w: Array,
    g: Array,
    weights: Array,
    s: State,
    rate: float,
    t: int,
    *,
    decay: float = 0.0,
    decoupled: float = 0.0,
    amsgrad: bool = False,
) -> None:
    g = g + decay * weights * w
    w -= rate * decoupled * weights * w
    s["m"] = 0.8 * s["m"] + 0.2 * g
    s["v"] = 0.95 * s["v"] + 0.05 * g**2
    s["v_max"] = np.maximum(s["v_max"], s["v"]) if amsgrad else s["v"]
    w -= rate * (s["m"] / (1 - 0.8**t)) / (np.sqrt(s["v_max"] / (1 - 0.95**t)) + 1e-6)


def rmsprop(
    w: Array,
    g: Array,
    weights: Array,
    s: State,
    rate: float,
    t: int,
    *,
    momentum: float = 0.0,
    centered: bool = False,
    decay: float = 0.0,
) -> None:
    g = g + decay * weights * w
    s["v"] = 0.97 * s["v"] + 0.03 * g**2
    s["mean"] = 0.97 * s["mean"] + 0.03 * g
    variance = s["v"] - s["mean"] ** 2 if centered else s["v"]
    s["b"] = momentum * s["b"] + g / (np.sqrt(variance) + 1e-4)
    w -= rate * s["b"]


Rate = float | Callable[[int], float]


class Case(NamedTuple):
    """An optimizer, its formula, and PyTorch's class with its arguments."""

    create: Callable[[Rate], nncore.Optimizer]
    formula: Callable[..., None]
    options: dict[str, Any]
    torch_class: str
    torch_options: dict[str, Any]


ADAM = {"betas": (0.8, 0.95), "eps": 1e-6}
RMSPROP = {"alpha": 0.97, "eps": 1e-4}
CASES = {
    "sgd": Case(
        lambda rate: nncore.SGD(rate, momentum=0.9, weight_decay=0.02),
        sgd_momentum,
        {},
        "SGD",
        {"momentum": 0.9, "weight_decay": 0.02},
    ),
    "adam": Case(
        lambda rate: nncore.Adam(rate, 0.8, 0.95, 1e-6, weight_decay=0.02),
        adam,
        {"decay": 0.02},
        "Adam",
        {"weight_decay": 0.02, **ADAM},
    ),
    "amsgrad": Case(
        lambda rate: nncore.Adam(rate, 0.8, 0.95, 1e-6, weight_decay=0.02, amsgrad=True),
        adam,
        {"decay": 0.02, "amsgrad": True},
        "Adam",
        {"weight_decay": 0.02, "amsgrad": True, **ADAM},
    ),
    "adamw": Case(
        lambda rate: nncore.AdamW(rate, 0.8, 0.95, 1e-6, weight_decay=0.3),
        adam,
        {"decoupled": 0.3},
        "AdamW",
        {"weight_decay": 0.3, **ADAM},
    ),
    "adamw-amsgrad": Case(
        lambda rate: nncore.AdamW(rate, 0.8, 0.95, 1e-6, weight_decay=0.3, amsgrad=True),
        adam,
        {"decoupled": 0.3, "amsgrad": True},
        "AdamW",
        {"weight_decay": 0.3, "amsgrad": True, **ADAM},
    ),
    **{
        "-".join(["rmsprop", *options]): Case(
            lambda rate, options=options: nncore.RMSprop(  # type: ignore[misc]
                rate, 0.97, epsilon=1e-4, weight_decay=0.02, **options
            ),
            rmsprop,
            {"decay": 0.02, **options},
            "RMSprop",
            {"weight_decay": 0.02, **RMSPROP, **options},
        )
        for options in (
            {},
            {"momentum": 0.9},
            {"centered": True},
            {"momentum": 0.9, "centered": True},
        )
    },
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)

# Each schedule, and PyTorch's.
SCHEDULES: dict[str, tuple[Callable[[int], float], str, dict[str, Any]]] = {
    "step": (step(RATE, every=30, factor=0.7), "StepLR", {"step_size": 30, "gamma": 0.7}),
    "exponential": (exponential(RATE, decay=0.99), "ExponentialLR", {"gamma": 0.99}),
    "cosine": (
        cosine(RATE, steps=N_STEPS, final=0.0003),
        "CosineAnnealingLR",
        {"T_max": N_STEPS, "eta_min": 0.0003},
    ),
    "one cycle": (
        one_cycle(RATE, steps=N_STEPS),
        "OneCycleLR",
        {"max_lr": RATE, "total_steps": N_STEPS, "cycle_momentum": False},
    ),
}


def trained(create: Callable[[Rate], nncore.Optimizer], rate: Rate) -> Array:
    """Return the parameters after the steps."""
    net, X, Y = problem()
    optimizer = create(rate)
    net.fit(X, Y, epochs=N_STEPS, batch_size=len(X), optimizer=optimizer, shuffle=False)
    assert optimizer.step_count == N_STEPS
    return net.parameters


def assert_same(parameters: Array, expected: Array) -> None:
    start = problem()[0].parameters
    assert np.linalg.norm(parameters - expected) < 1e-10 * np.linalg.norm(expected - start)


@pytest.mark.parametrize("rate", [RATE, cosine(RATE, steps=150, warmup=20)], ids=repr)
@every_case
def test_two_hundred_steps_are_those_of_the_formula(case: Case, rate: Rate) -> None:
    net, X, Y = problem()
    w, weights, state = net.parameters, np.zeros_like(net.parameters), State()
    for W in net.architecture.views(weights)[0]:
        W[...] = 1
    for t in range(N_STEPS):
        eta = rate(t) if callable(rate) else rate
        case.formula(w, net.gradient(X, Y), weights, state, eta, t + 1, **case.options)
    assert_same(trained(case.create, rate), w)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_the_papers(nesterov: bool) -> None:
    """Sutskever and others, (1) to (4): Nesterov's form takes its gradient ahead of the step.

    The optimizer holds the point ahead, θ + μ v, in place of θ.
    """
    net, X, Y = problem()
    mu, eta = 0.8, 0.02
    theta, velocity = net.parameters.copy(), np.zeros_like(net.parameters)
    for _ in range(N_STEPS):
        net.parameters = theta + mu * velocity if nesterov else theta
        velocity = mu * velocity - eta * net.gradient(X, Y)
        theta = theta + velocity
    expected = theta + mu * velocity if nesterov else theta
    assert_same(trained(lambda rate: nncore.SGD(rate, mu, nesterov), eta), expected)


# PyTorch


@pytest.fixture
def torch() -> Any:
    module = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    module.set_num_threads(1)
    return module


def trained_by_torch(
    torch: Any, optimizer: str, options: dict[str, Any], schedule: str, its_options: dict[str, Any]
) -> Array:
    """Return the parameters after the steps of a network that PyTorch differentiates."""
    net, X, Y = problem()
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    weights, biases = (
        [torch.tensor(array, requires_grad=True) for array in arrays]
        for arrays in (net.weights, net.biases)
    )
    groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    its_optimizer = getattr(torch.optim, optimizer)(groups, **options)
    scheduler = getattr(torch.optim.lr_scheduler, schedule)(its_optimizer, **its_options)
    for _ in range(N_STEPS):
        a = x
        for l, (W, b) in enumerate(zip(weights, biases, strict=True)):
            a = a @ W + b
            a = torch.tanh(a) if l < len(weights) - 1 else a
        its_optimizer.zero_grad()
        (0.5 * ((a - y) ** 2).sum() / len(X)).backward()
        its_optimizer.step()
        scheduler.step()
    result = np.empty_like(net.parameters)
    for views, tensors in zip(net.architecture.views(result), (weights, biases), strict=True):
        for view, tensor in zip(views, tensors, strict=True):
            view[...] = tensor.detach().numpy()
    return result


@every_case
def test_two_hundred_steps_are_those_of_pytorch(torch: Any, case: Case) -> None:
    options = {"lr": RATE, **case.torch_options}
    expected = trained_by_torch(torch, case.torch_class, options, "ConstantLR", {"factor": 1.0})
    assert_same(trained(case.create, RATE), expected)


@pytest.mark.parametrize(("schedule", "torch_class", "options"), SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("create", [nncore.SGD, nncore.Adam])
def test_two_hundred_steps_with_a_schedule_are_those_of_pytorch(
    torch: Any,
    create: Callable[[Rate], nncore.Optimizer],
    schedule: Callable[[int], float],
    torch_class: str,
    options: dict[str, Any],
) -> None:
    name = create.__name__
    expected = trained_by_torch(torch, name, {"lr": RATE}, torch_class, options)
    assert_same(trained(create, schedule), expected)
