"""Networks from Keras models: `from_keras`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .enums import Activation
from .importing import ImportedLayers
from .typing import ActivationName, CustomLoss, LossLike

if TYPE_CHECKING:
    import keras

    from .network import Network

__all__ = ["from_keras"]

# By the names of functions in keras.activations, with the default of a slope.
_ACTIVATIONS: dict[str, tuple[Activation, float | None]] = {
    "elu": (Activation.ELU, 1.0),
    "exponential": (Activation.EXPONENTIAL, None),
    "gelu": (Activation.GELU, None),
    "leaky_relu": (Activation.LEAKY_RELU, 0.2),
    "linear": (Activation.IDENTITY, None),
    "relu": (Activation.RELU, None),
    "sigmoid": (Activation.SIGMOID, None),
    "silu": (Activation.SILU, None),
    "softmax": (Activation.SOFTMAX, None),
    "softplus": (Activation.SOFTPLUS, None),
    "tanh": (Activation.TANH, None),
}


def from_keras(
    model: keras.Sequential,
    *,
    loss: LossLike | CustomLoss | None = None,
    output_activation: ActivationName | None = None,
) -> Network:
    """Return a network with the layers and parameters of a Keras model.

    Parameters
    ----------
    model : keras.Sequential
        Of Dense and Activation layers, Dropout and Input, with weights; a Flatten may come first.
        Activations are functions of ``keras.activations`` with their default arguments.
    loss : str or object, optional
        For further training. By default the one whose default outputs the model has, such as cross
        entropy for softmax, otherwise squared error.
    output_activation : str, optional
        Applied to outputs without activation, such as "softmax" to the logits of a classifier.

    Returns
    -------
    Network
        In the dtype of the weights, with copies of them. Inputs of more dimensions that the model
        flattens are rows here.

    Raises
    ------
    ImportError
        Keras 3 is not installed.
    TypeError, ValueError
        An argument is invalid, or the model has another layer or activation, which the message
        names.

    Examples
    --------
    >>> import keras, nncore
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    >>> nncore.from_keras(model)
    Network([4, 3], loss='cross_entropy', dtype='float32'), 15 parameters
      1  4 -> 3  softmax  15
    """
    try:
        import keras
    except ImportError as error:
        raise ImportError("from_keras needs Keras 3: pip install keras") from error

    # By exact type, since a subclass may compute anything.
    if type(model) is not keras.Sequential:
        raise TypeError(f"model must be a keras.Sequential, got {type(model).__name__}")
    if not model.built:
        raise ValueError("model must have weights, got one without: begin it with a keras.Input")
    kinds = keras.layers
    if len(model.input_shape) != 2 and type(model.layers[0]) is not kinds.Flatten:
        raise ValueError(f"model must take rows or begin with Flatten, got {model.input_shape}")
    functions = {getattr(keras.activations, name): σ for name, σ in _ACTIVATIONS.items()}
    layers = ImportedLayers()
    for layer in model.layers:
        where = f"layer {layer.name!r} ({type(layer).__name__})"
        if type(layer) is kinds.Dense:
            layers.multiply(where, keras.ops.convert_to_numpy(layer.kernel))
            if layer.bias is not None:
                layers.add(where, keras.ops.convert_to_numpy(layer.bias))
        elif type(layer) not in (kinds.Activation, kinds.Dropout, kinds.Flatten):
            raise ValueError(f"{where} is neither Dense, Activation, Dropout nor Flatten")
        if type(layer) in (kinds.Dense, kinds.Activation):
            if layer.activation not in functions:
                name = getattr(layer.activation, "__name__", type(layer.activation).__name__)
                raise ValueError(f"{where} has the activation {name!r}, which nncore lacks")
            activation, slope = functions[layer.activation]
            if activation is not Activation.IDENTITY:
                layers.activate(where, activation, slope)
    return layers.as_network(loss, output_activation)
