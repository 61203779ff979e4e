"""ONNX models with too little memory: MemoryError, and everything is as before."""

from pathlib import Path

import pytest
from exhaustion import check_exhaustion, limits_memory

pytest.importorskip("onnx")

SETUP = """
import os
import sys
import nncore

path = os.path.join(sys.argv[2], "net.onnx")
net = nncore.Network([200, 400, 300], seed=0)
net.save_onnx(path)
nncore.from_onnx(path)
calls = {
    "to_onnx": net.to_onnx,
    "save_onnx": lambda: net.save_onnx(path),
    "from_onnx": lambda: nncore.from_onnx(path),
}
call = calls[sys.argv[1]]

def state():
    return net.copy_parameters().tobytes(), open(path, "rb").read()
"""


@limits_memory
@pytest.mark.parametrize("call", ["to_onnx", "save_onnx", "from_onnx"])
def test_too_little_memory_raises_memory_error_and_changes_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_exhaustion(SETUP, call, tmp_path, monkeypatch)
