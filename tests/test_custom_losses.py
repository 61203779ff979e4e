"""Losses of users: `Network(loss=object)`."""

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from custom_losses import Array, ClassLoss, Custom, Recorder, residual, squared_error
from helpers import HIDDEN, OPTIMIZERS, Twin, assert_layers_close, data, is_near_a_kink, make, rtol

import nncore
from nncore.selftest import central_differences

DType = np.dtype[Any]


def problem(loss: Any, dtype: Any = "float32", n: int = 90) -> tuple[nncore.Network, Array, Array]:
    net = make([5, 7, 6, 3], loss=loss, output="identity", dtype=dtype)
    rng = np.random.default_rng(4)
    X, Y = rng.normal(size=(n, 5)), rng.normal(size=(n, 3))
    return net, X.astype(dtype), Y.astype(dtype)


WEIGHTS = np.where(np.arange(90) % 7, np.arange(90), 0.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "clipping": {"gradient_clipping": 0.1},
    "weights": {"sample_weight": WEIGHTS},
    "split": {"validation_split": 0.3, "sample_weight": WEIGHTS},
    "in order": {"shuffle": False},
    "threads": {"n_threads": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("create", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_makes_the_same_steps_as_with_the_equal_loss_of_nncore(
    create: Callable[[], nncore.Optimizer], options: dict[str, Any], dtype: DType
) -> None:
    histories, nets = [], []
    for loss in ("squared_error", Custom()):
        net, X, Y = problem(loss, dtype)
        validation = None if "validation_split" in options else (X[:20], Y[:20])
        histories.append(
            net.fit(
                X,
                Y,
                epochs=3,
                batch_size=16,
                optimizer=create(),
                seed=0,
                validation_data=validation,
                metrics=["r2"],
                **options,
            )
        )
        nets.append(net)
    assert nets[0].parameters.tobytes() == nets[1].parameters.tobytes()
    expected, history = histories
    np.testing.assert_allclose(history.loss, expected.loss, rtol=rtol(dtype))
    np.testing.assert_allclose(history.validation_loss, expected.validation_loss, rtol=rtol(dtype))
    assert history.metrics == expected.metrics


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_other_calls_equal_those_with_the_equal_loss_of_nncore(
    weighted: bool, dtype: DType
) -> None:
    weights = WEIGHTS if weighted else None
    known, X, Y = problem("squared_error", dtype)
    net, _, _ = problem(Custom(), dtype)
    for _ in range(3):
        losses = [
            each.train_on_batch(X, Y, nncore.SGD(0.1), sample_weight=weights, dropout=0.2)
            for each in (net, known)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=rtol(dtype))
        assert net.parameters.tobytes() == known.parameters.tobytes()
    gradients = [each.gradient(X, Y, sample_weight=weights) for each in (net, known)]
    assert gradients[0].tobytes() == gradients[1].tobytes()
    values = [each.evaluate(X, Y, sample_weight=weights) for each in (net, known)]
    assert values[0] == pytest.approx(values[1], rel=rtol(dtype))
    assert net.predict(X).tobytes() == known.predict(X).tobytes()
    dA = rng_like(X, 3)
    for own, other in zip(net.backward(X, dA), known.backward(X, dA), strict=True):
        assert own.tobytes() == other.tobytes()


def rng_like(X: Array, n: int) -> Array:
    return np.random.default_rng(8).normal(size=(len(X), n)).astype(X.dtype)


@pytest.mark.parametrize("output", [*HIDDEN, "exponential"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_gradient_equals_central_differences(output: str, weighted: bool) -> None:
    loss = Custom(lambda A, Y: np.cosh(A - Y).prod(axis=1), _cosh_product_delta)
    net = make([5, 4, 3], "tanh", loss, output)
    net.parameters = np.random.default_rng(12).normal(size=net.parameters.size) * 0.4
    X, Y = next(
        (X, Y)
        for X, Y in (data(net, 7, np.random.default_rng(seed)) for seed in range(1000))
        if not is_near_a_kink(net, X)
    )
    weights = np.random.default_rng(8).uniform(0.2, 3, len(X)) if weighted else None
    gradient = net.gradient(X, Y, sample_weight=weights)
    differences = central_differences(
        lambda: net.evaluate(X, Y, sample_weight=weights), net.parameters
    )
    assert_layers_close(Twin(net), gradient, differences, 1e-7)


def _cosh_product_delta(A: Array, Y: Array) -> Array:
    delta: Array = np.cosh(A - Y).prod(axis=1, keepdims=True) * np.tanh(A - Y)
    return delta


def test_softmax_outputs_learn_as_with_cross_entropy(dtype: DType) -> None:
    images, labels = nncore.datasets.load_digits()
    nets = [
        nncore.Network([64, 30, 10], output_activation="softmax", loss=loss, dtype=dtype, seed=0)
        for loss in ("cross_entropy", ClassLoss())
    ]
    for net in nets:
        net.fit(images, labels, epochs=1, seed=0)
    assert_layers_close(Twin(nets[0]), nets[1].parameters, nets[0].parameters, 30 * rtol(dtype))


# What the methods get


def test_both_methods_are_called_once_per_batch_with_its_outputs_and_targets() -> None:
    recorder = Recorder()
    net, X, Y = problem(recorder.loss(), n=40)
    Y = Y.astype("float64")
    outputs = net.predict(X)
    net.fit(X, Y, batch_size=16, shuffle=False, optimizer=nncore.SGD(1e-30), n_threads=2)
    for calls in recorder.calls.values():
        assert [len(A) for A, _ in calls] == [16, 16, 8]
        A, targets = (np.concatenate(part) for part in zip(*calls, strict=True))
        assert A.dtype == net.dtype
        assert targets.dtype == Y.dtype
        np.testing.assert_allclose(A, outputs, rtol=1e-5)
        assert targets.tobytes() == Y.tobytes()


def test_shuffled_targets_belong_to_their_outputs() -> None:
    recorder = Recorder()
    net, X, _ = problem(recorder.loss(), n=40)
    net.fit(X, net.predict(X), batch_size=16, optimizer=nncore.SGD(1e-30), seed=0)
    for A, Y in recorder.calls["delta"]:
        np.testing.assert_allclose(A, Y, rtol=1e-5)


@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_cannot_be_written_to_and_stay_as_they_are(shuffle: bool) -> None:
    recorder = Recorder()
    net, X, Y = problem(recorder.loss(), n=40)
    before = Y.copy()
    net.fit(X, Y, batch_size=8, shuffle=shuffle, seed=0)
    net.evaluate(X, Y)
    kept = [(A.copy(), targets.copy()) for A, targets in recorder.calls["value"]]
    net.fit(X, Y, batch_size=8, shuffle=shuffle, seed=0)
    for arrays, copies in zip(recorder.calls["value"], kept, strict=False):
        for array, as_it_was in zip(arrays, copies, strict=True):
            assert not array.flags.writeable
            assert array.tobytes() == as_it_was.tobytes()
    assert Y.flags.writeable
    assert Y.tobytes() == before.tobytes()


@pytest.mark.parametrize(
    "targets",
    [
        np.arange(90),
        np.arange(90 * 4, dtype=np.int8).reshape(90, 2, 2),
        np.full((90, 3), np.nan),
        np.arange(90.0, dtype=">f4"),
        np.arange(90)[::-1] % 2 == 0,
        list(range(90)),
    ],
    ids=["vector", "three dimensions", "nan", "big-endian", "bools", "list"],
)
def test_targets_of_any_shape_and_type_are_passed_as_they_are(targets: Any) -> None:
    got: list[Array] = []

    def value(A: Array, Y: Array) -> Array:
        got.append(Y)
        return A[:, 0]

    net, X, _ = problem(Custom(value, lambda A, Y: np.zeros_like(A)))
    net.fit(X, targets, batch_size=32, shuffle=False, validation_data=(X, targets))
    net.evaluate(X, targets)
    net.train_on_batch(X, targets, nncore.SGD())
    np.testing.assert_array_equal(np.concatenate(got[:3]), targets)
    for Y in got[3:]:
        np.testing.assert_array_equal(Y, targets)
        assert Y.dtype == np.asarray(targets).dtype


def test_mapped_files_are_read_in_parts(tmp_path: Path) -> None:
    recorder = Recorder()
    net, X, Y = problem(recorder.loss(), n=9000)
    mapped = []
    for name, array in (("X", X), ("Y", Y)):
        array.tofile(tmp_path / name)
        mapped.append(np.memmap(tmp_path / name, array.dtype, "r", shape=array.shape))
    assert net.evaluate(*mapped) == net.evaluate(X, Y)
    assert max(len(A) for A, _ in recorder.calls["value"]) < 9000
    same = copy.deepcopy(net)
    for each, arrays in ((net, mapped), (same, [X, Y])):
        each.fit(*arrays, batch_size=100, seed=0)
    assert net.parameters.tobytes() == same.parameters.tobytes()


def test_methods_run_on_the_calling_thread_only() -> None:
    threads = set()
    recorder = Recorder()
    loss = recorder.loss(lambda name, count: threads.add(threading.get_ident()))
    net, X, Y = problem(loss)
    net.fit(X, Y, epochs=3, batch_size=16, n_threads=4, validation_data=(X, Y))
    net.gradient(X, Y, n_threads=4)
    assert threads == {threading.get_ident()}


def test_a_loss_may_use_the_network_and_change_between_epochs() -> None:
    class Annealed:
        factor = 1.0

        def value(self, A: Array, Y: Array) -> Array:
            net.predict(X[:1])
            return self.factor * squared_error(A, Y)

        def delta(self, A: Array, Y: Array) -> Array:
            return self.factor * residual(A, Y)

    loss = Annealed()
    net, X, Y = problem(loss)

    def anneal(end: nncore.EpochEnd) -> None:
        loss.factor = 0.0

    before = net.evaluate(X, Y)
    history = net.fit(X, Y, epochs=3, seed=0, callbacks=[anneal])
    assert history.loss[0] < 2 * before
    assert history.loss[1:] == [0, 0]


# The argument


def test_outputs_are_identity_by_default_and_may_be_anything() -> None:
    outputs: list[Any] = [None, *HIDDEN, "exponential", "softmax"]
    for output in outputs:
        net = nncore.Network([2, 3, 2], loss=Custom(), output_activation=output)
        assert net.activation[-1] == (output or "identity")


def test_loss_is_the_object() -> None:
    loss = Custom()
    net = nncore.Network([2, 3], loss=loss)
    assert net.loss is loss
    assert "loss=Custom(" in repr(net)
    assert net.fold_scaling(0, 1).loss is loss


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Custom, r"instance, e\.g\. Custom\(\)"),
        (squared_error, r"value\(A, Y\)"),
        (None, "squared_error"),
        (3, "methods"),
        ("custom", "must be one of"),
    ],
)
def test_other_objects_are_refused(loss: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        nncore.Network([2, 3], loss=loss)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_and_pickles_have_an_equal_loss(
    duplicate: Callable[[nncore.Network], nncore.Network],
) -> None:
    net, X, Y = problem(Custom())
    other = duplicate(net)
    assert net.equals(other)
    assert other.evaluate(X, Y) == net.evaluate(X, Y)
    assert not net.equals(problem(Custom(value=residual))[0])
    assert not net.equals(problem("squared_error")[0])


def test_an_architecture_can_be_hashed_though_its_loss_cannot() -> None:
    class Unhashable(ClassLoss):
        __hash__ = None  # type: ignore[assignment]

    net = nncore.Network([2, 3], loss=Unhashable())
    assert net.architecture in {net.architecture: 1}


# Metrics and hints


def test_named_metrics_accept_labels_of_any_form() -> None:
    images, labels = nncore.datasets.load_digits()
    net = nncore.Network([64, 10], loss=ClassLoss(), output_activation="softmax", seed=0)
    options: dict[str, Any] = {"metrics": ["accuracy"], "training_metrics": True}
    history = net.fit(images, labels.astype(np.int8), **options)
    right = (net.predict(images).argmax(axis=1) == labels).mean()
    assert history.metrics["accuracy"] == [right]

    even = labels % 2 == 0
    binary = Custom(lambda A, Y: squared_error(A, Y[:, None]), lambda A, Y: A - Y[:, None])
    net = nncore.Network([64, 1], loss=binary, output_activation="sigmoid", seed=0)
    history = net.fit(images, even, **options)
    right = ((net.predict(images)[:, 0] > 0.5) == even).mean()
    assert history.metrics["accuracy"] == [right]


def test_named_metrics_refuse_targets_of_another_shape() -> None:
    net, X, _ = problem(Custom(lambda A, Y: A[:, 0], lambda A, Y: A))
    with pytest.raises(ValueError, match=r"'r2' needs targets of shape \(n_samples, 3\)"):
        net.fit(X, np.ones((90, 4)), metrics=["r2"], training_metrics=True)


@pytest.mark.filterwarnings("error")
def test_targets_beyond_the_outputs_give_no_warning() -> None:
    net = nncore.Network([5, 3], loss=Custom(), output_activation="sigmoid", seed=0)
    X, Y = np.ones((9, 5)), np.full((9, 3), 7.0)
    net.fit(X, Y)
