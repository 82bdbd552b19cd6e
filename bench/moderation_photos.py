"""Photos of goods and the moderation model for the benches of moderation, as the line makes them. Prints nothing.

    file ─► sandbox's decoder ─► working copy (JPEG 90, short side 384) ─► preset's views ─► scores, kept between runs

Every photo shows clothes for sale and nothing else, so that whatever is not approved is a false alarm. There is no
picture here that ought to be stopped: nothing measured with these photos says what a policy finds.
"""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from bench.system import SHARED
from ml import artifact, facts, images, nsfwjs, presets
from ml.artifact import Artifact
from ml.predictor import Predictor
from ml.scores import LabelSet
from ml.views import VIEWS
from ml.working_copy import decode

CLASSES = nsfwjs.CLASSES
SURE = 0.9
LIMITS = images.Limits(draft_short_side=384)
AHEAD = 64
SKIN_TONES = ("beige", "cream", "tan", "peach", "dusty pink", "taupe", "brown")

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Photo:
    """One row of the data set."""

    path: Path
    label: str
    sender: str


def photos(data: Path, split: str = "train") -> list[Photo]:
    with (data / "images.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [Photo(data / "images" / row["image"], row["label"], row["sender_id"]) for row in rows]


def model(source: Path = SHARED / "models" / "nsfwjs-mobilenet_v2", *, views: int = 1) -> Artifact:
    """NSFWJS's MobileNetV2, converted, saved and loaded again as production does it."""
    card, state = nsfwjs.convert((source / "model.json").read_bytes(), (source / "group1-shard1of1").read_bytes())
    card = replace(card, preset=presets.to_card(presets.NsfwjsPreset(views=views, sure=SURE)))
    with tempfile.TemporaryDirectory() as folder:
        artifact.save(Path(folder), card, state)
        return artifact.load(Path(folder))


def original(photo: Photo) -> Image.Image:
    return images.read(photo.path.read_bytes()).image


def working_copy(data: bytes) -> bytes:
    """What the crawler's sandbox would put into the blob store."""
    return images.working_copy(images.read(data, LIMITS))


def encoded(image: Image.Image, kind: str, **options: int | bool) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def found_facts(photos: Sequence[Photo]) -> dict[str, npt.NDArray]:
    """PDQ hashes with their quality, and the share of each photo that is of the colours that skin has."""

    def of(photo: Photo) -> tuple[bytes, int, float]:
        found = facts.facts(images.read(photo.path.read_bytes(), LIMITS).image, ("pdq", "colours"))
        skin = sum(colour["share"] for colour in found["colours"] if colour["name"] in SKIN_TONES)
        return found["pdq"], found["pdq_quality"], skin

    pdqs, qualities, skins = zip(*ahead(of, photos, 2), strict=True)
    hashes = np.stack([np.frombuffer(pdq, np.uint8) for pdq in pdqs])
    return {"pdq": hashes, "quality": np.array(qualities), "skin": np.array(skins)}


class Looker:
    """Scores the views of a picture one by one, so that one pass over the photos answers for any number of views."""

    def __init__(self, threads: int = 2) -> None:
        judge = model()
        self.predictor = Predictor([judge], threads=1)
        self._labels = LabelSet(judge.card)
        (self.preset,) = self.predictor.presets
        (chosen,) = self.predictor.backends.values()
        self.backend = chosen.backend.name
        self._network = chosen.backend
        self._threads = threads

    def scores(self, copies: Iterable[Callable[[], bytes]]) -> Floats:
        """N×VIEWS×classes, of working copies; read and decoded ahead, a bounded number of them. Who is sure at the
        first look is not asked again: all rows of such a picture are the first."""
        rows = []
        with torch.inference_mode():
            for picture, first in ahead(self._decoded, copies, self._threads):
                scores = self.forward(first[None])
                others = [self.preset(view(picture)) for view in VIEWS[1:]] if scores.max() < SURE else []
                scores = torch.cat(
                    [scores, self.forward(torch.stack(others)) if others else scores.repeat(len(VIEWS) - 1, 1)]
                )
                rows.append(scores.numpy())
        return np.stack(rows)

    def _decoded(self, load: Callable[[], bytes]) -> tuple[torch.Tensor, torch.Tensor]:
        picture = decode(load())
        return picture, self.preset(picture)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Scores of one view each, of what the preset made."""
        return self._labels.activate(self._network.forward(batch))


def ahead(work: Callable, source: Iterable, threads: int) -> Iterator:
    """`work` of every element in order, by threads, at most AHEAD of them done and not yet taken."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        for element in source:
            waiting.append(pool.submit(work, element))
            if len(waiting) == AHEAD:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def averaged(scores: Floats, views: int, sure: float = SURE) -> Floats:
    """What a model of so many views says: N×classes from N×VIEWS×classes. The rule of `ml.predictor`, which
    `bench.verdict_stability` compares with this."""
    if views == 1:
        return scores[:, 0]
    certain = scores[:, 0].max(1, keepdims=True) >= sure
    return np.where(certain, scores[:, 0], scores[:, :views].mean(1))


def kept(folder: Path | None, name: str, make: Callable[[], dict[str, npt.NDArray]]) -> dict[str, npt.NDArray]:
    """The arrays of an earlier run in `folder`, or newly made and put there."""
    place = None if folder is None else folder / f"{name}.npz"
    if place is not None and place.exists():
        with np.load(place) as found:
            return dict(found)
    made = make()
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part.npz")
        np.savez(part, **made)
        os.replace(part, place)
    return made


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %"


def halves(senders: Sequence[str], random: np.random.Generator) -> Bools:
    """A half of the people, and so about half of their photos: nobody's goods are on both sides."""
    people = np.unique(np.array(senders))
    first = people[random.permutation(len(people))[: len(people) // 2]]
    return np.isin(np.array(senders), first)
