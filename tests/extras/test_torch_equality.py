"""`nncore.torch.fit` against PyTorch's own loop, on random combinations of what it supports.

NNCORE_TORCH_CASES sets how many; 200 take a minute.
"""

import copy
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_loops import assert_equal_modules, run_in_torch  # noqa: E402

import nncore.torch  # noqa: E402

nn = torch.nn
torch.set_num_threads(1)
CASES = range(int(os.environ.get("NNCORE_TORCH_CASES", "40")))

ACTIVATIONS: list[Callable[[np.random.Generator], Any]] = [
    lambda _: nn.ReLU(),
    lambda rng: nn.LeakyReLU(rng.uniform(-0.2, 0.5)),
    lambda rng: nn.ELU(rng.uniform(0.3, 2)),
    lambda _: nn.Sigmoid(),
    lambda _: nn.Tanh(),
    lambda _: nn.Softplus(),
    lambda _: nn.SiLU(),
    lambda _: nn.GELU(),
    lambda _: nn.GELU("tanh"),
    lambda _: nn.Identity(),
]


def hidden_layers(rng: np.random.Generator, sizes: list[int], dtype: Any) -> list[Any]:
    """Layers up to the outputs' own activation, some of them nested."""
    parts: list[Any] = [nn.Flatten()] if rng.random() < 0.2 else []
    for n_prev, n in itertools.pairwise(sizes[:-1]):
        activation = ACTIVATIONS[rng.integers(len(ACTIVATIONS))](rng)
        parts.append(nn.Sequential(nn.Linear(n_prev, n, bias=rng.random() < 0.8), activation))
    parts.append(nn.Linear(sizes[-2], sizes[-1], bias=rng.random() < 0.8))
    return [part.to(dtype) for part in parts]


def classification(
    rng: np.random.Generator, n: int, k: int, dtype: Any
) -> tuple[Any, Any, list[Any]]:
    """A loss for classes, targets, and the module's last parts."""
    weight = torch.tensor(rng.uniform(0.2, 2, k), dtype=dtype) if rng.random() < 0.5 else None
    reduction = str(rng.choice(["mean", "sum"]))
    classes = torch.tensor(rng.integers(0, k, n))
    if rng.random() < 0.3:
        classes[:: int(rng.integers(3, 9))] = 1
        options = {"weight": weight, "ignore_index": 1, "reduction": reduction}
        return nn.NLLLoss(**options), classes, [nn.LogSoftmax(dim=-1)]
    smoothing = 0.1 if rng.random() < 0.5 else 0.0
    loss = nn.CrossEntropyLoss(weight=weight, reduction=reduction, label_smoothing=smoothing)
    if rng.random() < 0.3:
        classes = torch.tensor(rng.dirichlet(np.ones(k), n), dtype=dtype)
    return loss, classes, []


def regression(rng: np.random.Generator, n: int, k: int, dtype: Any) -> tuple[Any, Any, list[Any]]:
    """A loss for numbers, targets, and the module's last parts."""
    reduction = str(rng.choice(["mean", "sum"]))
    kind = rng.integers(8)
    numbers = torch.tensor(rng.standard_normal((n, k)), dtype=dtype)
    shares = torch.tensor(rng.random((n, k)), dtype=dtype)
    counts = torch.tensor(rng.poisson(2, (n, k)), dtype=dtype)
    weight = torch.tensor(rng.uniform(0.3, 3, k), dtype=dtype)
    choices: list[tuple[Any, Any, list[Any]]] = [
        (nn.MSELoss(reduction=reduction), numbers, []),
        (nn.MSELoss(reduction=reduction), shares, [nn.Tanh()]),
        (nn.L1Loss(reduction=reduction), numbers, []),
        (nn.SmoothL1Loss(reduction=reduction, beta=rng.uniform(0.2, 2)), numbers, []),
        (nn.HuberLoss(reduction=reduction, delta=rng.uniform(0.2, 2)), numbers, []),
        (nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=weight), shares, []),
        (nn.BCELoss(reduction=reduction), shares, [nn.Sigmoid()]),
        (nn.PoissonNLLLoss(reduction=reduction), counts, []),
    ]
    return choices[kind]


def optimizer_of(rng: np.random.Generator, module: Any) -> Callable[[Any], Any]:
    """What creates an optimizer of a copy of the module's parameters."""
    decay = float(rng.choice([0, 0.01]))
    by_bias = rng.random() < 0.3
    kind = rng.integers(6)
    momentum = float(rng.choice([0.5, 0.9]))

    def create(module: Any) -> Any:
        groups: Any = module.parameters()
        if by_bias:
            named = dict(module.named_parameters())
            biases = [p for name, p in named.items() if name.endswith("bias")]
            weights = [p for name, p in named.items() if name.endswith("weight")]
            groups = [{"params": weights}] + [{"params": biases, "weight_decay": 0.0}] * bool(
                biases
            )
        optim = torch.optim
        return [
            lambda: optim.SGD(groups, lr=0.01, weight_decay=decay),
            lambda: optim.SGD(
                groups, lr=0.005, momentum=momentum, weight_decay=decay, nesterov=by_bias
            ),
            lambda: optim.Adam(groups, lr=0.003, weight_decay=decay),
            lambda: optim.Adam(groups, lr=0.003, betas=(0.8, 0.99), amsgrad=True),
            lambda: optim.AdamW(groups, lr=0.003, weight_decay=0.1),
            lambda: optim.RMSprop(
                groups, lr=0.001, momentum=momentum * by_bias, centered=not by_bias
            ),
        ][kind]()

    return create


@pytest.mark.parametrize("seed", CASES)
def test_training_equals_pytorch_and_continues_in_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    dtype = torch.float64 if seed % 2 else torch.float32
    tolerance = 1e-9 if seed % 2 else 1e-4
    sizes = [int(size) for size in rng.integers(1, 24, rng.integers(2, 5))]
    sizes[-1] = int(rng.integers(2, 6))
    n, batch_size = 80, int(rng.integers(7, 33))
    problem = classification if rng.random() < 0.5 else regression
    loss, y, last = problem(rng, n, sizes[-1], dtype)
    mine = nn.Sequential(*hidden_layers(rng, sizes, dtype), *last)
    X = torch.tensor(rng.standard_normal((n, sizes[0])), dtype=dtype)
    theirs = copy.deepcopy(mine)
    create = optimizer_of(rng, mine)
    ours, reference = create(mine), create(theirs)
    epochs = -(-100 // -(-n // batch_size))
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]

    nncore.torch.fit(
        mine, X, y, loss=loss, optimizer=ours, epochs=epochs, batch_size=batch_size,
        generator=generators[0],
    )  # fmt: skip
    run_in_torch(theirs, X, y, loss, reference, epochs, batch_size, generator=generators[1])
    assert_equal_modules(mine, theirs, tolerance)
    assert torch.equal(*(generator.get_state() for generator in generators))
    for module, optimizer, generator in zip(
        (mine, theirs), (ours, reference), generators, strict=True
    ):
        run_in_torch(module, X, y, loss, optimizer, 4, 16, generator=generator)
    assert_equal_modules(mine, theirs, tolerance)
    nncore.torch.fit(
        mine, X, y, loss=loss, optimizer=ours, epochs=3, batch_size=batch_size,
        generator=generators[0],
    )  # fmt: skip
    run_in_torch(theirs, X, y, loss, reference, 3, batch_size, generator=generators[1])
    assert_equal_modules(mine, theirs, tolerance)
