"""Examples in shards: the bits of arrays in memory, however they are cut and stored."""

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Array, assert_no_new_threads, data, make, refused

import nncore
from nncore import reading, shards
from nncore.callbacks import Checkpoint

N = 203
CUTS = ([60, 61, 150], [10, 100])


def in_memory(array: Array, path: Path) -> Any:
    return array


def named(array: Array, path: Path) -> Any:
    np.save(path, array)
    return str(path)


def mapped(array: Array, path: Path) -> Any:
    return np.load(named(array, path), mmap_mode="r")


def as_path(array: Array, path: Path) -> Any:
    np.save(path, array)
    return path


STORES = {"memory": [in_memory], "named": [named], "mapped": [mapped]}
STORES["mixed"] = [in_memory, named, mapped, as_path]
every_store = pytest.mark.parametrize("stores", STORES.values(), ids=STORES)


class Cut:
    """Cuts arrays into shards in a folder."""

    def __init__(self, folder: Path, stores: Sequence[Callable[[Array, Path], Any]]) -> None:
        self.folder, self.stores = folder, stores

    def __call__(self, array: Array, cuts: Sequence[int], name: str) -> list[Any]:
        return [
            self.stores[i % len(self.stores)](part, self.folder / f"{name}{i}.npy")
            for i, part in enumerate(np.split(array, cuts))
        ]


def problem(loss: str, dtype: Any, classes: bool = False) -> tuple[nncore.Network, Array, Array]:
    net = make([4, 6, 3], "relu", loss, dtype=dtype)
    X, Y = data(net, N, np.random.default_rng(3))
    return net, X, np.arange(N) % 3 if classes else Y


OPTIONS: dict[str, dict[str, Any]] = {
    "shuffled": {},
    "in order": {"shuffle": False},
    "split": {"validation_split": 0.3, "metrics": ["r2"], "training_metrics": True},
    "split in order": {"validation_split": 0.3, "shuffle": False},
    "weights": {"sample_weight": np.random.default_rng(0).random(N)},
    "dropout": {"dropout": 0.3, "gradient_clipping": 0.5, "n_threads": 2},
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1000)


@every_store
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.usefixtures("small_blocks")
def test_fit_on_shards_has_the_bits_of_arrays(
    stores: Any, options: dict[str, Any], dtype: Any, tmp_path: Path
) -> None:
    net, X, Y = problem("squared_error", dtype)
    twin, cut = copy.deepcopy(net), Cut(tmp_path, stores)
    options = {"epochs": 3, "batch_size": 8, "seed": 0} | options
    expected = net.fit(X, Y, **options)
    with assert_no_new_threads():
        history = twin.fit(cut(X, CUTS[0], "x"), cut(Y, CUTS[1], "y"), **options)
    assert twin.equals(net)
    assert history.loss == expected.loss
    assert history.validation_loss == expected.validation_loss
    assert history.metrics == expected.metrics


@every_store
@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.usefixtures("small_blocks")
def test_losses_and_outputs_of_shards_have_the_bits_of_arrays(
    stores: Any, loss: str, weighted: bool, dtype: Any, tmp_path: Path
) -> None:
    net, X, Y = problem(loss, dtype)
    cut, weights = Cut(tmp_path, stores), np.random.default_rng(0).random(N)
    X_cut, Y_cut = cut(X, CUTS[0], "x"), cut(Y, CUTS[1], "y")
    given, cut_weights = None, None
    if weighted:
        given, cut_weights = weights, cut(weights, CUTS[1], "w")
    assert net.evaluate(X_cut, Y_cut, sample_weight=cut_weights) == net.evaluate(
        X, Y, sample_weight=given
    )
    assert net.evaluate(X_cut, Y) == net.evaluate(X, Y_cut) == net.evaluate(X, Y)
    assert net.predict(X_cut).tobytes() == net.predict(X).tobytes()
    out = np.empty((N, 3), dtype)
    assert net.predict(tuple(X_cut), out=out) is out
    assert out.tobytes() == net.predict(X).tobytes()


@every_store
def test_class_indices_may_be_cut(stores: Any, dtype: Any, tmp_path: Path) -> None:
    net, X, labels = problem("cross_entropy", dtype, classes=True)
    twin, cut = copy.deepcopy(net), Cut(tmp_path, stores)
    X_cut, labels_cut = cut(X, CUTS[0], "x"), cut(labels, CUTS[1], "y")
    options: dict[str, Any] = {"epochs": 2, "seed": 0, "metrics": ["accuracy"]}
    expected = net.fit(X, labels, validation_data=(X, labels), **options)
    history = twin.fit(X_cut, labels_cut, validation_data=(X_cut, labels_cut), **options)
    assert twin.equals(net)
    assert history.validation_loss == expected.validation_loss
    assert history.metrics == expected.metrics


