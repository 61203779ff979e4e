"""The two ways to fit: epochs of mini-batches, and L-BFGS on all examples at once."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import scipy.optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.optimize import _check_optimize_result

from ..network import Network
from ._examples import TrainingSet
from ._reports import Reports
from ._solvers import StochasticSolver
from ._validation import ValidationSet

__all__ = ["fit_lbfgs", "fit_stochastic"]

Array = npt.NDArray[Any]


def _batch_size(wanted: int | str, n: int) -> int:
    if wanted == "auto":
        return min(200, n)
    if int(wanted) > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=2,
        )
    return min(int(wanted), n)


def fit_stochastic(
    estimator: Any,
    network: Network,
    training: TrainingSet,
    validation: ValidationSet | None,
    dropout: tuple[float, ...],
    reports: Reports,
    incremental: bool,
) -> None:
    """Train by SGD or Adam until `max_iter`, a tolerance or a callback ends it."""
    solver = getattr(estimator, "_optimizer", None)
    if not incremental or solver is None or not solver.belongs_to(network):
        estimator._optimizer = solver = StochasticSolver(estimator, network)
    early_stopping = estimator.early_stopping
    n = training.n
    batch_size = _batch_size(estimator.batch_size, n)
    n_batches = -(-n // batch_size)
    # Each batch's loss counts by its number of examples, whatever these weigh.
    shares = np.full(n_batches, batch_size / n)
    shares[-1] = (n - (n_batches - 1) * batch_size) / n
    batch_losses = np.empty((n_batches, 2))
    options: dict[str, Any] = {}
    if any(dropout):
        seed = int(estimator._random_state.randint(2**31 - 1))
        options |= {"dropout": dropout, "dropout_seed": seed}
    if estimator.gradient_clipping is not None:
        options["max_norm"] = float(estimator.gradient_clipping)

    order = np.arange(n)
    team = network._team_size(estimator.n_threads, n, batch_size)
    try:
        estimator.n_iter_ = 0
        with network._workspace(batch_size, team) as workspace:
            for _ in range(estimator.max_iter):
                if estimator.shuffle:
                    # Each order is drawn as a permutation of the one before.
                    step = np.arange(n)
                    estimator._random_state.shuffle(step)
                    order = order[step]
                begin = time.perf_counter()
                update = solver.update(estimator.alpha, **options)
                workspace.load(update)
                try:
                    training.train(
                        workspace, order if estimator.shuffle else None, batch_size, batch_losses
                    )
                finally:
                    workspace.store()
                    solver.step_count = update.step_count
                seconds = time.perf_counter() - begin

                estimator.n_iter_ += 1
                losses = batch_losses[:, 0] * estimator._loss_factor + batch_losses[:, 1]
                estimator.loss_ = float(shares @ losses)
                estimator.t_ += n
                estimator.loss_curve_.append(estimator.loss_)
                if estimator.verbose:
                    print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
                validation_loss = _validate(estimator, network, validation)
                if not early_stopping:
                    _watch_loss(estimator)
                solver.end_epoch(estimator.t_)
                if reports.is_wanted() and reports.iteration(
                    estimator.n_iter_, estimator.loss_, validation_loss, seconds, network
                ):
                    break

                if estimator._no_improvement_count > estimator.n_iter_no_change:
                    what = "Validation score" if early_stopping else "Training loss"
                    reason = (
                        f"{what} did not improve more than tol={estimator.tol:f} for "
                        f"{estimator.n_iter_no_change:d} consecutive epochs."
                    )
                    if solver.stops(reason, estimator.verbose):
                        break
                    estimator._no_improvement_count = 0
                if incremental:
                    break
                if estimator.n_iter_ == estimator.max_iter:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached "
                        "and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=2)
    if early_stopping:
        network.parameters[:] = estimator._best_parameters


def _watch_loss(estimator: Any) -> None:
    loss = estimator.loss_curve_[-1]
    if loss > estimator.best_loss_ - estimator.tol:
        estimator._no_improvement_count += 1
    else:
        estimator._no_improvement_count = 0
    if loss < estimator.best_loss_:  # which NaN is not
        estimator.best_loss_ = loss


def _validate(estimator: Any, network: Network, validation: ValidationSet | None) -> float | None:
    """Note the validation loss and, for early stopping, the score; return the loss."""
    if validation is None:
        return None
    loss, score = validation.evaluate(estimator, network)
    curve = getattr(estimator, "validation_loss_curve_", None)
    estimator.validation_loss_curve_ = [*(curve or ()), loss]
    if not estimator.early_stopping:
        return loss
    estimator.validation_scores_.append(score)
    if estimator.verbose:
        print(f"Validation score: {score:f}")
    if score < estimator.best_validation_score_ + estimator.tol:
        estimator._no_improvement_count += 1
    else:
        estimator._no_improvement_count = 0
    if score > estimator.best_validation_score_:
        estimator.best_validation_score_ = score
        estimator._best_parameters = network.parameters.copy()
    return loss


def fit_lbfgs(estimator: Any, network: Network, training: TrainingSet, reports: Reports) -> None:
    """Minimise the mean loss of all examples by SciPy's L-BFGS-B."""
    gradient = np.empty_like(network.parameters)
    alpha = estimator.alpha / training.weight
    is_weight = np.zeros(network.parameters.size, dtype=bool)
    begin = 0
    for W, b in zip(network.weights, network.biases, strict=True):
        is_weight[begin : begin + W.size] = True
        begin += W.size + b.size

    def objective(parameters: Array) -> tuple[float, Array]:
        network.parameters[:] = parameters
        loss = training.gradient(network, gradient, estimator.n_threads)
        W = np.where(is_weight, parameters, 0)
        total = loss * estimator._loss_factor + 0.5 * alpha * float(W @ W)
        return total, gradient + alpha * W

    steps = [0]

    def callback(intermediate_result: Any) -> None:
        steps[0] += 1
        network.parameters[:] = intermediate_result.x
        if reports.iteration(steps[0], float(intermediate_result.fun), None, 0.0, network):
            raise StopIteration

    options = {
        "maxfun": estimator.max_fun,
        "maxiter": estimator.max_iter,
        "gtol": estimator.tol,
    }
    if tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 15):
        options["iprint"] = 1 if estimator.verbose is True or estimator.verbose >= 1 else -1
    result = scipy.optimize.minimize(
        objective,
        network.parameters.astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        options=options,
        callback=callback if reports.is_wanted() else None,
    )
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = result.fun
    network.parameters[:] = result.x
