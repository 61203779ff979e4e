"""What a fit reports: an `EpochEnd` to each callback, and a `History` at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .network import Network
    from .optimizers import Optimizer

__all__ = ["Callback", "EpochEnd", "History"]


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """The argument of a callback, created after each epoch.

    Attributes
    ----------
    epoch : int
        Counted from 1 in each call of `Network.fit`.
    epochs : int
        How many epochs the call makes if nothing stops it.
    loss : float
        The mean loss of the epoch's examples, each computed just before its step.
    validation_loss : float or None
        The mean loss of the validation data after the epoch.
    metrics : dict of str to float
        The metrics after the epoch: "accuracy" of the training data, "validation_accuracy" of the
        validation data.
    seconds : float
        The duration of the epoch's steps.
    n_examples : int
        The number of training examples.
    network : Network
    optimizer : Optimizer or None
        None if an estimator of `nncore.sklearn` is fitted.
    """

    epoch: int
    epochs: int
    loss: float
    validation_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float
    n_examples: int
    network: Network
    optimizer: Optimizer | None = None
    _functions: list[Callable[[], object]] = field(default_factory=list, init=False, repr=False)

    @property
    def values(self) -> dict[str, float]:
        """The losses and metrics under their names, as callbacks monitor them."""
        values = {"loss": self.loss}
        if self.validation_loss is not None:
            values["validation_loss"] = self.validation_loss
        return values | self.metrics

    def when_last(self, function: Callable[[], object]) -> None:
        """Have `function` called after all callbacks if training ends with this epoch.

        It ends because it was the last of `epochs` or because any callback returned True, but not
        by an exception.
        """
        self._functions.append(function)

    def finish(self) -> None:
        """Call the functions of `when_last`, in their order."""
        for function in self._functions:
            function()


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

    def append(self, end: EpochEnd) -> None:
        """Add an epoch."""
        self.loss.append(end.loss)
        if end.validation_loss is not None:
            self.validation_loss.append(end.validation_loss)
        self.seconds.append(end.seconds)
