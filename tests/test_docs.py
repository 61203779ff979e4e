"""Examples in docstrings and documents run and give what they show; names and links exist."""

import ast
import doctest
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import nncore

MODULES = [
    module.name
    for module in pkgutil.walk_packages(nncore.__path__, "nncore.")
    if module.name != "nncore.__main__"
    and (module.name != "nncore.torch" or importlib.util.find_spec("torch"))
]
ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SOURCE_SUFFIXES = {".py", ".pyx", ".pxd", ".c", ".h"}
INTERNALS = ROOT / "docs" / "internals.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"])


# Packages that single examples need and the tests do not.
OPTIONAL = {"h5py", "jax", "keras", "onnx", "optuna", "pyarrow", "torch"}


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def without_blocks(document: Path) -> str:
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def lacks_a_package(code: str) -> bool:
    imported = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    packages = {name.partition(".")[0] for name in imported}
    return any(importlib.util.find_spec(name) is None for name in packages & OPTIONAL)


@pytest.mark.parametrize("name", ["nncore", *MODULES])
def test_examples_in_docstrings_print_what_they_show(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(importlib.import_module(name), name):
        if not lacks_a_package("".join(example.source for example in test.examples)):
            runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if python_blocks(path)], ids=lambda path: path.name
)
def test_examples_in_a_document_run_in_their_order(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A document whose examples need packages says so in its first line.
    needed = re.match(r"<!-- needs: (.*) -->", document.read_text())
    for package in needed[1].split() if needed else []:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # for the files that they write
    namespace: dict[str, object] = {}
    for block in python_blocks(document):
        if not lacks_a_package(block):
            exec(block, namespace)


def test_the_first_examples_learn_a_sine_and_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {}
    for block in python_blocks(README)[:2]:
        exec(block, namespace)
    printed = capsys.readouterr().out
    assert re.search(r"The mean error is 0\.0\d", printed)
    assert re.search(r"9\d\.\d% of the unseen digits are right", printed)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_a_document_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", without_blocks(document))
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (document.parent / target).exists()]
    assert not missing


def test_internals_name_what_the_source_has() -> None:
    sources = [path for path in (ROOT / "src").rglob("*") if path.suffix in SOURCE_SUFFIXES]
    words = set(re.findall(r"\w+", " ".join(path.read_text() for path in sources)))
    words |= {
        word
        for path in sources
        for part in path.relative_to(ROOT).parts
        for word in part.split(".")
    }
    quoted = " ".join(re.findall(r"`([^`]+)`", without_blocks(INTERNALS)))
    assert quoted
    assert set(re.findall(r"[A-Za-z_]\w+", quoted)) <= words
