from typing import Any

import numpy.typing as npt

from .architecture import Architecture

class ForwardPass:
    def __init__(self, architecture: Architecture, parameters: npt.NDArray[Any]) -> None: ...
    def predict(self, X: object, /) -> npt.NDArray[Any] | None: ...
    def predict_to(self, X_and_out: tuple[object, object], /) -> npt.NDArray[Any] | None: ...
