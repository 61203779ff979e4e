"""Inputs, targets and weights that are rejected."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from helpers import TAKES_X, TAKES_Y, Array, N, Setting, refused

# Shapes


@pytest.mark.parametrize("call", TAKES_X)
@pytest.mark.parametrize(
    "shape", [(), (N,), (N, 3), (N, 5), (N, 0), (4, N), (N, 4, 1), (1, N, 4), (0,)]
)
def test_wrong_shape_of_inputs_is_refused(
    setting: Setting, call: str, shape: tuple[int, ...]
) -> None:
    expected = ("X must have shape (n_samples, 4)", f"got {shape}")
    with refused(ValueError, *expected, unchanged=setting.everything):
        setting.call(call, np.zeros(shape), setting.Y)


@pytest.mark.parametrize("call", TAKES_Y)
def test_a_single_example_is_refused_where_there_are_targets(setting: Setting, call: str) -> None:
    expected = ("X must have shape (n_samples, 4)", "got (4,)", "X[np.newaxis]")
    with refused(ValueError, *expected, unchanged=setting.everything):
        setting.call(call, np.zeros(4), setting.Y)


@pytest.mark.parametrize("call", TAKES_X)
def test_a_vector_is_not_taken_for_many_examples_of_one_number(call: str) -> None:
    setting = Setting([1, 5, 2])
    with refused(ValueError, "X must", "X[:, np.newaxis]", unchanged=setting.everything):
        setting.call(call, np.zeros(N), setting.Y)


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
def test_empty_inputs_are_refused_where_a_mean_is_taken(setting: Setting, call: str) -> None:
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
def test_inputs_that_are_not_real_numbers_are_refused(
    setting: Setting, call: str, convert: Callable[[Array], Any], error: Any, got: str
) -> None:
    with refused(error, "X must", got, unchanged=setting.everything):
        setting.call(call, convert(setting.X), setting.Y)


@pytest.mark.parametrize("call", TAKES_Y)
@pytest.mark.parametrize(("convert", "error", "got"), NOT_NUMBERS, ids=ids)
def test_targets_that_are_not_real_numbers_are_refused(
    setting: Setting, call: str, convert: Callable[[Array], Any], error: Any, got: str
) -> None:
    with refused(error, "Y must", got, unchanged=setting.everything):
        setting.call(call, setting.X, convert(setting.Y))


@pytest.mark.parametrize("value", ["ones", ["1"] * N, np.ones(N) * 1j, [None] * N, [[1]] * N])
def test_sample_weights_that_are_not_real_numbers_are_refused(setting: Setting, value: Any) -> None:
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
def test_the_row_number_is_correct_everywhere(setting: Setting, row: int, column: int) -> None:
    X = setting.X.copy()
    X[row:, column] = np.nan
    with pytest.raises(ValueError, match=rf"X must be finite, got nan in row {row}$"):
        setting.net.predict(X)


@pytest.mark.parametrize("rows", [1, N])
@pytest.mark.parametrize("kind", ["f8", ">f8", "g", "fortran", "list"])
def test_doubles_are_finite_in_float32_if_they_round_to_its_largest_number(
    setting: Setting, kind: str, rows: int
) -> None:
    setting.net.parameters = np.zeros(setting.net.parameters.size)
    tie = float(np.finfo(np.float32).max) + 2.0**103

    def predict(value: float) -> Array:
        X: Any = np.full((rows, 4), value)
        if kind == "list":
            X = X.tolist()
        else:
            X = np.asfortranarray(X) if kind == "fortran" else X.astype(kind)
        return setting.net.predict(X)

    assert predict(np.nextafter(tie, 0)).tolist() == predict(0.0).tolist()
    with pytest.raises(ValueError, match=r"X must be finite, got 3.4.*e\+38, which is inf"):
        predict(tie)


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
