"""NSFWJS's published MobileNetV2 (a tfjs layers model with uint8-quantised weights) turned into an artifact
of ours.

Reads bytes, gives a card and tensors; downloads nothing and installs nothing. The layer names are keras', the
order of the blocks is the same in torchvision, so the two layouts are matched name by name.
"""

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ml.card import Label, ModelCard
from ml.errors import ArtifactError
from ml.presets import NsfwjsPreset, to_card

CLASSES = ("Drawing", "Hentai", "Neutral", "Porn", "Sexy")
ARCHITECTURE = "nsfwjs_mobilenet_v2"
_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

Array = npt.NDArray[np.float32]


def convert(
    model_json: bytes, shard: bytes, *, name: str = "nsfwjs-mobilenet_v2", version: str = "1"
) -> tuple[ModelCard, dict[str, Tensor]]:
    """The card and the weights of the model described by `model_json`, whose only weights file is `shard`.

    Raises ArtifactError: tfjs_invalid (not a tfjs layers model, or the shard does not fit its manifest),
    tfjs_unexpected (a layers model, but not this network).
    """
    try:
        document = json.loads(model_json)
        layers = document["modelTopology"]["model_config"]["config"]["layers"]
        (manifest,) = document["weightsManifest"]
        _check_topology(layers)
        weights = dequantise(manifest["weights"], shard)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError("tfjs_invalid", f"not a tfjs layers model: {error!r}") from None
    state = _to_torch(weights)
    card = ModelCard(
        name=name,
        version=version,
        task="moderation",
        architecture=ARCHITECTURE,
        labels=tuple(Label(label, "nsfw") for label in CLASSES),
        head={"nsfw": "softmax"},
        preset=to_card(NsfwjsPreset()),
        # bf16 moves single scores by several hundredths: far beyond what the conversion itself does.
        precision="fp32",
        licence="MIT",
        source="github.com/infinitered/nsfwjs models/mobilenet_v2, dequantised from its tfjs layers model",
    )
    return card, state


def dequantise(entries: list[dict[str, Any]], shard: bytes) -> dict[str, Array]:
    """Weights by name from one tfjs shard: they lie one after the other; stored q stands for q · scale + min.

    Formula and layout: tfjs-core io/io_utils.ts `decodeWeights`. Computed in double, kept in float32, as
    there.
    """
    weights: dict[str, Array] = {}
    offset = 0
    for entry in entries:
        shape = tuple(int(side) for side in entry["shape"])
        quantisation = entry.get("quantization")
        stored = np.dtype((quantisation or entry)["dtype"]).newbyteorder("<")
        if entry["dtype"] != "float32" or stored not in (np.dtype("u1"), np.dtype("<u2"), np.dtype("<f4")):
            raise ArtifactError("tfjs_unexpected", f"{entry['name']} is stored as {stored}")
        values = np.frombuffer(shard, stored, count=math.prod(shape), offset=offset)
        offset += values.nbytes
        if quantisation:
            values = values.astype(np.float64) * float(quantisation["scale"]) + float(quantisation["min"])
        weights[str(entry["name"])] = values.astype(np.float32).reshape(shape)
    if offset != len(shard):
        raise ArtifactError("tfjs_invalid", f"the shard has {len(shard)} bytes, its manifest describes {offset}")
    return weights


def _check_topology(layers: list[dict[str, Any]]) -> None:
    """Refuse a relative of this network whose numbers would load and whose scores would be wrong."""
    for layer in layers:
        kind, config = layer["class_name"], layer["config"]
        if kind == "BatchNormalization" and not math.isclose(config["epsilon"], 1e-3):
            raise ArtifactError("tfjs_unexpected", f"{config['name']} has epsilon {config['epsilon']}, not 1e-3")
        if kind == "ZeroPadding2D" and config["padding"] != [[0, 1], [0, 1]]:
            raise ArtifactError("tfjs_unexpected", f"{config['name']} pads {config['padding']}")
        if kind == "ReLU" and config["max_value"] != 6:
            raise ArtifactError("tfjs_unexpected", f"{config['name']} is cut at {config['max_value']}, not 6")


def _layer_names() -> dict[str, str]:
    """keras layer → prefix of ours, for every convolution, BatchNorm and dense layer."""
    names = {"Conv1": "features.0.0.1", "bn_Conv1": "features.0.1"}
    for block in range(17):
        keras = "expanded_conv_" if block == 0 else f"block_{block}_"
        ours = f"features.{block + 1}.conv."
        padded = ".1" if block in (1, 3, 6, 13) else ""  # stride 2: the convolution sits behind its padding
        depthwise, project = (0, 1) if block == 0 else (1, 2)
        if block:
            names |= {f"{keras}expand": f"{ours}0.0", f"{keras}expand_BN": f"{ours}0.1"}
        names |= {
            f"{keras}depthwise": f"{ours}{depthwise}.0{padded}",
            f"{keras}depthwise_BN": f"{ours}{depthwise}.1",
            f"{keras}project": f"{ours}{project}",
            f"{keras}project_BN": f"{ours}{project + 1}",
        }
    names |= {"Conv_1": "features.18.0", "Conv_1_bn": "features.18.1"}
    return names | {"dense_1": "classifier.0", "dense_2": "classifier.2", "dense_3": "classifier.4"}


def _to_torch(weights: dict[str, Array]) -> dict[str, Tensor]:
    layers = _layer_names()
    state: dict[str, Tensor] = {}
    for name, array in weights.items():
        layer, _, part = name.partition("/")
        if layer not in layers:
            raise ArtifactError("tfjs_unexpected", f"{name} is no weight of NSFWJS's MobileNetV2")
        if part == "kernel" and array.ndim == 4:
            key, array = "weight", array.transpose(3, 2, 0, 1)  # HWIO → OIHW
        elif part == "depthwise_kernel":
            key, array = "weight", array.transpose(2, 3, 0, 1)  # HW·channels·1 → channels·1·HW
        elif part == "kernel":
            key, array = "weight", array.T
        else:
            key = _BATCH_NORM.get(part, part)
        state[f"{layers[layer]}.{key}"] = torch.from_numpy(np.ascontiguousarray(array))
        if part == "moving_mean":
            state[f"{layers[layer]}.num_batches_tracked"] = torch.tensor(0)
    return state
