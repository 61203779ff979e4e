"""A test of the numerical core on this machine, without pytest: ``python -m nncore selftest``.

It compares the compiled code with its specification, `nncore.reference`, and with differences of
the loss, and checks what nncore promises about threads, files and the processor's state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _kernels, reference
from ._kernel_calls import CALLS, ELEMENTWISE, PAIRS, SHAPES
from .datasets import load_digits
from .enums import Activation, Loss
from .network import Network
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from .persistence import load

__all__ = ["CHECKS", "central_differences", "run"]

Array = npt.NDArray[Any]

DTYPES: tuple[Any, ...] = ("float32", "float64")
OPTIMIZERS: tuple[Callable[[], Optimizer], ...] = (
    lambda: SGD(0.1),
    lambda: SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda: Adam(0.01),
    lambda: Adam(0.01, amsgrad=True),
    lambda: AdamW(0.01),
    lambda: RMSprop(0.003, momentum=0.5, centered=True),
)


def central_differences(f: Callable[[], Any], x: Array) -> Array:
    """Return ∂f/∂x_i in row i, for every element of x, which f reads."""

    def slope(i: int, h: float) -> Any:
        at, values = x.flat[i], []
        for shifted in (at + h, at - h):
            x.flat[i] = shifted
            values.append(f())
        x.flat[i] = at
        return (values[0] - values[1]) / (2 * h)

    # Combine differences of h and 2 h so that their errors of order h² cancel: with this h what is
    # left is some 1e-12, from the rounding of f and the order of h⁴.
    h = 2e-4
    return np.array([(4 * slope(i, h) - slope(i, 2 * h)) / 3 for i in range(x.size)])


def _close(actual: Any, expected: Any, tolerance: float, what: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)


def _same(actual: Array, expected: Array, what: str) -> None:
    np.testing.assert_array_equal(actual, expected, err_msg=what, strict=True)


def _data(net: Network, n: int) -> tuple[Array, Array]:
    """Return inputs and targets, probabilities, which every loss allows."""
    rng = np.random.default_rng(n)
    Y = rng.uniform(0.1, 0.9, (n, net.sizes[-1]))
    Y /= Y.sum(axis=1, keepdims=True)
    return rng.normal(size=(n, net.sizes[0])).astype(net.dtype), Y.astype(net.dtype)


def _name(member: Activation | Loss) -> Any:
    return member.name.lower()


def kernels() -> None:
    """Compare the compiled kernels with the reference."""
    for dtype in DTYPES:
        rng = np.random.default_rng(0)
        for call in CALLS:
            for shape in SHAPES:
                compiled = call.arrays(rng, np.dtype(dtype), *shape)
                expected = [array.copy() for array in compiled]
                result = call.run(_kernels, compiled)
                expected_result = call.run(reference, expected)
                what = f"{call} in {dtype}, shape {shape}"
                tolerance = 64 * float(np.finfo(dtype).eps) * max(1, max(shape) / 8)
                if not call.n_outputs:
                    _close(result, expected_result, tolerance, what)
                for array, expected_array in zip(compiled, expected, strict=True):
                    _close(array, expected_array, tolerance, what)


def gradients() -> None:
    """Compare gradients with differences of the loss, for every activation and loss."""
    for loss, output in PAIRS:
        if loss == Loss.CUSTOM:
            continue
        # Kinks would spoil the differences, and exponentials of exponentials overflow.
        is_smooth = output not in (Activation.RELU, Activation.SOFTMAX, Activation.EXPONENTIAL)
        hidden = output if is_smooth else Activation.TANH
        net = Network(
            [3, 5, 4, 2],
            activation=[_name(hidden), _name(hidden), _name(output)],
            loss=_name(loss),
            dtype="float64",
            seed=1,
        )
        X, Y = _data(net, 7)
        expected = central_differences(partial(net.evaluate, X, Y), net.parameters)
        _close(net.gradient(X, Y), expected, 1e-7, f"{loss.name}, {output.name}")


def steps() -> None:
    """Compare steps of a network with those of the reference."""
    for name in map(_name, ELEMENTWISE):
        if name == "exponential":
            continue
        for dtype in DTYPES:
            nets = [
                Network([9, 33, 17, 4], activation=name, loss="cross_entropy", dtype=dtype, seed=2)
                for _ in range(2)
            ]
            X, Y = _data(nets[0], 50)
            tolerance = 1e3 * float(np.finfo(dtype).eps)
            for _ in range(3):
                loss = nets[0].train_on_batch(X, Y, SGD(0.1))
                expected = reference.step(
                    nets[1].architecture, nets[1].parameters, X, Y, learning_rate=0.1
                )
                _close(loss, expected, tolerance, f"loss of a step, {name}, {dtype}")
            _close(nets[0].parameters, nets[1].parameters, tolerance, f"step, {name}, {dtype}")


def thread_counts() -> None:
    """Train on one and on more threads: the bits must be the same."""
    for dtype in DTYPES:
        for create in OPTIMIZERS:
            trained = []
            for n_threads in (1, 2, 3, 5):
                net = Network([100, 200, 70, 10], loss="cross_entropy", dtype=dtype, seed=3)
                X, Y = _data(net, 300)
                net.fit(
                    X, Y, epochs=2, batch_size=128, optimizer=create(), seed=0, n_threads=n_threads
                )
                trained.append(net.parameters.copy())
            for parameters in trained[1:]:
                _same(parameters, trained[0], f"{create()}, {dtype}")


def predictions() -> None:
    """Predict a row alone and among others: the bits must be the same, but for BLAS's rounding."""
    tolerances = {"float32": 1e-5, "float64": 1e-13} if _kernels.KERNELS == "blas" else {}
    for dtype in DTYPES:
        net = Network([20, 50, 30, 3], loss="cross_entropy", dtype=dtype, seed=4)
        X, _ = _data(net, 100)
        together = net.predict(X)
        for i, x in enumerate(X):
            what = f"row {i}, {dtype}"
            if dtype in tolerances:
                _close(net.predict(x), together[i], tolerances[dtype], what)
            else:
                _same(net.predict(x), together[i], what)


