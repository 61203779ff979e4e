from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from ._kernels import Activation

class ForwardPass:
    def __init__(
        self,
        sizes: Sequence[int],
        activations: Sequence[Activation],
        parameters: npt.NDArray[Any],
    ) -> None: ...
    def predict(self, X: object) -> npt.NDArray[Any] | None: ...
