"""The judgement after every fault: each accepted item has exactly one outcome, the expected one, and all sums agree.

It reads the rows themselves, not the code under test, except for the progress that clients are shown.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db.progress import progress
from db.session import Database


@dataclass(frozen=True)
class Expected:
    """What must come of one item: a failure's `code`, or, if there is none, the best tag and the verdict."""

    code: str | None = None
    tag: str | None = None
    verdict: str | None = None


Accepted = Mapping[UUID, Sequence[Expected]]


def check(database: Database, accepted: Accepted, *, told: bool = False) -> None:
    """Raise AssertionError naming everything that is wrong. `database`: the owner's, which sees all rows. With `told`,
    every event of these jobs must have reached every endpoint that asks for it, once its sender has nothing to do."""
    found = problems(database, accepted, told=told)
    assert not found, "\n".join([f"{len(found)} inconsistencies", *found[:40]])


def problems(database: Database, accepted: Accepted, *, told: bool = False) -> list[str]:
    """Everything that is wrong, in words; empty when all is well."""
    found = _strangers(database, accepted)
    if told:
        found += _untold(database, accepted)
    for job_id, items in accepted.items():
        found += [f"job {job_id}: {problem}" for problem in _job_problems(database, job_id, items)]
    return found


def _rows(database: Database, sql: str, **parameters: Any) -> list[Any]:
    with database.transaction() as session:
        return list(session.execute(text(sql), parameters).all())


def _strangers(database: Database, accepted: Accepted) -> list[str]:
    rows = _rows(
        database,
        "SELECT 'results' AS kind, job_id, count(*) AS n FROM results WHERE job_id <> ALL(:jobs) GROUP BY job_id"
        " UNION ALL SELECT 'ingests', job_id, count(*) FROM ingests WHERE job_id <> ALL(:jobs) GROUP BY job_id",
        jobs=list(accepted),
    )
    return [f"{row.n} {row.kind} rows of job {row.job_id}, which nobody submitted" for row in rows]


def _job_problems(database: Database, job_id: UUID, items: Sequence[Expected]) -> list[str]:
    jobs = _rows(database, "SELECT state, total, round, settled_at FROM jobs WHERE id = :id", id=job_id)
    if not jobs:
        return ["was accepted and is gone"]
    job = jobs[0]
    found = []
    if job.state not in ("finished", "cancelled") or job.settled_at is None:
        found.append(f"is {job.state}, not ended")
    if job.total != len(items):
        found.append(f"total is {job.total}, accepted were {len(items)}")
    found += _row_problems(database, job_id, items)
    found += _sum_problems(database, job_id, len(items))
    found += _chunk_problems(database, job_id)
    event = "job.cancelled" if job.state == "cancelled" else "job.finished"
    found += _event_problems(database, job_id, job.round, event)
    return found


def _row_problems(database: Database, job_id: UUID, items: Sequence[Expected]) -> list[str]:
    rows = _rows(
        database,
        "SELECT r.seq, r.outcome, r.code, r.tags, r.moderation, r.sha256, g.outcome AS ingest, g.sha256 AS ingested"
        " FROM results r LEFT JOIN ingests g ON g.job_id = r.job_id AND g.seq = r.seq WHERE r.job_id = :id",
        id=job_id,
    )
    count = Counter(row.seq for row in rows)
    found = [f"item {seq} has no outcome" for seq in range(len(items)) if seq not in count]
    found += [f"item {seq} has {n} outcomes" for seq, n in sorted(count.items()) if n > 1]
    found += [f"outcome of an item {seq} that was never accepted" for seq in sorted(count) if seq >= len(items)]
    for row in rows:
        if row.seq < len(items):
            found += [f"item {row.seq}: {problem}" for problem in _difference(row, items[row.seq])]
    return found


def _difference(row: Any, expected: Expected) -> list[str]:
    if row.code != expected.code:
        return [f"code {row.code}, expected {expected.code}"]
    if expected.code is not None:
        return [] if row.outcome in ("failed", "cancelled") else [f"outcome {row.outcome} with a code"]
    found = []
    if row.outcome != "done" or row.ingest != "done":
        found.append(f"outcome {row.outcome}, ingest {row.ingest}")
    if row.sha256 != row.ingested:
        found.append("the result is of other bytes than were ingested")
    best = row.tags[0]["label"] if row.tags else None
    if best != expected.tag:
        found.append(f"best tag {best}, expected {expected.tag}")
    verdict = (row.moderation or {}).get("verdict")
    if verdict != expected.verdict:
        found.append(f"verdict {verdict}, expected {expected.verdict}")
    return found


def _sum_problems(database: Database, job_id: UUID, total: int) -> list[str]:
    """Σ chunks = Σ rows = total, by outcome and by code."""
    rows = _rows(database, "SELECT outcome, code FROM results WHERE job_id = :id", id=job_id)
    outcomes = Counter(row.outcome for row in rows)
    codes = Counter(row.code for row in rows if row.outcome == "failed")
    with database.transaction() as session:
        shown = progress(session, job_id)
    found = []
    if sum(shown.outcomes.values()) != total:
        found.append(f"chunks sum to {shown.outcomes}, total is {total}")
    if Counter(shown.outcomes) != outcomes:
        found.append(f"chunks say {shown.outcomes}, rows say {dict(outcomes)}")
    if Counter(shown.codes) != codes:
        found.append(f"chunks say codes {shown.codes}, rows say {dict(codes)}")
    return found


def _chunk_problems(database: Database, job_id: UUID) -> list[str]:
    rows = _rows(database, "SELECT id, stage, state FROM chunks WHERE job_id = :id AND state <> 'done'", id=job_id)
    return [f"{row.stage} chunk {row.id} is still {row.state}" for row in rows]


def _event_problems(database: Database, job_id: UUID, last_round: int, event: str) -> list[str]:
    rows = _rows(
        database,
        "SELECT type, payload->>'round' AS round FROM outbox WHERE payload->>'job' = :id AND type LIKE 'job.%'",
        id=str(job_id),
    )
    count = Counter(int(row.round) for row in rows)
    found = [f"{count[n]} events of round {n}" for n in range(last_round + 1) if count[n] != 1]
    found += [f"an event of round {n}, which never was" for n in sorted(count) if n > last_round]
    last = [row.type for row in rows if int(row.round) == last_round]
    if last and last[0] != event:
        found.append(f"the last event is {last[0]}, expected {event}")
    return found


def _untold(database: Database, accepted: Accepted) -> list[str]:
    """Events of these jobs that an endpoint, enabled since before they were made, was not told exactly once."""
    rows = _rows(
        database,
        "SELECT o.id, o.type, o.payload->>'job' AS job, h.url, count(d.event_id) FILTER (WHERE d.state = 'delivered')"
        " AS n FROM outbox o JOIN webhooks h ON h.account_id = o.account_id AND h.state = 'enabled'"
        " AND h.created_at <= o.created_at AND (h.types IS NULL OR o.type = ANY(h.types))"
        " LEFT JOIN deliveries d ON d.event_id = o.id AND d.webhook_id = h.id"
        " WHERE o.payload->>'job' = ANY(:jobs) GROUP BY o.id, h.id",
        jobs=[str(job) for job in accepted],
    )
    return [f"{row.type} of job {row.job} was told {row.n} times to {row.url}" for row in rows if row.n != 1]
