"""ONNX models of estimators, and of pipelines that skl2onnx exports."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from runtimes import run_onnxruntime, run_reference
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingRegressor, StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import nncore
from nncore.sklearn import MLPClassifier, MLPRegressor

onnx = pytest.importorskip("onnx")
skl2onnx = pytest.importorskip("skl2onnx")

Array = npt.NDArray[Any]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
CLASSES: dict[str, Array] = {
    "numbers": y,
    "signed": y - 1,
    "unsigned": (100 * y).astype("uint8"),
    "floats": 2.0 * y,
    "strings": NAMES[y],
    "objects": NAMES[y].astype(object),
    "two": NAMES[y // 2],
    "bools": y > 0,
    "one": np.zeros_like(y),
    "multilabel": np.column_stack([y > 0, y > 1]).astype(int),
}
REALS = {"single": y, "several": np.column_stack([y, X[:, 0], -X[:, 1]])}


def classifier(**options: Any) -> MLPClassifier:
    return MLPClassifier((6,), random_state=0, max_iter=20, **options)


def regressor(**options: Any) -> MLPRegressor:
    return MLPRegressor(hidden_layer_sizes=(6,), random_state=0, max_iter=20, **options)


def assert_predicts(model: Any, estimator: Any, inputs: Array) -> None:
    """Assert that the model's outputs are the estimator's predictions."""
    onnx.checker.check_model(model, full_check=True)
    for run in (run_onnxruntime, run_reference):
        first, *probabilities = run(model, inputs)
        expected = estimator.predict(inputs)
        if probabilities:
            np.testing.assert_array_equal(first, expected)
            proba = estimator.predict_proba(inputs)
            np.testing.assert_allclose(probabilities[0], proba, atol=1e-6)
            assert probabilities[0].dtype == inputs.dtype
        else:
            assert first.shape == (len(inputs), estimator.n_outputs_)
            np.testing.assert_allclose(first.reshape(expected.shape), expected, rtol=1e-5)
            assert first.dtype == inputs.dtype


# Estimators.


@pytest.mark.parametrize("kind", CLASSES)
def test_classifier_gives_labels_and_probabilities(kind: str, dtype: np.dtype[Any]) -> None:
    inputs = X.astype(dtype)
    fitted = classifier().fit(inputs, CLASSES[kind])
    model = fitted.to_onnx()
    assert [output.name for output in model.graph.output] == ["label", "probabilities"]
    assert_predicts(model, fitted, inputs)


@pytest.mark.parametrize("loss", ["log_loss", "squared_error"])
def test_logistic_outputs_of_several_classes_sum_to_1(loss: str) -> None:
    inputs = X.astype("float32")
    fitted = classifier(loss=loss, output_activation="logistic").fit(inputs, y)
    assert_predicts(fitted.to_onnx(), fitted, inputs)


@pytest.mark.parametrize("kind", REALS)
def test_regressor_gives_its_outputs(kind: str, dtype: np.dtype[Any]) -> None:
    inputs = X.astype(dtype)
    fitted = regressor(loss="huber", output_activation="tanh").fit(inputs, REALS[kind])
    model = fitted.to_onnx(input_name="X", opset=17)
    assert [output.name for output in model.graph.output] == ["variable"]
    assert_predicts(model, fitted, inputs)


def test_estimator_can_be_exported_in_float32() -> None:
    fitted = classifier(activation=["elu"]).fit(X, y)
    model = fitted.to_onnx(dtype="float32")
    probabilities = run_onnxruntime(model, X.astype("float32"))[1]
    np.testing.assert_allclose(probabilities, fitted.predict_proba(X), atol=1e-5)


def test_classes_must_be_integers_or_strings() -> None:
    fitted = classifier().fit(X, y)
    for classes in ([0.5, 1, 2], [0, 1, 2**63]):
        fitted.classes_ = np.array(classes)
        with pytest.raises(ValueError, match="classes of an ONNX model must be integers or str"):
            fitted.to_onnx()


def test_estimator_must_be_fitted(tmp_path: Path) -> None:
    for call in (classifier().to_onnx, lambda: regressor().save_onnx(tmp_path / "model")):
        with pytest.raises(NotFittedError):
            call()
    assert not list(tmp_path.iterdir())


def test_file_holds_the_model_and_returns_the_network(tmp_path: Path) -> None:
    fitted = classifier().fit(X, y)
    fitted.save_onnx(tmp_path / "model", opset=17, dtype="float64")
    assert onnx.load(tmp_path / "model") == fitted.to_onnx(opset=17)
    assert nncore.from_onnx(tmp_path / "model").equals(fitted.network_)


# skl2onnx.


@pytest.mark.parametrize("kind", sorted(CLASSES.keys() - {"one"}))
def test_pipeline_with_a_classifier(kind: str, dtype: np.dtype[Any]) -> None:
    inputs = X.astype(dtype)
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), classifier(activation=["tanh"]))
    pipeline.fit(inputs, CLASSES[kind])
    model = skl2onnx.to_onnx(pipeline, inputs[:1], options={"zipmap": False})
    label, probabilities = run_onnxruntime(model, inputs)
    np.testing.assert_array_equal(label, pipeline.predict(inputs))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(inputs), atol=1e-5)


@pytest.mark.parametrize("kind", REALS)
def test_pipeline_with_a_regressor(kind: str, dtype: np.dtype[Any]) -> None:
    inputs = X.astype(dtype)
    pipeline = make_pipeline(StandardScaler(), regressor(loss="absolute_error"))
    pipeline.fit(inputs, REALS[kind])
    (outputs,) = run_onnxruntime(skl2onnx.to_onnx(pipeline, inputs[:1]), inputs)
    expected = pipeline.predict(inputs)
    assert outputs.shape == (len(X), REALS[kind].size // len(X))
    np.testing.assert_allclose(outputs.reshape(expected.shape), expected, atol=1e-4)


@pytest.mark.parametrize("activation", [["leaky_relu"], ["elu"], "softplus", "silu", ["gelu"]])
@pytest.mark.parametrize("output", ["logistic", "softmax"])
def test_options_of_nncore_are_converted(activation: Any, output: str) -> None:
    inputs = X.astype("float32")
    fitted = classifier(activation=activation, output_activation=output).fit(inputs, y)
    model = skl2onnx.to_onnx(fitted, inputs[:1], options={"zipmap": False})
    assert_predicts(model, fitted, inputs)


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({}, lambda outputs: sorted(outputs[1][0]) == sorted(NAMES)),
        ({"zipmap": "columns"}, lambda outputs: len(outputs) == 4),
        ({"zipmap": False, "nocl": True}, lambda outputs: set(outputs[0]) <= {0, 1, 2}),
        (
            {"zipmap": False, "output_class_labels": True},
            lambda outputs: list(outputs[2]) == list(NAMES),
        ),
    ],
)
def test_options_of_skl2onnx_are_accepted(options: Any, check: Any) -> None:
    inputs = X.astype("float32")
    fitted = classifier().fit(inputs, CLASSES["strings"])
    assert check(run_onnxruntime(skl2onnx.to_onnx(fitted, inputs[:1], options=options), inputs))


def test_integers_are_accepted_as_inputs() -> None:
    inputs = X.astype("int64")
    fitted = classifier().fit(inputs.astype("float32"), y)
    model = skl2onnx.to_onnx(fitted, inputs[:1], options={"zipmap": False})
    np.testing.assert_array_equal(run_onnxruntime(model, inputs)[0], fitted.predict(inputs))


@pytest.mark.parametrize(
    "estimator",
    [
        GridSearchCV(make_pipeline(StandardScaler(), classifier()), {}, cv=2),
        VotingClassifier(
            [("a", classifier()), ("b", classifier())], voting="soft", flatten_transform=False
        ),
        StackingClassifier([("a", classifier())], classifier(), cv=2),
        CalibratedClassifierCV(classifier(), cv=2),
        BaggingRegressor(regressor(), n_estimators=2),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_inside_others_are_converted(estimator: Any) -> None:
    inputs = X.astype("float32")
    fitted = clone(estimator).fit(inputs, y)
    outputs = run_onnxruntime(skl2onnx.to_onnx(fitted, inputs[:1]), inputs)[0]
    np.testing.assert_allclose(outputs.reshape(y.shape), fitted.predict(inputs), atol=1e-5)


def test_several_regressors_are_converted_together() -> None:
    inputs = X.astype("float32")
    fitted = MultiOutputRegressor(regressor()).fit(inputs, REALS["several"])
    (outputs,) = run_onnxruntime(skl2onnx.to_onnx(fitted, inputs[:1]), inputs)
    np.testing.assert_allclose(outputs, fitted.predict(inputs), atol=1e-5)


def test_old_operators_are_refused() -> None:
    fitted = classifier().fit(X, y)
    with pytest.raises(ValueError, match="target_opset must be at least 13"):
        skl2onnx.to_onnx(fitted, X[:1], target_opset={"": 12, "ai.onnx.ml": 1})


@pytest.mark.parametrize(
    "imports",
    [
        "import skl2onnx; import nncore.sklearn",
        "import nncore.sklearn; assert 'skl2onnx' not in sys.modules; import skl2onnx",
        "import nncore.sklearn, importlib.util; importlib.util.find_spec('skl2onnx'); "
        "from skl2onnx import to_onnx",
    ],
)
def test_converters_are_registered_in_any_order_of_imports(imports: str) -> None:
    code = f"""
import sys; {imports}
import skl2onnx
assert "NncoreMLPClassifier" in skl2onnx.supported_converters()
assert "nncore" not in type(skl2onnx.__loader__).__module__
assert "nncore" not in type(skl2onnx.__spec__.loader).__module__
"""
    subprocess.run([sys.executable, "-c", code], check=True)
