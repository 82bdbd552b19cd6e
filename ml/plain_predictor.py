"""What `ml.predictor` does, for networks that were exported, without torch: OpenVINO, Pillow and numpy.

A process needs 60 MB instead of 800, and half a second instead of five. Pictures are decoded and resized by Pillow,
within one grey level of torch's; the networks are compared with the fp32 reference before they go live, as ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml import presets
from ml.agreement import agrees, apart, turns
from ml.card import ModelCard, Precision
from ml.choice import Choice
from ml.errors import BackendError, PredictError
from ml.exported import Exported
from ml.openvino_runtime import SIZES, Array, Compiled, openvino
from ml.scores import LabelSet, Scores
from ml.views import VIEWS
from ml.working_copy import opened

BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class Prepared:
    """One picture, ready for every model: an array for each preset. `picture`: where a model may look again."""

    inputs: tuple[npt.NDArray[np.generic], ...]
    picture: Image.Image | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """How a model is run."""

    name: str
    compiled: Compiled


@dataclass(frozen=True, slots=True)
class Chosen:
    """The backend taken, how far its scores were from the reference's, and what was refused and why."""

    backend: Backend
    gap: float
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Loaded:
    labels: LabelSet
    chosen: Chosen
    input: int
    preset: presets.Preset

    def scores(self, batch: npt.NDArray[np.generic]) -> Array:
        return self.labels.plain(self.chosen.backend.compiled.infer(batch))


class PlainPredictor:
    """Prepares pictures (any thread) and predicts on batches of them (one thread at a time), on the CPU.

    Raises BackendError('backend_disagrees') where no precision that a card allows gives the reference's scores.
    """

    def __init__(
        self,
        models: Sequence[tuple[ModelCard, Exported]],
        *,
        batch_size: int | None = None,
        threads: int = 1,
        choices: Mapping[str, Choice] | None = None,
    ) -> None:
        if not models:
            raise PredictError("no_models", "a predictor needs at least one model")
        self.batch_size = batch_size or BATCH_SIZE
        self.presets: list[presets.Preset] = []
        self._models = [self._ready(card, network, threads, (choices or {}).get(card.ref)) for card, network in models]

    @property
    def models(self) -> dict[str, str]:
        """The task of every loaded model by its name@version."""
        return {model.labels.ref: model.labels.task for model in self._models}

    @property
    def backends(self) -> dict[str, Chosen]:
        """The backend chosen for every model, by name@version."""
        return {model.labels.ref: model.chosen for model in self._models}

    def prepare(self, data: bytes) -> Prepared:
        """Decode one working copy and run the presets on it. Raises PrepareError."""
        picture = opened(data)
        again = any(preset.views > 1 for preset in self.presets)
        return Prepared(tuple(preset.plain(picture) for preset in self.presets), picture if again else None)

    def predict(self, pictures: Sequence[Prepared]) -> list[dict[str, Scores]]:
        """Scores by name@version for each picture, in order; len(out) == len(in)."""
        results: list[dict[str, Scores]] = []
        for at in range(0, len(pictures), self.batch_size):
            results += self._forward(pictures[at : at + self.batch_size])
        return results

    def _forward(self, pictures: Sequence[Prepared]) -> list[dict[str, Scores]]:
        batches = [np.stack([picture.inputs[at] for picture in pictures]) for at in range(len(self.presets))]
        values = [self._scores(model, batches[model.input], pictures) for model in self._models]
        if {len(array) for array in values} != {len(pictures)}:
            raise PredictError(
                "wrong_output_length", f"{[len(a) for a in values]} results for {len(pictures)} pictures"
            )
        return [
            {
                model.labels.ref: Scores(model.labels, array[at])
                for model, array in zip(self._models, values, strict=True)
            }
            for at in range(len(pictures))
        ]

    def _scores(self, model: _Loaded, batch: npt.NDArray[np.generic], pictures: Sequence[Prepared]) -> Array:
        """Scores N×labels of one model; pictures that it is not sure of get the mean over its preset's views."""
        scores = model.scores(batch)
        if model.preset.views == 1:
            return scores
        (unsure,) = np.nonzero(~model.labels.plainly_sure(scores, model.preset.sure))
        again = [_pixels(pictures[at]) for at in unsure.tolist()]
        total = scores[unsure]
        for view in VIEWS[1 : model.preset.views] if again else ():
            total += model.scores(np.stack([model.preset.plain(_picture(view(picture))) for picture in again]))
        scores[unsure] = total / np.float32(model.preset.views)
        return scores

    def _ready(self, card: ModelCard, network: Exported, threads: int, remembered: Choice | None) -> _Loaded:
        preset, labels = presets.from_card(card.preset), LabelSet(card)
        chosen = _choose(card, labels, network, threads, remembered)
        if preset not in self.presets:
            self.presets.append(preset)
        return _Loaded(labels, chosen, self.presets.index(preset), preset)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bf16 itself, as OpenVINO knows it."""
    return "BF16" in openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _choose(card: ModelCard, labels: LabelSet, network: Exported, threads: int, remembered: Choice | None) -> Chosen:
    lowest: list[Precision] = ["bf16", "fp32"] if card.precision == "bf16" and cpu_has_bf16() else ["fp32"]
    candidates = [Choice("openvino", precision, max(SIZES)) for precision in lowest]
    if network.int8 is not None and remembered is not None and remembered.precision == "int8":
        candidates.insert(0, remembered)  # never by itself: only where it was measured to be the fastest
    refused: dict[str, str] = {}
    for choice in candidates if remembered is None else remembered.before(candidates):
        own = network.int8 if choice.precision == "int8" and network.int8 is not None else network
        try:
            compiled = Compiled(
                own.model, own.inputs.shape[1:], choice.sizes, precision=choice.precision, threads=threads
            )
        except BackendError as error:
            if own is network:
                raise
            refused[choice.name] = error.detail
            continue
        at = turns(len(own.inputs), compiled.sizes)
        found, expected = compiled.infer(own.inputs[at]), own.logits[at]
        if found.shape != expected.shape:
            raise BackendError("backend_disagrees", f"{card.ref} gives {found.shape}, its export {expected.shape}")
        gap = float(np.abs(labels.plain(found) - labels.plain(expected)).max())
        relative = float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)
        if agrees(choice.precision, gap, relative):
            return Chosen(Backend(choice.name, compiled), gap, refused)
        refused[choice.name] = apart(gap, relative)
    raise BackendError("backend_disagrees", "; ".join(f"{name}: {why}" for name, why in refused.items()))


def _pixels(prepared: Prepared) -> npt.NDArray[np.uint8]:
    """uint8 3×H×W."""
    assert prepared.picture is not None, "prepared by a predictor whose models look only once"
    return np.asarray(prepared.picture).transpose(2, 0, 1)


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
