"""The two ways to fit: epochs of mini-batches, and L-BFGS on all examples at once."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.utils.optimize import _check_optimize_result

from .._orders import shuffle
from ..distributed import Alone, as_ranks
from ..network import Network
from ..session import StepOptions
from ..training import Epoch, Position, Run
from ._examples import TrainingSet
from ._reports import Reports
from ._solvers import StochasticSolver
from ._validation import ValidationSet

__all__ = ["FitMixin"]

Array = npt.NDArray[Any]
Order = npt.NDArray[np.intp]


# The parameters that the ranks of a fit must have in common.
_COMMON = (
    "alpha", "batch_size", "beta_1", "beta_2", "early_stopping", "epsilon", "gradient_clipping",
    "learning_rate", "learning_rate_init", "max_iter", "momentum", "n_iter_no_change",
    "nesterovs_momentum", "power_t", "shuffle", "solver", "tol",
)  # fmt: skip


def _batch_size(wanted: int | str, n: int) -> int:
    if wanted == "auto":
        return min(200, n)
    if int(wanted) > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return min(int(wanted), n)


def _draw_order(rng: np.random.RandomState, last: Order | None, n: int) -> Order:
    """Return the next order: scikit-learn draws each as a permutation of the one before."""
    order = np.arange(n, dtype=np.intp) if last is None else last.copy()
    shuffle(rng, order)
    return order


class FitMixin(ABC):
    """The part of `BaseMLP` that trains, on checked data."""

    # Parameters of the constructors.
    alpha: float
    batch_size: Any
    beta_1: float
    beta_2: float
    early_stopping: bool
    epsilon: float
    gradient_clipping: float | None
    learning_rate: str
    learning_rate_init: float
    max_fun: int
    max_iter: int
    momentum: float
    n_iter_no_change: float
    n_threads: int | None
    nesterovs_momentum: bool
    power_t: float
    scoring: Any
    shuffle: bool
    solver: str
    tol: float
    verbose: Any

    # Attributes of a fitted estimator; None where early stopping excludes or requires them.
    best_loss_: Any
    best_validation_score_: Any
    loss_curve_: list[float]
    t_: int
    validation_loss_curve_: list[float] | None
    validation_scores_: Any

    _no_improvement_count: int
    _best_parameters: Array
    _random_state: Any

    @property
    def _loss_factor(self) -> float:
        """The factor of the loss: scikit-learn's squared error is a mean over the outputs."""
        return 1.0

    @abstractmethod
    def _outputs_of_checked(self, X: Any) -> Array:
        """Return the outputs for input with the right shape and type."""

    @abstractmethod
    def _score(self, y: Array, outputs: Array, sample_weight: Array | None) -> float:
        """Return the estimator's score for outputs, NaN if they are not finite."""

    def _fit_stochastic(
        self,
        network: Network,
        training: TrainingSet,
        validation: ValidationSet | None,
        dropout: tuple[float, ...],
        reports: Reports,
        incremental: bool,
    ) -> None:
        """Train by SGD or Adam until `max_iter`, a tolerance or a callback ends it."""
        solver: StochasticSolver | None = getattr(self, "_optimizer", None)
        if not incremental or solver is None or not solver.adapt(network.architecture):
            self._optimizer = solver = StochasticSolver(self)
        solver.penalty = float(self.alpha)
        n = training.n
        batch_size = _batch_size(self.batch_size, n)
        max_norm = 0.0 if self.gradient_clipping is None else float(self.gradient_clipping)
        options = StepOptions(max_norm)
        if any(dropout):
            seed = int(self._random_state.randint(2**31 - 1))
            options = StepOptions(max_norm, dropout, seed)
        ranks = as_ranks(None)
        if ranks.size > 1:
            ranks.check_equal(network, solver, self._settings(training))
        self.n_iter_ = 0
        rows = ranks.rows_of(batch_size)
        try:
            with network.session(n, batch_size=rows, n_threads=self.n_threads) as session:
                run = Run(
                    ranks.steps(session),
                    solver,
                    training,
                    batch_size,
                    draw_order=_draw_order if self.shuffle else None,
                    position=Position(self._random_state),
                    options=options,
                    keep_going=True,
                )
                for epoch in run.epochs(1 if incremental else self.max_iter):
                    self._note_epoch(epoch, n, batch_size)
                    validation_loss = self._validate(network, validation)
                    if not self.early_stopping:
                        self._watch_loss()
                    solver.end_epoch(self.t_)
                    if self._stops(reports, validation_loss, epoch.seconds, network, solver, ranks):
                        break
                else:
                    if not incremental:
                        warnings.warn(
                            f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached "
                            "and the optimization hasn't converged yet.",
                            ConvergenceWarning,
                            stacklevel=2,
                        )
        except KeyboardInterrupt:
            if ranks.size > 1:
                raise
            warnings.warn("Training interrupted by user.", stacklevel=2)
        if self.early_stopping:
            network.parameters = self._best_parameters

    @property
    def _prints(self) -> bool:
        return bool(self.verbose) and as_ranks(None).is_first

    def _settings(self, training: TrainingSet) -> dict[str, Any]:
        """Return what all ranks must have in common, besides network and solver."""
        return {
            **{name: repr(getattr(self, name)) for name in _COMMON},
            "state of random_state": repr(self._random_state.get_state()),
            **training.described(),
        }

    def _note_epoch(self, epoch: Epoch, n: int, batch_size: int) -> None:
        """Set the attributes in which scikit-learn reports an epoch."""
        losses, weights, squares = epoch.sums.T
        means = np.zeros(len(losses))
        penalized = losses * self._loss_factor + 0.5 * self.alpha * squares
        np.divide(penalized, weights, out=means, where=weights != 0)
        # The weight of a batch's loss is its number of examples, whatever their weights.
        shares = np.full(len(losses), batch_size / n)
        shares[-1] = (n - (len(losses) - 1) * batch_size) / n
        self.n_iter_ += 1
        self.loss_ = float(shares @ means)
        self.t_ += n
        self.loss_curve_.append(self.loss_)
        if self._prints:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

    def _watch_loss(self) -> None:
        loss = self.loss_curve_[-1]
        if loss > self.best_loss_ - self.tol:
            self._no_improvement_count += 1
        else:
            self._no_improvement_count = 0
        if loss < self.best_loss_:  # False for NaN
            self.best_loss_ = loss

    def _validate(self, network: Network, validation: ValidationSet | None) -> float | None:
        """Record the validation loss and, for early stopping, the score; return the loss."""
        if validation is None:
            return None
        outputs = self._outputs_of_checked(validation.X)
        loss = validation.mean_loss(outputs, network.architecture.loss) * self._loss_factor
        curve = getattr(self, "validation_loss_curve_", None)
        self.validation_loss_curve_ = [*(curve or ()), loss]
        if not self.early_stopping:
            return loss
        score = self._validation_score(validation, outputs, loss)
        self.validation_scores_.append(score)
        if self._prints:
            print(f"Validation score: {score:f}")
        if score < self.best_validation_score_ + self.tol:
            self._no_improvement_count += 1
        else:
            self._no_improvement_count = 0
        if score > self.best_validation_score_:
            self.best_validation_score_ = score
            self._best_parameters = network.parameters.copy()
        return loss

    def _validation_score(self, validation: ValidationSet, outputs: Array, loss: float) -> float:
        """Return the score that early stopping monitors."""
        if self.scoring is None:
            return self._score(validation.y, outputs, validation.sample_weight)
        if self.scoring == "loss":
            return -loss
        scorer = check_scoring(self, scoring=self.scoring)
        weights = {}
        if validation.sample_weight is not None:
            weights["sample_weight"] = validation.sample_weight
        self._checked_X = validation.X
        try:
            return float(scorer(self, validation.X, validation.y, **weights))
        finally:
            del self._checked_X

    def _stops(
        self,
        reports: Reports,
        validation_loss: float | None,
        seconds: float,
        network: Network,
        solver: StochasticSolver,
        ranks: Alone,
    ) -> bool:
        """Return whether a callback or a tolerance ends the fit after this epoch."""
        if reports.is_wanted():
            values = self.n_iter_, self.loss_, validation_loss, seconds, network
            stops = ranks.on_first(partial(reports.iteration, *values))
            ranks.follow_first(network, solver)
            if stops:
                return True
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        what = "Validation score" if self.early_stopping else "Training loss"
        reason = (
            f"{what} did not improve more than tol={self.tol:f} for "
            f"{self.n_iter_no_change:d} consecutive epochs."
        )
        if solver.stops(reason, self._prints):
            return True
        self._no_improvement_count = 0
        return False

    def _fit_lbfgs(self, network: Network, training: TrainingSet, reports: Reports) -> None:
        """Minimise the mean loss of all examples by SciPy's L-BFGS-B."""
        gradient = np.empty_like(network.parameters)
        alpha = self.alpha / training.weight
        is_weight = np.zeros(gradient.size, dtype=bool)
        for W in network.architecture.views(is_weight)[0]:
            W[...] = True

        def objective(parameters: Array) -> tuple[float, Array]:
            network.parameters[:] = parameters
            loss = training.gradient(network, gradient, self.n_threads)
            W = np.where(is_weight, parameters, 0)
            total = loss * self._loss_factor + 0.5 * alpha * float(W @ W)
            return total, gradient + alpha * W

        steps = [0]

        def callback(intermediate_result: Any) -> None:
            steps[0] += 1
            network.parameters[:] = intermediate_result.x
            loss = float(intermediate_result.fun)
            if reports.iteration(steps[0], loss, None, 0.0, network):
                raise StopIteration

        options = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        if tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 15):
            options["iprint"] = 1 if self.verbose is True or self.verbose >= 1 else -1
        start = network.parameters.astype(np.float64)
        try:
            result = scipy.optimize.minimize(
                objective,
                start,
                method="L-BFGS-B",
                jac=True,
                options=options,
                callback=callback if reports.is_wanted() else None,
            )
        except MemoryError:
            network.parameters[:] = start
            raise
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        self.loss_ = result.fun
        network.parameters[:] = result.x
