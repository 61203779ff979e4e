"""Estimators in files: they predict and continue as before."""

import json
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

import nncore
from nncore.sklearn import MLPClassifier, MLPRegressor

Array = npt.NDArray[Any]

FILES = Path(__file__).parent.parent / "files"

X, y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
TARGETS: dict[str, Array] = {
    "numbers": y,
    "signed": y - 1,
    "floats": y * 2.0,
    "strings": NAMES[y],
    "objects": NAMES[y].astype(object),
    "two": NAMES[y // 2],
    "bools": y > 0,
    "one": np.zeros_like(y),
    "multilabel": np.column_stack([y > 0, y > 1]).astype(int),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def small(cls: Any = MLPClassifier, **options: Any) -> Any:
    usual = {"hidden_layer_sizes": (5,), "max_iter": 8, "random_state": 0}
    return cls(**{**usual, "learning_rate_init": 0.03, **options})


def restored(estimator: Any, path: Path) -> Any:
    estimator.save(path / "estimator")
    return type(estimator).load(path / "estimator")


def attributes(estimator: Any) -> dict[str, Any]:
    """Return what `fit` sets, apart from objects that each fit creates."""
    names = [name for name in vars(estimator) if name.endswith("_")]
    names = [name for name in names if name not in ("coefs_", "intercepts_")]
    return {name: np.asarray(getattr(estimator, name)).tolist() for name in names}


def flat(estimator: Any) -> bytes:
    return bytes(estimator.network_.parameters)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_classifier_returns_with_its_classes(target: Array, tmp_path: Path) -> None:
    fitted = small().fit(X, target)
    again = restored(fitted, tmp_path)
    assert again.classes_.dtype == fitted.classes_.dtype
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber"])
def test_regressor_returns(loss: str, outputs: int, tmp_path: Path) -> None:
    fitted = small(MLPRegressor, loss=loss).fit(X[:, :2], X[:, 2 : 2 + outputs])
    again = restored(fitted, tmp_path)
    np.testing.assert_array_equal(again.predict(X[:, :2]), fitted.predict(X[:, :2]))


OPTIONS: list[dict[str, Any]] = [
    {},
    {"solver": "lbfgs", "hidden_layer_sizes": 4},
    {"solver": "sgd", "learning_rate": "invscaling", "n_iter_no_change": np.inf},
    {"solver": "sgd", "momentum": 0.0, "dtype": "float32", "alpha": np.float64(0.1)},
    {"early_stopping": True, "scoring": "accuracy"},
    {"activation": ["tanh", "relu"], "hidden_layer_sizes": [3, 4], "dropout": [0.1, 0.2]},
    {"hidden_layer_sizes": np.array([3, 4]), "random_state": np.int64(3)},
    {"class_weight": {0: 1.0, np.int64(1): 2, 2: 1.0}, "output_activation": "logistic"},
    {"class_weight": "balanced", "loss": "squared_error", "gradient_clipping": 1.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_parameters_and_attributes_return(options: dict[str, Any], tmp_path: Path) -> None:
    fitted = small(**options).fit(X, y)
    again = restored(fitted, tmp_path)
    np.testing.assert_equal(again.get_params(), fitted.get_params())
    assert attributes(again) == attributes(fitted)
    assert flat(again) == flat(fitted)
    assert flat(clone(again).fit(X, y)) == flat(fitted)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_warm_start_continues_with_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    fitted = small(**options, warm_start=True).fit(X, y)
    fitted.coefs_[0][0, 0] += 0.5  # no longer the best parameters of early stopping
    again = restored(fitted, tmp_path)
    assert flat(again.fit(X, y)) == flat(fitted.fit(X, y))
    assert attributes(again) == attributes(fitted)


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_continues_with_the_same_bits(solver: str, cls: Any, tmp_path: Path) -> None:
    fitted = small(cls, solver=solver, learning_rate="invscaling", batch_size=40)
    if cls is MLPClassifier:
        fitted.partial_fit(X, y, classes=[0, 1, 2, 3])
    fitted.partial_fit(X, y)
    fitted.set_params(learning_rate_init=0.5)  # counts from the next `fit` on
    again = restored(fitted, tmp_path)
    assert flat(again.partial_fit(X, y)) == flat(fitted.partial_fit(X, y))
    assert attributes(again) == attributes(fitted)


def test_a_sequence_of_sizes_keeps_its_type(tmp_path: Path) -> None:
    for sizes in ((3, 4), [3, 4]):
        again = restored(small(hidden_layer_sizes=sizes).fit(X, y), tmp_path)
        assert again.hidden_layer_sizes == sizes


def test_an_initialized_estimator_returns(tmp_path: Path) -> None:
    fresh = small(warm_start=True).initialize(X, y)
    again = restored(fresh, tmp_path)
    assert flat(again.fit(X, y)) == flat(fresh.fit(X, y))


def test_names_of_features_return(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "ü", "d"])
    again = restored(small().fit(frame, y), tmp_path)
    assert again.feature_names_in_.tolist() == ["a", "b", "ü", "d"]
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[["b", "a", "ü", "d"]])


def test_a_subclass_loads_as_itself(tmp_path: Path) -> None:
    class Own(MLPClassifier):
        pass

    small(Own).fit(X, y).save(tmp_path / "own")
    assert type(Own.load(tmp_path / "own")) is Own
    assert type(MLPClassifier.load(tmp_path / "own")) is MLPClassifier


def test_callbacks_are_not_stored(tmp_path: Path) -> None:
    fitted = small(callbacks=[lambda end: None]).fit(X, y)
    assert restored(fitted, tmp_path).callbacks is None
    assert fitted.callbacks is not None


def test_load_returns_the_network_of_an_estimator(tmp_path: Path) -> None:
    fitted = small().fit(X, y)
    fitted.save(tmp_path / "estimator")
    assert nncore.load(tmp_path / "estimator").equals(fitted.network_)


# What cannot be stored.


@pytest.mark.parametrize(
    ("name", "value"),
    [("random_state", np.random.RandomState(0)), ("scoring", lambda *args: 0.0)],
)
def test_parameters_that_are_objects_are_refused_by_name(
    name: str, value: object, tmp_path: Path
) -> None:
    fitted = small(**{name: value}, early_stopping=True).fit(X, y)
    with pytest.raises(TypeError, match=rf"{name} cannot be stored .* set_params\({name}=None\)"):
        fitted.save(tmp_path / "estimator")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "classes",
    [[Decimal(1), Decimal(2), Decimal(3)], np.array([1, 2, 3], "M8[D]")],
    ids=["decimals", "dates"],
)
def test_labels_of_other_types_are_refused_by_name(classes: Any, tmp_path: Path) -> None:
    fitted = small().fit(X, y)
    fitted.classes_ = np.array(classes)
    with pytest.raises(TypeError, match="classes_ must hold numbers or strings"):
        fitted.save(tmp_path / "estimator")
    assert not list(tmp_path.iterdir())


def test_an_estimator_without_a_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "estimator")


