"""What a job's results add up to, for people: verdicts, tags, failures by host. Bounded: of a large job, a part.

Progress is `db.progress`, which counts chunks and is asked every second; this reads results and is asked by a page.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.tables import Job

MOST: Final = 50_000
"""Results that are looked at, from the first item on."""
MAX_LABELS: Final = 40
MAX_HOSTS: Final = 25


@dataclass(frozen=True)
class HostFailures:
    """Failures of the pictures of one host, by code."""

    host: str
    total: int
    codes: dict[str, int]


@dataclass(frozen=True)
class Figures:
    """`of` results were looked at. `verdicts` count as readers see them, a person's first."""

    of: int
    verdicts: dict[str, int]
    labels: dict[str, int]
    hosts: list[HostFailures]


def figures(session: Session, account_id: int, job: Job) -> Figures:
    """The figures of the job's first results."""
    parameters: dict[str, Any] = {
        "account_id": account_id,
        "job_id": job.id,
        "bucket": job.bucket,
        "context": job.context,
        "most": MOST,
    }
    verdicts = {row.verdict: row.n for row in session.execute(_VERDICTS, parameters)}
    counts = {row.label: row.n for row in session.execute(_LABELS, {**parameters, "limit": MAX_LABELS})}
    hosts = [
        HostFailures(row.host, row.total, dict(sorted(row.codes.items(), key=lambda item: -item[1])))
        for row in session.execute(_HOSTS, {**parameters, "limit": MAX_HOSTS})
    ]
    return Figures(
        of=sum(verdicts.values()),
        verdicts={name: count for name, count in verdicts.items() if name},
        labels=counts,
        hosts=hosts,
    )


def labels(session: Session, account_id: int, job: Job, most: int = 5000) -> list[str]:
    """The tags of the job's first results, the most frequent first: what somebody may want to filter by."""
    parameters = {"account_id": account_id, "job_id": job.id, "bucket": job.bucket, "most": most, "limit": MAX_LABELS}
    return [row.label for row in session.execute(_LABELS, parameters)]


_RESULTS: Final = """
WITH r AS (
  SELECT r.* FROM results r WHERE r.account_id = :account_id AND r.bucket = :bucket AND r.job_id = :job_id
  ORDER BY r.seq LIMIT :most)
"""
# Results without a verdict come back under '': they count among those that were looked at.
_VERDICTS = text(
    f"""{_RESULTS}
    SELECT coalesce(d.verdict, r.moderation ->> 'verdict', '') AS verdict, count(*)::int AS n
    FROM r LEFT JOIN human_decisions d
      ON d.account_id = r.account_id AND d.sha256 = r.sha256 AND d.context = :context
    GROUP BY 1 ORDER BY 2 DESC
    """
)
_LABELS = text(
    f"""{_RESULTS}
    SELECT t ->> 'label' AS label, count(*)::int AS n
    FROM r, jsonb_array_elements(r.tags) AS t WHERE r.tags IS NOT NULL AND jsonb_typeof(r.tags) = 'array'
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT :limit
    """
)
_HOSTS = text(
    """
    WITH failed AS (
      SELECT r.seq, r.code FROM results r
      WHERE r.account_id = :account_id AND r.bucket = :bucket AND r.job_id = :job_id AND r.code IS NOT NULL
        AND r.outcome = 'failed' ORDER BY r.seq LIMIT :most),
    counted AS (
      SELECT lower(substring(i.url FROM '^[A-Za-z]+://([^/:?#]+)')) AS host, f.code, count(*)::int AS n
      FROM failed f JOIN items i ON i.bucket = :bucket AND i.job_id = :job_id AND i.seq = f.seq
      WHERE i.account_id = :account_id AND i.url IS NOT NULL GROUP BY 1, 2)
    SELECT host, sum(n)::int AS total, jsonb_object_agg(code, n) AS codes FROM counted
    WHERE host IS NOT NULL GROUP BY host ORDER BY 2 DESC, 1 LIMIT :limit
    """
)
