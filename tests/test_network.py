"""A network's architecture, parameters, initialisers and copies."""

import copy
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from helpers import (
    SIZES,
    data,
    make,
)

import nncore
from nncore.architecture import FLOATS
from nncore.typing import InitName

DType = np.dtype[Any]

INITS = get_args(InitName)


# Construction


def test_attributes_equal_the_arguments() -> None:
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


def test_defaults_are_relu_squared_error_float32_and_glorot_uniform() -> None:
    net = nncore.Network([3, 2, 1], seed=5)
    assert net.activation == ("relu", "identity")
    assert net.loss == "squared_error"
    assert net.dtype == np.float32
    assert net.equals(nncore.Network([3, 2, 1], init="glorot_uniform", seed=5))


@pytest.mark.parametrize("name", ["sizes", "activation", "loss", "dtype"])
def test_architecture_cannot_be_assigned(name: str) -> None:
    net = make([3, 2])
    with pytest.raises(AttributeError):
        setattr(net, name, getattr(net, name))


@pytest.mark.parametrize("name", ["weights", "biases"])
def test_weights_and_biases_cannot_be_assigned(name: str) -> None:
    net = make([3, 2])
    with pytest.raises(AttributeError):
        setattr(net, name, tuple(np.zeros_like(view) for view in getattr(net, name)))


@pytest.mark.parametrize("given", ["float32", np.float32, np.dtype("f4"), "f4", "single"])
def test_dtype_accepts_every_form_that_numpy_does(given: Any) -> None:
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
def test_initial_weights_have_the_variance_of_their_initialiser(init: InitName) -> None:
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
def test_each_layer_is_drawn_separately_with_its_own_sizes(init: InitName) -> None:
    net = nncore.Network([100, 100, 100, 400], dtype="float64", init=init, seed=4)
    first, second, third = (W.std() for W in net.weights)
    wider = {"glorot": np.sqrt(200 / 500), "he": 1.0, "normal": 1.0}[init.split("_")[0]]
    assert second == pytest.approx(first, rel=0.05)
    assert third == pytest.approx(wider * first, rel=0.05)
    assert not np.array_equal(net.weights[0], net.weights[1])


@pytest.mark.parametrize("init", INITS)
def test_biases_start_at_zero_except_with_normal(init: InitName) -> None:
    (b,) = nncore.Network([2, 4000], dtype="float64", init=init, seed=0).biases
    if init == "normal":
        assert abs(b.mean()) < 0.2
        assert abs(b.std() - 1) < 0.2
    else:
        assert (b == 0).all()


@pytest.mark.parametrize("init", INITS)
def test_same_seed_gives_the_same_values_in_both_types(init: InitName) -> None:
    single, double = (nncore.Network([7, 5, 3], dtype=d, init=init, seed=11) for d in FLOATS)
    assert single.parameters.tobytes() == double.parameters.astype("f4").tobytes()


def test_seeds_and_generators_determine_the_parameters() -> None:
    def first(seed: Any) -> bytes:
        return nncore.Network([4, 3], seed=seed).parameters.tobytes()

    rng = np.random.default_rng(1)
    assert first(1) == first(1) == first(rng)
    assert first(1) != first(rng)
    assert first(1) != first(2)
    assert first(None) != first(None)


# repr, copies, comparison


def test_repr_shows_layers_and_parameter_counts() -> None:
    net = nncore.Network([784, 100, 10], loss="cross_entropy")
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


# Sizes


@pytest.mark.parametrize("sizes", [[2**31, 1], [1, 2**31], [1, 2**40, 1], [2**63, 2]])
def test_sizes_beyond_the_integers_of_blas_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"sizes\[[01]\] must be at most 2147483647.*BLAS.*got"):
        nncore.Network(sizes)


@pytest.mark.parametrize("sizes", [[2**31 - 1] * 2, [2**31 - 1] * 4])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_networks_beyond_the_address_space_are_refused(sizes: list[int], kind: Any) -> None:
    with pytest.raises((ValueError, MemoryError), match=r"(?i)sizes|memory|allocate"):
        nncore.Network(sizes, dtype=kind)
