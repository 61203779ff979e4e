"""Arguments of `Network` and `fit` that are rejected."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Setting, refused

import nncore
from nncore.typing import ActivationName, LossName

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
    ("optimizer", "lion", ValueError, ["adam", "sgd", "'rmsprop'"]),
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
def test_train_on_batch_requires_an_optimizer_instance(setting: Setting, value: Any) -> None:
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
    ({"activation": ["tanh", None]}, TypeError, ["activation", "None"]),
    ({"activation": ["tanh"]}, ValueError, ["activation", "2", "got 1"]),
    ({"activation": ["tanh"] * 3}, ValueError, ["activation", "2", "got 3"]),
    ({"activation": []}, ValueError, ["activation", "2", "got 0"]),
    ({"activation": ["softmax", "tanh"]}, ValueError, ["softmax", "output layer"]),
    ({"activation": "softmax", "loss": "cross_entropy"}, ValueError, ["softmax", "output layer"]),
    ({"sizes": [3, 2], "activation": "softmax"}, ValueError, ["output_activation='softmax'"]),
    ({"output_activation": "Tanh"}, ValueError, ["output_activation", "'tanh'", "'Tanh'"]),
    ({"output_activation": ["tanh"]}, TypeError, ["output_activation", "['tanh']"]),
    (
        {"activation": ["relu", "tanh"], "output_activation": "tanh"},
        ValueError,
        ["output_activation must be None", "'tanh'", "['relu', 'tanh']"],
    ),
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


@pytest.mark.parametrize(
    ("option", "given", "meant"),
    [
        ("activation", "rleu", "relu"),
        ("activation", "ReLU", "relu"),
        ("activation", "linear", "identity"),
        ("activation", "logistic", "sigmoid"),
        ("output_activation", "exp", "exponential"),
        ("loss", "mse", "squared_error"),
        ("loss", "mean_squared_error", "squared_error"),
        ("loss", "MAE", "absolute_error"),
        ("loss", "bce", "binary_cross_entropy"),
        ("loss", "binary_crossentropy", "binary_cross_entropy"),
        ("loss", "crossentropy", "cross_entropy"),
        ("loss", "CrossEntropyLoss", "cross_entropy"),
        ("loss", "categorical_crossentropy", "cross_entropy"),
        ("loss", "sparse_categorical_crossentropy", "cross_entropy"),
        ("init", "xavier_normal", "glorot_normal"),
        ("init", "kaiming", "he_uniform"),
        ("dtype", "flaot32", "float32"),
        ("dtype", "fp16", "float32"),
        ("dtype", "fp64", "float64"),
    ],
)
def test_a_misspelt_or_foreign_name_gives_a_suggestion(option: str, given: Any, meant: str) -> None:
    with pytest.raises(ValueError, match=f"got '{given}'; did you mean '{meant}'\\?$"):
        nncore.Network([4, 3, 2], **{option: given})


@pytest.mark.parametrize(
    ("given", "meant"),
    [("Adam", "adam"), ("adma", "adam"), ("sgdm", "sgd"), ("rms", "rmsprop"), ("AdamW", "adamw")],
)
def test_a_wrong_name_of_an_optimizer_gives_a_suggestion(given: Any, meant: str) -> None:
    with pytest.raises(ValueError, match=f"optimizer must be .* did you mean '{meant}'\\?$"):
        nncore.Network([2, 1]).fit([[0, 0]], [0], optimizer=given)


@pytest.mark.parametrize(("given", "meant"), [("acc", "accuracy"), ("accurcy", "accuracy")])
def test_a_wrong_name_of_a_metric_gives_a_suggestion(given: Any, meant: str) -> None:
    with pytest.raises(ValueError, match=f"metrics must be .* did you mean '{meant}'\\?$"):
        nncore.Network([2, 1]).fit([[0, 0]], [0], metrics=[given])


def test_a_name_like_no_other_gives_no_suggestion() -> None:
    with pytest.raises(ValueError, match=r"got 'xyz'$"):
        nncore.Network([2, 1], loss="xyz")  # type: ignore[arg-type]


ACTIVATIONS = [
    *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "exponential", "identity"),
    *("silu", "gelu", "gelu_tanh"),
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
def test_each_loss_accepts_only_its_output_activations(
    loss: LossName, output: ActivationName
) -> None:
    if output in FITTING[loss]:
        net = nncore.Network([2, 3, 2], output_activation=output, loss=loss)
        assert net.activation == ("relu", output)
    else:
        with pytest.raises(ValueError, match=f"loss '{loss}' needs") as raised:
            nncore.Network([2, 3, 2], output_activation=output, loss=loss)
        assert f"got '{output}'; output_activation=None makes it" in str(raised.value)
        assert all(fitting in str(raised.value) for fitting in FITTING[loss])


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ("squared_error", "identity"),
        ("absolute_error", "identity"),
        ("huber", "identity"),
        ("cross_entropy", "softmax"),
        ("binary_cross_entropy", "sigmoid"),
        ("poisson", "exponential"),
    ],
)
@pytest.mark.parametrize("hidden", [0, 1, 3])
def test_the_loss_determines_the_default_output(loss: LossName, output: str, hidden: int) -> None:
    net = nncore.Network([2, *[3] * hidden, 2], activation="tanh", loss=loss)
    assert net.activation == (*["tanh"] * hidden, output)


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_a_sequence_of_names_sets_all_layers(kind: Callable[[Any], Any]) -> None:
    names = ("elu", "relu", "sigmoid")
    assert nncore.Network([2, 3, 3, 2], activation=kind(names)).activation == names
