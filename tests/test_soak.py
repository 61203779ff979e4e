"""Short runs of tests/soak.py, which can go on for hours."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork")
@pytest.mark.parametrize("arguments", [("200", "20", "8000"), ("trouble", "3")], ids=" ".join)
def test_many_calls_leave_memory_files_and_threads_as_they_were(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, str(Path(__file__).parent / "soak.py"), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
