"""The types of the compiled kernels, which nncore.reference specifies."""

from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from .enums import Activation, Loss

# All arrays of a call have the same type.
_Real = TypeVar("_Real", np.float32, np.float64)

COMPILER: str
STABLE_ABI: bool
KERNELS: Literal["blas", "baseline", "neon", "avx2", "avx512"]

def available() -> list[str]: ...
def forward(
    A: npt.NDArray[_Real],
    A_prev: npt.NDArray[_Real],
    W: npt.NDArray[_Real],
    b: npt.NDArray[_Real],
    activation: Activation,
    derivatives: npt.NDArray[_Real] | None = None,
    slope: float = ...,
) -> int: ...
def dropout(
    A: npt.NDArray[_Real], rate: float, seed: int, step: int, l: int, first_example: int = 0
) -> int: ...
def dropout_derivative(
    delta: npt.NDArray[_Real],
    A: npt.NDArray[_Real],
    rate: float,
    seed: int,
    step: int,
    l: int,
    first_example: int,
    activation: Activation,
    slope: float = ...,
) -> int: ...
def loss(
    A: npt.NDArray[_Real],
    Y: npt.NDArray[_Real],
    sample_weight: npt.NDArray[_Real] | None,
    loss: Loss,
    threshold: float = 1.0,
) -> float: ...
def output_delta(
    delta: npt.NDArray[_Real],
    A: npt.NDArray[_Real],
    Y: npt.NDArray[_Real],
    sample_weight: npt.NDArray[_Real] | None,
    loss: Loss,
    activation: Activation,
    derivatives: npt.NDArray[_Real] | None = None,
    slope: float = ...,
    threshold: float = 1.0,
) -> int: ...
def class_loss(
    A: npt.NDArray[_Real],
    classes: npt.NDArray[np.intp],
    sample_weight: npt.NDArray[_Real] | None,
) -> float: ...
def class_delta(
    delta: npt.NDArray[_Real],
    A: npt.NDArray[_Real],
    classes: npt.NDArray[np.intp],
    sample_weight: npt.NDArray[_Real] | None,
) -> int: ...
def delta(
    delta_prev: npt.NDArray[_Real],
    delta: npt.NDArray[_Real],
    W: npt.NDArray[_Real],
    A_prev: npt.NDArray[_Real],
    activation: Activation,
    slope: float = ...,
) -> int: ...
def gradient(
    dW: npt.NDArray[_Real],
    db: npt.NDArray[_Real],
    delta: npt.NDArray[_Real],
    A_prev: npt.NDArray[_Real],
    scale: float,
    beta: float = 0.0,
) -> int: ...
def gradient_descent(
    W: npt.NDArray[_Real],
    b: npt.NDArray[_Real],
    delta: npt.NDArray[_Real],
    A_prev: npt.NDArray[_Real],
    step_size: float,
    decay: float = 0.0,
) -> int: ...
def sgd(
    parameters: npt.NDArray[_Real],
    gradient: npt.NDArray[_Real],
    learning_rate: float,
    weight_decay: float,
) -> int: ...
def momentum(
    parameters: npt.NDArray[_Real],
    velocity: npt.NDArray[_Real],
    gradient: npt.NDArray[_Real],
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    accumulates: bool = False,
) -> int: ...
def adam(
    parameters: npt.NDArray[_Real],
    m: npt.NDArray[_Real],
    v: npt.NDArray[_Real],
    gradient: npt.NDArray[_Real],
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> int: ...
def amsgrad(
    parameters: npt.NDArray[_Real],
    m: npt.NDArray[_Real],
    v: npt.NDArray[_Real],
    v_max: npt.NDArray[_Real],
    gradient: npt.NDArray[_Real],
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> int: ...
def rmsprop(
    parameters: npt.NDArray[_Real],
    v: npt.NDArray[_Real],
    mean: npt.NDArray[_Real] | None,
    velocity: npt.NDArray[_Real] | None,
    gradient: npt.NDArray[_Real],
    learning_rate: float,
    rho: float,
    momentum: float,
    epsilon: float,
    weight_decay: float,
) -> int: ...
def square_sum(x: npt.NDArray[_Real]) -> float: ...
def exp(out: npt.NDArray[_Real], x: npt.NDArray[_Real]) -> int: ...
def log(out: npt.NDArray[_Real], x: npt.NDArray[_Real]) -> int: ...
def first_beyond(x: npt.NDArray[_Real], limit: float) -> int: ...
