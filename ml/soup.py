"""The average of several trained networks as one network; trains and judges nothing.

A "model soup" (Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time", 2022): fine-tuned from the same start, networks lie in one basin, and their mean is
better and better calibrated than each, at the cost of one. The mean's activations are not the mean of theirs, so
BatchNorm's statistics are measured anew (as for weight averaging: Izmailov et al., 2018).
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ml import architectures, augment, batchnorm, pixel_cache
from ml.artifact import Artifact
from ml.errors import ArtifactError
from ml.manifest import Entry, Manifest
from ml.pixel_cache import PixelCache
from ml.train_config import TrainConfig

STATISTICS_PICTURES = 1024
_BATCH = 64


def mean(models: Sequence[Artifact], manifest: Manifest, images_root: Path, config: TrainConfig) -> dict[str, Tensor]:
    """The `average` of the models with BatchNorm statistics of training pictures, as `config` shows them unmixed.

    The pictures are STATISTICS_PICTURES of the training split, chosen by the config's seed. Raises ArtifactError and
    DatasetError('dataset_empty', 'dataset_changed').
    """
    card = models[0].card
    network = architectures.build(card.architecture, len(card.labels))
    network.load_state_dict(average(models))
    if batchnorm.layers_of(network):
        chosen = list(manifest.split(config.train_split))
        random.Random(f"{config.seed}/statistics").shuffle(chosen)
        chosen = chosen[:STATISTICS_PICTURES]
        pixel_cache.verify(chosen, images_root)
        with tempfile.TemporaryDirectory(prefix="tagmill-statistics-") as folder:
            some = replace(manifest, entries=tuple(chosen))
            cache, _ = pixel_cache.prepare(some, images_root, Path(folder), config.cache_side)
            batchnorm.measure(network, _batches(chosen, cache, config))
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _batches(entries: Sequence[Entry], cache: PixelCache, config: TrainConfig) -> Iterator[Tensor]:
    preset, how = config.preprocessing(), config.augmentation.plain()
    normaliser = preset.normaliser()
    readable = [entry for entry in entries if entry.image in cache]
    for start in range(0, len(readable), _BATCH):
        rng = random.Random(f"{config.seed}/statistics/{start}")
        pictures = (cache[entry.image] for entry in readable[start : start + _BATCH])
        size = config.train_size or config.size
        yield normaliser(torch.stack([augment.for_training(one, preset, size, how, rng) for one in pictures]))


def average(models: Sequence[Artifact]) -> dict[str, Tensor]:
    """The mean of every weight and BatchNorm statistic, in fp32; counters are the first model's.

    Only models of the same architecture, labels, heads and preset can be averaged: ArtifactError('weights_mismatch')
    names the one that differs.
    """
    first = models[0]
    for other in models[1:]:
        for name in ("architecture", "head", "preset"):
            if getattr(other.card, name) != getattr(first.card, name):
                raise _differs(first, other, name)
        if [(one.group, one.name) for one in other.card.labels] != [(one.group, one.name) for one in first.card.labels]:
            raise _differs(first, other, "labels")
        if {name: value.shape for name, value in other.state.items()} != {
            name: value.shape for name, value in first.state.items()
        }:
            raise _differs(first, other, "shape of weights")
    return {
        name: torch.stack([model.state[name].float() for model in models]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in first.state.items()
    }


def _differs(first: Artifact, other: Artifact, what: str) -> ArtifactError:
    return ArtifactError("weights_mismatch", f"{other.card.ref} has another {what} than {first.card.ref}", field=what)
