from typing import Any

import numpy.typing as npt

from .architecture import Architecture

class ForwardPass:
    def __init__(self, architecture: Architecture, parameters: npt.NDArray[Any]) -> None: ...
    def predict(self, X: object, out: object = ...) -> npt.NDArray[Any] | None: ...
