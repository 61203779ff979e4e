import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import HIDDEN, PAIRS, Array, Twin, assert_layers_close, data, make, make_lively

import nncore

DType = np.dtype[Any]
INITS = ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "normal"]

# Depths 1 to 4: widths that are odd, small and unequal.
SIZES = [[5, 3], [5, 4, 3], [5, 4, 6, 3], [5, 4, 6, 4, 3]]


def rtol(dtype: DType) -> float:
    return 1e3 * float(np.finfo(dtype).eps)


# Construction


def test_attributes_say_what_was_asked_for() -> None:
    net = nncore.Network(
        [np.int8(4), 3, np.uint64(2)],  # type: ignore[list-item]
        activation=["relu", "softmax"],
        loss="cross_entropy",
        dtype="float64",
    )
    assert net.sizes == (4, 3, 2)
    assert all(type(size) is int for size in net.sizes)
    assert net.activation == ("relu", "softmax")
    assert net.loss == "cross_entropy"
    assert net.dtype == np.float64


def test_defaults_are_sigmoid_squared_error_float32_and_glorot_uniform() -> None:
    net = nncore.Network([3, 2, 1], seed=5)
    assert net.activation == ("sigmoid", "sigmoid")
    assert net.loss == "squared_error"
    assert net.dtype == np.float32
    assert net.equals(nncore.Network([3, 2, 1], init="glorot_uniform", seed=5))


@pytest.mark.parametrize("name", ["sizes", "activation", "loss", "dtype"])
def test_architecture_cannot_be_assigned(name: str) -> None:
    net = make([3, 2])
    with pytest.raises(AttributeError):
        setattr(net, name, getattr(net, name))


@pytest.mark.parametrize("name", ["weights", "biases"])
def test_views_cannot_be_replaced_by_arrays_that_are_none(name: str) -> None:
    net = make([3, 2])
    with pytest.raises(AttributeError):
        setattr(net, name, tuple(np.zeros_like(view) for view in getattr(net, name)))


@pytest.mark.parametrize("given", ["float32", np.float32, np.dtype("f4"), "f4", "single"])
def test_dtype_may_be_given_in_every_way_of_numpy(given: npt.DTypeLike) -> None:
    assert nncore.Network([2, 1], dtype=given).dtype == np.float32


# Parameters and their views


@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_hold_weights_then_biases_of_each_layer(sizes: list[int], dtype: DType) -> None:
    net = nncore.Network(sizes, dtype=dtype, init="normal", seed=0)
    parts = [
        part.reshape(-1) for W, b in zip(net.weights, net.biases, strict=True) for part in (W, b)
    ]
    assert net.parameters.tobytes() == np.concatenate(parts).tobytes()
    assert [W.shape for W in net.weights] == list(pairwise(sizes))
    assert [b.shape for b in net.biases] == [(n,) for n in sizes[1:]]


def test_parameters_are_one_aligned_writable_vector(dtype: DType) -> None:
    networks = [nncore.Network([3, n, 2], dtype=dtype) for n in range(1, 20)]
    for net in networks:
        assert net.parameters.ctypes.data % 64 == 0
        assert net.parameters.flags.c_contiguous
        assert net.parameters.flags.writeable
        assert net.parameters.dtype == dtype
        assert net.parameters.ndim == 1


def test_views_write_through_to_parameters_and_to_predictions(dtype: DType) -> None:
    net = nncore.Network([2, 3, 1], activation="identity", dtype=dtype)
    net.parameters[:] = 0
    net.weights[1][2, 0] = 5
    net.biases[0][2] = 7
    assert net.parameters.tolist() == [0] * 6 + [0, 0, 7] + [0, 0, 5] + [0]
    assert net.predict([[1, 1]]).tolist() == [[35]]
    assert [A.tolist() for A in net.layer_outputs([[1, 1]])] == [[[0, 0, 7]], [[35]]]


def test_parameters_can_be_changed_in_place_through_the_attribute(rng: np.random.Generator) -> None:
    net = make([3, 4, 2])
    vector, before, step = net.parameters, net.parameters.copy(), rng.normal(size=26)
    net.parameters -= step
    assert net.parameters is vector
    assert vector.tobytes() == (before - step).tobytes()


