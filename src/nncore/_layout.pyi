"""The types of what a step works on."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy.typing as npt

from ._kernels import Activation, Loss

def aligned_zeros(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]: ...

class Examples:
    @property
    def n(self) -> int: ...
    def __init__(
        self,
        X: npt.NDArray[Any],
        Y: npt.NDArray[Any] | None = None,
        sample_weight: npt.NDArray[Any] | None = None,
    ) -> None: ...

class Update:
    @property
    def state(self) -> tuple[npt.NDArray[Any], ...]: ...
    @property
    def step_count(self) -> int: ...
    def __init__(
        self,
        rule: Literal["gradient_descent", "momentum", "adam"],
        state: tuple[npt.NDArray[Any], ...],
        step_count: int,
        *,
        learning_rate: float,
        weight_decay: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        beta_1: float = 0.0,
        beta_2: float = 0.0,
        epsilon: float = 0.0,
        epsilon_uncorrected: bool = False,
        penalty: float = 0.0,
        max_norm: float = 0.0,
        dropout: tuple[float, ...] = (),
        dropout_seed: int = 0,
    ) -> None: ...

class Layout:
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def size(self) -> int: ...
    def __init__(
        self,
        sizes: Sequence[int],
        activations: Sequence[Activation],
        loss: Loss,
        parameters: npt.NDArray[Any],
        batch_size: int,
        span: int,
        n_threads: int,
        blas: bool,
    ) -> None: ...
    def load(self, update: Update | None = None, *, transposes: bool = True) -> None: ...
    def store(self) -> None: ...
