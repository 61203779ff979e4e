"""The types of the orders of epochs."""

from typing import Any

import numpy as np
import numpy.typing as npt

def shuffle(rng: Any, order: npt.NDArray[np.intp], n: int = 0) -> None: ...
