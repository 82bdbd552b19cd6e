"""The end of a chunk: its outcomes and its `done` in one transaction, by compare-and-set on (owner, fence)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import (
    bank_changes,
    bank_matching,
    bank_redecisions,
    erasure_fence,
    evidence,
    moderation_state,
    outbox,
    review_queue,
    review_sources,
    validators,
)
from db.bulk import record_rows
from db.chunks import Chunk
from db.errors import LeaseLost
from db.images import ImageRecord, record_images
from db.review_queue import Candidate
from db.validators import Validators

_INGEST_COLUMNS = ("bucket", "job_id", "seq", "account_id", "outcome", "code", "sha256", "status")
_RESULT_COLUMNS = (
    "bucket", "job_id", "seq", "account_id", "outcome", "code", "detail", "sha256", "tags", "moderation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """What came of one item: an image, or the `code` of the failure. `status` is the HTTP status, if any; `reused` how
    the image came to be known before (`not_modified`, `known_bytes`); `said` what the server of `url` calls it."""

    seq: int
    image: ImageRecord | None = None
    code: str | None = None
    detail: str | None = None
    status: int | None = None
    reused: str | None = None
    url: str | None = None
    said: Validators | None = None


@dataclass(frozen=True)
class Deferred:
    """Items to try again in a chunk of their own, not before so many seconds from now.

    `counts`: the deferral is one of the few that an item may have; a busy host's or a stopped crawler's is not.
    """

    seqs: Sequence[int]
    delay_s: float
    counts: bool = True


@dataclass(frozen=True, slots=True)
class InferOutcome:
    """The scores turned into tags and a verdict (a `moderation` object), or the `code` of the failure."""

    seq: int
    sha256: bytes | None = None
    tags: list[dict[str, Any]] | None = None
    moderation: dict[str, Any] | None = None
    code: str | None = None
    detail: str | None = None


def finish_ingest(
    session: Session, chunk: Chunk, outcomes: Sequence[IngestOutcome], deferred: Iterable[Deferred] = ()
) -> None:
    """leased → done for an ingest chunk: images and what hash banks know of them, what servers call them, ingest rows,
    results of what failed; successes become a ready infer chunk, deferred items a ready ingest chunk with `not_before`.
    Of what was erased meanwhile nothing is written. Raises LeaseLost (roll back)."""
    erasure_fence.share_lock(session, chunk.account_id)
    _require_lease(session, chunk)
    outcomes, deferred = _without_erased(session, chunk, outcomes, list(deferred))
    images = {o.image.sha256: o.image for o in outcomes if o.image is not None}
    bank_changes.share_lock(session)
    reused = {o.image.sha256 for o in outcomes if o.image is not None and o.reused is not None}
    record_images(session, chunk.account_id, [image for sha, image in images.items() if sha not in reused])
    said = {o.url: (o.said, o.image.sha256) for o in outcomes if o.url and o.said is not None and o.image is not None}
    validators.record(session, chunk.account_id, said)
    bank_matching.match(session, chunk.account_id, list(images.values()))
    key = (chunk.bucket, chunk.job_id)
    rows = [
        (*key, o.seq, chunk.account_id, "done" if o.image else "failed", o.code,
         o.image.sha256 if o.image else None, o.status)
        for o in outcomes
    ]  # fmt: skip
    record_rows(session, "ingests", chunk.bucket, _INGEST_COLUMNS, rows)
    failed = [o for o in outcomes if o.image is None]
    record_rows(
        session,
        "results",
        chunk.bucket,
        _RESULT_COLUMNS,
        [(*key, o.seq, chunk.account_id, "failed", o.code, _clip(o.detail), None, None, None) for o in failed],
    )
    done = sorted(o.seq for o in outcomes if o.image is not None)
    if done:
        _add_chunk(session, chunk, "infer", done, 0.0, 0)
    for part in deferred:
        _add_chunk(session, chunk, "ingest", sorted(part.seqs), part.delay_s, chunk.deferrals + part.counts)
    outbox.failures(session, chunk, [(o.seq, o.code or "") for o in failed])
    _close(session, chunk, len(done), Counter(o.code or "" for o in failed), Counter(o.reused for o in outcomes))
    if failed and chunk.lane == "interactive":
        moderation_state.refresh(session, chunk.account_id, [chunk.job_id])


def finish_infer(
    session: Session,
    chunk: Chunk,
    outcomes: Sequence[InferOutcome],
    *,
    audit_share: float = 0.0,
    known_scores: int = 0,
) -> None:
    """leased → done for an infer chunk: one results row an item, and a task for people where the verdict asks for them.
    `audit_share` of the other verdicts is drawn for an audit, if the policy says nothing else; `known_scores`: items
    whose scores were stored before. Raises LeaseLost (roll back)."""
    erasure_fence.share_lock(session, chunk.account_id)
    _require_lease(session, chunk)
    refused = erasure_fence.refused(session, chunk, [o.seq for o in outcomes], {})
    outcomes = [o for o in outcomes if o.seq not in refused]
    bank_changes.share_lock(session)
    rows = [
        (
            chunk.bucket, chunk.job_id, o.seq, chunk.account_id, "failed" if o.code else "done", o.code,
            _clip(o.detail), o.sha256, _json(o.tags), _json(o.moderation),
        )
        for o in outcomes
    ]  # fmt: skip
    record_rows(session, "results", chunk.bucket, _RESULT_COLUMNS, rows)
    bank_redecisions.note_late(session, chunk.account_id, _hits_used(outcomes))
    failed = Counter(o.code for o in outcomes if o.code)
    outbox.failures(session, chunk, [(o.seq, o.code) for o in outcomes if o.code])
    judged = [o.seq for o in outcomes if o.moderation is not None]
    evidence.cover_verdicts(session, chunk.account_id, chunk.bucket, chunk.job_id, judged, chunk.id)
    review_queue.enqueue(session, chunk.account_id, _for_people(chunk, outcomes, audit_share))
    _close(session, chunk, len(outcomes) - failed.total(), failed, {"known_scores": known_scores})
    if chunk.lane == "interactive":
        shas = [o.sha256 for o in outcomes if o.sha256 is not None]
        moderation_state.meet(session, chunk.account_id, chunk.context, shas)
        moderation_state.refresh(session, chunk.account_id, [chunk.job_id])


def _for_people(chunk: Chunk, outcomes: Sequence[InferOutcome], audit_share: float) -> list[Candidate]:
    asked = chunk.policy.get("audit_share")
    share = audit_share if asked is None else float(asked)
    found = (
        review_sources.candidate(chunk.account_id, chunk.job_id, o.seq, o.sha256, chunk.context, o.moderation, share)
        for o in outcomes
        if o.moderation is not None and o.sha256 is not None
    )
    return [candidate for candidate in found if candidate is not None]


def _hits_used(outcomes: Sequence[InferOutcome]) -> dict[bytes, list[str]]:
    """By picture, the entries of hash banks that its verdict took into account."""
    decided = {o.sha256: o.moderation for o in outcomes if o.sha256 is not None and o.moderation is not None}
    return {sha: [hit["entry"] for hit in moderation.get("hits") or ()] for sha, moderation in decided.items()}


def _require_lease(session: Session, chunk: Chunk) -> None:
    """Lock the chunk's row if it is still ours: from here to the commit nobody can take it."""
    parameters = {"id": chunk.id, "owner": chunk.owner, "fence": chunk.fence}
    if session.execute(_LOCK_OURS, parameters).first() is None:
        raise LeaseLost(f"Chunk {chunk.id} is no longer leased with fence {chunk.fence}.")


