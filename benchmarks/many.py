"""Train many networks at once, or search parameters of estimators, and compare the times."""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from statistics import median
from typing import Any

import joblib
import report
import sklearn.neural_network
from joblib.externals.loky import get_reusable_executor
from machine import available_cpus, circumstances, say
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_validate

import nncore
import nncore.sklearn

SIZES, BATCH_SIZE, EPOCHS, RATE = [64, 50, 10], 200, 20, 1e-3
X, Y = nncore.datasets.load_digits()


def networks(count: int) -> list[nncore.Network]:
    return [nncore.Network(SIZES, loss="cross_entropy", seed=i) for i in range(count)]


def by_fit_many(count: int, n_threads: int) -> Iterator[None]:
    nets = networks(count)
    yield
    nncore.fit_many(
        nets, X, Y, epochs=EPOCHS, batch_size=BATCH_SIZE, optimizer=nncore.Adam(RATE),
        seeds=range(count), n_threads=n_threads,
    )  # fmt: skip


def by_fit(count: int) -> Iterator[None]:
    nets = networks(count)
    yield
    for i, net in enumerate(nets):
        optimizer = nncore.Adam(RATE)
        net.fit(X, Y, epochs=EPOCHS, batch_size=BATCH_SIZE, optimizer=optimizer, seed=i)


def by_scikit_learn(count: int, n_jobs: int) -> Iterator[None]:
    fit = partial(
        sklearn.neural_network.MLPClassifier,
        SIZES[1:-1], batch_size=BATCH_SIZE, max_iter=EPOCHS, learning_rate_init=RATE, alpha=0.0,
        n_iter_no_change=EPOCHS,
    )  # fmt: skip
    with joblib.Parallel(n_jobs) as parallel:
        jobs = [joblib.delayed(fit(random_state=i).fit)(X, Y) for i in range(count)]
        parallel(jobs[:n_jobs])  # starts the workers
        yield
        parallel(jobs)


def by_vmap(count: int) -> Iterator[None]:
    work = vmapped(count)
    yield
    work()


