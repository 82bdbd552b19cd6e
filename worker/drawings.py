"""Pictures that the demo draws itself where there are no photos: garments as they lie on a bed or a floor, marked as
drawings in the picture and in the file's name, which says what was drawn too."""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from random import Random

from worker import drawing_bottoms as bottoms
from worker import drawing_scene
from worker import drawing_tops as tops
from worker.drawing_cloth import COLOURS, DENIM
from worker.drawing_parts import Garment
from worker.drawing_scene import SIZE

__all__ = ["GARMENTS", "SIZE", "draw", "drawn"]

SEED = 1
# By the names that the clothing tagger gives them.
GARMENTS: dict[str, Callable[[Random], Garment]] = {
    "T-Shirt": tops.t_shirt, "Pants": bottoms.pants, "Longsleeve": tops.longsleeve, "Dress": tops.dress,
    "Shirt": tops.shirt, "Shorts": bottoms.shorts, "Shoes": bottoms.shoes, "Hat": bottoms.hat, "Skirt": bottoms.skirt,
    "Undershirt": tops.undershirt, "Polo": tops.polo,
}  # fmt: skip
_NAME = re.compile(r"drawing-(.+)-\d+\.jpg")


def draw(folder: Path, count: int, seed: int = SEED) -> list[Path]:
    """Draw ``count`` different JPEGs of 480 × 640 pixels into the folder: each kind of garment in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    numbered = zip(range(1, count + 1), cycle(GARMENTS))
    # Pillow leaves the interpreter to others while it works; each drawing has random numbers of its own.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda pair: _one(folder, seed, *pair), numbered))


def drawn(name: str) -> str | None:
    """What a drawing of that file name shows; None for any other name."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def _one(folder: Path, seed: int, number: int, label: str) -> Path:
    random = Random(f"{seed}/{number}")
    garment = GARMENTS[label](random)
    pattern = random.choice(garment.patterns)
    paint = random.choice(DENIM if pattern == "denim" else tuple(COLOURS.values()))
    path = folder / f"drawing-{label}-{number:03}.jpg"
    drawing_scene.picture(random, garment, paint, pattern).save(path, quality=90)
    return path
