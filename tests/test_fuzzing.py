"""The corpus of the fuzzer, and short random searches; tests/fuzzing.py searches longer."""

import importlib.util

import fuzzing
import pytest

# Runs that take about a second each.
RUNS = {
    "idx": 500,
    "network": 200,
    "checkpoint": 50,
    "onnx": 200,
    "npy": 100,
    "arguments": 200,
    "steps": 30,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", fuzzing.TARGETS)
def test_hostile_input_is_refused_or_works(target: str) -> None:
    if target == "onnx" and not importlib.util.find_spec("onnx"):
        pytest.skip("needs onnx")
    fuzzing.mutate(target, RUNS[target], seed=0)
