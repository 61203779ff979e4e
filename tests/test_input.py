"""What a user may pass in: the design's table of input and errors, row by row."""

import itertools
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.sparse
from helpers import Array, data, make, refused, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

import nncore

N = 30


class Setting:
    """A network, an optimizer in mid-training, and data that fit them."""

    def __init__(self, sizes: list[int], loss: str = "squared_error", dtype: Any = "f4") -> None:
        self.net = make(sizes, loss=loss, dtype=dtype)
        self.X, self.Y = data(self.net, N, np.random.default_rng(2))
        self.optimizer = nncore.Adam(0.01)
        self.net.fit(self.X, self.Y, optimizer=self.optimizer, seed=0)
        self.rng = np.random.default_rng(5)

    @property
    def everything(self) -> tuple[Any, ...]:
        return self.net, self.optimizer, self.rng, self.X, self.Y

    def fit(self, X: Any, Y: Any, **options: Any) -> object:
        options = {"optimizer": self.optimizer, "seed": self.rng, **options}
        return self.net.fit(X, Y, **options)

    def call(self, name: str, X: Any, Y: Any, **options: Any) -> object:
        if name in ("predict", "layer_outputs"):
            return getattr(self.net, name)(X)
        if name == "fit":
            return self.fit(X, Y, **options)
        if name == "train_on_batch":
            return self.net.train_on_batch(X, Y, self.optimizer, **options)
        return getattr(self.net, name)(X, Y, **options)


@pytest.fixture
def setting() -> Setting:
    return Setting([4, 5, 2])


TAKES_X = ["predict", "layer_outputs", "evaluate", "gradient", "train_on_batch", "fit"]
TAKES_Y = ["evaluate", "gradient", "train_on_batch", "fit"]


# Shapes


@pytest.mark.parametrize("call", TAKES_X)
@pytest.mark.parametrize(
    "shape", [(), (4,), (N,), (N, 3), (N, 5), (N, 0), (4, N), (N, 4, 1), (1, N, 4), (0,)]
)
def test_wrong_shape_of_inputs_is_refused(
    setting: Setting, call: str, shape: tuple[int, ...]
) -> None:
    expected = ("X must have shape (n_samples, 4)", f"got {shape}")
    with refused(ValueError, *expected, unchanged=setting.everything):
        setting.call(call, np.zeros(shape), setting.Y)


def test_a_single_example_is_told_how_to_become_a_row(setting: Setting) -> None:
    with pytest.raises(ValueError, match=r"X\[np\.newaxis\]"):
        setting.net.predict(np.zeros(4))


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize("shape", [(), (N,), (2,), (N, 1), (N, 3), (2, N), (N, 2, 1), (0,), (0, 3)])
def test_wrong_shape_of_targets_is_refused(
    setting: Setting, call: str, shape: tuple[int, ...]
) -> None:
    expected = ("Y must have shape (n_samples, 2)", f"got {shape}")
    with refused(ValueError, *expected, unchanged=setting.everything):
        setting.call(call, setting.X, np.zeros(shape))


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize("rows", [0, 1, N - 1, N + 1, 2 * N])
def test_other_number_of_rows_in_targets_is_refused(setting: Setting, call: str, rows: int) -> None:
    with refused(ValueError, "Y", "rows", str(N), str(rows), unchanged=setting.everything):
        setting.call(call, setting.X, np.zeros((rows, 2)))


@pytest.mark.parametrize("call", TAKES_Y)
def test_no_rows_are_refused_where_a_mean_is_taken(setting: Setting, call: str) -> None:
    with refused(ValueError, "X", "at least 1 row", "(0, 4)", unchanged=setting.everything):
        setting.call(call, np.zeros((0, 4)), np.zeros((0, 2)))


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize("shape", [(), (1,), (N - 1,), (N + 1,), (N, 1), (1, N), (N, 2), (0,)])
def test_wrong_shape_of_sample_weight_is_refused(
    setting: Setting, call: str, shape: tuple[int, ...]
) -> None:
    expected = ("sample_weight", f"({N},)", f"got {shape}")
    with refused(ValueError, *expected, unchanged=setting.everything):
        setting.call(call, setting.X, setting.Y, sample_weight=np.ones(shape))


