"""PyTorch's own training loop, and a comparison of modules."""

from typing import Any

import torch


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
