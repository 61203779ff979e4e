"""What the tests of `nncore.torch` share: a module, data, both loops, and a comparison."""

from typing import Any

import torch

import nncore.torch

nn, optim = torch.nn, torch.optim


def make(*parts: Any) -> Any:
    torch.manual_seed(0)
    body = [nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), *parts]
    return nn.Sequential(*body).double()


def data(n: int = 41) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return X, torch.randint(0, 3, (n,), generator=generator)


def fit(module: Any, X: Any, y: Any, **changes: Any) -> nncore.History:
    options: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "epochs": 2,
        "batch_size": 8,
        "generator": torch.Generator().manual_seed(2),
        **changes,
    }
    options.setdefault("optimizer", optim.SGD(module.parameters(), lr=0.1))
    return nncore.torch.fit(module, X, y, **options)


def run_in_torch(
    module: Any,
    X: Any,
    y: Any,
    loss: Any,
    optimizer: Any,
    epochs: int,
    batch_size: int,
    **more: Any,
) -> None:
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, y), batch_size, shuffle=True, **more
    )
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss(module(inputs), targets).backward()
            optimizer.step()


def assert_equal_modules(actual: Any, expected: Any, tolerance: float) -> None:
    for mine, theirs in zip(actual.parameters(), expected.parameters(), strict=True):
        scale = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance * scale)
