"""The extension modules and how to compile them; pyproject.toml has the rest."""

import os
import re
import shutil
import sysconfig
from glob import glob
from pathlib import Path

import numpy
import scipy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

DEBUG = os.environ.get("NNCORE_DEBUG", "0") == "1"

# One build serves Python 3.11 and later, but for free-threaded ones, which have no stable ABI.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

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
    """Return the C type of SciPy's BLAS integers, which cython_blas names from SciPy 1.18 on."""
    declarations = Path(scipy.__file__).with_name("linalg") / "cython_blas.pxd"
    named = re.search(r"^ctypedef (\w+) blas_int$", declarations.read_text(), re.MULTILINE)
    return named.group(1) if named else "int"


# -ffp-contract=off: a multiplication and an addition are fused only where the source says so, so
# the same formula gives the same bits in every function that the compiler inlines it into.
FLAGS = ["-std=gnu11", "-O1" if DEBUG else "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall"]
# Python's own flags add debugging information, which is ten times the size of the code.
if not DEBUG and "-g" not in os.environ.get("CFLAGS", "").split():
    FLAGS.append("-g0")
# On Windows GCC aligns the stack to 16 bytes, and the vectors of AVX on it to more.
MINGW_FLAGS = ["-Wa,-muse-unaligned-vector-move"]


class BuildExt(build_ext):
    """Passes FLAGS to GCC, Clang or MinGW as they are, and to clang-cl in its syntax."""

    def build_extensions(self) -> None:
        flags = FLAGS
        if self.compiler.compiler_type == "mingw32":
            flags = FLAGS + MINGW_FLAGS
        if self.compiler.compiler_type == "msvc":
            flags = [f"/clang:{flag}" for flag in FLAGS]
            compiler = os.environ.get("CC", "cl")
            if Path(compiler).stem != "clang-cl":
                raise SystemExit(
                    f"nncore needs a compiler with vector extensions, got {compiler}: set "
                    "CC=clang-cl, or use MinGW with build_ext --compiler=mingw32"
                )
            self.compiler.initialize()
            self.compiler.cc = compiler
        for extension in self.extensions:
            extension.extra_compile_args = flags
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        """Remove earlier modules first: Python prefers one for its own version, however old."""
        for pattern in ("*.so", "*.pyd"):
            for path in Path("src/nncore").glob(pattern):
                path.unlink()
        super().copy_extensions_to_source()


class BuildPy(build_py):
    """Empties the build directories first: a wheel packs whatever an earlier build left there."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "nncore", ignore_errors=True)
            shutil.rmtree(self.get_finalized_command("bdist").bdist_base, ignore_errors=True)
        super().run()


MACROS = [
    ("NNCORE_BLAS_INT", blas_int()),
    ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
]
if STABLE_ABI:
    MACROS.append(("Py_LIMITED_API", "0x030B0000"))


def extension(name: str, sources: list[str]) -> Extension:
    return Extension(
        name,
        sources,
        include_dirs=["src/nncore/csrc", numpy.get_include()],
        define_macros=MACROS,
        depends=glob("src/nncore/csrc/*.h"),
        py_limited_api=STABLE_ABI,
    )


setup(
    ext_modules=cythonize(  # type: ignore[no-untyped-call]
        [
            extension("nncore._kernels", ["src/nncore/_kernels.pyx", *glob("src/nncore/csrc/*.c")]),
            extension("nncore._layout", ["src/nncore/_layout.pyx"]),
            extension("nncore._orders", ["src/nncore/_orders.pyx"]),
            extension("nncore._team", ["src/nncore/_team.pyx"]),
            extension("nncore._items", ["src/nncore/_items.pyx"]),
            extension("nncore._step", ["src/nncore/_step.pyx"]),
            extension("nncore._forward", ["src/nncore/_forward.pyx"]),
            extension("nncore._reading", ["src/nncore/_reading.pyx"]),
        ],
        compiler_directives=DIRECTIVES,
    ),
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
