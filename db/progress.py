"""How far a job is: sums over its chunks, never over its items."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.errors import NotFound


@dataclass(frozen=True)
class StageCounts:
    """Items that a stage ended with success, with a failure, and that it has still to do."""

    done: int
    failed: int
    open: int


REUSED = ("not_modified", "known_bytes", "known_scores")
"""Items that were not sent again, whose bytes were not decoded again, whose scores were stored. Items that repeat
another one of the same job are in none of them."""


@dataclass(frozen=True)
class Progress:
    """Counts of a job. `rate` is final outcomes a second over the last 60 seconds; `eta_s` follows from it. `reused`:
    how often what was known before spared work (`REUSED`)."""

    total: int
    ingest: StageCounts
    infer: StageCounts
    outcomes: dict[str, int]
    codes: dict[str, int]
    rate: float | None
    eta_s: float | None
    reused: dict[str, int] = field(default_factory=dict)

    @property
    def settled(self) -> int:
        """Items that have their outcome."""
        return sum(self.outcomes.values())


def progress(session: Session, job_id: UUID) -> Progress:
    """The job's counts now: the sums of settled rounds (`jobs.settled`) plus those of this round's chunks."""
    row = session.execute(_SUMS, {"id": job_id}).mappings().first()
    if row is None:
        raise NotFound("There is no such job.")
    earlier: dict[str, Any] = row["settled"]
    ingested = row["ingest_done"] + earlier.get("ingested", 0)
    ingest_failed = row["ingest_failed"] + earlier.get("ingest_failed", 0)
    inferred = row["infer_done"] + earlier.get("done", 0)
    infer_failed = row["infer_failed"] + earlier.get("infer_failed", 0)
    cancelled = row["cancelled"] + earlier.get("cancelled", 0)
    codes = dict(earlier.get("codes", {}))
    for code, count in row["codes"].items():
        codes[code] = codes.get(code, 0) + int(count)
    left = row["total"] - inferred - infer_failed - ingest_failed - cancelled
    ended = row["settled_at"] is not None
    rate = None if ended or not row["recent"] else float(row["recent"]) / max(float(row["window_s"]), 1.0)
    return Progress(
        total=row["total"],
        ingest=StageCounts(ingested, ingest_failed, 0 if ended else row["total"] - ingested - ingest_failed),
        infer=StageCounts(inferred, infer_failed, 0 if ended else ingested - inferred - infer_failed),
        outcomes={"done": inferred, "failed": ingest_failed + infer_failed, "cancelled": cancelled},
        codes=dict(sorted(codes.items())),
        rate=rate,
        eta_s=left / rate if rate else None,
        reused={name: row[name] + earlier.get("reused", {}).get(name, 0) for name in REUSED},
    )


_SUMS = text(
    """
    SELECT j.total, j.settled, j.cancelled, j.settled_at,
      coalesce(sum(c.done) FILTER (WHERE c.stage = 'ingest'), 0) AS ingest_done,
      coalesce(sum(c.failed) FILTER (WHERE c.stage = 'ingest'), 0) AS ingest_failed,
      coalesce(sum(c.done) FILTER (WHERE c.stage = 'infer'), 0) AS infer_done,
      coalesce(sum(c.failed) FILTER (WHERE c.stage = 'infer'), 0) AS infer_failed,
      coalesce(sum((c.reused ->> 'not_modified')::int) FILTER (WHERE c.reused <> '{}'), 0) AS not_modified,
      coalesce(sum((c.reused ->> 'known_bytes')::int) FILTER (WHERE c.reused <> '{}'), 0) AS known_bytes,
      coalesce(sum((c.reused ->> 'known_scores')::int) FILTER (WHERE c.reused <> '{}'), 0) AS known_scores,
      coalesce(sum(CASE WHEN c.stage = 'infer' THEN c.done + c.failed ELSE c.failed END)
        FILTER (WHERE c.finished_at > now() - interval '60 seconds'), 0) AS recent,
      least(60, extract(epoch FROM now() - greatest(j.started_at, min(c.created_at), j.created_at))) AS window_s,
      coalesce((SELECT jsonb_object_agg(code, n) FROM (
        SELECT e.key AS code, sum(e.value::int) AS n FROM chunks k, jsonb_each_text(k.codes) AS e
        WHERE k.job_id = j.id AND k.round = j.round AND k.codes <> '{}' GROUP BY e.key) AS by_code), '{}') AS codes
    FROM jobs j LEFT JOIN chunks c ON c.job_id = j.id AND c.round = j.round
    WHERE j.id = :id GROUP BY j.id
    """
)
