"""The installed files, and the kernels in other Cython modules."""

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import nncore
from nncore import reference
from nncore.enums import Activation

MODULE = """\
from cython cimport floating
from nncore._kernels cimport SIGMOID, Activation, forward
def layer(floating[:, ::1] A, const floating[:, ::1] A_prev, const floating[:, ::1] W,
          const floating[::1] b, Activation activation=SIGMOID):
    with nogil: forward(A, A_prev, W, b, activation)
"""

SETUP = """\
from Cython.Build import cythonize
from setuptools import Extension, setup

import nncore

setup(
    ext_modules=cythonize(
        [Extension("own_loop", ["own_loop.pyx"], include_dirs=[nncore.get_include()])],
        language_level=3,
    )
)
"""


@pytest.mark.parametrize(
    "name", ["py.typed", "_kernels.pyi", "_kernels.pxd", "csrc/nncore.h", "csrc/vector.h"]
)
def test_file_is_installed(name: str) -> None:
    assert files(nncore).joinpath(name).is_file()


def test_include_directory_holds_the_header() -> None:
    assert (Path(nncore.get_include()) / "nncore.h").is_file()


def test_another_cython_module_can_cimport_the_kernels(tmp_path: Path) -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no C compiler {compiler}")
    (tmp_path / "own_loop.pyx").write_text(MODULE)
    (tmp_path / "setup.py").write_text(SETUP)
    build = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert build.returncode == 0, build.stdout
    path = tmp_path / f"own_loop{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location("own_loop", path)
    assert spec is not None
    assert spec.loader is not None
    own_loop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own_loop)

    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        A_prev, W, b = (rng.standard_normal(s).astype(dtype) for s in ((7, 5), (5, 3), 3))
        A, expected = np.full((7, 3), np.nan, dtype), np.empty((7, 3), dtype)
        own_loop.layer(A, A_prev, W, b)
        reference.forward(expected, A_prev, W, b, Activation.SIGMOID)
        np.testing.assert_allclose(A, expected, rtol=64 * float(np.finfo(dtype).eps))
    with pytest.raises(ValueError, match="needs A"):
        own_loop.layer(A, A_prev, W, b[:2])
