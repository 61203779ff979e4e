"""Train PyTorch modules with nncore.torch and with PyTorch's loops, in turn, on one thread."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from machine import say
from torch import nn

import nncore.torch

# Sizes, batch size, optimizer.
CASES = {
    "784-30-10,10,sgd": (784, 30, 10),
    "20-100-100-1,64,adam": (20, 100, 100, 1),
    "784-512-512-10,128,sgd": (784, 512, 512, 10),
}
N_BATCHES = 64  # per epoch
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": partial(torch.optim.SGD, lr=0.01),
    "adam": partial(torch.optim.Adam, lr=1e-3),
}


class Loop:
    """A loop over epochs of one module, which each contestant writes as its users do."""

    options: ClassVar[dict[str, Any]] = {}  # of the optimizer

    def __init__(self, sizes: tuple[int, ...], batch_size: int, optimizer: str, n: int) -> None:
        torch.manual_seed(0)
        parts: list[Any] = []
        for n_in, n_out in pairwise(sizes):
            parts += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.module = nn.Sequential(*parts[:-1])
        self.optimizer = OPTIMIZERS[optimizer](self.module.parameters(), **self.options)
        self.X, self.batch_size = torch.rand(n, sizes[0]), batch_size
        self.loss: Any = nn.CrossEntropyLoss() if sizes[-1] > 1 else nn.MSELoss()
        self.y = torch.randint(0, sizes[-1], (n,)) if sizes[-1] > 1 else torch.rand(n, 1)
        self.forward: Callable[[torch.Tensor], Any] = self.module

    def fit(self, epochs: int) -> None:
        for _ in range(epochs):
            for rows in torch.randperm(len(self.X)).split(self.batch_size):
                self.step(self.X[rows], self.y[rows])

    def step(self, X: torch.Tensor, y: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.loss(self.forward(X), y).backward()
        self.optimizer.step()


class Fused(Loop):
    options: ClassVar[dict[str, Any]] = {"fused": True}


class Compiled(Loop):
    """Forward and backward pass compiled, and the fused optimizer."""

    options: ClassVar[dict[str, Any]] = {"fused": True}

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forward = torch.compile(self.module)


class DataLoader(Loop):
    def fit(self, epochs: int) -> None:
        dataset = torch.utils.data.TensorDataset(self.X, self.y)
        loader = torch.utils.data.DataLoader(dataset, self.batch_size, shuffle=True)
        for _ in range(epochs):
            for X, y in loader:
                self.step(X, y)


class NNCore(Loop):
    def fit(self, epochs: int) -> None:
        nncore.torch.fit(
            self.module,
            self.X,
            self.y,
            loss=self.loss,
            optimizer=self.optimizer,
            epochs=epochs,
            batch_size=self.batch_size,
            n_threads=1,
        )


CONTESTANTS: dict[str, type[Loop]] = {
    "nncore.torch": NNCore,
    "eager": Loop,
    "fused": Fused,
    "compiled, fused": Compiled,
    "eager, DataLoader": DataLoader,
}


def seconds_of(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def start_up(rounds: int) -> float:
    """Return the median seconds of a fit of one step, without those of the step."""
    loops = [NNCore((4, 8, 2), 16, "sgd", n) for n in (16, 32)]
    for loop in loops:
        loop.fit(2)
    times = [[seconds_of(partial(loop.fit, 1)) for _ in range(100 * rounds)] for loop in loops]
    one, two = map(np.median, times)
    return float(one - (two - one))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument(
        "--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS)
    )
    parser.add_argument("--rounds", type=int, default=5, help="samples of each contestant")
    parser.add_argument("--seconds", type=float, default=0.2, help="wanted length of a sample")
    options = parser.parse_args()
    torch.set_num_threads(1)
    say(f"nncore {nncore.__version__}, PyTorch {torch.__version__}, one thread")
    print(f"| us per step | {' | '.join(options.contestants)} |")
    print("| --- |" + " --: |" * len(options.contestants))
    for case in options.cases:
        _, batch_size, optimizer = case.split(",")
        n = N_BATCHES * int(batch_size)
        loops = [
            CONTESTANTS[name](CASES[case], int(batch_size), optimizer, n)
            for name in options.contestants
        ]
        epochs = []
        for loop in loops:
            loop.fit(2)  # compiles
            epochs.append(max(1, round(options.seconds / seconds_of(partial(loop.fit, 1)))))
        samples = [
            [
                seconds_of(partial(loop.fit, count)) / (N_BATCHES * count)
                for loop, count in zip(loops, epochs, strict=True)
            ]
            for _ in range(options.rounds)
        ]
        medians = 1e6 * np.median(samples, axis=0)
        cells = [f"{value:,.1f} ({value / medians[0]:.1f})" for value in medians]
        print(f"| {case.replace(',', ', ')} | {' | '.join(cells)} |", flush=True)
    print(f"A call takes {1e6 * start_up(options.rounds):.0f} us besides its steps.")


if __name__ == "__main__":
    main()
