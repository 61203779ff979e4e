"""Submodules are attributes of nncore, and are imported on first use."""

import importlib.util
import subprocess
import sys

import pytest

import nncore


def run(code: str) -> list[str]:
    """Return the lines that the code prints in a new process."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def test_submodules_are_imported_on_first_use() -> None:
    code = """
import sys, nncore
for name in ("sklearn", "nncore.sklearn"):
    print(name in sys.modules)
print(nncore.reference.__name__, nncore.sklearn.MLPClassifier.__name__)
"""
    assert run(code) == ["False"] * 2 + ["nncore.reference MLPClassifier"]


def test_dir_lists_public_names_and_submodules_that_exist() -> None:
    listed = dir(nncore)
    assert {*nncore.__all__, "callbacks", "reference", "sklearn", "typing"} <= {*listed}
    if importlib.util.find_spec("torch") is None:
        listed.remove("torch")
    assert all(hasattr(nncore, name) for name in listed)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'nncore' has no attribute 'Netwrok'"):
        nncore.Netwrok  # type: ignore[attr-defined]  # noqa: B018


def test_without_scikit_learn_the_message_says_how_to_install_it_and_help_works() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import nncore
for code in (
    "nncore.sklearn",
    "import nncore.sklearn",
    "from nncore import sklearn",
    "from nncore.sklearn import MLPClassifier",
):
    try:
        exec(code)
    except (AttributeError, ImportError) as error:
        print(type(error).__name__, error)
help(nncore)
"""
    message = "nncore.sklearn needs scikit-learn 1.6 or newer: pip install 'nncore[sklearn]'"
    errors = ["AttributeError", "ImportError", "ImportError", "ImportError"]
    printed = run(code)
    assert printed[:4] == [f"{error} {message}" for error in errors]
    assert "NAME" in printed


def test_with_compiled_modules_of_other_sources_the_message_says_what_to_do() -> None:
    code = """
import sys, types
sys.modules["nncore._forward"] = types.ModuleType("nncore._forward")
try:
    import nncore
except ImportError as error:
    print(error)
"""
    assert run(code) == [
        "nncore is compiled from other sources: run `pip install -e .` in its source directory"
    ]