def _without_erased(
    session: Session, chunk: Chunk, first: Sequence[IngestOutcome], deferred: list[Deferred]
) -> tuple[Sequence[IngestOutcome], list[Deferred]]:
    """The outcomes with those of followers, and the deferrals, without what was erased; what an image was to be used
    again for that is gone is put off to be fetched."""
    outcomes = _with_followers(session, chunk, first)
    pictures = {o.seq: o.image for o in outcomes if o.image is not None}
    known = {o.image.sha256 for o in outcomes if o.image is not None and o.reused is not None}
    seqs = [*(o.seq for o in outcomes), *(seq for part in deferred for seq in part.seqs)]
    reused = [seq for seq, image in pictures.items() if image.sha256 in known]
    refused = erasure_fence.refused(session, chunk, seqs, pictures, reused)
    parts = [replace(part, seqs=[seq for seq in part.seqs if seq not in refused.seqs]) for part in deferred]
    if again := sorted(o.seq for o in first if o.seq in refused.again):
        parts.append(Deferred(again, 0.0, counts=False))
    return [o for o in outcomes if o.seq not in refused], [part for part in parts if part.seqs]


def _with_followers(session: Session, chunk: Chunk, outcomes: Sequence[IngestOutcome]) -> Sequence[IngestOutcome]:
    """The outcomes, and a copy for every item that repeats one of these items' pictures."""
    if not chunk.followers or not outcomes:
        return outcomes
    by_seq = {outcome.seq: outcome for outcome in outcomes}
    rows = session.execute(_FOLLOWERS, {"bucket": chunk.bucket, "job_id": chunk.job_id, "seqs": list(by_seq)})
    copies = [
        IngestOutcome(seq, first.image, first.code, first.detail, first.status)
        for seq, first in ((seq, by_seq[same_as]) for seq, same_as in rows)
        if seq not in by_seq
    ]
    return [*outcomes, *copies]