def learning() -> None:
    """Train on the digits until most unseen ones are recognised."""
    images, labels = load_digits()
    for dtype in DTYPES:
        net = Network([64, 40, 10], loss="cross_entropy", dtype=dtype, seed=0)
        net.fit(images[360:], labels[360:], epochs=20, optimizer=Adam(1e-3), seed=0)
        accuracy = np.mean(net.predict(images[:360]).argmax(axis=1) == labels[:360])
        if accuracy < 0.85:
            raise AssertionError(f"accuracy {accuracy:.3f} in {dtype}, expected at least 0.85")


def files() -> None:
    """Save networks in training; what is loaded must go on with the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        for dtype in DTYPES:
            for create in OPTIMIZERS:
                net, optimizer = Network([5, 7, 3], dtype=dtype, seed=5), create()
                X, Y = _data(net, 40)
                net.fit(X, Y, optimizer=optimizer, seed=0)
                net.save(path, optimizer=optimizer)
                loaded, loaded_optimizer = load(path, with_optimizer=True)
                for one, its in ((net, optimizer), (loaded, loaded_optimizer)):
                    one.fit(X, Y, optimizer=its, seed=1)
                _same(loaded.parameters, net.parameters, f"{create()}, {dtype}")


def subnormal_numbers() -> None:
    """Compute with subnormal numbers after a fit, which treats them as 0."""
    net = Network([5, 7, 3], seed=6)
    net.fit(*_data(net, 40), seed=0)
    smallest = np.array([np.finfo(np.float32).smallest_subnormal])
    if not (smallest * np.float32(2) > 0).all():
        raise AssertionError("a fit left the processor treating subnormal numbers as 0")


CHECKS: dict[Callable[[], None], str] = {
    kernels: "the compiled kernels equal the reference",
    gradients: "gradients equal differences of the loss",
    steps: "steps equal those of the reference",
    thread_counts: "any number of threads gives the same bits",
    predictions: "a row's outputs do not depend on other rows",
    learning: "networks learn the digits",
    files: "a network that was saved and loaded goes on with the same bits",
    subnormal_numbers: "subnormal numbers outside of a fit are kept",
}


def run() -> bool:
    """Run all checks, print a line for each, and return whether all have passed."""
    failures = 0
    for check, title in CHECKS.items():
        try:
            check()
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "safetensors":
                print(f"skipped {title}\n        {error}", flush=True)
                continue
            failures += 1
            print(f"FAILED  {title}\n{type(error).__name__}: {error}\n", flush=True)
        else:
            print(f"ok      {title}", flush=True)
    return not failures
