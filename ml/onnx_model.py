"""An imported ONNX network as an artifact, and as a backend that runs it. Reads no file, imports nothing from outside.

The file's bytes are one tensor of the safetensors weights, so that the one SHA-256 of an artifact pins them together
with the card; beside them lie the outputs that two runtimes agreed on when it was imported, for a made batch of
pictures. A backend goes live only if it gives them again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ml import backends, onnx_format
from ml.agreement import apart, turns
from ml.artifact import Artifact
from ml.card import ModelCard
from ml.choice import Choice
from ml.errors import ArtifactError, BackendError
from ml.openvino_runtime import SIZES, Array, Compiled, OnnxOnOpenVino
from ml.presets import Preset

FAMILIES = ("auto", "openvino")
_LEAST = 1e-20  # a probability below it cannot be told from it by any score that we report
_LEAST_SIGMOID = 1e-7  # what float32 can tell from 0, and 1 minus it from 1


@dataclass(frozen=True, slots=True)
class Feeding:
    """How pictures go into a network and its output comes out; the card's field `onnx` says it."""

    layout: str
    channels: str
    outputs: str
    batch: int | None

    @classmethod
    def of(cls, card: ModelCard) -> "Feeding":
        about: Mapping[str, Any] = card.onnx or {}
        return cls(about["layout"], about["channels"], about["outputs"], about.get("batch"))

    def array(self, preset: Preset, batch: Tensor) -> Array:
        """A batch as its preset made it → float32, normalised, in the layout of the network, on the CPU."""
        with torch.inference_mode():
            ready = preset.normaliser()(batch.cpu())
            if self.channels == "BGR":
                ready = ready.flip(1)
            if self.layout == "NHWC":
                ready = ready.permute(0, 2, 3, 1)
            return np.ascontiguousarray(ready.numpy())

    def side(self, size: int, count: int) -> tuple[int, ...]:
        """The shape of `count` pictures of size × size."""
        return (count, 3, size, size) if self.layout == "NCHW" else (count, size, size, 3)


def pack(data: bytes, probed: Array) -> dict[str, Tensor]:
    """The weights of the artifact: the ONNX file, and its outputs (float32, N×labels) for `backends.probe`."""
    return {"onnx": torch.frombuffer(bytearray(data), dtype=torch.uint8), "probe": torch.from_numpy(probed.copy())}


def unpack(artifact: Artifact) -> tuple[bytes, Tensor]:
    """The ONNX file, checked, and the outputs it must give for the probe.

    Raises ArtifactError: weights_mismatch, or the codes of `onnx_format.read`.
    """
    state, labels = artifact.state, len(artifact.card.labels)
    if set(state) != {"onnx", "probe"} or state["onnx"].dtype != torch.uint8 or state["onnx"].dim() != 1:
        raise ArtifactError("weights_mismatch", f"{artifact.card.ref} holds no ONNX file as we pack it")
    probed = state["probe"]
    if probed.dtype != torch.float32 or probed.dim() != 2 or probed.shape[1] != labels:
        raise ArtifactError("weights_mismatch", f"{artifact.card.ref} has {labels} labels, its probe {probed.shape}")
    data = state["onnx"].numpy().tobytes()
    onnx_format.read(data)
    return data, probed


def logits(card: ModelCard, outputs: Tensor) -> Tensor:
    """The network's outputs (N×labels) as logits: probabilities p become log p, or log p/(1−p) for sigmoid.

    Activation gives back the same probabilities, and a fitted temperature means what it means elsewhere.
    """
    if Feeding.of(card).outputs == "logits":
        return outputs.float()
    made = torch.empty_like(outputs, dtype=torch.float32)
    for group, positions in card.groups.items():
        at = torch.tensor(positions)
        if card.head[group] == "softmax":
            made[:, at] = outputs[:, at].clamp(min=_LEAST).log()
        else:
            made[:, at] = outputs[:, at].double().clamp(_LEAST_SIGMOID, 1 - _LEAST_SIGMOID).logit().float()
    return made


class OnnxBackend:
    """OpenVINO on the CPU, in fp32. A network that takes only so many pictures at once gets them filled up."""

    name = "openvino-onnx-fp32"

    def __init__(
        self, card: ModelCard, data: bytes, preset: Preset, *, threads: int, sizes: Sequence[int] = SIZES
    ) -> None:
        self._card, self._preset, self._feeding = card, preset, Feeding.of(card)
        side = self._feeding.side(preset.size, 1)[1:]
        fixed = self._feeding.batch
        self.compiled = Compiled(
            OnnxOnOpenVino().read(data), side, (fixed,) if fixed else sizes, precision=card.precision, threads=threads
        )

    def forward(self, batch: Tensor) -> Tensor:
        outputs = self.compiled.infer(self._feeding.array(self._preset, batch))
        return logits(self._card, torch.from_numpy(outputs)).to(batch.device)


def choose(
    artifact: Artifact,
    preset: Preset,
    scores: Callable[[Tensor], Tensor],
    *,
    family: str = "auto",
    threads: int,
    remembered: Choice | None = None,
) -> backends.Chosen:
    """The backend for an imported network, if its scores for the probe are those of the import.

    `scores` turns logits into scores. On a machine with CUDA it runs on the CPU as well. Raises ArtifactError, and
    BackendError: backend_unavailable, backend_disagrees.
    """
    card = artifact.card
    if family not in FAMILIES:
        what = f"{card.ref} was imported from ONNX: it runs on {' or '.join(FAMILIES)}, not on {family!r}"
        raise BackendError("backend_unavailable", what)
    data, probed = unpack(artifact)
    sizes = SIZES if remembered is None else remembered.sizes
    backend = OnnxBackend(card, data, preset, threads=threads, sizes=sizes)
    gap, relative, near = distance(card, backend, backends.probe(preset), scores, probed)
    if not near:
        raise BackendError("backend_disagrees", f"{card.ref} on {backend.name}: {apart(gap, relative)} from its import")
    return backends.Chosen(backend, gap)


def distance(
    card: ModelCard, backend: OnnxBackend, pictures: Tensor, scores: Callable[[Tensor], Tensor], probed: Tensor
) -> tuple[float, float, bool]:
    """`compare` of what the backend gives for the probe, in every batch size, with the outputs `probed` at the import.

    Raises BackendError('backend_disagrees') where they have another shape.
    """
    at = turns(len(pictures), backend.compiled.sizes)
    found = backend.forward(pictures[at])
    if (len(pictures), *found.shape[1:]) != probed.shape:
        what = f"{card.ref} gives {tuple(found.shape[1:])} for each of the probe, expected {tuple(probed.shape)} in all"
        raise BackendError("backend_disagrees", what)
    return compare(card, scores, found, logits(card, probed)[at])


def compare(
    card: ModelCard, scores: Callable[[Tensor], Tensor], found: Tensor, expected: Tensor
) -> tuple[float, float, bool]:
    """(largest difference of a score, relative difference of the logits, whether that is as near as fp32 must be)."""
    gap = float((scores(found) - scores(expected)).abs().max())
    relative = float((found - expected).norm() / expected.norm().clamp(min=1e-12))
    allowed_gap, allowed_relative = backends.TOLERANCE["fp32"]
    # Logits made of probabilities near 0 and 1 magnify what no score shows. A NaN is never near.
    magnified = Feeding.of(card).outputs == "probabilities"
    return gap, relative, gap <= allowed_gap and (relative <= allowed_relative or magnified)
