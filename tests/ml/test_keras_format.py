"""Descriptions of Keras models: layers that compute pass, whatever could run code of the maker's does not."""

from typing import Any

import pytest

from ml import keras_format
from ml.errors import ArtifactError


def described(*layers: dict[str, Any]) -> dict[str, Any]:
    start = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 3]}}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "registered_name": "Functional",
        "config": {"layers": [start, *layers]},
        "compile_config": {"loss": {"class_name": "function", "config": "whatever", "module": "os"}},
    }


DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "registered_name": None,
    "config": {
        "units": 5,
        "activation": {
            "module": "builtins",
            "class_name": "function",
            "config": "softmax",
            "registered_name": "function",
        },
        "kernel_initializer": {"module": "keras.initializers", "class_name": "GlorotUniform", "config": {}},
    },
}


def test_layers_that_compute_pass_and_the_training_is_not_looked_at() -> None:
    keras_format.check(described(DENSE))


@pytest.mark.parametrize(
    "layer",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}},
        {"module": "builtins", "class_name": "function", "config": "exec"},
        {"module": "os", "class_name": "function", "config": "relu"},
        {"module": "subprocess", "class_name": "Dense", "config": {}},
        {"module": "kerasx.layers", "class_name": "Dense", "config": {}},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/x"}},
        {"module": "keras.utils", "class_name": "get_file", "config": {}},
        {"module": "keras.layers", "class_name": "Dense", "registered_name": "shop>Dense", "config": {}},
        {"module": "keras.layers", "class_name": ["Dense"], "config": {}},
        DENSE | {"config": {"deep": [[{"class_name": "Lambda"}]]}},
    ],
)
def test_what_could_run_code_does_not(layer: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        keras_format.check(described(layer))
    assert caught.value.code == "keras_layer_refused"


@pytest.mark.parametrize("document", [None, [], {}, "Functional", {"config": {}}])
def test_what_describes_nothing(document: object) -> None:
    with pytest.raises(ArtifactError) as caught:
        keras_format.check(document)
    assert caught.value.code == "keras_invalid"