# Types

NOT_NUMBERS: list[tuple[Callable[[Array], Any], type[Exception], str]] = [
    (lambda a: a.astype(str), TypeError, "<U"),
    (lambda a: a.astype(bytes), TypeError, "|S"),
    (lambda a: a.astype(str).tolist(), TypeError, "<U"),
    (lambda a: a.astype(str).astype(object), TypeError, "'"),
    (lambda a: a.astype(complex), TypeError, "complex128"),
    (lambda a: a.astype(complex).astype(object), TypeError, "j"),
    (lambda a: a.astype("M8[s]"), TypeError, "datetime64"),
    (lambda a: a.astype("m8[s]"), TypeError, "timedelta64"),
    (lambda a: np.zeros(a.shape, "f4,f4"), TypeError, "f0"),
    (lambda a: np.full(a.shape, object()), TypeError, "object"),
    (lambda a: np.full(a.shape, None), (TypeError, ValueError), "n"),  # type: ignore[list-item]
    (lambda a: [[{}] * a.shape[-1]] * len(a), TypeError, "{}"),
    (lambda a: [*a.tolist()[:-1], [1.0] * 7], ValueError, "rectangular"),
    (lambda a: scipy.sparse.csr_array(np.atleast_2d(a)), TypeError, "csr_array"),
    (lambda a: scipy.sparse.coo_matrix(np.atleast_2d(a)), TypeError, "coo_matrix"),
    (lambda a: "numbers", TypeError, "<U7"),
    (lambda a: None, (TypeError, ValueError), ""),  # type: ignore[list-item]
    (lambda a: {"a": 1}, TypeError, ""),
    (lambda a: (x for x in a), TypeError, "generator"),
]
ids = ["str", "bytes", "list of str", "object of str", "complex", "object of complex", "datetime"]
ids += ["timedelta", "record", "object", "none", "dict inside", "ragged", "sparse array"]
ids += ["sparse matrix", "one str", "None", "dict", "generator"]


@pytest.mark.parametrize("call", TAKES_X)
@pytest.mark.parametrize(("convert", "error", "got"), NOT_NUMBERS, ids=ids)
def test_what_is_no_array_of_real_numbers_is_refused_as_inputs(
    setting: Setting, call: str, convert: Callable[[Array], Any], error: Any, got: str
) -> None:
    with refused(error, "X must", got, unchanged=setting.everything):
        setting.call(call, convert(setting.X), setting.Y)


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize(("convert", "error", "got"), NOT_NUMBERS, ids=ids)
def test_what_is_no_array_of_real_numbers_is_refused_as_targets(
    setting: Setting, call: str, convert: Callable[[Array], Any], error: Any, got: str
) -> None:
    with refused(error, "Y must", got, unchanged=setting.everything):
        setting.call(call, setting.X, convert(setting.Y))


@pytest.mark.parametrize("value", ["ones", ["1"] * N, np.ones(N) * 1j, [None] * N, [[1]] * N])
def test_what_is_no_vector_of_real_numbers_is_refused_as_sample_weight(
    setting: Setting, value: Any
) -> None:
    for call in TAKES_Y:
        with refused((TypeError, ValueError), "sample_weight must", unchanged=setting.everything):
            setting.call(call, setting.X, setting.Y, sample_weight=value)


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["positive", "negative"])
def test_integers_beyond_every_float_are_refused(setting: Setting, number: int) -> None:
    X = setting.X.astype(object)
    X[7, 2] = number
    with refused(ValueError, "X must", unchanged=setting.everything):
        setting.net.predict(X)


# NaN and infinity


