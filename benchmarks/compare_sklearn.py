"""Fit the same estimators with nncore.sklearn and with scikit-learn in turn; compare the times.

Run ``python benchmarks/compare_sklearn.py --help``; README.md in this directory holds the protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from machine import available_cpus, describe
from worker import REMOVED_VARIABLES

Array = npt.NDArray[Any]

EPOCHS = 20
DATA = ["digits", "mnist10k", "10k x 20", "100k x 50"]
TASKS = ["classification", "regression"]
SOLVERS = ["adam", "sgd"]
# The type of X, then `dtype=` of nncore's estimators.
TYPES = {
    "float64": ("float64", None),
    "float32": ("float32", None),
    "float64 as float32": ("float64", "float32"),
}
# What fit with Adam and one thread shall reach, and sgd within a tenth of it.
TARGETS = {
    "digits": (5.0, 7.0, 8.0),
    "mnist10k": (2.5, 2.7, 5.0),
    "10k x 20": (9.0, 14.0, 14.0),
    "100k x 50": (6.0, 11.0, 11.0),
}
PREDICT_TARGETS = {"predict 1 row": 2.0, "predict all rows": 1.5}
SEARCH_TARGET = 4.0


class Row(NamedTuple):
    """A figure of the comparison; times in seconds, medians over the rounds."""

    data: str
    task: str
    solver: str
    types: str
    what: str
    theirs: float
    ours: float
    ratios: list[float]
    target: float

    @property
    def ratio(self) -> float:
        return float(np.median(self.ratios))

    def line(self) -> str:
        low, high = np.quantile(self.ratios, [0.25, 0.75])
        met = "" if self.ratio >= self.target else "  (below)"
        return (
            f"| {self.data} | {self.task} | {self.solver} | {self.types} | {self.what} | "
            f"{_milliseconds(self.theirs)} | {_milliseconds(self.ours)} | {self.ratio:.1f} "
            f"({low:.1f} to {high:.1f}) | {self.target:g}{met} |"
        )


HEADER = (
    "| data | task | solver | types | what | scikit-learn, ms | nncore, ms | ratio (quartiles) | "
    "target |\n|---|---|---|---|---|---|---|---|---|"
)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=SOLVERS)
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of both sides")
    parser.add_argument("--cpu", type=int, help="the first CPU to pin to")
    parser.add_argument("--no-search", action="store_true", help="leave out the grid search")
    parser.add_argument("--json", type=Path, help="where to write all ratios")
    return parser.parse_args(arguments)


def restart_pinned(options: argparse.Namespace) -> None:
    """Start over with the threads that were asked for, and BLAS otherwise as a user has it."""
    if os.environ.get("NNCORE_COMPARE_SKLEARN") == "1":
        return
    cpus = available_cpus()
    first = cpus.index(options.cpu) if options.cpu is not None else 0
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus[first : first + options.threads])
    environment = {k: v for k, v in os.environ.items() if k not in REMOVED_VARIABLES}
    for library in ("OMP", "OPENBLAS", "MKL"):
        environment[f"{library}_NUM_THREADS"] = str(options.threads)
    environment["NNCORE_COMPARE_SKLEARN"] = "1"
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def load(name: str, task: str) -> tuple[Array, Array] | None:
    """Return inputs and targets, or None where they are not on this machine."""
    from sklearn.datasets import load_digits, make_classification, make_regression

    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X / 16, y.astype(float) if task == "regression" else y
    if name == "mnist10k":
        directory = os.environ.get("NNCORE_MNIST")
        if directory is None:
            return None
        from nncore.datasets import load_mnist

        train, test = load_mnist(directory)
        images = np.concatenate([train[0], test[0]])
        labels = np.concatenate([train[1], test[1]])
        return images.astype(float), labels.astype(float) if task == "regression" else labels
    n, n_features = (10_000, 20) if name == "10k x 20" else (100_000, 50)
    if task == "regression":
        X, y = make_regression(n, n_features, noise=1.0, random_state=0)
        return X, y / y.std()
    X, y = make_classification(n, n_features, n_informative=n_features // 2, random_state=0)
    return X, y


def estimators(task: str, solver: str, dtype: str | None) -> tuple[Any, Any]:
    import sklearn.neural_network as theirs

    import nncore.sklearn as ours

    name = "MLPClassifier" if task == "classification" else "MLPRegressor"
    options: dict[str, Any] = {"solver": solver, "max_iter": EPOCHS, "random_state": 0, "tol": 0}
    options["n_iter_no_change"] = EPOCHS
    extra = {} if dtype is None else {"dtype": dtype}
    return getattr(theirs, name)(**options), getattr(ours, name)(**options, **extra)


def in_turn(actions: list[Callable[[], object]], rounds: int) -> tuple[list[float], list[Any]]:
    """Time the actions A B A B; return the ratios, and all times per action."""
    for action in actions:
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, taken in zip(actions, times, strict=True):
            begin = time.perf_counter()
            action()
            taken.append(time.perf_counter() - begin)
    return [a / b for a, b in zip(*times, strict=True)], times


def repeated(
    function: Callable[..., object], *arguments: object, count: int = 1
) -> Callable[[], object]:
    def action() -> None:
        for _ in range(count):
            function(*arguments)

    return action


def compare(data: str, task: str, solver: str, types: str, rounds: int) -> Iterator[Row]:
    loaded = load(data, task)
    if loaded is None:
        print(f"{data} is left out: NNCORE_MNIST names no directory", file=sys.stderr)
        return
    x_type, dtype = TYPES[types]
    X, y = loaded[0].astype(x_type), loaded[1]
    theirs, ours = estimators(task, solver, dtype)

    def row(what: str, ratios: list[float], times: list[Any], target: float, count: int) -> Row:
        a, b = (float(np.median(taken)) / count for taken in times)
        return Row(data, task, solver, types, what, a, b, ratios, target)

    ratios, times = in_turn([repeated(side.fit, X, y) for side in (theirs, ours)], rounds)
    tolerance = 1e-6 if types == "float64" else 1e-2
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=tolerance)
    target = TARGETS[data][list(TYPES).index(types)] * (0.9 if solver == "sgd" else 1)
    yield row(f"fit, {EPOCHS} epochs", ratios, times, target, 1)
    if solver != "adam":
        return
    for what, rows, count in (
        ("predict 1 row", X[:1], 200),
        ("predict all rows", X, max(1, 50_000 // len(X))),
    ):
        actions = [repeated(side.predict, rows, count=count) for side in (theirs, ours)]
        ratios, times = in_turn(actions, 2 * rounds)
        yield row(what, ratios, times, PREDICT_TARGETS[what], count)


def search(rounds: int) -> Row:
    """A grid search of 24 fits on the digits."""
    from sklearn.model_selection import GridSearchCV

    loaded = load("digits", "classification")
    assert loaded is not None
    grid: dict[str, list[Any]] = {
        "alpha": [1e-4, 1e-2],
        "hidden_layer_sizes": [(50,), (100,)],
        "learning_rate_init": [1e-3, 1e-2],
    }
    searches = [
        GridSearchCV(estimator, grid, cv=3, refit=False)
        for estimator in estimators("classification", "adam", None)
    ]
    actions = [repeated(side.fit, *loaded) for side in searches]
    ratios, times = in_turn(actions, max(1, rounds // 2))
    medians = [float(np.median(taken)) for taken in times]
    return Row(
        *("digits", "classification", "adam", "float64", "GridSearchCV, 24 fits"),
        medians[0],
        medians[1],
        ratios,
        SEARCH_TARGET,
    )


def main() -> None:
    options = parse_arguments()
    restart_pinned(options)
    warnings.simplefilter("ignore")
    import sklearn
    import threadpoolctl

    blas = ", ".join(
        f"{pool['internal_api']} {pool.get('architecture', '')} x{pool['num_threads']}"
        for pool in threadpoolctl.threadpool_info()
    )
    print(f"scikit-learn {sklearn.__version__}; {describe()['processor']}; {blas}\n")
    print(HEADER, flush=True)
    rows: list[Row] = []
    choices = product(options.data, options.tasks, options.solvers, options.types)
    for data, task, solver, types in choices:
        for row in compare(data, task, solver, types, options.rounds):
            print(row.line(), flush=True)
            rows.append(row)
    if not options.no_search:
        rows.append(search(options.rounds))
        print(rows[-1].line())
    if rows:
        worst = min(rows, key=lambda row: row.ratio / row.target)
        print(f"\nFarthest from its target:\n\n{HEADER}\n{worst.line()}")
    if options.json is not None:
        options.json.write_text(
            json.dumps({"machine": describe(), "rows": [row._asdict() for row in rows]}, indent=1)
        )


if __name__ == "__main__":
    main()
