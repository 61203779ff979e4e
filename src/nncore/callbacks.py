"""Callbacks of `Network.fit`.

A callback is any function that takes an `nncore.EpochEnd`; training stops if it returns True. One
with a state may also have the methods ``state()``, which returns it as a dict of JSON values and
arrays, and ``set_state(dict)``, so that a resumed run continues with it. Such a callback may have
``settings``, a dict of simple values that a resumed run must share, and ``finish(network)``, which
a run that resumes after its last epoch calls. That is the whole protocol.

The classes here start afresh with the first epoch of each fit, so an instance can be used again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import numpy as np

from .checkpoints import Checkpoint
from .history import Callback, EpochEnd
from .monitors import BestModel, EarlyStopping, Monitor, ReduceOnPlateau
from .optimizers import Optimizer
from .reports import Log, Progress

__all__ = [
    "BestModel",
    "Checkpoint",
    "EarlyStopping",
    "Log",
    "Monitor",
    "Progress",
    "ReduceOnPlateau",
]


def as_callbacks(
    callbacks: Iterable[Callback], names: Collection[str], optimizer: Optimizer | None
) -> list[Callback]:
    """Return the callbacks of a fit as a list.

    Parameters
    ----------
    callbacks : sequence of callables
    names : collection of str
        The losses and metrics that the fit reports.
    optimizer : Optimizer or None
        The optimizer that the fit reports.

    Raises
    ------
    TypeError, ValueError
        `callbacks` is not a sequence of callables, or one of them is no use in this fit.
    """
    try:
        checked = list(callbacks)
    except TypeError:
        raise TypeError(f"callbacks must be a sequence of callables, got {callbacks!r}") from None
    for callback in checked:
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(
                f"callbacks must be instances such as {name}(...), got the class {name}"
            )
        if not callable(callback):
            raise TypeError(f"callbacks must be callables, got {callback!r}")
        if isinstance(callback, Monitor):
            callback.check(names, optimizer)
    return checked


def exclusive(callback: Callback) -> list[object]:
    """Return what only one fit at a time may use: a callback that keeps a state, and its file."""
    if isinstance(callback, (BestModel, Checkpoint, Log)):
        return [callback, os.path.realpath(callback.path)]
    has_state = hasattr(callback, "state") and hasattr(callback, "set_state")
    return [callback] if has_state or isinstance(callback, Progress) else []


def any_stops(callbacks: Iterable[Callback], end: EpochEnd) -> bool:
    """Call every callback with `end`; return whether one of them returned True."""
    answers = [callback(end) for callback in callbacks]
    return any(isinstance(answer, (bool, np.bool_)) and bool(answer) for answer in answers)
