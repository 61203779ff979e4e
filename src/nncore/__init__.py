"""Training of fully connected neural networks on the CPU, as fast as the CPU allows.

>>> import nncore
>>> X, Y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
>>> net = nncore.Network([2, 8, 1], activation="tanh", dtype="float64", seed=0)
>>> history = net.fit(X, Y, epochs=200, batch_size=4, optimizer=nncore.Adam(0.1), seed=0)
>>> net.predict(X).round().ravel()
array([0., 1., 1., 0.])
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

try:
    from . import datasets, schedules
    from ._include import get_include
    from .architecture import Architecture
    from .history import EpochEnd, History
    from .keras import from_keras
    from .losses import check_loss
    from .many import fit_many
    from .network import Network
    from .onnx import from_onnx
    from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
    from .persistence import load
    from .streams import Stream
    from .training import DivergenceError

    __version__ = version("nncore")
except (ImportError, TypeError, ValueError) as error:
    # Cython raises TypeError or ValueError if its modules are of different builds.
    if isinstance(error, ModuleNotFoundError):
        if str(error.name).partition(".")[0] != "nncore":
            raise
        state = "not installed for this Python"
    elif "nncore._" in str(error):
        state = "compiled from other sources"
    else:
        raise
    raise ImportError(
        f"nncore is {state}: run `pip install -e .` in its source directory"
    ) from error

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Architecture",
    "DivergenceError",
    "EpochEnd",
    "History",
    "Network",
    "Optimizer",
    "RMSprop",
    "Stream",
    "__version__",
    "check_loss",
    "datasets",
    "fit_many",
    "from_keras",
    "from_onnx",
    "get_include",
    "load",
    "schedules",
]

# Submodules that are imported on first use. Type checkers import them at once.
_LAZY = ("callbacks", "distributed", "kernels", "reference", "sklearn", "torch", "typing")

if TYPE_CHECKING:
    from . import callbacks as callbacks
    from . import distributed as distributed
    from . import kernels as kernels
    from . import reference as reference
    from . import sklearn as sklearn
    from . import torch as torch
    from . import typing as typing
else:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return import_module(f"{__name__}.{name}")
        except ImportError as error:
            # So that hasattr, help and completion work without scikit-learn.
            raise AttributeError(str(error)) from error

    def __dir__() -> list[str]:
        return sorted({*__all__, *_LAZY})