@pytest.mark.parametrize("given", [np.float16, np.int8, ">f8", list])
def test_assigned_parameters_are_copied_in(given: Any, dtype: DType) -> None:
    net = nncore.Network([2, 3, 2], dtype=dtype)
    vector = net.parameters
    values: Any = np.arange(17)
    values = values.tolist() if given is list else values.astype(given)
    net.parameters = values
    assert net.parameters is vector
    assert vector.tolist() == list(range(17))
    assert net.biases[1].tolist() == [15, 16]
    if given is not list:
        values[:] = 0
        assert vector.tolist() == list(range(17))


def test_parameters_can_be_assigned_from_a_view_of_themselves() -> None:
    net = make([2, 3, 2])
    wanted = net.parameters[::-1].copy()
    net.parameters = net.parameters[::-1]
    assert net.parameters.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("values", "error", "got"),
    [
        (np.zeros(3), ValueError, "(3,)"),
        (np.zeros((1, 17)), ValueError, "(1, 17)"),
        (0.0, ValueError, "()"),
        (np.full(17, np.nan), ValueError, "nan"),
        (np.full(17, 1e300), ValueError, "inf"),
        (["a"] * 17, TypeError, "<U1"),
        (np.zeros(17, dtype=complex), TypeError, "complex128"),
    ],
)
def test_wrong_parameters_are_refused(values: Any, error: type[Exception], got: str) -> None:
    net = nncore.Network([2, 3, 2])
    before = net.parameters.tobytes()
    with pytest.raises(error, match="parameters must") as raised:
        net.parameters = values
    assert got in str(raised.value)
    assert net.parameters.tobytes() == before


# Initialisers


@pytest.mark.parametrize("init", INITS)
def test_initial_weights_have_the_variance_of_their_initialiser(init: str) -> None:
    n_prev, n = 300, 200
    (W,) = nncore.Network([n_prev, n], dtype="float64", init=init, seed=3).weights
    variance = {"glorot": 2 / (n_prev + n), "he": 2 / n_prev, "normal": 1.0}[init.split("_")[0]]
    # Ten standard errors of mean and variance, which the normal distribution has the larger of.
    count = W.size
    assert abs(W.mean()) < 10 * np.sqrt(variance / count)
    assert abs(W.var() / variance - 1) < 10 * np.sqrt(2 / count)
    largest = np.abs(W).max() / np.sqrt(variance)
    if init.endswith("uniform"):
        assert np.sqrt(3) * 0.999 < largest <= np.sqrt(3)
    else:
        assert 3.5 < largest < 7


@pytest.mark.parametrize("init", INITS)
def test_each_layer_is_drawn_with_its_own_sizes_and_anew(init: str) -> None:
    net = nncore.Network([100, 100, 100, 400], dtype="float64", init=init, seed=4)
    first, second, third = (W.std() for W in net.weights)
    wider = {"glorot": np.sqrt(200 / 500), "he": 1.0, "normal": 1.0}[init.split("_")[0]]
    assert second == pytest.approx(first, rel=0.05)
    assert third == pytest.approx(wider * first, rel=0.05)
    assert not np.array_equal(net.weights[0], net.weights[1])


@pytest.mark.parametrize("init", INITS)
def test_biases_start_at_zero_except_with_normal(init: str) -> None:
    (b,) = nncore.Network([2, 4000], dtype="float64", init=init, seed=0).biases
    if init == "normal":
        assert abs(b.mean()) < 0.2
        assert abs(b.std() - 1) < 0.2
    else:
        assert (b == 0).all()


@pytest.mark.parametrize("init", INITS)
def test_same_seed_gives_the_same_values_in_both_types(init: str) -> None:
    single, double = (nncore.Network([7, 5, 3], dtype=d, init=init, seed=11) for d in ("f4", "f8"))
    assert single.parameters.tobytes() == double.parameters.astype("f4").tobytes()


def test_seeds_and_generators_say_what_is_drawn() -> None:
    def first(seed: Any) -> bytes:
        return nncore.Network([4, 3], seed=seed).parameters.tobytes()

    rng = np.random.default_rng(1)
    assert first(1) == first(1) == first(rng)
    assert first(1) != first(rng)
    assert first(1) != first(2)
    assert first(None) != first(None)


# repr, copies, comparison


def test_repr_shows_layers_and_parameter_counts() -> None:
    net = nncore.Network([784, 100, 10], activation=["relu", "softmax"], loss="cross_entropy")
    assert repr(net).splitlines() == [
        "Network([784, 100, 10], loss='cross_entropy', dtype='float32'), 79,510 parameters",
        "  1  784 -> 100  relu     78,500",
        "  2  100 -> 10   softmax   1,010",
    ]


