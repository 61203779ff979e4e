"""scikit-learn's multi-layer perceptrons on nncore: the same interface, several times faster.

>>> from nncore.sklearn import MLPClassifier
>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True)
>>> classifier = MLPClassifier(random_state=0, max_iter=1000).fit(X, y)
>>> classifier.score(X, y) > 0.95
True
"""

try:
    import sklearn as _sklearn  # noqa: F401 - for the message below
except ImportError as error:
    raise ImportError(
        "nncore.sklearn needs scikit-learn 1.6 or newer: pip install 'nncore[sklearn]'"
    ) from error

from ._classifier import MLPClassifier
from ._folding import as_network
from ._regressor import MLPRegressor
from ._skl2onnx import register_when_imported

__all__ = ["MLPClassifier", "MLPRegressor", "as_network"]

register_when_imported()
