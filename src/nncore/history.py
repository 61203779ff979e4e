"""What a fit reports: an `EpochEnd` to each callback, and a `History` at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .network import Network

__all__ = ["Callback", "EpochEnd", "History"]


@dataclass(frozen=True)
class EpochEnd:
    """The argument of a callback, created after each epoch.

    Attributes
    ----------
    epoch : int
        Counted from 1 in each call of `Network.fit`.
    loss : float
        The mean loss of the epoch's examples, each computed just before its step.
    validation_loss : float or None
        The mean loss of the validation data after the epoch.
    seconds : float
        The duration of the epoch's steps.
    network : Network
    """

    epoch: int
    loss: float
    validation_loss: float | None
    seconds: float
    network: Network


Callback = Callable[[EpochEnd], object]


@dataclass
class History:
    """Losses and times of a call of `Network.fit`, with an entry per epoch.

    Attributes
    ----------
    loss : list of float
        As in `EpochEnd`.
    validation_loss : list of float
        Empty without validation data.
    seconds : list of float
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)
