"""Datasets from the system's own pictures: what people say of them, and what models are sure of.

    rows of a job, or labels ─► one entry for each working copy ─► its bytes checked ─► ml.importers.assemble

A person's word outranks the model's, group by group. The pictures stay in the blob store: entries name working copies,
which are named by their own bytes.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit
from uuid import UUID

from db import dataset_pictures, jobs, labels
from db.blob_store import Blobs
from db.dataset_pictures import Picture
from db.errors import BlobMissing, Conflict
from db.session import Database
from db.states import VERDICTS
from ml.errors import DatasetError
from ml.importers import MIN_PDQ_QUALITY, Imported, Seen, assemble
from ml.manifest import Group, Kind, Value
from ml.tables import Row
from worker.screen import counted

PERSON, MODEL = "person", "model"
DECIDED = tuple(verdict for verdict in VERDICTS if verdict != "review")


@dataclass(frozen=True)
class Opinion:
    """What is known of one group of a picture. `covers`: the attributes that it speaks of, named or not."""

    kind: str
    named: tuple[str, ...]
    covers: frozenset[str]
    source: str


@dataclass(frozen=True)
class Gathered:
    """A dataset that is not yet registered, and what its maker should hear of it."""

    imported: Imported
    notes: tuple[str, ...]


Opinions = Mapping[str, Opinion]
Vocabulary = Callable[[str | None], Mapping[str, labels.Group]]


def from_job(
    database: Database,
    blobs: Blobs,
    account_id: int,
    job_id: UUID,
    *,
    name: str,
    version: str,
    min_score: float = 0.9,
    verdict: bool = False,
    by: str | None = None,
) -> Gathered:
    """The analysed pictures of a settled job, labelled by people, else by tags of at least `min_score`.

    With `verdict`, whether a picture was approved or rejected is a group of its own. Raises NotFound, Conflict for a
    job that goes on, DatasetError.
    """
    known: dict[str | None, dict[str, labels.Group]] = {}

    def vocabulary(model: str | None) -> Mapping[str, labels.Group]:
        if model not in known:
            with database.transaction() as session:
                known[model] = labels.vocabulary(session, model)
        return known[model]

    found: list[tuple[Picture, Opinions]] = []
    for batch in _of_job(database, account_id, job_id):
        found += [(picture, opinions(picture, vocabulary, min_score, verdict)) for picture in batch]
    origin = f"job {job_id}, tags from a score of {min_score:g}"
    return _gathered(blobs, found, name, version, by, origin)


def from_reviews(
    database: Database,
    blobs: Blobs,
    account_id: int,
    *,
    name: str,
    version: str,
    since: datetime | None = None,
    verdict: bool = False,
    by: str | None = None,
) -> Gathered:
    """Every picture that people have labelled (`since` then), with what they said.

    With `verdict`, reviewers' decisions are a group of their own; where people said nothing else they are one in any
    case: a data set of moderation. Raises DatasetError."""
    found: list[tuple[Picture, Opinions]] = []
    after = b""
    while True:
        with database.transaction() as session:
            batch = dataset_pictures.labelled(session, account_id, since, after=after)
        if not batch:
            break
        after = batch[-1].sha256
        found += [(picture, opinions(picture, lambda _: {}, 1.0, verdict=True)) for picture in batch]
    notes: tuple[str, ...] = ()
    if not verdict and any(about.keys() - {labels.VERDICT} for _, about in found):
        tagged = [(picture, _tags_only(about)) for picture, about in found]
        found = [(picture, about) for picture, about in tagged if about]
        if decided := len(tagged) - len(found):
            notes = (f"{counted(decided, 'picture')} left out: decided on, not labelled (--verdict takes them too)",)
    when = f" since {since:%Y-%m-%d %H:%M}" if since else ""
    made = _gathered(blobs, found, name, version, by, f"labels by people{when}")
    return Gathered(made.imported, (*notes, *made.notes))


def _tags_only(about: Opinions) -> dict[str, Opinion]:
    return {name: opinion for name, opinion in about.items() if name != labels.VERDICT}


def opinions(picture: Picture, vocabulary: Vocabulary, min_score: float, verdict: bool) -> dict[str, Opinion]:
    """By group: what people say, else the model's sure tags; nothing of groups that neither is sure of.

    Of an exclusive group the best tag counts. Of attributes, the model must be sure of each: one whose score lies
    between its threshold and `min_score` leaves the whole group open.
    """
    found: dict[str, Opinion] = {}
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for tag in picture.tags:
        scores[tag["group"]][tag["label"]] = tag["score"]
    for name, group in vocabulary(picture.model).items():
        by_label = scores.get(name, {})
        sure = tuple(label for label, score in by_label.items() if score >= min_score)
        if group.kind == "exclusive":
            if sure:
                best = max(sure, key=by_label.__getitem__)
                found[name] = Opinion("exclusive", (best,), frozenset(), MODEL)
        elif picture.complete and len(sure) == len(by_label):
            found[name] = Opinion("attributes", sure, frozenset(group.labels), MODEL)
    if verdict and picture.verdict in DECIDED:
        found[labels.VERDICT] = Opinion("exclusive", (str(picture.verdict),), frozenset(), MODEL)
    for said in picture.labels:
        if verdict or said["group"] != labels.VERDICT:
            covers = frozenset((*said["present"], *said["absent"]))
            found[said["group"]] = Opinion(said["kind"], tuple(said["present"]), covers, PERSON)
    return found


def pinned(blobs: Blobs, work_key: str, work_sha256: bytes | None, pdq: bytes | None, quality: int) -> Seen:
    """A working copy as `ml.importers.assemble` takes it: its hash and PDQ, or why it cannot be used."""
    try:
        data = blobs.get(work_key) if work_key else None
    except BlobMissing:
        data = None
    if data is None:
        return "blob_missing"
    digest = hashlib.sha256(data)
    if work_sha256 is not None and digest.digest() != work_sha256:
        return "blob_altered"
    return digest.hexdigest(), pdq if quality >= MIN_PDQ_QUALITY else None


def host_of(url: str | None) -> str:
    """The host that a picture came from."""
    return (urlsplit(url).hostname or "") if url else "upload"


def _of_job(database: Database, account_id: int, job_id: UUID) -> Iterator[list[Picture]]:
    with database.transaction() as session:
        job = jobs.get(session, account_id, job_id)
    if job.settled_at is None:
        raise Conflict(f"The job still goes on. Wait for it: tagmill wait {job_id}")
    after = -1
    while True:
        with database.transaction() as session:
            batch = dataset_pictures.of_job(session, job, after_seq=after)
        if not batch:
            return
        assert batch[-1].seq is not None
        after = batch[-1].seq
        yield batch


def _gathered(
    blobs: Blobs,
    found: Sequence[tuple[Picture, Opinions]],
    name: str,
    version: str,
    by: str | None,
    origin: str,
) -> Gathered:
    alike: dict[str, list[tuple[Picture, Opinions]]] = defaultdict(list)
    for picture, about in found:
        alike[picture.work_key or picture.sha256.hex()].append((picture, about))
    distinct: dict[str, tuple[Picture, Opinions]] = {}
    notes = []
    for image, same in alike.items():
        together, disputed = joined([about for _, about in same])
        distinct[image] = (same[0][0], together)
        notes += [f"{same[0][0].item_id or image}: group {name} is left out of it: equal pictures, and people do not"
                  " agree" for name in disputed]  # fmt: skip
    if repeated := len(found) - len(distinct):
        notes.insert(0, f"{counted(repeated, 'item')} left out: the same picture as another one")
    groups, left_out = groups_of(about for _, about in distinct.values())
    notes += left_out
    if not groups:
        raise DatasetError("dataset_empty", f"{origin}: {len(distinct)} pictures, and nobody is sure of a label")
    rows = [_row(image, picture, about, groups) for image, (picture, about) in distinct.items()]
    if by is not None and by not in rows[0].columns:
        raise DatasetError("column_unknown", f"no column {by!r} among {', '.join(rows[0].columns)}", field="by")
    with ThreadPoolExecutor() as pool:
        seen = list(
            pool.map(
                lambda p: pinned(blobs, p.work_key, p.work_sha256, p.pdq, p.pdq_quality),
                (picture for picture, _ in distinct.values()),
            )
        )
    return Gathered(assemble(name, version, groups, rows, seen, column=by, origin=origin), tuple(notes))


def joined(every: Sequence[Opinions]) -> tuple[dict[str, Opinion], list[str]]:
    """What is known of equal pictures together: of each group a person's word, else the first of the models'. Groups of
    which people say different things are left out, and named."""
    found: dict[str, Opinion] = {}
    disputed = []
    for name in dict.fromkeys(name for about in every for name in about):
        known = [about[name] for about in every if name in about]
        people = [opinion for opinion in known if opinion.source == PERSON]
        if len({(opinion.kind, frozenset(opinion.named)) for opinion in people}) > 1:
            disputed.append(name)
        else:
            found[name] = (people or known)[0]
    return found, disputed


def groups_of(every: Iterable[Opinions]) -> tuple[dict[str, Group], list[str]]:
    """The label groups that some picture has a label of, and what to say of the others. A group is of the kind that
    most pictures say; labels that nobody named are left out, for nothing can be learned of them."""
    kinds: dict[str, Counter[Kind]] = defaultdict(Counter)
    named: dict[str, set[str]] = defaultdict(set)
    for about in every:
        for name, opinion in about.items():
            kinds[name]["exclusive" if opinion.kind == "exclusive" else "attributes"] += 1
            named[name].update(opinion.named)
    groups = {
        name: Group(kinds[name].most_common(1)[0][0], tuple(sorted(named[name])))
        for name in sorted(kinds)
        if named[name]
    }
    return groups, [f"group {name} is left out: no picture has one of its labels" for name in kinds if not named[name]]


def _row(image: str, picture: Picture, about: Opinions, groups: Mapping[str, Group]) -> Row:
    values = {name: _value(about.get(name), group) for name, group in groups.items()}
    sources = {about[name].source for name, value in values.items() if value is not None}
    columns = {
        "host": host_of(picture.url) if picture.item_id else "",
        "product_id": picture.product_id or "",
        "job": str(picture.job_id or ""),
        "item_id": picture.item_id,
        "label_source": "both" if len(sources) > 1 else next(iter(sources), ""),
    }
    return Row(image, values, "train", columns)


def _value(opinion: Opinion | None, group: Group) -> Value:
    """None where the opinion is of another kind, or silent about an attribute that others know."""
    if opinion is None or opinion.kind != group.kind:
        return None
    if group.kind == "exclusive":
        return opinion.named[0]
    return tuple(sorted(opinion.named)) if opinion.covers.issuperset(group.labels) else None
