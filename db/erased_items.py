"""Takes items back to their places: a row of ids stays of each, with the outcome `erased`, and nothing else.

What is counted of a job goes on to add up: an erased item counts as failed, with that code. Where it was counted as
something else, or is still open and will not be counted when its chunk ends, the difference goes into `jobs.settled`.
Callers hold the account's erasure lock (`db.erasure_fence`).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import erased_evidence, validators
from db.ids import item_id
from db.session import changed

CODE: Final = "erased"
Key = tuple[UUID, int]


@dataclass
class Erased:
    """What was removed, by kind, and what the items leave behind to be looked at: the bytes that they showed, and
    uploads that they named."""

    counts: Counter[str] = field(default_factory=Counter)
    shas: set[bytes] = field(default_factory=set)
    raw_keys: set[str] = field(default_factory=set)

    def add(self, other: "Erased") -> None:
        """Take in what another part came to."""
        self.counts += other.counts
        self.shas |= other.shas
        self.raw_keys |= other.raw_keys


def with_relatives(session: Session, keys: Sequence[Key]) -> list[Key]:
    """These items, those of their jobs that repeat the same URL or upload, and the copies of all these in reruns."""
    parameters = {"jobs": [job for job, _ in keys], "seqs": [seq for _, seq in keys]}
    return sorted({(row.job_id, row.seq) for row in session.execute(_RELATIVES, parameters)})


def erase(session: Session, account_id: int, erasure_id: UUID, keys: Sequence[Key]) -> Erased:
    """Any outcome, or none → `erased`, for items of this account; those that are so already stay."""
    by_job: dict[UUID, list[int]] = defaultdict(list)
    for job_id, seq in sorted(set(keys)):
        by_job[job_id].append(seq)
    found = Erased()
    if not by_job:
        return found
    jobs = session.execute(_LOCK_JOBS, {"account_id": account_id, "ids": list(by_job)}).all()
    for job in jobs:
        part = {"account_id": account_id, "bucket": job.bucket, "job_id": job.id, "seqs": by_job[job.id]}
        found.add(_of_job(session, erasure_id, part))
    return found


def _of_job(session: Session, erasure_id: UUID, part: dict[str, Any]) -> Erased:
    session.execute(_LOCK_RESULTS, part)
    rows = session.execute(_LOOK, part).all()
    session.execute(_TOMBSTONES, {**part, "erasure_id": erasure_id})
    rows = [row for row in rows if row.code != CODE or row.named]
    if not rows:
        return Erased()
    part = {**part, "seqs": [row.seq for row in rows], "erasure_id": erasure_id}
    found = Erased()
    for row in rows:
        found.shas |= {bytes(sha) for sha in (row.sha256, row.ingested) if sha is not None}
        found.raw_keys |= {row.raw_key} if row.raw_key is not None else set()
    covers = erased_evidence.before(session, part["account_id"], part["job_id"], part["seqs"])
    validators.forget_urls(session, part["account_id"], [row.url for row in rows if row.url is not None])
    found.counts["items"] = changed(session.execute(_ITEMS, part))
    found.counts["ingests"] = changed(session.execute(_INGESTS, part))
    found.counts["results"] = changed(session.execute(_RESULTS, part))
    session.execute(_PLACES, part)
    _tally(session, part["job_id"], rows)
    found.counts += _told(session, part)
    erased_evidence.after(session, part["account_id"], erasure_id, covers)
    return found


def _tally(session: Session, job_id: UUID, rows: Sequence[Any]) -> None:
    """What each item was counted as, taken back, and a failure in its place."""
    delta: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    for row in rows:
        if row.code == CODE:
            continue
        ingested = row.ingest == "done"
        if row.outcome == "done":
            delta["done"] -= 1
        elif row.outcome == "cancelled":
            delta["cancelled"] -= 1
        elif row.outcome == "failed":
            delta["infer_failed" if ingested else "ingest_failed"] -= 1
            codes[row.code] -= 1
        delta["ingested"] -= ingested
        delta["ingest_failed"] += 1
        codes[CODE] += 1
    if not codes:
        return
    settled: dict[str, Any] = session.execute(_SETTLED, {"id": job_id}).scalar_one()
    kept = dict(settled.get("codes", {}))
    for code, count in codes.items():
        kept[code] = kept.get(code, 0) + count
    sums = {name: settled.get(name, 0) + count for name, count in delta.items()}
    session.execute(_SETTLE, {"id": job_id, "settled": json.dumps({**settled, **sums, "codes": kept})})


def _told(session: Session, part: dict[str, Any]) -> Counter[str]:
    """What was told and said of the items themselves: uploads for moderation, appeals, what changed their verdicts,
    what a rerun's publication replaced, events and stored answers."""
    counts: Counter[str] = Counter()
    moderations = list(session.scalars(_MODERATIONS, part))
    appeals = list(session.scalars(_APPEALS, part))
    counts["moderations"], counts["appeals"] = len(moderations), len(appeals)
    counts["decisions"] = changed(session.execute(_DECISIONS, part))
    counts["rerun_copies"] = changed(session.execute(_RERUNS, part))
    told = {
        "account_id": part["account_id"],
        "subjects": [str(each) for each in (*moderations, *appeals)],
        "items": [item_id(part["job_id"], seq) for seq in part["seqs"]],
    }
    counts["events"] = changed(session.execute(_EVENTS, told))
    if moderations:
        counts["answers"] = changed(session.execute(_ANSWERS, told))
    return counts


