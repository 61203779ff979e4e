"""What `nncore.kernels` says of the kernels."""

import inspect
import re
from types import ModuleType

import numpy as np
import pytest
from kernel_cases import COUNTS, DType, outputs_and_targets, weights_or_none
from numpy.testing import assert_array_equal

from nncore import _kernels, kernels
from nncore._kernel_calls import CALLS, PAIRS
from nncore.enums import Activation, Loss


@pytest.mark.parametrize("kernel", sorted({call.kernel for call in CALLS}))
def test_kernels_are_public_and_document_every_parameter(kernel: str) -> None:
    function = getattr(kernels, kernel)
    assert function is getattr(_kernels, kernel)
    _, parameters = function.__doc__.split("Parameters\n    ----------\n")
    documented = re.findall(r"^    ([a-zA-Z]\S*(?:, \w+)*)(?: :|$)", parameters, re.MULTILINE)
    names = [name for entry in documented for name in entry.split(", ")]
    assert [name for name in names if name not in ("Returns", "float")] == list(
        inspect.signature(function).parameters
    )


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kernel", ["exp", "log"])
def test_elementary_functions_may_overwrite_their_input(
    twin: ModuleType, dtype: DType, rng: np.random.Generator, kernel: str, count: int
) -> None:
    x = rng.uniform(0.1, 2, count).astype(dtype)
    expected = np.empty_like(x)
    getattr(twin, kernel)(expected, x)
    getattr(twin, kernel)(x, x)
    assert_array_equal(x, expected)


@pytest.mark.parametrize(("loss", "activation"), PAIRS)
@pytest.mark.parametrize("weighted", [False, True])
def test_output_delta_may_overwrite_the_targets(
    twin: ModuleType,
    dtype: DType,
    rng: np.random.Generator,
    loss: Loss,
    activation: Activation,
    weighted: bool,
) -> None:
    A, Y = outputs_and_targets(rng, dtype, loss, 13, 11)
    weights, derivatives = weights_or_none(rng, dtype, 13, weighted), np.ones_like(A)
    expected = np.empty_like(A)
    twin.output_delta(expected, A, Y, weights, loss, activation, derivatives)
    twin.output_delta(Y, A, Y, weights, loss, activation, derivatives)
    assert_array_equal(Y, expected)
