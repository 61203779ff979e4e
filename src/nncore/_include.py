"""Where the C headers lie."""

from pathlib import Path

__all__ = ["get_include"]


def get_include() -> str:
    """Return the directory of the header that a Cython module compiles with to cimport the kernels.

    Examples
    --------
    >>> import nncore, os
    >>> os.path.exists(os.path.join(nncore.get_include(), "nncore.h"))
    True
    """
    return str(Path(__file__).with_name("csrc"))
