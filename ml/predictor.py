"""Several models over the same pictures in one pass: working copies in, named scores out.

Holds the networks of one process and runs them on one device; reads no files and decides nothing about a
score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ml import architectures, backends, lanes, onnx_model, presets
from ml.artifact import Artifact
from ml.backends import Chosen
from ml.card import ONNX
from ml.choice import Choice
from ml.device_predictor import DEPTH, OnDevice, Outcome, Pending
from ml.errors import PredictError
from ml.lanes import Lanes, is_out_of_memory
from ml.loaded import Loaded, Prepared, pixels
from ml.scores import LabelSet, Scores, Tag
from ml.views import VIEWS
from ml.working_copy import PrepareError, decode

__all__ = ["PredictError", "Predictor", "PrepareError", "Prepared", "Scores", "Tag"]

BATCH_SIZE = 8  # above 8 a CPU core loses up to 2.6 × to its caches; a GPU's is searched for


class Predictor:
    """Prepares pictures (any thread) and predicts on batches of them (one thread at a time).

    `backend`: auto, reference, fused, openvino or cuda; "auto" takes the fastest that agrees with fp32, per model,
    beginning with the one of `choices` (by name@version): what was measured here before. `batch_size` defaults to 8 on
    a CPU; on a GPU the best is searched for. It shrinks for good when memory runs out. `threads`: torch's threads for
    one operation, for the whole process; decoding wants the other cores. `decoder`, on a GPU: cpu, nvjpeg, or auto:
    what is faster than `decode_threads` CPU threads. `on`: the device's lanes, if not its usual ones.
    """

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        *,
        device: str = "cpu",
        backend: str = "auto",
        batch_size: int | None = None,
        threads: int = 1,
        choices: Mapping[str, Choice] | None = None,
        decoder: str = "cpu",
        decode_threads: int = 1,
        on: Lanes | None = None,
    ) -> None:
        refs = [artifact.card.ref for artifact in artifacts]
        if not refs:
            raise PredictError("no_models", "a predictor needs at least one artifact")
        if len(set(refs)) < len(refs):
            raise PredictError("duplicate_model", f"the same model twice: {', '.join(refs)}")
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        self.batch_size = batch_size or BATCH_SIZE
        self.presets: list[presets.Preset] = []
        self._choices = choices or {}
        self._models: list[Loaded] = [self._ready(artifact, backend, threads) for artifact in artifacts]
        self.gpu: OnDevice | None = None
        if on is not None or self.device.type == "cuda":
            self.gpu = OnDevice(lambda: self._models, self.presets, on or lanes.of(self.device), batch_size)
            self.batch_size = self.gpu.line.size
            if decoder != "cpu":
                self.gpu.choose_decoder(self.prepare, decoder, decode_threads)

    @property
    def models(self) -> dict[str, str]:
        """The task of every loaded model by its name@version."""
        return {model.labels.ref: model.labels.task for model in self._models}

    @property
    def backends(self) -> dict[str, backends.Chosen]:
        """The backend chosen for every model, by name@version."""
        said = {} if self.gpu is None or self.gpu.line.no_graphs is None else {"cuda-graphs": self.gpu.line.no_graphs}
        return {
            model.labels.ref: replace(model.chosen, refused=model.chosen.refused | said) if said else model.chosen
            for model in self._models
        }

    @property
    def depth(self) -> int:
        """How many batches may be under way while the next is made ready; 0: `predict` is what there is."""
        return 0 if self.gpu is None else DEPTH

    @property
    def figures(self) -> dict[str, float]:
        """What the GPU has counted; empty where there is none."""
        return {} if self.gpu is None else self.gpu.figures

    def prepare(self, data: bytes) -> Prepared:
        """Decode one working copy (JPEG; PNG is taken too) and run the presets on it, on the CPU or later on the GPU.

        Raises PrepareError. Working copies are our own encoder's; bytes from outside belong to `ml.images`.
        """
        if self.gpu is not None and self.gpu.takes(data):
            return Prepared((), None, data)
        picture = decode(data)
        again = any(preset.views > 1 for preset in self.presets)
        return Prepared(tuple(preset(picture) for preset in self.presets), picture if again else None)

    def predict(self, pictures: Sequence[Prepared]) -> list[dict[str, Scores]]:
        """Scores by name@version for each picture, in order; len(out) == len(in).

        Raises PredictError('out_of_memory') when not even a single picture fits.
        """
        if self.gpu is not None:
            return [_good(outcome) for outcome in self.submit(pictures).result()]
        results: list[dict[str, Scores]] = []
        while len(results) < len(pictures):
            part = pictures[len(results) : len(results) + self.batch_size]
            try:
                rows = self._forward(part)
            except (RuntimeError, MemoryError) as error:
                self._shrink(len(part), error)
                continue
            if len(rows) != len(part):
                raise PredictError("wrong_output_length", f"{len(rows)} results for {len(part)} pictures")
            results += rows
        return results

    def submit(self, pictures: Sequence[Prepared]) -> Pending:
        """Send pictures to the GPU and come back at once; on a CPU, predict. Raises what `predict` does."""
        if self.gpu is None:
            done: list[Outcome] = [*self.predict(pictures)]
            return Pending(lambda: True, lambda: done)
        sent = self.gpu.submit(pictures)
        self.batch_size = self.gpu.line.size
        return sent

    def _ready(self, artifact: Artifact, family: str, threads: int) -> Loaded:
        card = artifact.card
        preset = presets.from_card(card.preset)
        labels = LabelSet(card)
        chosen = self._choose(artifact, preset, labels, family, threads)
        if preset not in self.presets:
            self.presets.append(preset)
        return Loaded(labels, chosen, self.presets.index(preset), preset)

    def _choose(
        self, artifact: Artifact, preset: presets.Preset, labels: LabelSet, family: str, threads: int
    ) -> Chosen:
        card, remembered = artifact.card, self._choices.get(artifact.card.ref)
        if card.architecture == ONNX:
            return onnx_model.choose(
                artifact, preset, labels.activate, family=family, threads=threads, remembered=remembered
            )
        network = architectures.restore(card.architecture, len(card.labels), dict(artifact.state))
        return backends.choose(
            network,
            preset,
            labels.activate,
            family=family,
            precision=card.precision,
            device=self.device,
            threads=threads,
            remembered=remembered,
        )

    def _forward(self, pictures: Sequence[Prepared]) -> list[dict[str, Scores]]:
        batches = [torch.stack([picture.inputs[at] for picture in pictures]) for at in range(len(self.presets))]
        with torch.inference_mode():
            scores = [self._scores(model, batches[model.input], pictures) for model in self._models]
            values = [tensor.numpy().astype(np.float32, copy=False) for tensor in scores]
        lengths = {len(array) for array in values}
        if lengths != {len(pictures)}:
            raise PredictError("wrong_output_length", f"{sorted(lengths)} results for {len(pictures)} pictures")
        return [
            {
                model.labels.ref: Scores(model.labels, array[at])
                for model, array in zip(self._models, values, strict=True)
            }
            for at in range(len(pictures))
        ]

    def _scores(self, model: Loaded, batch: Tensor, pictures: Sequence[Prepared]) -> Tensor:
        """Scores N×labels of one model; pictures that it is not sure of get the mean over its preset's views."""
        scores = model.labels.activate(model.chosen.backend.forward(batch))
        if model.preset.views == 1 or len(scores) != len(pictures):
            return scores
        unsure = (~model.labels.sure(scores, model.preset.sure)).nonzero()[:, 0].tolist()
        again = [pixels(pictures[at]) for at in unsure]
        total = scores[unsure]
        for view in VIEWS[1 : model.preset.views] if again else ():
            found = model.labels.activate(
                model.chosen.backend.forward(torch.stack([model.preset(view(picture)) for picture in again]))
            )
            if len(found) != len(again):
                raise PredictError("wrong_output_length", f"{len(found)} results for {len(again)} pictures")
            total += found
        scores[unsure] = total / model.preset.views
        return scores

    def _shrink(self, tried: int, error: BaseException) -> None:
        """Halve the batch after running out of memory; anything else is raised again."""
        if not is_out_of_memory(error):
            raise error
        if tried == 1:
            raise PredictError("out_of_memory", f"a single picture does not fit on {self.device}") from error
        self.batch_size = tried // 2


def _good(outcome: Outcome) -> dict[str, Scores]:
    if isinstance(outcome, PrepareError):
        raise outcome
    return dict(outcome)