# What cannot be loaded.


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    small().fit(X, y).save(tmp_path / "classifier")
    nncore.Network([4, 3]).save(tmp_path / "network")
    with pytest.raises(ValueError, match=r"classifier.*it holds an? MLPClassifier"):
        MLPRegressor.load(tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"network.*it holds an? Network"):
        MLPClassifier.load(tmp_path / "network")


def edited(path: Path, change: Callable[[Any], object]) -> None:
    """Change the section of the estimator in a file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    estimator = json.loads(metadata["estimator"])
    change(estimator)
    metadata = {
        "nncore": '{"version": 1}',
        "architecture": metadata["architecture"],
        "estimator": json.dumps(estimator),
    }
    save_file(load_file(path), path, metadata)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("parameters", {"hidden_layer_sizes": -1}),
        ("parameters", {"activation": "unknown"}),
        ("parameters", {"activation": "tanh"}),
        ("parameters", {"loss": "squared_error"}),
        ("parameters", {"unknown": 1}),
        ("parameters", {"max_iter": "1"}),
        ("attributes", {"n_features_in_": 5}),
        ("attributes", {"n_outputs_": 2}),
        ("attributes", {"n_layers_": "3"}),
        ("attributes", {"t_": -1}),
        ("attributes", {"n_iter_": 2**63}),
        ("attributes", {"out_activation_": "logistic"}),
        ("attributes", {"out_activation_": "unknown"}),
        ("attributes", {"loss_curve_": ["1"]}),
        ("attributes", {"classes_": [0, 1, 2]}),
        ("attributes", {"classes_": {"$strings": [[2], ["a", "b"]]}}),
        ("attributes", {"classes_": {"$strings": [[3], ["b", "a", "c"]]}}),
        ("attributes", {"classes_": {"$strings": [[3], ["a", "b", 1]]}}),
        ("attributes", {"classes_": {"$unknown": 1}}),
        ("attributes", {"_network": 1}),
        ("labels", {"y_type": "binary"}),
        ("labels", {"y_type": 1}),
        ("labels", {"sparse": "no"}),
        ("solver", {"rate": -1.0}),
        ("solver", {"rate": {"$float": "nan"}}),
        ("solver", {"step_count": -1}),
        ("solver", {"state": [1]}),
        ("solver", {"parameters": {"beta_1": 2}}),
        ("solver", {"parameters": 1}),
        ("solver", {"unknown": 1}),
    ],
)
def test_a_wrong_value_is_refused(part: str, values: Any, tmp_path: Path) -> None:
    path = tmp_path / "estimator"
    small().partial_fit(X, NAMES[y], classes=NAMES).save(path)
    edited(path, lambda estimator: estimator[part].update(values))
    with pytest.raises(ValueError, match="not a file that this version of nncore can read") as got:
        MLPClassifier.load(path)
    assert str(path) in str(got.value)


# Files that earlier versions wrote. Never change them: add new ones.


def test_classifier_of_the_first_version_is_read() -> None:
    classifier = MLPClassifier.load(FILES / "classifier.safetensors")
    assert classifier.classes_.tolist() == NAMES.tolist()
    assert classifier.n_iter_ == 60
    assert classifier.predict(X[::60]).tolist() == ["setosa", "versicolor", "virginica"]
    classifier.partial_fit(X, NAMES[y])


def test_regressor_of_the_first_version_is_read() -> None:
    regressor = MLPRegressor.load(FILES / "regressor.safetensors")
    assert regressor.solver == "lbfgs"
    predicted = regressor.predict(X[::60, :3])
    np.testing.assert_allclose(predicted, [0.214792476, 1.003488232, 2.030005566])
