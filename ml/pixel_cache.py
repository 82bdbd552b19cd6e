"""The pictures of a dataset decoded once: one file of raw pixels, read by memory map; knows no labels.

Decoding and shrinking a photo costs a CPU more than a training step of a small network; later epochs pay
neither. The cache's name holds the hash of the manifest and the side, so that it never serves other pictures.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml import images
from ml.errors import DatasetError
from ml.manifest import Entry, Manifest

_BATCH = 256  # pictures decoded before they are written: bounds the memory


class PixelCache:
    """Pictures by their path in the manifest, as uint8 RGB 3×H×W with the short side at most `side`."""

    def __init__(self, pixels: NDArray[np.uint8], places: Mapping[str, tuple[int, int, int]]) -> None:
        self._pixels = pixels
        self._places = places

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def __getitem__(self, image: str) -> Tensor:
        offset, height, width = self._places[image]
        flat = self._pixels[offset : offset + 3 * height * width]
        return torch.from_numpy(np.array(flat)).view(3, height, width)


def verify(entries: Sequence[Entry], root: Path) -> None:
    """Compare every file with its hash. Raises DatasetError('dataset_changed') naming the first that differs."""
    with ThreadPoolExecutor() as pool:
        for entry, digest in zip(entries, pool.map(lambda e: _digest(root / e.image), entries), strict=True):
            if digest != entry.sha256:
                what = "is gone" if digest is None else "has other bytes than the manifest says"
                raise DatasetError("dataset_changed", f"{entry.image} {what}", field=entry.image)


def prepare(manifest: Manifest, root: Path, folder: Path, side: int) -> tuple[PixelCache, dict[str, str]]:
    """(the cache, the pictures that cannot be decoded with their codes); made on the first call, then reused."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"pixels-{manifest.sha256[:16]}-{side}.raw"
    index = data.with_suffix(".json")
    if not index.exists():
        _make(manifest, root, data, index, side)
    content = json.loads(index.read_text())
    places = {image: (place[0], place[1], place[2]) for image, place in content["places"].items()}
    pixels = np.memmap(data, np.uint8, mode="r") if data.stat().st_size else np.empty(0, np.uint8)
    return PixelCache(pixels, places), content["skipped"]


def _make(manifest: Manifest, root: Path, data: Path, index: Path, side: int) -> None:
    places: dict[str, tuple[int, int, int]] = {}
    skipped: dict[str, str] = {}
    # Another process may be at it; each writes its own part, and the last rename wins with the same bytes.
    part = data.with_name(f"{data.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file, ThreadPoolExecutor() as pool:
            for start in range(0, len(manifest.entries), _BATCH):
                entries = manifest.entries[start : start + _BATCH]
                decoded = pool.map(lambda e: _pixels(root / e.image, side), entries)
                for entry, pixels in zip(entries, decoded, strict=True):
                    if isinstance(pixels, str):
                        skipped[entry.image] = pixels
                        continue
                    places[entry.image] = (file.tell(), pixels.shape[1], pixels.shape[2])
                    file.write(pixels.tobytes())
        part.replace(data)
    finally:
        part.unlink(missing_ok=True)
    written = index.with_name(f"{index.name}.{os.getpid()}.part")
    written.write_text(json.dumps({"places": places, "skipped": skipped}))
    written.replace(index)


def _pixels(path: Path, side: int) -> NDArray[np.uint8] | str:
    try:
        picture = images.decode(path.read_bytes(), images.Limits(draft_short_side=side))
    except OSError:
        return "missing_file"
    except images.ImageError as error:
        return error.code
    return np.ascontiguousarray(np.asarray(images.bounded(picture, side)).transpose(2, 0, 1))


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
