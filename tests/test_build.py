"""Builds and installations, and other Cython modules that use the kernels."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nncore
from nncore import _kernels, reference
from nncore.enums import Activation

MODULE = """\
from cython cimport floating
from nncore._kernels cimport SIGMOID, Activation, forward
def layer(floating[:, ::1] A, const floating[:, ::1] A_prev, const floating[:, ::1] W,
          const floating[::1] b, Activation activation=SIGMOID):
    with nogil: forward(A, A_prev, W, b, activation)
"""

ROOT = Path(__file__).parent.parent
CUSTOM = ROOT / "docs" / "custom.md"


@pytest.mark.parametrize(
    "name", ["py.typed", "_kernels.pyi", "_kernels.pxd", "csrc/nncore.h", "csrc/vector.h"]
)
def test_file_is_installed(name: str) -> None:
    assert files(nncore).joinpath(name).is_file()


def test_include_directory_holds_the_header() -> None:
    assert (Path(nncore.get_include()) / "nncore.h").is_file()


def block(language: str) -> str:
    """Return the only block of docs/custom.md in that language."""
    (code,) = re.findall(
        rf"^```{language}\n(.*?)^```", CUSTOM.read_text(), re.DOTALL | re.MULTILINE
    )
    return str(code)


def compiled(name: str, source: str, folder: Path) -> Any:
    """Return a Cython module, compiled as docs/custom.md says."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"needs the C compiler {compiler}")
    (folder / f"{name}.pyx").write_text(source)
    (folder / "setup.py").write_text(block("py").replace("training_loop", name))
    build = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert build.returncode == 0, build.stdout
    path = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_training_loop_in_cython_makes_the_steps_of_a_network(tmp_path: Path) -> None:
    training_loop = compiled("training_loop", block("cython"), tmp_path)
    images, labels = nncore.datasets.load_digits()
    Y = np.eye(10, dtype="float32")[labels]
    net = nncore.Network([64, 30, 10], activation="tanh", loss="cross_entropy", seed=0)
    parameters = [
        part.copy() for pair in zip(net.weights, net.biases, strict=True) for part in pair
    ]
    scratch = [np.empty((32, n), "float32") for n in (30, 10, 30, 10)]
    rows = 1792  # 56 batches
    loss = training_loop.train(*parameters, images, Y, *scratch, 3, 0.1)
    history = net.fit(images[:rows], Y[:rows], epochs=3, optimizer=nncore.SGD(0.1), shuffle=False)
    assert loss == pytest.approx(history.loss[-1], rel=1e-4)
    flat = np.concatenate([part.ravel() for part in parameters])
    np.testing.assert_allclose(flat, net.parameters, atol=1e-4)


def test_another_cython_module_can_cimport_the_kernels(tmp_path: Path) -> None:
    own_loop = compiled("own_loop", MODULE, tmp_path)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        A_prev, W, b = (rng.standard_normal(s).astype(dtype) for s in ((7, 5), (5, 3), 3))
        A, expected = np.full((7, 3), np.nan, dtype), np.empty((7, 3), dtype)
        own_loop.layer(A, A_prev, W, b)
        reference.forward(expected, A_prev, W, b, Activation.SIGMOID)
        np.testing.assert_allclose(A, expected, rtol=64 * float(np.finfo(dtype).eps))
    with pytest.raises(ValueError, match="needs A"):
        own_loop.layer(A, A_prev, W, b[:2])


HIDE_METADATA = """
import importlib.metadata
importlib.metadata.Distribution.discover = classmethod(lambda *_, **__: iter(()))
"""


@pytest.mark.parametrize(
    ("code", "left_out"),
    [("", ("*.so", "*.pyd")), (HIDE_METADATA, ())],
    ids=["not compiled", "not installed"],
)
def test_import_without_an_installation_says_what_to_do(
    tmp_path: Path, code: str, left_out: tuple[str, ...]
) -> None:
    package = Path(str(files(nncore)))
    shutil.copytree(package, tmp_path / "nncore", ignore=shutil.ignore_patterns(*left_out))
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport nncore"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("ImportError: nncore is not installed")
    assert "pip install -e ." in last


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if not (ROOT / "setup.py").is_file():
        pytest.skip("needs a source checkout")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "src"):
        # Keep the modification times, so that Cython has nothing to do.
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_build_removes_modules_of_an_earlier_one(checkout: Path) -> None:
    built = checkout / "build" / "nncore"
    packed = checkout / "build" / f"bdist.{sysconfig.get_platform()}" / "wheel" / "nncore"
    for stale in (built, packed):
        stale.mkdir(parents=True)
        (stale / "renamed.py").touch()
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", "build"],
        cwd=checkout,
        check=True,
    )
    assert not (built / "renamed.py").exists()
    assert not packed.exists()
    assert (built / "network.py").is_file()


COPY_NOTHING = """
from distutils.core import run_setup
build_ext = run_setup("setup.py", stop_after="init").get_command_obj("build_ext")
build_ext.extensions = []
build_ext.copy_extensions_to_source()
"""


def test_a_build_in_place_removes_modules_that_python_would_prefer(checkout: Path) -> None:
    stale = checkout / "src" / "nncore" / f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
    stale.touch()
    subprocess.run(
        [sys.executable, "-c", f"import setuptools{COPY_NOTHING}"], cwd=checkout, check=True
    )
    assert not stale.exists()


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="free-threaded: no stable ABI"
)
def test_compiled_modules_use_the_stable_abi() -> None:
    assert ".abi3." in Path(_kernels.__file__).name or os.name == "nt"


# Names that scikit-learn leaves to estimators outside it, PyTorch to its users, and NamedTuple to
# everybody.
PUBLIC = {
    "_init_callback_context",
    "_parameter_constraints",
    "_foreach_copy_",
    "_opt_called",
    "_replace",
}
MODULES = sorted(Path(str(files(nncore))).rglob("*.py"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_uses_private_names_of_another(path: Path) -> None:
    defined, used = set(PUBLIC), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            is_own = ast.unparse(node.value) in ("self", "cls", "super()")
            if not is_own:
                used.add(node.attr)
            elif isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if re.match(r"\.+\w|nncore\.", module):
                used.update(alias.name for alias in node.names if is_private(alias.name))
    assert used <= defined
