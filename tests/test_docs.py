"""The examples in docstrings and in the README run and give what they show."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import nncore

MODULES = [
    module.name
    for module in pkgutil.walk_packages(nncore.__path__, "nncore.")
    if module.name != "nncore.__main__"
]
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("name", ["nncore", *MODULES])
def test_docstring_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_examples_in_the_readme_run_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(block, namespace)
    assert re.search(r"9\d\.\d% of the unseen digits are right", capsys.readouterr().out)
