"""What a fit reports: an `EpochEnd` to each callback, and a `History` at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._display import as_table, duration, number

if TYPE_CHECKING:
    import pandas

    from .network import Network
    from .optimizers import Optimizer
    from .training import DivergenceError

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
        None if an estimator of `nncore.sklearn` or a PyTorch module is fitted.
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


@dataclass(repr=False)
class History:
    """Losses, metrics and times of a call of `Network.fit`, with an entry per epoch.

    Its repr shows the first and the last epoch, and the best one: that with the smallest validation
    loss or, without validation data, the smallest loss.

    Attributes
    ----------
    loss : list of float
        As in `EpochEnd`.
    validation_loss : list of float
        Empty without validation data.
    metrics : dict of str to list of float
    seconds : list of float
        Short epochs without callbacks and validation are timed several together.
    error : DivergenceError or None
        What ended the training of this network, if `nncore.fit_many` trained it with others.

    Examples
    --------
    >>> import nncore
    >>> nncore.History(loss=[0.9, 0.3, 0.4], seconds=[0.01, 0.01, 0.01])
    History of 3 epochs in 30.0 ms
             epoch    loss
      first      1  0.9000
       best      2  0.3000
       last      3  0.4000
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    error: DivergenceError | None = None

    def __len__(self) -> int:
        return len(self.loss)

    def append(
        self,
        loss: float,
        validation_loss: float | None,
        metrics: Mapping[str, float],
        seconds: float,
    ) -> None:
        """Add an epoch."""
        self.loss.append(loss)
        if validation_loss is not None:
            self.validation_loss.append(validation_loss)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)
        self.seconds.append(seconds)

    def to_dict(self) -> dict[str, list[Any]]:
        """Return all columns by their names: "epoch", "loss", ..., "seconds"."""
        columns: dict[str, list[Any]] = {"epoch": list(range(1, len(self) + 1)), "loss": self.loss}
        if self.validation_loss:
            columns["validation_loss"] = self.validation_loss
        return columns | self.metrics | {"seconds": self.seconds}

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with the columns of `to_dict` and the epoch as its index.

        Raises
        ------
        ImportError
            pandas is not installed.

        Examples
        --------
        >>> import nncore
        >>> history = nncore.Network([1, 1], seed=0).fit([[0.0]], [1.0], epochs=3)
        >>> history.to_frame()["loss"].index.tolist()
        [1, 2, 3]
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise ImportError("History.to_frame needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.to_dict()).set_index("epoch")

    def __repr__(self) -> str:
        n = len(self)
        head = f"History of {n} epoch{'s' * (n != 1)} in {duration(sum(self.seconds))}"
        if self.error is not None:
            head += f"; {self.error}"
        if n == 0:
            return head
        losses = self.validation_loss or self.loss
        marks = {1: ["first"]}
        marks.setdefault(1 + losses.index(min(losses)), []).append("best")
        marks.setdefault(n, []).append("last")
        columns = self.to_dict()
        del columns["epoch"], columns["seconds"]
        rows = [["", "epoch", *columns]]
        for epoch, labels in marks.items():
            values = [number(column[epoch - 1]) for column in columns.values()]
            rows.append([", ".join(labels), str(epoch), *values])
        return f"{head}\n{as_table(rows)}"
