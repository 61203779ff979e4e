"""`nncore.torch.fit`: PyTorch's training loop, in the compiled step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .._checks import as_bool, as_integer, one_of
from .._threads import as_n_threads
from ..architecture import Architecture
from ..callbacks import Checkpoint, any_stops, as_callbacks
from ..history import Callback, EpochEnd, History
from ..network import Network
from ..optimizers import Rule
from ..reports import verbose_callback
from ..session import StepOptions
from ..training import Position, Run
from ._data import BatchData, as_arrays, order_of_epoch
from ._losses import Problem, as_torch_loss
from ._modules import Chain, as_chain, copy_all
from ._optimizers import TorchOptimizer

__all__ = ["fit"]

Array = npt.NDArray[Any]


def fit(
    module: nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int = 1,
    batch_size: int = 1,
    shuffle: bool = True,
    drop_last: bool = False,
    generator: torch.Generator | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    scheduler_step: Literal["epoch", "batch"] = "epoch",
    validation_data: Sequence[Any] | None = None,
    callbacks: Sequence[Callback] = (),
    verbose: bool = False,
    n_threads: int | None = None,
) -> History:
    """Train a module in place, as PyTorch's own loop over a DataLoader would.

    Afterwards the parameters of the module and the state of the optimizer equal those of PyTorch's
    loop, up to rounding, and training can go on in either. Gradients in ``parameter.grad`` are
    neither used nor changed.

    Parameters
    ----------
    module : torch.nn.Sequential
        Nested Sequentials of Linear, ReLU, LeakyReLU, ELU, Sigmoid, Tanh, Softplus, SiLU, GELU,
        Identity, Dropout, Flatten, and LogSoftmax at the end, in float32 or float64.
        Dropout draws other masks than PyTorch does, by a seed from PyTorch's global generator.
    X : tensor, array_like or Dataset
        The inputs, of shape (n, n_0), or any (n, ...) if the module begins with Flatten. Tensors
        are not copied, and must have the module's dtype. A map-style dataset is read into memory.
    y : tensor or array_like, optional
        The targets, of the outputs' shape, or class indices; None for a dataset.
    loss : torch.nn.Module
        MSELoss, L1Loss, SmoothL1Loss, HuberLoss, CrossEntropyLoss, NLLLoss after LogSoftmax,
        BCEWithLogitsLoss, BCELoss after Sigmoid, or PoissonNLLLoss, with reduction "mean" or "sum".
    optimizer : torch.optim.Optimizer
        SGD, Adam, AdamW or RMSprop of the module's parameters. Groups may differ in the weight
        decay of biases.
    epochs : int, default 1
    batch_size : int, default 1
    shuffle, drop_last : bool
        As in ``torch.utils.data.DataLoader``; by default, batches are shuffled.
    generator : torch.Generator, optional
        The same one yields the same batches as ``DataLoader(..., generator=generator)``, and is in
        the same state afterwards. By default PyTorch's global generator.
    scheduler : torch.optim.lr_scheduler.LRScheduler, optional
        Stepped once per epoch or batch; a ReduceLROnPlateau gets the validation loss or, without
        validation data, the loss.
    scheduler_step : {"epoch", "batch"}, default "epoch"
    validation_data : tuple (X, y), optional
        Examples whose loss is reported after each epoch, without dropout.
    callbacks : sequence of callable, optional
        As in `Network.fit`. The parameters of the module are up to date when they are called, and
        may be changed.
    verbose : bool, default False
        Whether to show the progress.
    n_threads : int, optional
        The number of threads; by default as many as the problem is worth.

    Returns
    -------
    History
        The loss of each epoch as PyTorch defines it: the mean over all examples of the epoch, each
        computed before its step, or their sum.

    Raises
    ------
    TypeError, ValueError
        An argument is not supported. The message names it, and nothing has changed.
    DivergenceError
        An epoch was not finite; the module is as after the epoch before.
    KeyboardInterrupt
        Module and optimizer are as after the last whole step.

    Examples
    --------
    >>> import torch, nncore.torch
    >>> module = torch.nn.Sequential(
    ...     torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ... )
    >>> X = torch.rand(64, 2)
    >>> history = nncore.torch.fit(
    ...     module, X, X.prod(dim=1, keepdim=True), loss=torch.nn.MSELoss(),
    ...     optimizer=torch.optim.Adam(module.parameters(), lr=0.01), epochs=100, batch_size=16,
    ... )
    >>> history.loss[-1] < 0.01
    True
    """
    chain = as_chain(module)
    meaning = as_torch_loss(loss, chain)
    architecture = meaning.architecture(chain)
    source = TorchOptimizer(optimizer, chain)
    source.check(architecture)
    epochs = as_integer("epochs", epochs, high=None)
    batch_size = as_integer("batch_size", batch_size)
    shuffle, drop_last = as_bool("shuffle", shuffle), as_bool("drop_last", drop_last)
    step = one_of("scheduler_step", scheduler_step, {"epoch": "epoch", "batch": "batch"})
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator or None, got {type(generator).__name__}"
        )
    if n_threads is not None:
        as_n_threads(n_threads, 0, 0)
    rates = _Rates(scheduler, step, optimizer, source)

    def problem_of(X: Any, y: Any, name: str) -> Problem:
        rows, targets = as_arrays(
            X,
            y,
            chain.dtype,
            flattens=chain.flattens,
            target_dims=None if meaning.takes_classes else 2 - chain.drops_column,
            name=name,
        )
        return meaning.problem(rows, targets, architecture, (f"{name}X", f"{name}y", "weight"))

    problem = problem_of(X, y, "")
    validation = None
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError(
                f"validation_data must be a tuple (X, y), got {type(validation_data).__name__}"
            )
        validation = problem_of(validation_data[0], validation_data[1], "validation ")
    reported = ["loss"] + ["validation_loss"] * (validation is not None)
    checked = as_callbacks(callbacks, reported, None)
    for callback in checked:
        if isinstance(callback, Checkpoint):
            raise ValueError(
                "callbacks must not have a Checkpoint: save module and optimizer with torch.save"
            )
    if as_bool("verbose", verbose):
        checked.insert(0, verbose_callback())
    n_examples = problem.examples.n
    n = n_examples - drop_last * (n_examples % batch_size)
    if n == 0:
        raise ValueError(
            f"batch_size must be at most {n_examples} with drop_last, got {batch_size}"
        )
    batch_size = min(batch_size, n)
    workspace = _Workspace.of(module, chain, architecture, source.n_vectors)
    network = workspace.network
    workspace.load(chain, source)
    rates.n_batches = -(-n // batch_size)

    def draw(generator: torch.Generator | None, last: Any, n: int) -> Any:
        order = order_of_epoch(n_examples, generator, shuffle=shuffle)
        return None if order is None else order[:n]

    history = History()
    with (
        workspace.storing(chain, source) as store,
        network.session(n, batch_size=batch_size, n_threads=n_threads) as session,
        rates,
    ):
        run = Run(
            session,
            source,
            BatchData(problem, n),
            batch_size,
            draw_order=draw,
            position=Position(rng=generator),
            options=_options(chain),
            rule=rates.rule,
        )
        for epoch in run.epochs(epochs):
            order: Any = run.position.order
            value = problem.loss(epoch.loss, order, n)
            validation_loss = None
            if validation is not None:
                total = _total_loss(network, validation, n_threads)
                validation_loss = validation.loss(total, None, validation.examples.n)
            rates.end_epoch(value if validation_loss is None else validation_loss)
            history.append(value, validation_loss, {}, epoch.seconds)
            if not checked:
                continue
            store()
            end = EpochEnd(
                epoch=epoch.number,
                epochs=epochs,
                loss=value,
                validation_loss=validation_loss,
                seconds=epoch.seconds,
                n_examples=n,
                network=network,
            )
            stops = any_stops(checked, end)
            workspace.load_changes(chain, source)
            if stops or end.epoch == epochs:
                end.finish()
                break
    if not checked:
        # Nobody else has the network.
        _WORKSPACES[module] = workspace
    return history


class _Rates:
    """The options of the optimizer from epoch to epoch, or from batch to batch.

    PyTorch steps a scheduler after each batch. nncore needs an epoch's learning rates beforehand,
    so the scheduler is ahead of the optimizer during an epoch; leaving the ``with`` block by an
    exception takes it back to the steps made.
    """

    def __init__(
        self,
        scheduler: Any,
        step: str,
        optimizer: torch.optim.Optimizer,
        source: TorchOptimizer,
    ) -> None:
        self.n_batches = 0
        self._scheduler, self._optimizer, self._source = scheduler, optimizer, source
        self._per_batch = scheduler is not None and step == "batch"
        self._takes_loss = isinstance(scheduler, ReduceLROnPlateau)
        if scheduler is None:
            return
        if not hasattr(scheduler, "step") or getattr(scheduler, "optimizer", None) is not optimizer:
            raise ValueError(
                f"scheduler must be a scheduler of optimizer, got {type(scheduler).__name__}"
            )
        if self._takes_loss and self._per_batch:
            raise ValueError("scheduler_step must be 'epoch' for a ReduceLROnPlateau, got 'batch'")

    def __enter__(self) -> _Rates:
        self._before: tuple[dict[str, Any], list[dict[str, Any]], int] | None = None
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._before is None:
            return
        state, groups, first = self._before
        self._scheduler.load_state_dict(state)
        for group, options in zip(self._optimizer.param_groups, groups, strict=True):
            group.update(options)
        for _ in range(self._source.step_count - first):
            self._scheduler.step()

    def rule(self) -> Rule:
        """Return the rule of the next epoch."""
        if self._per_batch:
            options = [
                {name: value for name, value in group.items() if name != "params"}
                for group in self._optimizer.param_groups
            ]
            self._before = (
                deepcopy(self._scheduler.state_dict()),
                options,
                self._source.step_count,
            )
            self._step_is_made()
            self._source.record(self._scheduler.step, self.n_batches)
        return self._source.read_rule()

    def end_epoch(self, loss: float) -> None:
        """Step a scheduler that counts epochs."""
        self._before = None
        if self._scheduler is None or self._per_batch:
            return
        self._step_is_made()
        if self._takes_loss:
            self._scheduler.step(loss)
        else:
            self._scheduler.step()

    def _step_is_made(self) -> None:
        """Keep schedulers from warning that they are called before the optimizer."""
        self._optimizer._opt_called = True


class _Workspace:
    """The memory of fits of one module: allocating it takes longer than a small epoch.

    Parameters
    ----------
    chain : Chain
    architecture : Architecture
    n_vectors : int
        The running vectors of the optimizer.
    """

    def __init__(self, chain: Chain, architecture: Architecture, n_vectors: int) -> None:
        self.network = Network.from_architecture(architecture)
        self._key = architecture, chain.biases, n_vectors
        self._vectors = np.zeros((1 + n_vectors, architecture.n_parameters), architecture.dtype)
        self._views = [chain.views(vector, architecture) for vector in self._vectors]

    @classmethod
    def of(
        cls, module: nn.Module, chain: Chain, architecture: Architecture, n_vectors: int
    ) -> _Workspace:
        """Take the workspace of the fit before if it fits."""
        kept = _WORKSPACES.pop(module, None)
        if kept is None or kept._key != (architecture, chain.biases, n_vectors):
            return cls(chain, architecture, n_vectors)
        return kept

    def load(self, chain: Chain, source: TorchOptimizer) -> None:
        """Copy the parameters of the module and the state of the optimizer."""
        copy_all(self._views[0], chain.parameters)
        self.network.parameters = self._vectors[0]
        source.read_state(self._views[1:])
        source.restore(self.network.architecture, {}, source.step_count, list(self._vectors[1:]))

    def load_changes(self, chain: Chain, source: TorchOptimizer) -> None:
        """Load again if others have changed the module since all was copied back."""
        if not all(map(torch.equal, self._views[0], chain.parameters)):
            self.load(chain, source)

    @contextmanager
    def storing(self, chain: Chain, source: TorchOptimizer) -> Iterator[Callable[[], None]]:
        """Yield what copies everything back, and call it in the end."""

        def store() -> None:
            self._vectors[0] = self.network.copy_parameters()
            copy_all(chain.parameters, self._views[0])
            source.write_state(self._views[1:])

        try:
            yield store
        finally:
            try:
                store()
            except KeyboardInterrupt:
                store()
                raise


# Those of the last fit of each module, while no fit uses them.
_WORKSPACES: WeakKeyDictionary[nn.Module, _Workspace] = WeakKeyDictionary()


def _options(chain: Chain) -> StepOptions:
    """Return dropout, with a seed from PyTorch's generator, and which layers have biases."""
    biases = () if all(chain.biases) else chain.biases
    if not any(chain.dropout):
        return StepOptions(biases=biases)
    seed = int(torch.empty((), dtype=torch.int64).random_().item())
    return StepOptions(0.0, tuple(chain.dropout[:-1]), seed, biases)


def _total_loss(network: Network, problem: Problem, n_threads: int | None) -> float:
    with network.session(problem.examples.n, n_threads=n_threads) as session:
        return session.total_loss(problem.examples)
