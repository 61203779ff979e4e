"""The types of reading rows of a file."""

import numpy as np
import numpy.typing as npt

def read_rows(
    file: int,
    offsets: npt.NDArray[np.int64],
    places: npt.NDArray[np.intp],
    out: npt.NDArray[np.uint8],
    stop: bytearray,
) -> tuple[int, int]: ...