@pytest.mark.parametrize("call", TAKES_X)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "g", ">f4", ">f8", object, "fortran", "list"])
def test_first_row_of_inputs_that_is_not_finite_is_named(
    setting: Setting, call: str, bad: float, kind: Any
) -> None:
    X: Any = setting.X.copy()
    X[[17, 25], [3, 0]] = bad
    if kind == "list":
        X = X.tolist()
    else:
        X = np.asfortranarray(X) if kind == "fortran" else X.astype(kind)
    with refused(
        ValueError, "X must be finite", f"got {bad}", "row 17", unchanged=setting.everything
    ):
        setting.call(call, X, setting.Y)


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "cross_entropy"])
def test_first_row_of_targets_that_is_not_finite_is_named(call: str, bad: float, loss: str) -> None:
    setting = Setting([4, 5, 2], loss)
    Y = setting.Y.copy()
    Y[[11, 2, 11], [1, 1, 0]] = bad
    with refused(
        ValueError, "Y must be finite", f"got {bad}", "row 2", unchanged=setting.everything
    ):
        setting.call(call, setting.X, Y)


def test_first_row_of_a_vector_of_targets_that_is_not_finite_is_named() -> None:
    setting = Setting([4, 5, 1])
    Y = setting.Y[:, 0].copy()
    Y[21] = np.nan
    with refused(ValueError, "Y must be finite", "row 21", unchanged=setting.everything):
        setting.fit(setting.X, Y)


@pytest.mark.parametrize("row", [0, 1, 15, 16, 28, N - 1])
@pytest.mark.parametrize("column", [0, 3])
def test_rows_are_counted_right_everywhere(setting: Setting, row: int, column: int) -> None:
    X = setting.X.copy()
    X[row:, column] = np.nan
    with pytest.raises(ValueError, match=rf"X must be finite, got nan in row {row}$"):
        setting.net.predict(X)


def test_numbers_beyond_the_networks_type_are_refused(setting: Setting) -> None:
    X = setting.X.astype(np.float64)
    X[4, 1] = 1e39
    with refused(ValueError, "X must be finite", "float32", "row 4", unchanged=setting.everything):
        setting.fit(X, setting.Y)


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize(
    ("bad", "reason"),
    [(-1.0, "negative"), (-(2.0**-30), "negative"), (np.nan, "finite"), (np.inf, "finite")],
)
def test_weights_that_are_negative_or_not_finite_are_refused(
    setting: Setting, call: str, bad: float, reason: str
) -> None:
    weights = np.ones(N)
    weights[[9, 12]] = bad
    expected = ("sample_weight must", reason, f"got {bad}", "row 9")
    with refused(ValueError, *expected, unchanged=setting.everything):
        setting.call(call, setting.X, setting.Y, sample_weight=weights)


@pytest.mark.parametrize("call", TAKES_Y)
def test_weights_that_are_all_zero_are_refused(setting: Setting, call: str) -> None:
    with refused(ValueError, "sample_weight must", "zeros", unchanged=setting.everything):
        setting.call(call, setting.X, setting.Y, sample_weight=np.zeros(N))


# Targets of the cross-entropies


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "cross_entropy"])
@pytest.mark.parametrize("bad", [-0.01, 1.01, 2])
def test_targets_that_are_no_probabilities_are_refused(loss: str, bad: float) -> None:
    setting = Setting([4, 5, 2], loss)
    Y = setting.Y.copy()
    Y[6] = [1 - bad, bad]
    with refused(
        ValueError, "Y must hold probabilities", loss, "row 6", unchanged=setting.everything
    ):
        setting.fit(setting.X, Y)


def test_targets_of_cross_entropy_that_do_not_sum_to_one_are_refused() -> None:
    setting = Setting([4, 5, 2], "cross_entropy")
    Y = setting.Y.copy()
    Y[8] = [0.5, 0.6]
    with refused(ValueError, "Y must", "sum to 1", "1.1", "row 8", unchanged=setting.everything):
        setting.fit(setting.X, Y)


