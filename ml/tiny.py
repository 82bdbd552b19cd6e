"""A model of a few hundred bytes whose right answer for any picture is known; for tests, not for use.

Its scores depend on the mean colour only: logits = GAIN · (colour · directions), one direction per label.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ml.artifact import Artifact, save
from ml.card import Label, ModelCard, Task
from ml.presets import NsfwjsPreset, to_card

GAIN = 12.0
EPSILON = 1e-5  # BatchNorm's; its variance is chosen so that the layer changes nothing

# How strongly each label answers to red, green and blue in 0…1. Grey pictures get the label with only zeros.
DIRECTIONS: dict[Task, dict[str, tuple[float, float, float]]] = {
    "tags": {"grey": (0, 0, 0), "red": (1, -1, -1), "green": (-1, 1, -1), "blue": (-1, -1, 1)},
    "moderation": {
        "Drawing": (-1, -1, 1),
        "Hentai": (-1, -1, -1),
        "Neutral": (0, 0, 0),
        "Porn": (1, -1, -1),
        "Sexy": (1, 1, -2),
    },
}


def make_tiny(
    folder: Path,
    task: Task,
    *,
    name: str | None = None,
    version: str = "1",
    renamed: Mapping[str, str] | None = None,
) -> Artifact:
    """Write the artifact for `task` into `folder`: tags grey, red, green, blue; or NSFWJS's five classes.

    `renamed`: other names for some labels, {usual: other}: a version that answers differently.
    """
    directions = {(renamed or {}).get(label, label): direction for label, direction in DIRECTIONS[task].items()}
    state = {
        "features.0.weight": torch.eye(3).view(3, 3, 1, 1),
        "features.1.weight": torch.ones(3),
        "features.1.bias": torch.zeros(3),
        "features.1.running_mean": torch.zeros(3),
        "features.1.running_var": torch.full((3,), 1 - EPSILON),
        "features.1.num_batches_tracked": torch.tensor(0),
        "classifier.weight": torch.tensor(list(directions.values()), dtype=torch.float32) * GAIN,
        "classifier.bias": torch.zeros(len(directions)),
    }
    group = {"tags": "colour", "moderation": "nsfw"}[task]
    card = ModelCard(
        name=name or f"tiny-{task}",
        version=version,
        task=task,
        architecture="tiny_colour",
        labels=tuple(Label(label, group) for label in directions),
        head={group: "softmax"},
        preset=to_card(NsfwjsPreset(size=8)),
        licence="Apache-2.0",
        source="made by ml/tiny.py",
    )
    return save(folder, card, state)


def expected(task: Task, rgb: Sequence[float]) -> dict[str, float]:
    """The scores, by label, of a picture of one colour, `rgb` in 0…255; JPEG moves a colour a little."""
    powers = {
        label: math.exp(GAIN * sum(d * value / 255 for d, value in zip(direction, rgb, strict=True)))
        for label, direction in DIRECTIONS[task].items()
    }
    total = sum(powers.values())
    return {label: power / total for label, power in powers.items()}
