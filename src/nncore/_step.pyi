"""The types of the compiled step."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ._layout import Examples, Layout

def span_of(batch_size: int, n_parameters: int, blas: bool) -> int: ...

class Workspace(Layout):
    def train(
        self,
        examples: Examples,
        order: npt.NDArray[np.intp] | None,
        batch_size: int,
        batch_losses: npt.NDArray[np.float64] | None = None,
    ) -> float: ...
    def add_gradient(self, out: npt.NDArray[Any], examples: Examples, scale: float) -> float: ...
    def total_loss(self, examples: Examples) -> float: ...
    def predict(self, out: npt.NDArray[Any], examples: Examples, *, limit: float = 0.0) -> bool: ...