@pytest.mark.parametrize("bad", [-1, 2, 300, 2**63 - 1])
def test_class_indices_out_of_range_are_refused(bad: int) -> None:
    setting = Setting([4, 5, 2], "cross_entropy")
    labels = np.zeros(N, dtype=np.int64)
    labels[[13, 20]] = bad
    expected = ("Y must hold class indices from 0 to 1", f"got {bad}", "row 13")
    for call in TAKES_Y:
        with refused(ValueError, *expected, unchanged=setting.everything):
            setting.call(call, setting.X, labels)


@pytest.mark.parametrize("labels", [np.zeros(N), np.zeros(N, dtype=bool), np.zeros((N, 1), int)])
def test_class_indices_that_are_no_vector_of_integers_are_refused(labels: Array) -> None:
    setting = Setting([4, 5, 2], "cross_entropy")
    with refused(ValueError, "Y must", "class indices", str(labels.dtype), unchanged=[setting.net]):
        setting.fit(setting.X, labels)


def test_class_indices_are_refused_by_other_losses() -> None:
    setting = Setting([4, 5, 2], "binary_cross_entropy")
    with refused(ValueError, "Y must have shape (n_samples, 2)", unchanged=setting.everything):
        setting.fit(setting.X, np.zeros(N, dtype=int))


def test_class_indices_need_as_many_rows() -> None:
    setting = Setting([4, 5, 2], "cross_entropy")
    with refused(ValueError, "Y", "rows", str(N), str(N - 1), unchanged=setting.everything):
        setting.fit(setting.X, np.zeros(N - 1, dtype=int))


# Options of fit


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, np.int64(0), -(10**30)])
def test_counts_below_one_are_refused(setting: Setting, name: str, value: Any) -> None:
    with refused(
        ValueError, f"{name} must be at least 1", f"got {value}", unchanged=setting.everything
    ):
        setting.fit(setting.X, setting.Y, **{name: value})


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [True, False, np.True_, 1.0, np.float32(2), "3", None, [1], 1j])
def test_counts_that_are_no_integers_are_refused(setting: Setting, name: str, value: Any) -> None:
    with refused(
        TypeError, f"{name} must be an integer, got {value!r}", unchanged=setting.everything
    ):
        setting.fit(setting.X, setting.Y, **{name: value})


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.array])
def test_counts_may_be_any_integer(setting: Setting, kind: Callable[[int], Any]) -> None:
    setting.fit(setting.X, setting.Y, epochs=kind(2), batch_size=kind(7))
    assert setting.optimizer.step_count == 1 + 2 * 5