def through_pickle(protocol: int) -> Callable[[nncore.Network], nncore.Network]:
    def copied(net: nncore.Network) -> nncore.Network:
        result: nncore.Network = pickle.loads(pickle.dumps(net, protocol))
        return result

    return copied


COPIES = [copy.copy, copy.deepcopy, *map(through_pickle, range(pickle.HIGHEST_PROTOCOL + 1))]
COPY_IDS = ["copy", "deepcopy", *(f"pickle{p}" for p in range(pickle.HIGHEST_PROTOCOL + 1))]


@pytest.mark.parametrize("copied", COPIES, ids=COPY_IDS)
def test_copy_is_equal_and_independent(
    copied: Callable[[nncore.Network], nncore.Network], dtype: DType, rng: np.random.Generator
) -> None:
    net = make([3, 4, 2], hidden="elu", loss="cross_entropy", dtype=dtype)
    X, Y = data(net, 20, rng)
    net.fit(X, Y, seed=0)
    twin = copied(net)
    assert twin.equals(net)
    assert repr(twin) == repr(net)
    assert twin.parameters.ctypes.data % 64 == 0
    assert twin.predict(X).tobytes() == net.predict(X).tobytes()

    before = net.parameters.tobytes()
    twin.fit(X, Y, seed=0)
    twin.weights[0][0, 0] = 9
    assert twin.parameters[0] == 9
    assert net.parameters.tobytes() == before
    assert not twin.equals(net)


def test_pickle_holds_parameters_and_little_else() -> None:
    net = nncore.Network([100, 100, 10])
    net.fit(np.zeros((256, 100)), np.zeros((256, 10)), batch_size=256)
    assert len(pickle.dumps(net)) < net.parameters.nbytes + 2000


def test_networks_are_equal_only_as_the_same_object() -> None:
    net = make([3, 2])
    twin = copy.deepcopy(net)
    assert net == net
    assert net != twin
    assert len({net, twin}) == 2


@pytest.mark.parametrize(
    "other",
    [
        make([3, 4, 2], seed=2),
        make([3, 4, 2], dtype="float32"),
        make([3, 4, 2], hidden="relu"),
        make([3, 4, 2], loss="binary_cross_entropy"),
        make([3, 4, 3]),
        None,
        make([3, 4, 2]).parameters,
    ],
)
def test_equals_sees_every_difference(other: Any) -> None:
    assert not make([3, 4, 2]).equals(other)
    assert make([3, 4, 2]).equals(make([3, 4, 2]))


# (1) and (2)


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 700])
def test_predict_is_the_last_of_the_layer_outputs(
    n: int, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 6, 3], hidden="softplus", loss="cross_entropy", dtype=dtype)
    X, _ = data(net, n, rng)
    outputs = net.layer_outputs(X)
    assert [A.shape for A in outputs] == [(n, 4), (n, 6), (n, 3)]
    assert all(A.dtype == dtype for A in outputs)
    prediction = net.predict(X)
    assert prediction.dtype == dtype
    np.testing.assert_allclose(prediction, outputs[-1], rtol=rtol(dtype))


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("loss", "output"), PAIRS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_network_equals_the_reference(
    hidden: str, loss: str, output: str, weighted: bool, dtype: DType, rng: np.random.Generator
) -> None:
    net = make_lively([5, 4, 6, 3], hidden, loss, output, dtype=dtype)
    X, Y = data(net, 300, rng)
    weights = rng.uniform(0.5, 2, 300).astype(dtype) if weighted else None
    # In float64 for both types, so that only the compiled float32 rounds.
    twin = Twin(net)
    for A, expected in zip(net.layer_outputs(X), twin.outputs(X), strict=True):
        np.testing.assert_allclose(A, expected, rtol=rtol(dtype), atol=rtol(dtype))
    loss_ = net.evaluate(X, Y, sample_weight=weights)
    assert type(loss_) is float
    assert loss_ == pytest.approx(twin.mean_loss(X, Y, weights), rel=rtol(dtype))
    gradient = net.gradient(X, Y, sample_weight=weights)
    assert gradient.dtype == dtype
    assert_layers_close(twin, gradient, twin.gradient(X, Y, weights), rtol(dtype))


