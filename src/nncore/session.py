"""Sessions: networks inside the compiled step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._caches import l2_bytes
from ._layout import Examples, FlatVector
from ._step import Workspace, span_of, spans_of
from ._threads import at_work, blas_on_one_thread
from .architecture import Architecture
from .losses import total_loss
from .optimizers import Optimizer, Rule
from .schedules import Schedule, rates_of

__all__ = ["GRADIENT_BATCH", "NO_OPTIONS", "Session", "StepOptions"]

Array = npt.NDArray[Any]

# How many examples `gradient` takes at a time.
GRADIENT_BATCH = 256

# How many examples of a loss of the user's are evaluated at a time.
_LOSS_BATCH = 4096

# The least rates that a `Schedule` is asked for: single steps need not ask every time.
_RATES_AHEAD = 256


@dataclass(frozen=True)
class StepOptions:
    """What a step does besides the optimizer's rule.

    Attributes
    ----------
    max_norm : float
        The largest Euclidean norm of a step's gradient, L2 terms included; 0 for no limit.
    dropout : tuple of float
        The dropout rate of each hidden layer; empty for none.
    dropout_seed : int
        Together with the step, layer, example and unit it determines which units are dropped.
    biases : tuple of bool
        Whether steps change the biases of each layer; empty for all.
    """

    max_norm: float = 0.0
    dropout: tuple[float, ...] = ()
    dropout_seed: int = 0
    biases: tuple[bool, ...] = ()


NO_OPTIONS = StepOptions()


class Session:
    """A network's parameters, and an optimizer's state, in the compiled step's own layout.

    `Network.session` creates one. Within its ``with`` block a session owns workspace and threads.
    It loads the flat vectors of network and optimizer when it needs them and keeps them loaded as
    long as nobody else can have changed them. Steps do not touch the flat vectors until
    `write_back`; until then the session computes with its own. Steps that are not written back are
    discarded by the next `use` and at the end of the block.

    Parameters
    ----------
    architecture : Architecture
    parameters : FlatVector
    batch_size : int
        The most examples of a step; 0 for a session that only computes outputs and losses.
    n_threads : int
    release : callable, optional
        Called with the session when its ``with`` block is left without an error.
    span : int, optional
        The examples whose losses are added up together; by default `span_of` the batch.
    most_spans : int, optional
        How many spans a thread takes at a time, at most; by default more than one if the parameters
        exceed the L2 cache.
    blas : bool, optional
        Whether BLAS forms the products.
    shares : bool, optional
        Whether the processors are shared with it: other threads then use fewer.
    """

    def __init__(
        self,
        architecture: Architecture,
        parameters: FlatVector,
        batch_size: int,
        n_threads: int = 1,
        release: Callable[[Session], None] | None = None,
        *,
        span: int | None = None,
        most_spans: int | None = None,
        blas: bool = False,
        shares: bool = False,
    ) -> None:
        self.shape = batch_size, n_threads
        self._blas, self._shares = blas, shares
        if span is None:
            span = span_of(batch_size, architecture.n_parameters, blas)
        if most_spans is None:
            n_bytes = architecture.n_parameters * architecture.dtype.itemsize
            # BLAS's sums depend on how many rows a call has, so its spans go one by one.
            most_spans = 1 if blas else spans_of(span, n_bytes, l2_bytes())
        self._workspace = Workspace(
            architecture,
            batch_size or span * most_spans * n_threads,
            span,
            most_spans,
            n_threads,
            blas,
        )
        self._optimizer: Optimizer | None = None
        self._rule: Rule | None = None
        self._schedule: Callable[[int], float] | None = None
        self._options: StepOptions | None = None
        self.serve(architecture, parameters, release)
        # Whether there are steps that are not written back.
        self._is_ahead = False
        # The place of the first example that the last call of `train` did not use, for callers
        # that an exception reaches.
        self.done = 0
        # What the ``with`` block has to leave; a session for small steps without BLAS needs none.
        self._guard = ExitStack() if blas or shares or n_threads > 1 else None

    def serve(
        self,
        architecture: Architecture,
        parameters: FlatVector,
        release: Callable[[Session], None] | None,
    ) -> None:
        """Become the session of another network, whose architecture is equal; see `Session`."""
        self.architecture = architecture
        self.release = release
        # Parameters, then state.
        self._parameters_only = (parameters,)
        self._vectors: tuple[FlatVector, ...] = self._parameters_only

    @property
    def n_bytes(self) -> int:
        """The bytes of the workspace."""
        return self._workspace.size

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step, or before it that of the first one."""
        return self._workspace.learning_rate

    def __enter__(self) -> Session:
        if self._guard is not None:
            with ExitStack() as guard:
                if self._shares:
                    guard.enter_context(at_work())
                if self._blas:
                    guard.enter_context(blas_on_one_thread())
                if self._workspace.n_threads > 1:
                    guard.callback(self._workspace.team.close)
                    self._workspace.team.open()
                self._guard = guard.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A session that nobody uses must not keep its network alive.
        release, self.release = self.release, None
        self.watch(None)
        if self._guard is not None:
            self._guard.close()
        self.discard()
        self._optimizer = None
        self._vectors = self._parameters_only
        if error is None and release is not None:
            release(self)

    def offer_memory(self) -> bool:
        """Let the system take the workspace's memory until the next call; return whether it can."""
        return self._workspace.offer_memory()

    def watch(self, check: Callable[[], object] | None) -> None:
        """Call `check` about every 50 ms in long calls; what it raises ends them as Ctrl-C does.

        Signals, Ctrl-C included, reach the main thread only; `check` is for others.
        """
        self._workspace.team.check = check

    # Loading and writing back.

    def use(self, optimizer: Optimizer, rule: Rule, options: StepOptions = NO_OPTIONS) -> None:
        """Set the optimizer of the steps to come, and load its state.

        Parameters
        ----------
        optimizer : Optimizer
            Owns the state and counts the steps.
        rule : Rule
            ``optimizer.rule()``, or a variant with the same running vectors.
        options : StepOptions, optional

        Raises
        ------
        ValueError
            The optimizer belongs to a network of another shape.
        """
        self.discard()
        if self._rule is not rule:
            # Before the optimizer gets its vectors: too little memory leaves it as it is.
            self.reserve(rule)
        self._vectors = (*self._parameters_only, *optimizer.vectors(self.architecture))
        self._optimizer = optimizer
        if self._rule is not rule or (self._options is not options and self._options != options):
            self._workspace.configure(rule, options)
            self._rule, self._options = rule, options
            self._schedule = rule.schedule
        self._workspace.step_count = optimizer.step_count
        self._workspace.load(self._vectors, True)

    def reserve(self, rule: Rule) -> None:
        """Raise MemoryError if there is too little memory for the steps of a rule."""
        self._workspace.reserve(1 + rule.n_vectors)

    def write_back(self) -> None:
        """Copy parameters and state into the flat vectors, and tell the optimizer its steps.

        In a process that was forked in the middle of a step, steps are discarded instead.
        """
        if self._workspace.team.is_lost:
            self.discard()
            return
        steps = None if self._optimizer is None else self._optimizer.steps
        self._workspace.write_back(self._vectors, steps)
        self._is_ahead = False

    @property
    def parameters(self) -> Array:
        """The network's flat vector, for reading only."""
        return self._parameters_only[0].array

    def copy_to(self, vectors: Sequence[Array], optimizer: Optimizer) -> int:
        """Copy parameters and state, with the steps that are not written back.

        Parameters
        ----------
        vectors : sequence of ndarray of shape (n_parameters,)
            One for the parameters, and one for each of ``optimizer.arrays``.
        optimizer : Optimizer

        Returns
        -------
        int
            The steps of the optimizer.
        """
        flat = [self.parameters, *optimizer.arrays]
        # Of these, the first are out of date before the next call of `write_back`.
        n_slots = len(self._vectors) if self._is_ahead else 0
        self._workspace.copy_to(list(vectors[:n_slots]))
        for vector, array in zip(vectors[n_slots:], flat[n_slots:], strict=True):
            vector[:] = array
        return self._workspace.step_count if self._is_ahead else optimizer.step_count

    def discard(self) -> None:
        """Forget the steps since the last `write_back`."""
        if self._is_ahead:
            self._workspace.forget()
            self._is_ahead = False

    def _load(self, *, transposes: bool) -> None:
        if not self._is_ahead:
            self._workspace.load(self._vectors, transposes)

    def is_finite(self) -> bool:
        """Return whether parameters and state hold neither NaN nor infinities."""
        return self._workspace.is_finite()

    # What a session computes.

    def train(
        self,
        examples: Examples,
        order: npt.NDArray[np.intp] | None,
        batch_size: int,
        begin: int,
        end: int,
        sums: npt.NDArray[np.float64],
        *,
        keep_going: bool = False,
        scales: npt.NDArray[np.float64] | None = None,
        epoch: int | None = None,
    ) -> None:
        """Make the steps of a range of examples, equations (1) to (6), after `use`.

        Parameters
        ----------
        examples : Examples
        order : ndarray of intp or None
            The order of the examples; None takes them as they lie.
        batch_size : int
            N, at most the session's; the last batch may be shorter.
        begin, end : int
            The range, in places of the order.
        sums : ndarray of shape (n_batches, 3)
            Receives for each batch its loss, summed with the examples' weights, before the step;
            the sum of these weights; and ‖W‖² before the step if the rule has a penalty.
        keep_going : bool, default False
            Whether a batch whose loss is not finite makes its step like any other. Otherwise it
            ends the range, and `sums` shows it.
        scales : ndarray of shape (n_batches,), optional
            The factor of each batch's gradient, summed with the examples' weights; by default the
            reciprocal of the sum of these weights. A batch without weight makes a step, too.
        epoch : int, optional
            The examples of an epoch if the range holds several whole ones.

        Raises
        ------
        KeyboardInterrupt
            Or what else a signal's handler raised, after a whole step.
        TypeError, ValueError
            The learning rate's function returned no rate for one of the steps; none was made.
        """
        if self._schedule is not None:
            n = epoch or end - begin
            self._set_rates((end - begin) // n * -(-n // batch_size))
        self._is_ahead = True
        try:
            self._workspace.train(
                examples, order, batch_size, begin, end, sums, keep_going, scales, epoch or 0
            )
        finally:
            self.done = self._workspace.done

    def step(self, examples: Examples) -> tuple[float, bool]:
        """Make one step with all the examples as its batch, and write it back, after `use`.

        Returns
        -------
        loss : float
            The loss before the step, summed with the examples' weights.
        is_finite : bool
            Whether loss, parameters and state are finite; otherwise the step is undone.
        """
        if self._schedule is not None:
            self._set_rates(1)
        self._is_ahead = True
        assert self._optimizer is not None
        result = self._workspace.step(examples, self._vectors, self._optimizer.steps)
        self._is_ahead = False
        return result

    def gradient(
        self,
        out: Array | None,
        examples: Examples,
        scale: float,
        *,
        rows: npt.NDArray[np.intp] | None = None,
        dropout_step: int | None = None,
        first_example: int = 0,
    ) -> float:
        """Set `out` to `scale` times the gradient of the summed loss, equations (3) to (5).

        Parameters
        ----------
        out : ndarray of shape (n_parameters,) or None
            Without it (5) is left to `layer_gradients`; then the examples are at most as many as a
            step of the session takes.
        examples : Examples
        scale : float
        rows : ndarray of intp, optional
            The examples that count, at least one; by default all.
        dropout_step : int, optional
            Drop the units of that step, by the options set with `use`.
        first_example : int, default 0
            How many examples of the same batch precede these ones; dropout depends on the place.

        Returns
        -------
        float
            The loss, summed with the examples' weights.
        """
        self._load(transposes=True)
        return self._workspace.gradient(
            out,
            examples,
            scale,
            rows=rows,
            dropout=dropout_step is not None,
            step=dropout_step or 0,
            first_example=first_example,
        )

    def layer_gradients(self, out: Array, begin: int, end: int) -> None:
        """Set some layers' part of `out` to that of the gradient, after `gradient` without `out`.

        Parameters
        ----------
        out : ndarray of shape (n_parameters,)
        begin, end : int
            The range of layers: begin + 1 to end.
        """
        self._workspace.layer_gradients(out, begin, end)

    def backward(self, out: Array, dX: Array, examples: Examples) -> None:
        """Go back from any function f of the outputs, equations (4) and (5).

        Parameters
        ----------
        out : ndarray of shape (n_parameters,)
            Receives the derivative of f by the parameters, summed over the examples.
        dX : ndarray of shape (n, n_0)
            A C-contiguous array of the network's dtype that receives ∂f/∂X = δ^0.
        examples : Examples
            Their targets are ∂f/∂A^L.
        """
        self._load(transposes=True)
        self._workspace.backward(out, dX, examples)

    def jacobian(self, out: Array, examples: Examples) -> None:
        """Set `out`, a C-contiguous array of shape (n, n_L, n_0), to ∂A^L/∂X."""
        self._load(transposes=True)
        self._workspace.jacobian(out, examples)

    def update(self, gradient: Array, weight: float) -> float:
        """Apply (6) for a given gradient, after `use`.

        Parameters
        ----------
        gradient : ndarray of shape (n_parameters,)
            Of the mean loss, without L2 terms.
        weight : float
            The number of the examples behind it, or the sum of their weights.

        Returns
        -------
        float
            ‖W‖² before the step if the rule has a penalty, otherwise 0.
        """
        if self._schedule is not None:
            self._set_rates(1)
        self._is_ahead = True
        return self._workspace.update(gradient, weight)

    def _set_rates(self, n_steps: int) -> None:
        """Set the learning rates of the next steps unless they are known."""
        if self._workspace.knows_rates(n_steps):
            return
        assert self._schedule is not None
        assert self._rule is not None
        if isinstance(self._schedule, Schedule):
            n_steps = max(n_steps, _RATES_AHEAD)
        begin, momenta = self._workspace.step_count, self._rule.momenta
        self._workspace.schedule(
            rates_of(self._schedule, begin, n_steps),
            None if momenta is None else momenta.rates(begin, n_steps),
        )

    def total_loss(
        self,
        examples: Examples,
        rows: npt.NDArray[np.intp] | None = None,
        out: Array | None = None,
        total: float = 0.0,
    ) -> float:
        """Return the loss, summed with the examples' weights, equation (2).

        Parameters
        ----------
        examples : Examples
        rows : ndarray of intp, optional
            The examples that count; by default all.
        out : ndarray of shape (n, n_L), optional
            A C-contiguous array of the network's dtype that receives their outputs A^L.
        total : float, default 0.0
            The loss of other examples, to which this one is added.
        """
        self._load(transposes=False)
        custom_loss = self.architecture.custom_loss
        if custom_loss is None:
            return self._workspace.total_loss(examples, rows, out, total)
        X, Y, sample_weight = examples.arrays
        n = examples.n if rows is None else len(rows)
        for begin in range(0, n, _LOSS_BATCH):
            place = slice(begin, begin + _LOSS_BATCH)
            part = place if rows is None else rows[place]
            A = self.outputs(Examples(X[part]))
            assert A is not None
            assert Y is not None
            if out is not None:
                out[place] = A
            weights = None if sample_weight is None else sample_weight[part]
            total += total_loss(custom_loss, A, Y[part], weights)
        return total

    @property
    def loss_batch(self) -> int:
        """`total_loss` may be split at multiples of so many examples without changing its bits."""
        return self._workspace.span if self.architecture.custom_loss is None else _LOSS_BATCH

    def outputs(self, examples: Examples, *, check: bool = False) -> Array | None:
        """Return the outputs A^L, or with `check` None if an input is not finite."""
        out = np.empty((examples.n, self.architecture.sizes[-1]), dtype=self.architecture.dtype)
        outs = [None] * (len(self.architecture.layers) - 1)
        self._load(transposes=False)
        return out if self._workspace.predict([*outs, out], examples, check) else None

    def layer_outputs(self, examples: Examples, *, check: bool = False) -> list[Array] | None:
        """Return A^1, ..., A^L, or with `check` None if an input is not finite."""
        sizes, dtype = self.architecture.sizes[1:], self.architecture.dtype
        outs = [np.empty((examples.n, n), dtype=dtype) for n in sizes]
        self._load(transposes=False)
        return outs if self._workspace.predict([*outs], examples, check) else None