@cache
def vmapped(count: int) -> Callable[[], Any]:
    """Return Adam on the stacked parameters of all networks, compiled; each has its own orders."""
    import jax
    import jax.numpy as jnp

    stacked = [
        (jnp.stack(W), jnp.stack(b))
        for W, b in zip(
            zip(*(net.weights for net in networks(count)), strict=True),
            zip(*(net.biases for net in networks(count)), strict=True),
            strict=True,
        )
    ]
    inputs, labels = jnp.asarray(X), jnp.asarray(Y)

    def loss(parameters: Any, rows: Any) -> Any:
        A = inputs[rows]
        for W, b in parameters[:-1]:
            A = jax.nn.relu(A @ W + b)
        logits = A @ parameters[-1][0] + parameters[-1][1]
        chosen = jnp.take_along_axis(logits, labels[rows, None], axis=1)[:, 0]
        return (jax.nn.logsumexp(logits, axis=1) - chosen).mean()

    def step(state: Any, rows: Any) -> Any:
        parameters, first, second, t = state
        gradient = jax.grad(loss)(parameters, rows)
        each, t = jax.tree.map, t + 1
        first = each(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = each(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        rate = RATE * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        parameters = each(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), parameters, first, second
        )
        return (parameters, first, second, t), None

    def epoch(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, len(X))
        whole = len(X) // BATCH_SIZE * BATCH_SIZE
        state, _ = jax.lax.scan(step, state, order[:whole].reshape(-1, BATCH_SIZE))
        return step(state, order[whole:])

    def train(parameters: Any, key: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        state = parameters, zeros, zeros, 0.0
        return jax.lax.scan(epoch, state, jax.random.split(key, EPOCHS))[0][0]

    keys = jax.random.split(jax.random.key(0), count)
    compiled = jax.jit(jax.vmap(train)).lower(stacked, keys).compile()
    return lambda: jax.block_until_ready(compiled(stacked, keys))


def training(count: int, n_threads: int) -> dict[str, tuple[int, Callable[[int], Iterator[None]]]]:
    """Return ways to train, each with the number of networks that it gets."""
    few = max(n_threads, count // 10)  # of those that take ten times as long
    return {
        "`fit_many`, 1 thread": (count, partial(by_fit_many, n_threads=1)),
        f"`fit_many`, {n_threads} threads": (count, partial(by_fit_many, n_threads=n_threads)),
        "`Network.fit`, one after the other": (count, by_fit),
        f"JAX, `vmap`, {n_threads} threads": (count, by_vmap),
        "scikit-learn, 1 job": (few, partial(by_scikit_learn, n_jobs=1)),
        f"scikit-learn, {n_threads} jobs, loky": (few, partial(by_scikit_learn, n_jobs=n_threads)),
    }


def cross_validation(n_jobs: int) -> Any:
    return cross_validate(estimator(), X, Y, cv=5, n_jobs=n_jobs)


GRID = {"alpha": [1e-4, 1e-3, 1e-2], "learning_rate_init": [1e-3, 3e-3]}


def grid_search(n_jobs: int) -> Any:
    return GridSearchCV(estimator(), GRID, cv=3, n_jobs=n_jobs).fit(X, Y)


def randomized_search(n_jobs: int) -> Any:
    search = RandomizedSearchCV(estimator(), GRID, n_iter=4, cv=3, random_state=0, n_jobs=n_jobs)
    return search.fit(X, Y)


def bagging(n_jobs: int) -> Any:
    return BaggingClassifier(estimator(), 100, n_jobs=n_jobs, random_state=0).fit(X, Y)


def estimator() -> nncore.sklearn.MLPClassifier:
    return nncore.sklearn.MLPClassifier(
        SIZES[1:-1], batch_size=BATCH_SIZE, max_iter=EPOCHS, random_state=0, dtype="float32"
    )


SEARCHES = {
    "`cross_validate`, 5 fits": cross_validation,
    "`GridSearchCV`, 19 fits": grid_search,
    "`RandomizedSearchCV`, 13 fits": randomized_search,
    "`BaggingClassifier`, 100 fits": bagging,
}


def in_threads(search: Callable[[int], Any], n_jobs: int) -> Iterator[None]:
    yield
    with joblib.parallel_config(backend="threading"):
        search(n_jobs)


def in_processes(search: Callable[[int], Any], n_jobs: int, *, warm: bool) -> Iterator[None]:
    get_reusable_executor().shutdown(wait=True)
    if warm:
        search(n_jobs)
    yield
    search(n_jobs)


def in_turn(search: Callable[[int], Any]) -> Iterator[None]:
    yield
    search(1)


def searching(search: Callable[[int], Any], n_jobs: int) -> dict[str, Any]:
    """Return ways to run a search."""
    return {
        "1 job": (1, lambda count: in_turn(search)),
        f"{n_jobs} jobs, threads": (1, lambda count: in_threads(search, n_jobs)),
        f"{n_jobs} jobs, loky": (1, lambda count: in_processes(search, n_jobs, warm=False)),
        f"{n_jobs} jobs, loky again": (1, lambda count: in_processes(search, n_jobs, warm=True)),
    }


def seconds(count: int, work: Callable[[int], Iterator[None]]) -> float:
    """Return the time for one of `count`, from the place where the work yields."""
    steps = work(count)
    next(steps)
    begin = time.perf_counter()
    next(steps, None)
    return (time.perf_counter() - begin) / count


def compare(title: str, ways: dict[str, Any], n_rounds: int) -> None:
    """Print a table of times, each the median of the rounds, and of ratios to the first one."""
    samples: dict[str, list[float]] = {}
    for _ in range(n_rounds):
        for name, (count, work) in ways.items():
            try:
                sample = seconds(count, work)
            except ModuleNotFoundError as error:
                say(f"left out: {name}: {error}")
            else:
                samples.setdefault(name, []).append(sample)
    base = next(iter(samples.values()))
    print(f"\n| {title} | ms | times faster |\n| --- | --: | --: |")
    for name, own in samples.items():
        ratio = median(first / one for first, one in zip(base, own, strict=True))
        print(f"| {name} | {report.digits(1e3 * median(own))} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=200, help="to train, 0 for none")
    parser.add_argument("--searches", nargs="*", default=[*SEARCHES], choices=[*SEARCHES])
    parser.add_argument("--threads", type=int, default=len(available_cpus()))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    os.environ["PYTHONWARNINGS"] = "ignore"  # of the workers
    results = circumstances()
    if options.networks:
        ways = training(options.networks, options.threads)
        compare("time per network", ways, options.rounds)
    for name in options.searches:
        compare(name, searching(SEARCHES[name], options.threads), options.rounds)
    print(f"\n{results['machine']['processor']}, load {results['load_average']:.1f}")


if __name__ == "__main__":
    main()
