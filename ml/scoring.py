"""A model's scores beside the truth: the pictures of a dataset through the path of production. Judges nothing.

    entries ─► working copies, as ingest makes them ─► predictor ─► scores by label group      predictions
                                                                  ─► Scored, by label group    gather

A picture that cannot be read is listed with its code, and counts nowhere.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml import batcher, images
from ml.batcher import Failure, Predicts
from ml.card import ModelCard
from ml.errors import DatasetError
from ml.evaluation import Unread
from ml.manifest import Entry, Group, Manifest, named
from ml.metrics import UNKNOWN, Scored
from ml.scores import Scores

Predictions = Iterable[tuple[Entry, Mapping[str, npt.NDArray[np.floating]] | Failure]]

SHORT_SIDE, QUALITY = 384, 90  # the defaults of TAGMILL_WORK_SHORT_SIDE and TAGMILL_WORK_QUALITY
DEFAULT_THRESHOLD = 0.5  # of an attribute whose card sets none


@dataclass(frozen=True, slots=True)
class Gathered:
    """The pictures that were scored, in order, with each group's scores beside the truth; and those that were not."""

    entries: tuple[Entry, ...]
    groups: Mapping[str, Scored]
    unread: tuple[Unread, ...]


class ChangedPicture(Exception):
    """A picture whose bytes are not those that the manifest was made of."""

    code = "picture_changed"


UNREADABLE = (OSError, images.ImageError, ChangedPicture)
"""What `working_copy` raises of a picture that cannot be scored."""


def predictions(
    predictor: Predicts,
    card: ModelCard,
    entries: Iterable[Entry],
    root: Path,
    *,
    originals: bool = False,
    decode_threads: int = 1,
) -> Iterator[tuple[Entry, dict[str, npt.NDArray[np.float32]] | Failure]]:
    """The scores of one loaded model by label group, for each entry in order."""
    groups = {group: np.array(positions) for group, positions in card.groups.items()}
    # Keyed by position: an entry holds mappings and cannot be a key itself.
    listed = tuple(entries)
    read = _original if originals else working_copy
    source = ((at, partial(read, root, entry)) for at, entry in enumerate(listed))
    for at, outcome in batcher.stream(source, predictor, decode_threads=decode_threads, expected=UNREADABLE):
        if isinstance(outcome, Failure):
            yield listed[at], outcome
        else:
            scores: Scores = outcome[card.ref]
            yield listed[at], {group: scores.values[positions] for group, positions in groups.items()}


def model_groups(card: ModelCard, manifest: Manifest) -> dict[str, Group]:
    """The manifest's groups with the model's labels in the model's order; labels without a picture stay in.

    Raises DatasetError('label_unknown') where the dataset knows a group or a label that the model does not.
    """
    found: dict[str, Group] = {}
    for name, group in manifest.groups.items():
        labels = tuple(label.name for label in card.labels if label.group == name)
        if not labels:
            raise DatasetError("label_unknown", f"{card.ref} has no label group {name!r}", field=f"groups.{name}")
        if unknown := set(group.labels) - set(labels):
            detail = f"{card.ref} does not know {sorted(unknown)} of {name!r}"
            raise DatasetError("label_unknown", detail, field=f"groups.{name}.labels")
        found[name] = Group(group.kind, labels)
    return found


def thresholds(card: ModelCard) -> dict[str, dict[str, float | None]]:
    """What the card says, by group and label."""
    found: dict[str, dict[str, float | None]] = {}
    for label in card.labels:
        found.setdefault(label.group, {})[label.name] = label.threshold
    return found


def gather(
    found: Predictions, groups: Mapping[str, Group], cuts: Mapping[str, Mapping[str, float | None]] | None = None
) -> Gathered:
    """Scores beside truths. `cuts`: thresholds by group and label; absent ones are 0 where labels exclude each other
    and DEFAULT_THRESHOLD for attributes. Raises DatasetError('dataset_empty') when no picture was scored.
    """
    entries: list[Entry] = []
    rows: list[Mapping[str, npt.NDArray[np.floating]]] = []
    unread: list[Unread] = []
    for entry, outcome in found:
        if isinstance(outcome, Failure):
            unread.append(Unread(entry.image, outcome.code, outcome.detail))
        else:
            entries.append(entry)
            rows.append(outcome)
    if not entries:
        raise DatasetError("dataset_empty", f"no picture to evaluate; {len(unread)} could not be read")
    scored = {}
    for name, group in groups.items():
        given = (cuts or {}).get(name, {})
        default = 0.0 if group.kind == "exclusive" else DEFAULT_THRESHOLD
        limits = [default if (cut := given.get(label)) is None else cut for label in group.labels]
        scores = np.stack([row[name] for row in rows]).astype(np.float64)
        truth = np.stack([_truth(entry, name, group) for entry in entries])
        # A card's threshold is compared in float32 by `ml.scores`; here it must decide alike.
        cut_at = np.array(limits, np.float32).astype(np.float64)
        scored[name] = Scored(group.kind, group.labels, scores, truth, cut_at)
    return Gathered(tuple(entries), scored, tuple(unread))


def _truth(entry: Entry, name: str, group: Group) -> npt.NDArray[np.int8]:
    value = entry.labels[name]
    if value is None:
        return np.full(len(group.labels), UNKNOWN, np.int8)
    return np.isin(np.array(group.labels), np.array(named(value), dtype=str)).astype(np.int8)


def _read(root: Path, entry: Entry) -> bytes:
    data = (root / entry.image).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ChangedPicture(f"{entry.image} is not the file that the manifest names")
    return data


def working_copy(root: Path, entry: Entry) -> bytes:
    """As ingest makes it, JPEG draft included."""
    picture = images.read(_read(root, entry), images.Limits(draft_short_side=SHORT_SIDE))
    return images.working_copy(picture, SHORT_SIDE, QUALITY)


def _original(root: Path, entry: Entry) -> bytes:
    """All pixels of the original; PNG, because it loses none."""
    out = BytesIO()
    images.decode(_read(root, entry)).save(out, "PNG", compress_level=1)
    return out.getvalue()