def test_outputs_and_gradients_are_new_arrays_each_time(rng: np.random.Generator) -> None:
    net = make([3, 4, 2])
    X, Y = data(net, 5, rng)
    for results in (
        [net.predict(X), net.predict(X)],
        [net.gradient(X, Y), net.gradient(X, Y)],
        [net.layer_outputs(X)[0], net.layer_outputs(X)[0]],
    ):
        assert not np.shares_memory(results[0], results[1])
        assert results[0].tobytes() == results[1].tobytes()
        assert not np.shares_memory(results[0], net.parameters)
    before = net.gradient(X, Y)
    kept = before.copy()
    net.gradient(2 * X, Y)
    assert before.tobytes() == kept.tobytes()


def test_no_rows_give_no_outputs(dtype: DType) -> None:
    net = make([3, 4, 2], dtype=dtype)
    empty = np.empty((0, 3))
    assert net.predict(empty).shape == (0, 2)
    assert net.predict(empty).dtype == dtype
    assert [A.shape for A in net.layer_outputs(empty)] == [(0, 4), (0, 2)]


def test_predictions_of_a_row_do_not_depend_on_the_others_beyond_rounding(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 7, 3], dtype=dtype)
    X, _ = data(net, 600, rng)
    one_by_one = np.concatenate([net.predict(row[np.newaxis]) for row in X])
    np.testing.assert_allclose(net.predict(X), one_by_one, rtol=rtol(dtype))


# (3) to (5)


CASES = [
    pytest.param(sizes, hidden, loss, output, id=f"{loss}-{output}-{hidden}-{len(sizes) - 1}")
    for loss, output in PAIRS
    for sizes in SIZES
    for hidden in HIDDEN
    # The diagonal will do where hidden and output layers may be anything.
    if (hidden == output if loss == "squared_error" else len(sizes) > 2 or hidden == "tanh")
]


def away_from_kinks(net: nncore.Network, seed: int) -> tuple[Array, Array]:
    """Return data for which no unit with a kink at 0 comes near it."""
    for attempt in range(1000):
        X, Y = data(net, 7, np.random.default_rng([seed, attempt]))
        A_prev = [X, *net.layer_outputs(X)]
        Z = [a @ W + b for a, W, b in zip(A_prev[:-1], net.weights, net.biases, strict=True)]
        kinked = [z for z, name in zip(Z, net.activation, strict=True) if name[-2:] == "lu"]
        if net.loss in ("absolute_error", "huber"):
            residual = np.abs(A_prev[-1] - Y)
            kinked += [residual] if net.loss == "absolute_error" else [residual - 1]
        if all(np.abs(z).min() > 0.01 for z in kinked):
            return X, Y
    raise AssertionError("no data away from the kinks")


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("sizes", "hidden", "loss", "output"), CASES)
def test_gradient_equals_central_differences(
    sizes: list[int], hidden: str, loss: str, output: str, weighted: bool
) -> None:
    net = make_lively(sizes, hidden, loss, output, seed=12)
    X, Y = away_from_kinks(net, seed=2)
    weights = np.random.default_rng(8).uniform(0.2, 3, len(X)) if weighted else None
    gradient = net.gradient(X, Y, sample_weight=weights)

    def slope(i: int, h: float) -> float:
        w = net.parameters[i]
        losses = []
        for shifted in (w + h, w - h):
            net.parameters[i] = shifted
            losses.append(net.evaluate(X, Y, sample_weight=weights))
        net.parameters[i] = w
        return (losses[0] - losses[1]) / (2 * h)

    # Two central differences, of h and 2 h, whose errors of the order of h² cancel: with this h
    # what is left is some 1e-12, of the loss's rounding and of the order of h⁴ alike.
    h = 2e-4
    differences = np.array(
        [(4 * slope(i, h) - slope(i, 2 * h)) / 3 for i in range(net.parameters.size)]
    )
    assert_layers_close(Twin(net), gradient, differences, 1e-7)
    assert np.linalg.norm(gradient) > 1e-3


@pytest.mark.parametrize(("sizes", "hidden", "loss", "output"), CASES)
def test_gradient_in_float32_equals_that_in_float64(
    sizes: list[int], hidden: str, loss: str, output: str
) -> None:
    single = make_lively(sizes, hidden, loss, output, dtype="float32", seed=12)
    double = make(sizes, hidden, loss, output)
    double.parameters = single.parameters
    X, Y = away_from_kinks(double, seed=2)
    X, Y = X.astype("f4"), Y.astype("f4")
    if loss == "cross_entropy":
        Y[:, -1] = 1 - Y[:, :-1].sum(axis=1)
    gradient = single.gradient(X, Y)
    assert gradient.dtype == np.float32
    assert_layers_close(Twin(double), gradient, double.gradient(X, Y), 1e-5)


