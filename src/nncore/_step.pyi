"""The types of the compiled step."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ._items import Items
from ._layout import Counter, Examples, FlatVector
from .optimizers import Rule
from .session import StepOptions

def span_of(batch_size: int, n_parameters: int, blas: bool) -> int: ...
def spans_of(span: int, parameter_bytes: int, l2: int) -> int: ...

class Workspace(Items):
    step_count: int
    @property
    def done(self) -> int: ...
    def configure(self, rule: Rule, options: StepOptions) -> None: ...
    def schedule(
        self, rates: npt.NDArray[np.float64], momenta: npt.NDArray[np.float64] | None = None
    ) -> None: ...
    def knows_rates(self, n_steps: int) -> bool: ...
    @property
    def learning_rate(self) -> float: ...
    def train(
        self,
        examples: Examples,
        order: npt.NDArray[np.intp] | None,
        batch_size: int,
        begin: int,
        end: int,
        sums: npt.NDArray[np.float64],
        keep_going: bool,
        scales: npt.NDArray[np.float64] | None = None,
        epoch: int = 0,
    ) -> None: ...
    def step(
        self, examples: Examples, vectors: tuple[FlatVector, ...], steps: Counter
    ) -> tuple[float, bool]: ...
    def write_back(self, vectors: tuple[FlatVector, ...], steps: Counter | None) -> None: ...
    def gradient(
        self,
        out: npt.NDArray[Any] | None,
        examples: Examples,
        scale: float,
        *,
        rows: npt.NDArray[np.intp] | None = None,
        dropout: bool = False,
        step: int = 0,
        first_example: int = 0,
    ) -> float: ...
    def layer_gradients(self, out: npt.NDArray[Any], begin: int, end: int) -> None: ...
    def backward(self, out: npt.NDArray[Any], dX: npt.NDArray[Any], examples: Examples) -> None: ...
    def jacobian(self, out: npt.NDArray[Any], examples: Examples) -> None: ...
    def update(self, gradient: npt.NDArray[Any], weight: float) -> float: ...
    def total_loss(
        self,
        examples: Examples,
        rows: npt.NDArray[np.intp] | None = None,
        out: npt.NDArray[Any] | None = None,
        total: float = 0.0,
    ) -> float: ...
    def predict(
        self, outs: list[npt.NDArray[Any] | None], examples: Examples, check: bool
    ) -> bool: ...