_RELATIVES = text(
    """
    WITH picked AS MATERIALIZED (
      SELECT i.bucket, i.job_id, i.seq, coalesce(i.same_as, i.seq) AS first
      FROM unnest(CAST(:jobs AS uuid[]), CAST(:seqs AS integer[])) AS p(job_id, seq)
      JOIN jobs j ON j.id = p.job_id JOIN items i ON i.bucket = j.bucket AND i.job_id = p.job_id AND i.seq = p.seq
    ), same AS MATERIALIZED (
      SELECT job_id, seq FROM picked
      UNION SELECT job_id, first FROM picked
      UNION SELECT p.job_id, i.seq FROM (SELECT DISTINCT bucket, job_id, first FROM picked) p
        JOIN items i ON i.bucket = p.bucket AND i.job_id = p.job_id AND i.same_as = p.first
    )
    SELECT job_id, seq FROM same
    UNION
    SELECT r.job_id, k.seq FROM same s JOIN rerun_items k ON k.job_id = s.job_id AND k.source_seq = s.seq
      JOIN reruns r ON r.id = k.rerun_id
    """
)
_LOCK_JOBS = text(
    "SELECT id, bucket FROM jobs WHERE account_id = :account_id AND id = ANY(:ids) ORDER BY id FOR UPDATE"
)
_OF_PART = "bucket = :bucket AND job_id = :job_id AND seq = ANY(:seqs) AND account_id = :account_id"
# Whoever changes a verdict (a policy, a bank, a published rerun) locks its row and says so in `decisions` and in the
# audit log: what it says is there before it is looked for.
_LOCK_RESULTS = text(f"SELECT FROM results WHERE {_OF_PART} ORDER BY bucket, job_id, seq FOR UPDATE")
_LOOK = text(
    """
    SELECT i.seq, i.url, i.raw_key, r.outcome, r.code, r.sha256, g.outcome AS ingest, g.sha256 AS ingested,
      num_nonnulls(i.url, i.filename, i.raw_key, i.client_id, i.product_id, i.category) > 0 AS named
    FROM items i
    LEFT JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
    LEFT JOIN ingests g ON g.bucket = i.bucket AND g.job_id = i.job_id AND g.seq = i.seq
    WHERE i.bucket = :bucket AND i.job_id = :job_id AND i.seq = ANY(:seqs) AND i.account_id = :account_id
    ORDER BY i.seq
    """
)
_TOMBSTONES = text(
    """
    INSERT INTO erased_items (job_id, seq, account_id, erasure_id, erased_at)
    SELECT :job_id, seq, :account_id, e.id, e.created_at
    FROM unnest(CAST(:seqs AS integer[])) AS seq, erasures e WHERE e.id = :erasure_id
    ON CONFLICT DO NOTHING
    """
)
_ITEMS = text(
    f"""
    UPDATE items SET url = NULL, filename = NULL, raw_key = NULL, client_id = NULL, product_id = NULL, category = NULL
    WHERE {_OF_PART}
    """
)
_INGESTS = text(
    f"UPDATE ingests SET outcome = 'failed', code = 'erased', sha256 = NULL, status = NULL WHERE {_OF_PART}"
)
_RESULTS = text(
    f"""
    UPDATE results SET outcome = 'failed', code = 'erased', detail = NULL, sha256 = NULL, tags = NULL,
      moderation = NULL, published = NULL WHERE {_OF_PART}
    """
)
# The outcome of what was open: whoever works on it finds it there, and the first outcome stays.
_PLACES = text(
    """
    INSERT INTO results (bucket, job_id, seq, account_id, outcome, code)
    SELECT :bucket, :job_id, seq, :account_id, 'failed', 'erased' FROM unnest(CAST(:seqs AS integer[])) AS seq
    ON CONFLICT DO NOTHING
    """
)
_SETTLED = text("SELECT settled FROM jobs WHERE id = :id")
_SETTLE = text("UPDATE jobs SET settled = CAST(:settled AS jsonb) WHERE id = :id")
_OF_ITEM = "account_id = :account_id AND job_id = :job_id AND seq = ANY(:seqs)"
_MODERATIONS = text(
    f"""
    UPDATE moderations SET client_id = NULL, subject_user = NULL, subject_product = NULL, sha256 = NULL,
      automatic = NULL, human = NULL, code = 'erased', changed_at = now() WHERE {_OF_ITEM} RETURNING id
    """
)
_APPEALS = text(f"DELETE FROM appeals WHERE {_OF_ITEM} RETURNING id")
_DECISIONS = text(f"DELETE FROM decisions WHERE {_OF_ITEM} AND kind IN ('policy', 'bank', 'rerun')")
_RERUNS = text(
    """
    UPDATE rerun_items SET before = NULL
    WHERE account_id = :account_id AND job_id = :job_id AND source_seq = ANY(:seqs) AND before IS NOT NULL
    """
)
_EVENTS = text(
    """
    DELETE FROM outbox WHERE account_id = :account_id
      AND (subject = ANY(:subjects) OR payload ->> 'item' = ANY(:items))
    """
)
_ANSWERS = text("DELETE FROM idempotency WHERE account_id = :account_id AND response ->> 'id' = ANY(:subjects)")
