import os
import signal
from collections.abc import Callable, Iterator
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import threadpoolctl
from helpers import Setting, assert_no_new_threads

from nncore import _kernels, network, reference

# The backend of Keras, in the tests that use it.
os.environ.setdefault("KERAS_BACKEND", "torch")

# Shells start background jobs with SIGINT ignored, and tests of Ctrl-C would wait forever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name activations and losses in the tests' names."""
    return val.name.lower() if isinstance(val, IntEnum) else None


@pytest.fixture(params=[_kernels, reference], ids=["compiled", "reference"])
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """The kernels, compiled and in NumPy."""
    module: ModuleType = request.param
    return module


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(request.param)
    return dtype


@pytest.fixture
def close(dtype: np.dtype[Any]) -> Callable[..., None]:
    """Assert that results agree to what rounding may do to values of the given magnitude."""
    few_ulp = 64 * float(np.finfo(dtype).eps)

    def assert_close(
        actual: npt.ArrayLike, expected: npt.ArrayLike, magnitude: float = 1.0
    ) -> None:
        np.testing.assert_allclose(
            np.asarray(actual), np.asarray(expected), rtol=few_ulp, atol=few_ulp * magnitude
        )

    return assert_close


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250217)


@pytest.fixture
def on_blas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Form the products in BLAS, which has three threads outside nncore."""
    monkeypatch.setattr(network, "_BLAS", True)
    with threadpoolctl.threadpool_limits(3, "blas"):
        yield


@pytest.fixture
def leaves_no_thread() -> Iterator[None]:
    with assert_no_new_threads():
        yield


@pytest.fixture
def setting() -> Setting:
    return Setting([4, 5, 2])
