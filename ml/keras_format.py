"""What a Keras model's description may name, checked before Keras turns it into objects. Imports no Keras.

A description is JSON that names classes and functions by module; several holes in Keras's own safe mode were of that
kind. So only layers that compute, by these names, from Keras's own modules are let through.
"""

from typing import Any, Final

from ml.errors import ArtifactError

MOST_NODES: Final = 2_000_000
_CONTAINERS: Final = {"Functional", "Sequential", "Model", "InputLayer", "__keras_tensor__", "__tuple__", "__numpy__"}
_LAYERS: Final = {
    *("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense", "Activation", "ReLU", "LeakyReLU"),
    *("PReLU", "ELU", "Softmax", "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization"),
    *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "ZeroPadding2D"),
    *("Cropping2D", "UpSampling2D", "Flatten", "Reshape", "Permute", "Identity", "Dropout", "SpatialDropout2D"),
    *("GaussianNoise", "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Add", "Subtract", "Multiply"),
    *("Average", "Maximum", "Minimum", "Concatenate", "Dot", "Rescaling", "Normalization", "Resizing", "CenterCrop"),
    *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness"),
}
_PARTS: Final = {
    *("GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform", "Zeros", "Ones"),
    *("Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "Orthogonal", "L1", "L2"),
    *("L1L2", "MaxNorm", "NonNeg", "UnitNorm", "MinMaxNorm", "DTypePolicy", "Policy", "SeedGenerator"),
}
_FUNCTIONS: Final = {
    *(
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "gelu",
        "celu",
        "silu",
        "swish",
        "hard_silu",
        "hard_swish",
    ),
    *("mish", "tanh", "softplus", "softsign", "sigmoid", "hard_sigmoid", "softmax", "log_softmax", "exponential"),
}
ALLOWED: Final = _CONTAINERS | _LAYERS | _PARTS
# How the model was trained: not loaded (compile=False), so it may name whatever it likes.
_IGNORED: Final = {"compile_config", "training_config"}


def check(description: object) -> None:
    """Raises ArtifactError: keras_layer_refused names what is not let through; keras_invalid."""
    if not isinstance(description, dict) or "class_name" not in description:
        raise ArtifactError("keras_invalid", "the file describes no Keras model")
    left: list[Any] = [value for key, value in description.items() if key not in _IGNORED]
    _class(description)
    seen = 0
    while left:
        seen += 1
        if seen > MOST_NODES:
            raise ArtifactError("keras_invalid", f"a description of more than {MOST_NODES} parts")
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            if "class_name" in part:
                _class(part)
            left += part.values()


def _class(part: dict[str, Any]) -> None:
    name, module, registered = part["class_name"], part.get("module"), part.get("registered_name")
    if name == "function":
        function = part.get("config")
        if function in _FUNCTIONS and _from_keras(module, "builtins"):
            return
        raise _refused(f"the function {function!r}")
    if not isinstance(name, str) or name not in ALLOWED:
        raise _refused(f"the layer or class {str(name)[:80]!r}")
    if not _from_keras(module):
        raise _refused(f"{name} of the module {str(module)[:80]!r}")
    if registered not in (None, name):
        raise _refused(f"the registered class {str(registered)[:80]!r}")


def _from_keras(module: object, *others: str) -> bool:
    return module is None or (isinstance(module, str) and (module.startswith("keras.") or module in ("keras", *others)))


def _refused(what: str) -> ArtifactError:
    return ArtifactError(
        "keras_layer_refused",
        f"{what} is not imported: it could run code of the file's maker. Where the model was made, "
        "export it: model.export('model.onnx', format='onnx')",
    )
