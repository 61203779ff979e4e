"""The directory of the C headers."""

from pathlib import Path

__all__ = ["get_include"]


def get_include() -> str:
    """Return the include directory for Cython modules that cimport the kernels.

    Examples
    --------
    >>> import nncore, os
    >>> os.path.exists(os.path.join(nncore.get_include(), "nncore.h"))
    True
    """
    return str(Path(__file__).with_name("csrc"))
