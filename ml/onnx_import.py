"""From an ONNX file and what its user says of it to an artifact: feeding, labels, activation, agreement of runtimes.

Parses nothing native and starts no process: whoever calls brings the outputs that a locked-in process got.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml import backends, onnx_format, onnx_model, presets
from ml.artifact import Artifact, save
from ml.card import ONNX, ModelCard, from_dict
from ml.errors import ArtifactError
from ml.onnx_format import Network
from ml.onnx_model import Feeding
from ml.openvino_runtime import Array
from ml.scores import LabelSet

# Largest difference that a conversion may make, of any output and relative to the outputs' length.
CONVERSION = 1e-3
MIN_SIZE, MAX_SIZE = 8, 2048
_SUM = 1e-3


@dataclass(frozen=True, slots=True)
class Plan:
    """A file that can be tried out: how pictures go into it, and the batch to try it with."""

    data: bytes
    network: Network
    feeding: Feeding
    preset: presets.Preset
    card: dict[str, Any]
    batch: Array


def plan(data: bytes, card: Mapping[str, Any], *, layout: str | None, channels: str, size: int | None) -> Plan:
    """Check the file and what is said of it. `card`: its document but for `onnx`; its preset may lack a size.

    Raises ArtifactError: the codes of `onnx_format.read`, onnx_input, card_invalid, labels_mismatch.
    """
    network = onnx_format.read(data)
    assert network.input.shape is not None
    layout = layout or _layout(network.input)
    sides = network.input.shape
    channel, height, width = (sides[1], sides[2], sides[3]) if layout == "NCHW" else (sides[3], sides[1], sides[2])
    if channel not in (3, None):
        raise ArtifactError("onnx_input", f"the input {network.input} has no three channels in the layout {layout}")
    fixed = {side for side in (height, width) if side is not None}
    if len(fixed) > 1:
        raise ArtifactError("onnx_input", f"the input {network.input} is not square")
    taken = fixed.pop() if fixed else size
    if taken is None:
        raise ArtifactError("onnx_input", "the network takes pictures of any size: give --size")
    if not MIN_SIZE <= taken <= MAX_SIZE:
        raise ArtifactError("onnx_input", f"pictures of {taken}×{taken}; {MIN_SIZE} to {MAX_SIZE} can be taken")
    if size not in (None, taken):
        raise ArtifactError("onnx_input", f"--size {size}, but the input is {network.input}")
    labels = len(card["labels"])
    if network.output.shape is not None and network.output.shape[1] not in (labels, None):
        raise ArtifactError("labels_mismatch", f"{labels} labels, but the output is {network.output}")
    document = {**card, "preset": {**card["preset"], "size": taken}}
    if card["preset"]["name"] == "imagenet":
        document["preset"].setdefault("resize", round(taken * 256 / 224))
    preset = presets.from_card(document["preset"])
    feeding = Feeding(layout, channels, "logits", sides[0])
    return Plan(data, network, feeding, preset, document, feeding.array(preset, backends.probe(preset)))


def finish(
    planned: Plan, folder: Path, reference: Array, serving: Array, *,
    batch: int | None, outputs: str | None, about: Mapping[str, Any],
) -> Artifact:  # fmt: skip
    """Write the artifact. `reference`, `serving`: both runtimes' outputs for the plan's batch, N×labels; `batch`:
    how many pictures it takes at once; `outputs`: logits or probabilities, None: what they look like; `about`: more for
    `card.onnx`.

    Raises ArtifactError: labels_mismatch, onnx_not_finite, output_mismatch, onnx_disagrees, card_invalid.
    """
    labels = len(planned.card["labels"])
    if reference.shape[1] != labels:
        raise ArtifactError("labels_mismatch", f"{labels} labels, but the network gives {reference.shape[1]} scores")
    if not (np.isfinite(reference).all() and np.isfinite(serving).all()):
        raise ArtifactError(
            "onnx_not_finite", "the network gives NaN or infinity: are the scaling and the layout right?"
        )
    feeding = replace(planned.feeding, batch=batch)
    entry = {"layout": feeding.layout, "channels": feeding.channels, "outputs": "logits", "batch": batch, **about}
    card = from_dict({**planned.card, "architecture": ONNX, "onnx": entry})
    kind = _kind(card, reference, planned.network.last, outputs)
    card = replace(card, onnx={**entry, "outputs": kind})
    gap = agreement(card, reference, serving)
    card = from_dict(
        {**card.to_dict(), "onnx": {**entry, "outputs": kind, "gap": max(gap, float(about.get("gap", 0)))}}
    )
    return save(folder, card, onnx_model.pack(planned.data, reference))


def agreement(card: ModelCard, reference: Array, serving: Array) -> float:
    """The largest difference of a score between the runtimes. Raises ArtifactError('onnx_disagrees')."""
    expected = onnx_model.logits(card, torch.from_numpy(reference.copy()))
    found = onnx_model.logits(card, torch.from_numpy(serving.copy()))
    gap, relative, near = onnx_model.compare(card, LabelSet(card).activate, found, expected)
    if not near:
        what = f"OpenVINO's scores differ from ONNX Runtime's by {gap:.2g}, its outputs by {relative:.2g}"
        raise ArtifactError("onnx_disagrees", what)
    return gap


def conversion_gap(converted: Array, original: Array) -> float:
    """The largest difference that a conversion made to any output. Raises ArtifactError('conversion_differs')."""
    if converted.shape != original.shape:
        raise ArtifactError("conversion_differs", f"outputs of {converted.shape}, the original's are {original.shape}")
    gap = float(np.abs(converted - original).max())
    relative = float(np.linalg.norm(converted - original) / max(float(np.linalg.norm(original)), 1e-12))
    if not (relative <= CONVERSION and gap <= CONVERSION * max(1.0, float(np.abs(original).max()))):
        raise ArtifactError("conversion_differs", f"the converted network's outputs differ by {gap:.2g}")
    return gap


def verify(artifact: Artifact) -> tuple[bytes, Array, Array, int | None]:
    """For an artifact from elsewhere: (the ONNX file, the batch to try, the outputs it must give, pictures at once).

    Raises ArtifactError.
    """
    data, probed = onnx_model.unpack(artifact)
    preset = presets.from_card(artifact.card.preset)
    feeding = Feeding.of(artifact.card)
    return data, feeding.array(preset, backends.probe(preset)), probed.numpy(), feeding.batch


def _layout(port: onnx_format.Port) -> str:
    assert port.shape is not None
    first, last = port.shape[1] == 3, port.shape[3] == 3
    if first == last:
        raise ArtifactError("onnx_input", f"the input {port} does not tell where the channels are: give --layout")
    return "NCHW" if first else "NHWC"


def _kind(card: ModelCard, outputs: Array, last: str, said: str | None) -> str:
    """logits or probabilities, as said or as the outputs look. Raises ArtifactError('output_mismatch')."""
    wrong = next((why for group in card.groups if (why := _no_probabilities(card, group, outputs))), None)
    if said == "probabilities" and wrong:
        raise ArtifactError("output_mismatch", f"the outputs are no probabilities: {wrong}")
    # Sigmoid's 0…1 may be logits by chance, on four pictures; that all sums are 1 may not.
    sure = wrong is None and (last in ("Softmax", "Sigmoid") or set(card.head.values()) == {"softmax"})
    if said == "logits" and sure:
        raise ArtifactError("output_mismatch", "the outputs are probabilities already: --output-is probabilities")
    if said is None and wrong and last in ("Softmax", "Sigmoid"):
        what = f"the network ends with {last}, and for this --head its outputs are no probabilities: {wrong}"
        raise ArtifactError("output_mismatch", what)
    return said or ("probabilities" if sure else "logits")


def _no_probabilities(card: ModelCard, group: str, outputs: Array) -> str | None:
    part = outputs[:, card.groups[group]]
    if part.min() < -1e-6 or part.max() > 1 + 1e-5:
        return f"they go from {part.min():.3g} to {part.max():.3g}"
    if card.head[group] == "softmax" and float(np.abs(part.sum(1) - 1).max()) > _SUM:
        return f"a picture's scores of {group!r} sum to {part.sum(1)[0]:.3g}, not 1"
    return None
