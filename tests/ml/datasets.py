"""Tiny datasets made on the spot: coloured pictures with grain, whose label is their colour. It asserts nothing."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from ml.manifest import Entry, Group, Manifest
from ml.train_config import TrainConfig

COLOURS = {"red": (190, 60, 60), "green": (60, 190, 60), "blue": (60, 60, 190)}
SIDE = 12


def picture(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    """A PNG of `colour` with grain that differs from seed to seed."""
    grain = np.random.default_rng(seed).integers(-50, 51, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + grain).clip(0, 255).astype(np.uint8)).save(path)


def scene(path: Path, seed: int, quality: int = 90) -> None:
    """A JPEG of soft shapes with enough detail for PDQ, different from seed to seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((160, 160), Image.Resampling.BICUBIC).save(path, "JPEG", quality=quality)


def coloured(root: Path, per_label: int = 8, seed: int = 0) -> Manifest:
    """`per_label` pictures of each colour for training and half as many for validation, below `root`.

    Groups: "colour" (exclusive) and "warm" (attribute of red); every fourth picture's warmth is unknown.
    """
    entries = []
    for split, count in (("train", per_label), ("validation", per_label // 2)):
        for number, (label, colour) in enumerate(COLOURS.items()):
            for at in range(count):
                path = root / f"{split}-{label}-{at}.png"
                picture(path, colour, seed + 1000 * number + at + (500 if split == "train" else 0))
                warm = None if at % 4 == 3 else ("warm",) if label == "red" else ()
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                entries.append(Entry(path.name, digest, {"colour": label, "warm": warm}, split, {"n": str(at)}))
    groups = {"colour": Group("exclusive", tuple(COLOURS)), "warm": Group("attributes", ("warm",))}
    return Manifest("colours", "1", groups, tuple(entries))


def config(**changed: object) -> TrainConfig:
    """A run of a second: the network of a few dozen numbers, on one thread."""
    settings: dict[str, object] = {
        "name": "tiny",
        "architecture": "tiny_colour",
        "size": 8,
        "head_epochs": 1,
        "epochs": 3,
        "batch_size": 4,
        "lr": 0.05,
        "head_lr": 0.1,
        "label_smoothing": 0.0,
        "ema_decay": 0.5,
        "precision": "fp32",
        "threads": 1,
        "workers": 1,
        "seed": 3,
        "cache_side": SIDE,
        "half_weights": False,
    }
    return TrainConfig(**{**settings, **changed})  # type: ignore[arg-type]
