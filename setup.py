"""The extension modules and their table of compiler directives; the rest is in pyproject.toml."""

import os
import re
from glob import glob
from pathlib import Path

import numpy
import scipy
from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("NNCORE_DEBUG", "0") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": not DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "overflowcheck": DEBUG,
    "freethreading_compatible": True,
}


def blas_int() -> str:
    """Return the C type of the integers of SciPy's cython_blas, named from SciPy 1.18 on."""
    declarations = Path(scipy.__file__).with_name("linalg") / "cython_blas.pxd"
    named = re.search(r"^ctypedef (\w+) blas_int$", declarations.read_text(), re.MULTILINE)
    return named.group(1) if named else "int"


# -ffp-contract=off: a multiplication and an addition are fused only where the source says so,
# which keeps the same formula to the same bits in every function that the compiler inlines it into.
FLAGS = ["-std=gnu11", "-O1" if DEBUG else "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall"]
# Debugging information, which Python's own flags ask for, is ten times the code.
if not DEBUG and "-g" not in os.environ.get("CFLAGS", "").split():
    FLAGS.append("-g0")


def extension(name: str, sources: list[str]) -> Extension:
    return Extension(
        name,
        sources,
        include_dirs=["src/nncore/csrc", numpy.get_include()],
        define_macros=[
            ("NNCORE_BLAS_INT", blas_int()),
            ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        ],
        depends=glob("src/nncore/csrc/*.h"),
        extra_compile_args=FLAGS,
    )


setup(
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        [
            extension("nncore._kernels", ["src/nncore/_kernels.pyx", *glob("src/nncore/csrc/*.c")]),
            extension("nncore._layout", ["src/nncore/_layout.pyx"]),
            extension("nncore._step", ["src/nncore/_step.pyx"]),
            extension("nncore._forward", ["src/nncore/_forward.pyx"]),
        ],
        compiler_directives=DIRECTIVES,
    )
)