WRONG_OPTIONS: list[tuple[str, Any, type[Exception], list[str]]] = [
    ("optimizer", "rmsprop", ValueError, ["adam", "sgd", "'rmsprop'"]),
    ("optimizer", "Adam", ValueError, ["adam", "sgd", "'Adam'"]),
    ("optimizer", None, TypeError, ["NoneType"]),
    ("optimizer", 0.1, TypeError, ["float"]),
    ("optimizer", nncore.Adam, TypeError, ["Adam"]),
    ("shuffle", "no", TypeError, ["bool", "'no'"]),
    ("shuffle", None, TypeError, ["bool", "None"]),
    ("shuffle", 7, TypeError, ["bool", "7"]),
    ("verbose", "no", TypeError, ["bool", "'no'"]),
    ("seed", -1, ValueError, [">= 0", "-1"]),
    ("seed", 1.5, TypeError, ["1.5"]),
    ("seed", "seed", TypeError, ["'seed'"]),
    ("callbacks", print, TypeError, ["sequence"]),
    ("callbacks", None, TypeError, ["sequence", "None"]),
    ("callbacks", [print, 3], TypeError, ["callable", "3"]),
    ("callbacks", "print", TypeError, ["'p'"]),
    ("validation_data", 5, TypeError, ["(X, Y)", "int"]),
    ("validation_data", np.zeros((2, 2)), TypeError, ["(X, Y)", "ndarray"]),
    ("validation_data", (np.zeros((3, 4)),), TypeError, ["(X, Y)", "1"]),
    ("validation_data", (1, 2, 3, 4), TypeError, ["(X, Y)", "4"]),
    ("validation_data", (np.zeros((3, 3)), np.zeros((3, 2))), ValueError, ["[0]", "(3, 3)"]),
    ("validation_data", (np.zeros((0, 4)), np.zeros((0, 2))), ValueError, ["[0]", "(0, 4)"]),
    ("validation_data", (np.zeros((3, 4)), np.zeros((3, 1))), ValueError, ["[1]", "(3, 1)"]),
    ("validation_data", (np.zeros((3, 4)), np.zeros((2, 2))), ValueError, ["[1]", "3", "2"]),
    ("validation_data", (np.full((3, 4), np.nan), np.zeros((3, 2))), ValueError, ["[0]", "row 0"]),
    ("validation_data", (np.ones((3, 4)), np.ones((3, 2)), [1, 1]), ValueError, ["[2]", "(2,)"]),
    (
        "validation_data",
        (np.ones((3, 4)), np.ones((3, 2)), [1, -1, 1]),
        ValueError,
        ["[2]", "row 1"],
    ),
    ("validation_data", (np.ones((3, 4)), np.ones((3, 2)), [0, 0, 0]), ValueError, ["[2]", "zero"]),
]


@pytest.mark.parametrize(("name", "value", "error", "parts"), WRONG_OPTIONS)
def test_wrong_options_of_fit_are_refused(
    setting: Setting, name: str, value: Any, error: type[Exception], parts: list[str]
) -> None:
    called: list[object] = []
    with refused(error, name, *parts, unchanged=setting.everything):
        setting.fit(setting.X, setting.Y, **{"callbacks": [called.append], name: value})
    assert called == []


@pytest.mark.parametrize("value", ["sgd", None, nncore.Adam, 0.1])
def test_train_on_batch_wants_an_optimizer_that_keeps_its_state(
    setting: Setting, value: Any
) -> None:
    with refused(TypeError, "optimizer must be an instance", unchanged=setting.everything):
        setting.net.train_on_batch(setting.X, setting.Y, value)


# Options of Network