def _add_chunk(session: Session, chunk: Chunk, stage: str, seqs: Sequence[int], delay_s: float, deferrals: int) -> None:
    """A ready chunk of the same job and round; a gapless run of items is stored as its range."""
    gapless = len(seqs) == seqs[-1] - seqs[0] + 1 and (stage == "infer" or not chunk.followers)
    session.execute(
        _ADD,
        {
            "id": chunk.id,
            "stage": stage,
            "lo": seqs[0],
            "hi": seqs[-1] + 1,
            "seqs": None if gapless else list(seqs),
            "delay_s": delay_s,
            "deferrals": deferrals,
        },
    )


def _close(session: Session, chunk: Chunk, done: int, codes: Counter[str], reused: Mapping[str | None, int]) -> None:
    how = {name: count for name, count in reused.items() if name is not None and count}
    parameters = {
        "id": chunk.id, "done": done, "failed": codes.total(), "codes": json.dumps(codes), "reused": json.dumps(how)
    }  # fmt: skip
    session.execute(_CLOSE, parameters)


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _clip(detail: str | None) -> str | None:
    """Details are for people: one bounded line, without the NUL that Postgres refuses."""
    return None if detail is None else " ".join(detail.replace("\0", "").split())[:300]


_LOCK_OURS = text(
    """
    SELECT id FROM chunks WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'leased' FOR UPDATE
    """
)
_FOLLOWERS = text("SELECT seq, same_as FROM items WHERE bucket = :bucket AND job_id = :job_id AND same_as = ANY(:seqs)")
_ADD = text(
    """
    INSERT INTO chunks (account_id, job_id, bucket, round, stage, lo, hi, seqs, urgent, turn, not_before, deferrals)
    SELECT account_id, job_id, bucket, round, :stage, :lo, :hi, :seqs, urgent, turn,
      now() + make_interval(secs => :delay_s), :deferrals FROM chunks WHERE id = :id
    """
)
_CLOSE = text(
    """
    UPDATE chunks SET state = 'done', finished_at = now(), owner = NULL, lease_until = NULL, done = :done,
      failed = :failed, codes = CAST(:codes AS jsonb), reused = CAST(:reused AS jsonb),
      progress = :done + :failed WHERE id = :id
    """
)