@pytest.mark.parametrize("n", [255, 256, 257, 512, 1000])
def test_gradient_and_loss_are_means_however_many_rows_there_are(
    n: int, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], loss="cross_entropy", dtype=dtype)
    X, Y = data(net, n, rng)
    rows = [(X[i : i + 1], Y[i : i + 1]) for i in range(n)]
    losses = [net.evaluate(*row) for row in rows]
    mean: Array = np.stack([net.gradient(*row) for row in rows]).mean(axis=0, dtype=np.float64)
    assert_layers_close(Twin(net), net.gradient(X, Y), mean, rtol(dtype))
    assert net.evaluate(X, Y) == pytest.approx(np.mean(losses), rel=rtol(dtype))


# sample_weight


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "cross_entropy"])
def test_integer_weights_equal_repeated_rows(
    loss: str, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], loss=loss, dtype=dtype)
    X, Y = data(net, 300, rng)
    counts = rng.integers(0, 4, 300)
    X_again, Y_again = np.repeat(X, counts, axis=0), np.repeat(Y, counts, axis=0)
    assert net.evaluate(X, Y, sample_weight=counts) == pytest.approx(
        net.evaluate(X_again, Y_again), rel=rtol(dtype)
    )
    assert_layers_close(
        Twin(net),
        net.gradient(X, Y, sample_weight=counts),
        net.gradient(X_again, Y_again),
        rtol(dtype),
    )


def test_zero_weight_equals_a_removed_row(dtype: DType, rng: np.random.Generator) -> None:
    net = make([5, 4, 3], dtype=dtype)
    X, Y = data(net, 600, rng)
    weights = rng.uniform(0.5, 2, 600)
    weights[rng.permutation(600)[:400]] = 0
    # A whole internal batch without weight.
    weights[:256] = 0
    kept = weights > 0
    assert net.evaluate(X, Y, sample_weight=weights) == pytest.approx(
        net.evaluate(X[kept], Y[kept], sample_weight=weights[kept]), rel=rtol(dtype)
    )
    assert_layers_close(
        Twin(net),
        net.gradient(X, Y, sample_weight=weights),
        net.gradient(X[kept], Y[kept], sample_weight=weights[kept]),
        rtol(dtype),
    )


@pytest.mark.parametrize("factor", [2.0**-20, 1e-3, 7.0, 1e6, 1e-30, 1e-37, 1e30, 1e36])
def test_only_ratios_of_weights_matter(
    factor: float, dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], dtype=dtype)
    X, Y = data(net, 40, rng)
    weights = rng.uniform(0.1, 1, 40).astype(dtype)
    scaled = (weights * factor).astype(dtype)
    assert net.evaluate(X, Y, sample_weight=scaled) == pytest.approx(
        net.evaluate(X, Y, sample_weight=weights), rel=rtol(dtype)
    )
    assert_layers_close(
        Twin(net),
        net.gradient(X, Y, sample_weight=scaled),
        net.gradient(X, Y, sample_weight=weights),
        rtol(dtype),
    )


# At the edge of the type: sums that overflow, reciprocals that overflow.
@pytest.mark.parametrize(
    ("kind", "weight"), [("f4", 1e-39), ("f4", 3e38), ("f8", 1e-309), ("f8", 1e308)]
)
def test_extreme_weights_that_are_finite_give_the_plain_mean(
    kind: str, weight: float, rng: np.random.Generator
) -> None:
    net = make([5, 4, 3], dtype=kind)
    X, Y = data(net, 4, rng)
    weights = np.full(4, weight, dtype=kind)
    # Close to zero the weight itself has few digits, but all four are alike.
    assert net.evaluate(X, Y, sample_weight=weights) == pytest.approx(net.evaluate(X, Y), rel=1e-5)
    assert_layers_close(
        Twin(net), net.gradient(X, Y, sample_weight=weights), net.gradient(X, Y), 1e-5
    )


# Targets