WRONG_NETWORKS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"sizes": []}, ValueError, ["sizes", "[]"]),
    ({"sizes": [3]}, ValueError, ["sizes", "[3]"]),
    ({"sizes": 3}, TypeError, ["sizes", "got 3"]),
    ({"sizes": None}, TypeError, ["sizes", "None"]),
    ({"sizes": "34"}, TypeError, ["sizes", "'3'"]),
    ({"sizes": [3, 0]}, ValueError, ["sizes[1]", "at least 1", "got 0"]),
    ({"sizes": [-3, 2]}, ValueError, ["sizes[0]", "at least 1", "got -3"]),
    ({"sizes": [3, 2.0]}, TypeError, ["sizes[1]", "integer", "2.0"]),
    ({"sizes": [3, True]}, TypeError, ["sizes[1]", "integer", "True"]),
    ({"sizes": [3, None]}, TypeError, ["sizes[1]", "integer", "None"]),
    ({"sizes": [[3, 2]]}, TypeError, ["sizes[0]", "integer", "[3, 2]"]),
    ({"activation": "sigmoide"}, ValueError, ["activation", "'sigmoid'", "'sigmoide'"]),
    ({"activation": "Tanh"}, ValueError, ["activation", "'tanh'", "'Tanh'"]),
    ({"activation": 3}, TypeError, ["activation", "3"]),
    ({"activation": None}, TypeError, ["activation", "None"]),
    ({"activation": ["tanh", 3]}, TypeError, ["activation", "3"]),
    ({"activation": ["tanh"]}, ValueError, ["activation", "2", "got 1"]),
    ({"activation": ["tanh"] * 3}, ValueError, ["activation", "2", "got 3"]),
    ({"activation": []}, ValueError, ["activation", "2", "got 0"]),
    ({"activation": ["softmax", "tanh"]}, ValueError, ["softmax", "output layer"]),
    ({"activation": "softmax", "loss": "cross_entropy"}, ValueError, ["softmax", "output layer"]),
    ({"loss": "mse"}, ValueError, ["loss", "'squared_error'", "'mse'"]),
    ({"loss": None}, TypeError, ["loss", "None"]),
    ({"loss": ["squared_error"]}, TypeError, ["loss", "['squared_error']"]),
    ({"init": "zeros"}, ValueError, ["init", "'he_normal'", "'zeros'"]),
    ({"init": None}, TypeError, ["init", "None"]),
    ({"dtype": "float16"}, ValueError, ["dtype", "float32 or float64", "'float16'"]),
    ({"dtype": "flaot32"}, ValueError, ["dtype", "float32 or float64", "'flaot32'"]),
    ({"dtype": object()}, ValueError, ["dtype", "float32 or float64", "object"]),
    ({"dtype": 32}, ValueError, ["dtype", "float32 or float64", "32"]),
    ({"dtype": int}, ValueError, ["dtype", "float32 or float64", "int"]),
    ({"dtype": complex}, ValueError, ["dtype", "float32 or float64", "complex"]),
    ({"dtype": "longdouble"}, ValueError, ["dtype", "float32 or float64", "longdouble"]),
    ({"dtype": None}, ValueError, ["dtype", "float32 or float64", "None"]),
    ({"seed": -1}, ValueError, ["seed", "-1"]),
    ({"seed": 0.5}, TypeError, ["seed", "0.5"]),
    ({"seed": "a"}, TypeError, ["seed", "'a'"]),
]


@pytest.mark.parametrize(("options", "error", "parts"), WRONG_NETWORKS)
def test_wrong_options_of_network_are_refused(
    options: dict[str, Any], error: type[Exception], parts: list[str]
) -> None:
    options = {"sizes": [4, 3, 2], **options}
    with refused(error, *parts, unchanged=()):
        nncore.Network(options.pop("sizes"), **options)


ACTIVATIONS = [
    *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "exponential", "identity"),
    "softmax",
]
FITTING = {
    "squared_error": ACTIVATIONS[:-1],
    "absolute_error": ACTIVATIONS[:-1],
    "huber": ACTIVATIONS[:-1],
    "binary_cross_entropy": ["sigmoid"],
    "poisson": ["exponential"],
}
FITTING["cross_entropy"] = ["softmax"]


@pytest.mark.parametrize(("loss", "output"), [*itertools.product(FITTING, ACTIVATIONS)])
def test_loss_takes_the_outputs_whose_delta_it_has_and_no_others(loss: str, output: str) -> None:
    activation = ["tanh", output]
    if output in FITTING[loss]:
        assert nncore.Network([2, 3, 2], activation=activation, loss=loss).activation[1] == output
    else:
        with pytest.raises(ValueError, match=f"loss '{loss}' needs") as raised:
            nncore.Network([2, 3, 2], activation=activation, loss=loss)
        assert f"got '{output}'" in str(raised.value)
        assert all(fitting in str(raised.value) for fitting in FITTING[loss])


# What is accepted


