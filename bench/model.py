"""The model of the comparison: mobilenet_v3_large with ImageNet's 1000 labels, as our artifact and as OpenVINO IR.

Its weights are random (a fixed seed), its BatchNorm statistics those of real photos, its scores spread as trained ones
are: speed depends on none of this, but the tags that are written do.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.peers import kernel
from ml import architectures, artifact, backends, batchnorm, imagenet, openvino_runtime
from ml.presets import ImagenetPreset
from ml.working_copy import decode

ARCHITECTURE = "mobilenet_v3_large"
VERSION = "1"
WEIGHTS = artifact.WEIGHTS_FILE
SPREAD = 2.5  # standard deviation of the logits; trained classifiers have 2 to 3
PHOTOS = 64


def provide(cache: Path, photos: Path) -> Path:
    """The folder with the artifact, the IR and the labels; made in a few seconds, once a cache."""
    folder = cache / f"{ARCHITECTURE}-{VERSION}"
    done = folder / "labels.json"
    if not done.exists():
        names = sorted(photos.iterdir())[-PHOTOS:]
        preset = ImagenetPreset()
        pictures = torch.stack([preset(decode(name.read_bytes())) for name in names])
        network = _network(preset.normaliser(), pictures)
        card = imagenet.card(ARCHITECTURE, VERSION, source="bench/model.py", licence="Apache-2.0", precision="bf16")
        artifact.save(folder, card, network.state_dict())
        _export(network, preset, folder / kernel.IR)
        done.write_text(json.dumps([label.name for label in card.labels]))
    return folder


def _network(normaliser: nn.Module, pictures: Tensor) -> nn.Module:
    torch.manual_seed(20_260_101)
    network = architectures.build(ARCHITECTURE, 1000)
    ready = normaliser(pictures)
    batchnorm.measure(network, [ready])
    with torch.inference_mode():
        logits = network(ready)
        last = network.classifier[-1]
        last.bias.sub_(logits.mean(0))
        factor = SPREAD / float((logits - logits.mean(0)).std())
        last.weight.mul_(factor)
        last.bias.mul_(factor)
    return network


def _export(network: nn.Module, preset: ImagenetPreset, path: Path) -> None:
    model = backends.converted(network, preset)
    model.reshape([kernel.BATCH, 3, kernel.SIZE, kernel.SIZE])
    openvino_runtime.openvino().save_model(model, path, compress_to_fp16=False)