@pytest.mark.parametrize("outputs", [1, 2])
def test_vectors_of_targets_may_be_cut(outputs: int, tmp_path: Path) -> None:
    net = make([4, outputs])
    X, Y = data(net, N, np.random.default_rng(3))
    cut = Cut(tmp_path, [named, in_memory])
    X_cut, Y_cut = cut(X, CUTS[0], "x"), cut(Y[:, 0], CUTS[1], "y")
    if outputs == 1:
        assert net.evaluate(X_cut, Y_cut) == net.evaluate(X, Y)
    else:
        with refused(ValueError, "Y[0] must have shape (n_samples, 2)", "(10,)", unchanged=[net]):
            net.fit(X_cut, Y_cut)


@pytest.mark.parametrize("kind", ["u1", "f4", "f8", "f2", "i2", ">f4", ">i8", "?"])
def test_files_may_have_any_dtype(kind: str, dtype: Any, tmp_path: Path) -> None:
    net = make([4, 3], dtype=dtype)
    X = np.random.default_rng(3).integers(0, 9, (N, 4)).astype(kind)
    Y = np.random.default_rng(4).integers(0, 9, (N, 3)).astype(kind)
    cut = Cut(tmp_path, [named, mapped])
    X_cut, Y_cut = cut(X, CUTS[0], "x"), cut(Y, CUTS[1], "y")
    assert net.predict(X_cut).tobytes() == net.predict(X).tobytes()
    assert net.evaluate(X_cut, Y_cut) == net.evaluate(X, Y)


def test_shards_may_have_different_dtypes(dtype: Any, tmp_path: Path) -> None:
    net = make([4, 3], dtype=dtype)
    parts = [np.full((2 + i, 4), i).astype(kind) for i, kind in enumerate(["f8", "u1", "f4"])]
    X = [named(parts[0], tmp_path / "x.npy"), parts[1], mapped(parts[2], tmp_path / "z.npy")]
    assert net.predict(X).tobytes() == net.predict(np.concatenate(parts)).tobytes()


@pytest.mark.parametrize("where", ["X", "Y"])
def test_losses_of_users_get_rows_of_shards(where: str, tmp_path: Path) -> None:
    class Loss:
        def value(self, A: Array, Y: Array) -> Any:
            return ((A - Y[:, 0]) ** 2).sum(axis=1)

        def delta(self, A: Array, Y: Array) -> Array:
            assert not Y.flags.writeable
            return 2 * (A - Y[:, 0])

    net = nncore.Network([4, 3], loss=Loss(), dtype="float64", seed=0)
    rng, cut = np.random.default_rng(0), Cut(tmp_path, [named, in_memory])
    X, Y = rng.random((N, 4)), rng.random((N, 2, 3))
    twin = copy.deepcopy(net)
    net.fit(X, Y, seed=0)
    twin.fit(cut(X, CUTS[0], "x"), cut(Y, CUTS[1], "y") if where == "Y" else Y, seed=0)
    assert twin.parameters.tobytes() == net.parameters.tobytes()
    assert net.evaluate(cut(X, [7], "x"), Y) == net.evaluate(X, Y)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.usefixtures("small_blocks")