class Frame:
    """Data of another library, which NumPy converts by this method only."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array if dtype is None else self.array.astype(dtype)


def unaligned(array: Array) -> Array:
    buffer = np.empty(array.nbytes + 1, dtype=np.uint8)
    result = buffer[1:].view(array.dtype).reshape(array.shape)
    result[...] = array
    assert not result.flags.aligned
    return result


def frozen(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


ACCEPTED: dict[str, Callable[[Array], Any]] = {
    "float16": lambda a: a.astype("f2"),
    "float32": lambda a: a.astype("f4"),
    "float64": lambda a: a.astype("f8"),
    "longdouble": lambda a: a.astype("g"),
    "int8": lambda a: a.astype("i1"),
    "uint64": lambda a: a.astype("u8"),
    "bool": lambda a: a.astype(bool),
    "big-endian float32": lambda a: a.astype(">f4"),
    "big-endian float64": lambda a: a.astype(">f8"),
    "big-endian int16": lambda a: a.astype(">i2"),
    "list": lambda a: a.tolist(),
    "list of rows": list,
    "tuple of tuples": lambda a: tuple(map(tuple, a.tolist())),
    "object": lambda a: a.astype(object),
    "decimal": lambda a: [[Decimal(x) for x in row] for row in a.tolist()],
    "fraction": lambda a: [[Fraction(x) for x in row] for row in a.tolist()],
    "frame": Frame,
    "frame of int": lambda a: Frame(a.astype(int)),
    "matrix": lambda a: a.view(np.matrix),
    "masked": np.ma.array,
    "read-only": frozen,
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "every other": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "unaligned": unaligned,
    "memoryview": lambda a: np.ascontiguousarray(a).data,
}


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("convert", ACCEPTED.values(), ids=ACCEPTED)
def test_every_kind_of_array_gives_the_bits_of_the_plain_one(
    kind: str, convert: Callable[[Array], Any]
) -> None:
    setting = Setting([4, 5, 2], dtype=kind)
    # Numbers that every type holds.
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(0, 2, (N, n)).astype(kind) for n in (4, 2))
    assert setting.net.predict(convert(X)).tobytes() == setting.net.predict(X).tobytes()
    expected = [A.tobytes() for A in setting.net.layer_outputs(X)]
    assert [A.tobytes() for A in setting.net.layer_outputs(convert(X))] == expected
    assert setting.net.evaluate(convert(X), convert(Y)) == setting.net.evaluate(X, Y)
    expected_gradient = setting.net.gradient(X, Y).tobytes()
    assert setting.net.gradient(convert(X), convert(Y)).tobytes() == expected_gradient
    nets = [make([4, 5, 2], dtype=kind) for _ in range(2)]
    for net, pair in zip(nets, [(X, Y), (convert(X), convert(Y))], strict=True):
        optimizer = nncore.SGD(0.1)
        history = net.fit(*pair, batch_size=7, optimizer=optimizer, seed=0, validation_data=pair)
        assert len(history.validation_loss) == 1
        net.train_on_batch(*pair, optimizer)
    assert nets[0].equals(nets[1])


@pytest.mark.parametrize(
    "weights",
    [
        np.arange(1, N + 1).astype(">i4"),
        np.arange(1, N + 1).astype("f2"),
        np.arange(2 * N + 2)[2::2] // 2,
        np.arange(1, N + 1)[::-1].copy()[::-1],
        list(range(1, N + 1)),
        Frame(np.arange(1, N + 1)),
        frozen(np.arange(1.0, N + 1)),
    ],
)
def test_every_kind_of_weights_gives_the_bits_of_the_plain_ones(weights: Any) -> None:
    setting = Setting([4, 5, 2])
    plain = np.arange(1, N + 1, dtype=np.float32)
    given = setting.net.gradient(setting.X, setting.Y, sample_weight=weights)
    expected = setting.net.gradient(setting.X, setting.Y, sample_weight=plain)
    assert given.tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", "i4"])
def test_data_are_never_written_to(kind: str) -> None:
    for loss in ("squared_error", "binary_cross_entropy", "cross_entropy"):
        setting = Setting([4, 5, 2], loss)
        X, Y = setting.X.astype(kind), setting.Y.round().astype(kind)
        Y[:, 0] = 1 - Y[:, 1]
        weights = np.ones(N, dtype=kind)
        for array in (X, Y, weights):
            array.flags.writeable = False
        before = snapshot(X, Y, weights)
        for call in TAKES_X:
            options = {} if call in ("predict", "layer_outputs") else {"sample_weight": weights}
            setting.call(call, X, Y, **options)
        assert snapshot(X, Y, weights) == before


def test_numbers_too_small_for_the_networks_type_become_zero(setting: Setting) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny = setting.net.predict(np.full((1, 4), 1e-300))
    assert tiny.tobytes() == setting.net.predict(np.zeros((1, 4))).tobytes()


# Any shape, any strides, any byte order, any type.


@st.composite
def views(draw: st.DrawFn, n: int, columns: int) -> Array:
    """Return an (n, columns) view with whatever strides, of whatever type, of small integers."""
    kind = draw(st.sampled_from("bBhHiIlLefdg?"))
    dtype = np.dtype(draw(st.sampled_from("<>")) + kind)
    step = [draw(st.sampled_from([1, 2, 3, -1, -2])) for _ in range(2)]
    transposed = draw(st.booleans())
    shape = (n * abs(step[0]), columns * abs(step[1]))
    values = draw(hnp.arrays(np.dtype(np.uint8), shape, elements=st.integers(0, 9)))
    array = values.astype(dtype)
    if transposed:
        array = np.asfortranarray(array)
    view: Array = array[:: step[0], :: step[1]]
    if draw(st.booleans()):
        view.flags.writeable = False
    return view


@pytest.mark.parametrize("kind", ["f4", "f8"])
@given(draw=st.data())
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_any_layout_gives_the_bits_of_the_plain_array(kind: str, draw: st.DataObject) -> None:
    n = draw.draw(st.integers(1, 12), "n")
    sizes = [draw.draw(st.integers(1, 6), "n_0"), 3, draw.draw(st.integers(1, 4), "n_L")]
    net = make(sizes, dtype=kind)
    X, Y = draw.draw(views(n, sizes[0]), "X"), draw.draw(views(n, sizes[-1]), "Y")
    before = X.tobytes(), Y.tobytes()
    plain_X, plain_Y = (np.array(a.tolist(), dtype=kind, ndmin=2) for a in (X, Y))
    assert plain_X.shape == X.shape
    assert net.predict(X).tobytes() == net.predict(plain_X).tobytes()
    assert net.layer_outputs(X)[0].tobytes() == net.layer_outputs(plain_X)[0].tobytes()
    assert net.evaluate(X, Y) == net.evaluate(plain_X, plain_Y)
    assert net.gradient(X, Y).tobytes() == net.gradient(plain_X, plain_Y).tobytes()
    twin = make(sizes, dtype=kind)
    batch_size = draw.draw(st.integers(1, 15), "batch_size")
    net.fit(X, Y, batch_size=batch_size, seed=0)
    twin.fit(plain_X, plain_Y, batch_size=batch_size, seed=0)
    assert net.equals(twin)
    assert (X.tobytes(), Y.tobytes()) == before


@given(shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_any_shape_is_predicted_or_refused(shape: tuple[int, ...]) -> None:
    net = make([3, 2])
    if len(shape) == 2 and shape[1] == 3:
        assert net.predict(np.ones(shape)).shape == (shape[0], 2)
    else:
        with pytest.raises(ValueError, match="X must have shape"):
            net.predict(np.ones(shape))


@given(
    value=st.one_of(
        st.none(),
        st.text(max_size=3),
        st.binary(max_size=3),
        st.complex_numbers(),
        st.floats(),
        st.lists(st.one_of(st.text(max_size=2), st.none(), st.floats(), st.lists(st.integers()))),
        st.dictionaries(st.integers(), st.integers(), max_size=2),
        st.sets(st.integers(), max_size=3),
    )
)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_whatever_is_no_matrix_is_refused_by_name(value: Any) -> None:
    net = make([3, 2])
    with pytest.raises((TypeError, ValueError), match="X must"):
        net.predict(value)
