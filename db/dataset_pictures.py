"""The pictures that the system holds, with what models and people say of them: rows for datasets. Reads no picture.

Working copies, never originals: they are named by their own bytes, so that nothing that is ingested later changes them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.errors import NotFound
from db.ids import item_id
from db.tables import Job

STORED_TAGS = 20
"""As many tags as a stored analysis has at most: one that has fewer names every label that reached its threshold."""


@dataclass(frozen=True)
class Picture:
    """A distinct picture and one item that shows it (None: that is gone).

    `tags` are those of `model`, [{label, group, score}], and `complete` says that no other label reached its
    threshold. `work_key` is empty when the picture is gone. `labels` are people's, [{group, kind, present, absent}].
    `pdq` is 32 bytes.
    """

    sha256: bytes
    work_key: str
    work_sha256: bytes | None
    pdq: bytes | None
    pdq_quality: int
    job_id: UUID | None
    seq: int | None
    url: str | None
    product_id: str | None
    model: str | None
    tags: list[dict[str, Any]]
    complete: bool
    verdict: str | None
    labels: list[dict[str, Any]]

    @property
    def item_id(self) -> str:
        """The public id of the item; empty when it is gone."""
        return item_id(self.job_id, self.seq) if self.job_id is not None and self.seq is not None else ""


def of_job(session: Session, job: Job, *, after_seq: int = -1, limit: int = 2000) -> list[Picture]:
    """The next analysed items of a job, in order; empty at the end. Equal pictures come as often as they are shown."""
    parameters = {
        "account_id": job.account_id,
        "bucket": job.bucket,
        "job_id": job.id,
        "model": job.models.get("tags"),
        "after": after_seq,
        "limit": limit,
    }
    return [_picture(row) for row in session.execute(_OF_JOB, parameters).mappings()]


def labelled(
    session: Session, account_id: int, since: datetime | None = None, *, after: bytes = b"", limit: int = 2000
) -> list[Picture]:
    """The next pictures that people have labelled (since then), each once, in the order of their bytes' hashes."""
    parameters = {"account_id": account_id, "since": since, "after": after, "limit": limit}
    return [_picture(row) for row in session.execute(_LABELLED, parameters).mappings()]


def account_of(session: Session, job_id: UUID) -> int:
    """Whose job it is; NotFound."""
    found = session.execute(text("SELECT account_id FROM jobs WHERE id = :id"), {"id": job_id}).scalar()
    if found is None:
        raise NotFound(f"There is no job {job_id} in this database.")
    return int(found)


def _picture(row: Any) -> Picture:
    tags = row["tags"] or []
    return Picture(
        sha256=bytes(row["sha256"]),
        work_key=row["work_key"] or "",
        work_sha256=None if row["work_sha256"] is None else bytes(row["work_sha256"]),
        pdq=None if row["pdq"] is None else int(row["pdq"], 2).to_bytes(32, "big"),
        pdq_quality=row["pdq_quality"] or 0,
        job_id=row["job_id"],
        seq=row["seq"],
        url=row["url"],
        product_id=row["product_id"],
        model=row["model"],
        tags=tags,
        complete=bool(row["analysed"]) and len(tags) < STORED_TAGS,
        verdict=row["verdict"],
        labels=row["labels"] or [],
    )


_LABEL = """jsonb_build_object('group', l."group", 'kind', l.kind, 'present', l.present, 'absent', l.absent)"""
_IMAGE = "g.work_key, g.work_sha256, g.pdq::text AS pdq, g.pdq_quality"
_OF_JOB = text(
    f"""
    SELECT i.job_id, i.seq, i.url, i.product_id, r.sha256, {_IMAGE}, m.ref AS model,
      coalesce(a.scores -> 'tags', r.tags) AS tags, a.scores IS NOT NULL AS analysed,
      r.moderation ->> 'verdict' AS verdict,
      (SELECT jsonb_agg({_LABEL}) FROM current_labels l
       WHERE l.account_id = i.account_id AND l.sha256 = r.sha256) AS labels
    FROM items i JOIN results r ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq
    JOIN images g ON g.account_id = i.account_id AND g.sha256 = r.sha256
    CROSS JOIN LATERAL (SELECT coalesce(r.published -> 'tags' ->> 'model', CAST(:model AS text)) AS ref) m
    LEFT JOIN analyses a ON a.account_id = i.account_id AND a.sha256 = r.sha256 AND a.model = m.ref
    WHERE i.account_id = :account_id AND i.bucket = :bucket AND i.job_id = :job_id AND i.seq > :after
      AND r.outcome = 'done'
    ORDER BY i.seq LIMIT :limit
    """
)
_LABELLED = text(
    f"""
    WITH said AS (
      SELECT l.sha256, jsonb_agg({_LABEL}) AS labels,
        (array_agg(l.job_id ORDER BY l.id DESC))[1] AS job_id, (array_agg(l.seq ORDER BY l.id DESC))[1] AS seq
      FROM current_labels l
      WHERE l.account_id = :account_id AND l.sha256 > :after
        AND (CAST(:since AS timestamptz) IS NULL OR l.created_at >= :since)
      GROUP BY l.sha256 ORDER BY l.sha256 LIMIT :limit
    )
    SELECT i.job_id, i.seq, i.url, i.product_id, s.sha256, {_IMAGE}, NULL AS model, NULL AS tags, false AS analysed,
      NULL AS verdict, s.labels
    FROM said s LEFT JOIN images g ON g.account_id = :account_id AND g.sha256 = s.sha256
    LEFT JOIN jobs j ON j.id = s.job_id
    LEFT JOIN items i ON i.bucket = j.bucket AND i.job_id = s.job_id AND i.seq = s.seq
    ORDER BY s.sha256
    """
)