def test_reading_ahead_changes_no_bit(
    n_threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net, X, Y = problem("squared_error", "f4")
    cut, networks = Cut(tmp_path, [named]), []
    arguments = cut(X, CUTS[0], "x"), cut(Y, CUTS[1], "y")
    for ahead in (reading.ahead, lambda items, stop: items):
        monkeypatch.setattr(shards, "ahead", ahead)
        networks.append(copy.deepcopy(net))
        networks[-1].fit(*arguments, epochs=3, batch_size=8, seed=0, n_threads=n_threads)
    net.fit(X, Y, epochs=3, batch_size=8, seed=0, n_threads=1)
    assert networks[0].equals(net)
    assert networks[1].equals(net)


def test_more_shards_than_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nncore.long_arrays._MOST_OPEN", 3)
    net, X, _ = problem("squared_error", "f4")
    cut = Cut(tmp_path, [named])(X, range(10, N, 10), "x")
    assert net.predict(cut).tobytes() == net.predict(X).tobytes()


VIEWS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda a: a[20:180],
    "every other": lambda a: a[::2],
    "backwards": lambda a: a[::-1],
    "columns": lambda a: a[:, ::-1],
    "row": lambda a: a[5:6],
    "none": lambda a: a[:0],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_shards_may_be_views_of_mapped_files(view: Any, mode: Any, tmp_path: Path) -> None:
    net, X, _ = problem("squared_error", "f8")
    path = named(np.concatenate([X[:0], X]), tmp_path / "x.npy")
    one = view(np.load(path, mmap_mode=mode))
    expected = np.concatenate([view(X), X])
    assert net.predict([one, X]).tobytes() == net.predict(expected).tobytes()


def test_a_view_that_is_mapped_privately_shows_its_own_values(tmp_path: Path) -> None:
    net, X, _ = problem("squared_error", "f8")
    private = np.load(named(X, tmp_path / "x.npy"), mmap_mode="c")
    private[7] = 0
    expected = X.copy()
    expected[7] = 0
    assert net.predict([private]).tobytes() == net.predict(expected).tobytes()


def test_a_mapped_file_may_be_deleted(tmp_path: Path) -> None:
    net, X, _ = problem("squared_error", "f8")
    lost = mapped(X, tmp_path / "x.npy")
    os.remove(tmp_path / "x.npy")
    assert net.predict([lost, lost]).tobytes() == net.predict(np.concatenate([X, X])).tobytes()


def test_a_list_of_vectors_is_a_matrix(tmp_path: Path) -> None:
    net, X, Y = problem("squared_error", "f8")
    X_map = mapped(X, tmp_path / "x.npy")
    assert net.evaluate(list(X), list(Y)) == net.evaluate(X, Y)
    assert net.evaluate(list(X_map), Y) == net.evaluate(X, Y)
    assert net.predict(X[:, :, np.newaxis][:, :, 0].tolist()).tobytes() == net.predict(X).tobytes()


@pytest.mark.parametrize("cuts", [CUTS[0], [100]])
def test_a_run_resumes_on_shards_cut_elsewhere(cuts: list[int], tmp_path: Path) -> None:
    net, X, Y = problem("squared_error", "f4")
    twin, path = copy.deepcopy(net), tmp_path / "run.safetensors"
    options: dict[str, Any] = {"batch_size": 8, "seed": 0}
    cut = Cut(tmp_path, [named, in_memory])

    class StoppedError(Exception):
        pass

    def stop(end: nncore.EpochEnd) -> None:
        if end.epoch == 2:
            raise StoppedError

    net.fit(X, Y, epochs=4, **options)
    with pytest.raises(StoppedError):
        twin.fit(
            cut(X, CUTS[0], "x"),
            cut(Y, CUTS[1], "y"),
            epochs=4,
            callbacks=[Checkpoint(path, every_steps=17), stop],
            **options,
        )
    again = copy.deepcopy(twin)
    again.fit(cut(X, cuts, "z"), Y, epochs=4, callbacks=[], resume=path, **options)
    assert again.equals(net)
    with refused(ValueError, "X must be 'an array of shape", "to resume", unchanged=[twin]):
        twin.fit(cut(X + 1, cuts, "z"), Y, epochs=4, resume=path, **options)


def test_many_networks_may_train_on_shards(tmp_path: Path) -> None:
    _, X, Y = problem("squared_error", "f4")
    networks = [make([4, n, 3], dtype="float32") for n in (3, 5)]
    twins = copy.deepcopy(networks)
    cut = Cut(tmp_path, [named, in_memory])
    rows = np.arange(N)[::-2]
    options: dict[str, Any] = {"epochs": 2, "seeds": 0, "rows": rows}
    nncore.fit_many(networks, X, Y, **options)
    nncore.fit_many(twins, cut(X, CUTS[0], "x"), cut(Y, CUTS[1], "y"), **options)
    assert all(twin.equals(net) for twin, net in zip(twins, networks, strict=True))


@pytest.mark.parametrize("own", [slice(3, 7), slice(8, 30), slice(0)])
@pytest.mark.parametrize("chosen", [None, np.arange(1, 180, 2)], ids=["all rows", "some rows"])
@pytest.mark.usefixtures("small_blocks")
def test_only_the_places_of_a_batch_that_are_needed_are_read(
    own: slice, chosen: Array | None, tmp_path: Path
) -> None:
    net, X, Y = problem("squared_error", "float32")
    order = np.random.default_rng(1).permutation(N if chosen is None else len(chosen))
    rows = order if chosen is None else chosen[order]
    batches = [slice(first, first + 20) for first in range(0, len(rows), 20)]
    expected = np.concatenate([rows[batch][own] for batch in batches])
    X[np.setdiff1d(np.arange(N), expected)] = np.nan  # would be refused
    files, read = Cut(tmp_path, [named])(X, [60, 150], "X"), list[list[Array]]()
    given = shards.Shards(files, Y, np.arange(N), net.architecture)
    places = shards.ShardData(given, chosen, lambda n_rows: own)
    with closing(places.pieces(order, 20, 0)) as pieces:
        for piece in pieces:
            assert piece.order is not None
            for first in range(0, piece.end, 20):
                needed = piece.order[first : first + 20][own]
                arrays: Any = piece.examples.arrays
                read.append([array[needed] for array in arrays])
    weights: Any = given.arrays[2]
    for found, array in zip(zip(*read, strict=True), (X, Y, weights), strict=True):
        np.testing.assert_array_equal(np.concatenate(found), array[expected])


def test_hints_look_at_shards(tmp_path: Path) -> None:
    net, X, Y = problem("squared_error", "f4")
    with pytest.warns(UserWarning, match="X has values up to 1e\\+05"):
        net.fit([named(X + 1e5, tmp_path / "x.npy")], Y, optimizer=nncore.SGD(1e-12))