def test_class_indices_equal_their_indicator_vectors(
    dtype: DType, rng: np.random.Generator
) -> None:
    net = make([5, 4, 7], loss="cross_entropy", dtype=dtype)
    X, _ = data(net, 600, rng)
    labels = rng.integers(0, 7, 600)
    indicators = np.eye(7, dtype=dtype)[labels]
    assert net.evaluate(X, labels) == net.evaluate(X, indicators)
    assert net.gradient(X, labels).tobytes() == net.gradient(X, indicators).tobytes()
    twins = [copy.deepcopy(net) for _ in range(2)]
    for twin, Y in zip(twins, [labels, indicators], strict=True):
        twin.fit(X, Y, seed=0, validation_data=(X, Y))
    assert twins[0].equals(twins[1])


@pytest.mark.parametrize("kind", ["i1", "u1", "<i4", ">i4", ">i8", "u8", list, "strided"])
def test_class_indices_may_have_every_integer_type(kind: Any, rng: np.random.Generator) -> None:
    net = make([5, 4, 7], loss="cross_entropy")
    X, _ = data(net, 50, rng)
    labels = rng.integers(0, 7, 50)
    given: Any = labels.tolist() if kind is list else labels
    if kind == "strided":
        given = np.repeat(labels, 3)[::-3][::-1]
    elif kind is not list:
        given = labels.astype(kind)
    assert net.gradient(X, given).tobytes() == net.gradient(X, labels).tobytes()


def test_a_vector_of_targets_will_do_for_one_output(dtype: DType, rng: np.random.Generator) -> None:
    net = make([5, 4, 1], dtype=dtype)
    X, Y = data(net, 50, rng)
    assert net.evaluate(X, Y[:, 0]) == net.evaluate(X, Y)
    assert net.gradient(X, Y[:, 0]).tobytes() == net.gradient(X, Y).tobytes()
    wide = np.repeat(Y, 3, axis=1)
    assert net.gradient(X, wide[:, 1]).tobytes() == net.gradient(X, Y).tobytes()


def test_loss_of_saturated_probabilities_is_finite(dtype: DType) -> None:
    net = nncore.Network([1, 1], activation="sigmoid", loss="binary_cross_entropy", dtype=dtype)
    net.weights[0][:] = 1000
    loss = net.evaluate([[1.0], [-1.0]], [0, 1])
    assert loss == pytest.approx(-np.log(np.finfo(dtype).eps), rel=1e-6)
    assert np.isfinite(net.gradient([[1.0], [-1.0]], [0, 1])).all()


# Threads


@pytest.mark.parametrize("n", [3, 700])
def test_threads_can_use_one_network_at_once(n: int, rng: np.random.Generator) -> None:
    net = make([20, 50, 40, 3], loss="cross_entropy")
    inputs = [data(net, n, rng) for _ in range(4)]

    def results(X: Array, Y: Array) -> list[bytes]:
        return [
            net.predict(X).tobytes(),
            np.float64(net.evaluate(X, Y)).tobytes(),
            net.gradient(X, Y).tobytes(),
            net.layer_outputs(X)[1].tobytes(),
        ]

    expected = [results(*each) for each in inputs]
    together = threading.Barrier(len(inputs))

    def work(i: int) -> bool:
        together.wait()
        return all(results(*inputs[i]) == expected[i] for _ in range(8))

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(work, range(len(inputs))))


def test_prediction_inside_another_threads_training_of_another_network(
    rng: np.random.Generator,
) -> None:
    net, other = make([20, 50, 3]), make([20, 50, 3])
    X, Y = data(net, 700, rng)
    expected = net.predict(X).tobytes()
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(other.fit, X, Y, epochs=20, batch_size=4, seed=0)
        assert net.predict(X).tobytes() == expected
        while not training.done():
            assert net.predict(X).tobytes() == expected
        assert len(training.result()) == 20


# Sizes


@pytest.mark.parametrize("sizes", [[2**31, 1], [1, 2**31], [1, 2**40, 1], [2**63, 2]])
def test_sizes_beyond_the_integers_of_blas_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"sizes\[[01]\] must be at most 2147483647.*BLAS.*got"):
        nncore.Network(sizes)


@pytest.mark.parametrize("sizes", [[2**31 - 1] * 2, [2**31 - 1] * 4])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_networks_beyond_the_address_space_are_refused(sizes: list[int], kind: str) -> None:
    with pytest.raises((ValueError, MemoryError), match=r"(?i)sizes|memory|allocate"):
        nncore.Network(sizes, dtype=kind)
