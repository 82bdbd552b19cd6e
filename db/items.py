"""Items with their outcomes, as clients read them: keyset pages, batches for exports, and one item by its id."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.codes import CODES
from db.decisions import decision_of, overlaid
from db.errors import NotFound
from db.ids import item_id, parse_item_id
from db.labels import labels_of
from db.tables import Job


@dataclass(frozen=True)
class ItemView:
    """A submitted picture and what became of it. `outcome` is None while it is open; `moderation` is what counts, with
    a person's verdict over the machine's."""

    job_id: UUID
    seq: int
    client_id: str | None
    product_id: str | None
    url: str | None
    filename: str | None
    outcome: str | None
    code: str | None
    detail: str | None
    tags: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    moderation: dict[str, Any] | None
    facts: dict[str, Any] | None
    work_key: str | None
    finished_at: datetime | None
    category: str | None = None

    @property
    def item_id(self) -> str:
        """The public id, unique in the whole system."""
        return item_id(self.job_id, self.seq)

    def row(self) -> dict[str, Any]:
        """The one result row: the same in JSON, NDJSON, CSV, Parquet and the CLI."""
        return {
            "id": self.client_id if self.client_id is not None else self.item_id,
            "item_id": self.item_id,
            "product_id": self.product_id,
            "url": self.url,
            "filename": self.filename,
            "outcome": self.outcome,
            "code": self.code,
            "tags": self.tags,
            "labels": self.labels,
            "moderation": self.moderation,
            "facts": self.facts,
        }


def page(
    session: Session,
    account_id: int,
    job: Job,
    *,
    outcome: str | None = None,
    code: str | None = None,
    verdict: str | None = None,
    label: str | None = None,
    after_seq: int = -1,
    limit: int = 100,
) -> list[ItemView]:
    """The job's items after `after_seq`, in order; `outcome` may be "open" for those without one yet. `verdict` is
    the one that counts, a person's first; `label` a tag, or what a person said is there."""
    if outcome == "open" and job.settled_at is not None:
        return []
    parameters = {
        "account_id": account_id,
        "bucket": job.bucket,
        "job_id": job.id,
        "outcome": outcome,
        "code": code,
        "verdict": verdict,
        "label": label,
        "context": job.context,
        "after": after_seq,
        "limit": limit,
    }
    codes = _codes(outcome, code)
    if codes is None or verdict is not None or label is not None:
        return [_view(row) for row in session.execute(_PAGE, parameters).mappings()]
    return [_view(row) for row in session.execute(_PAGE_BY_CODES, {**parameters, "codes": codes}).mappings()]


def _codes(outcome: str | None, code: str | None) -> list[str] | None:
    """The codes of all that is asked for, which are few rows of an index; None where some have no code."""
    if outcome in ("failed", "cancelled"):
        return [each for each in CODES if (each == "cancelled") == (outcome == "cancelled") and code in (None, each)]
    if code is None:
        return None
    return [code] if outcome is None else []  # what is done or open has no code


def settled_batch(
    session: Session, account_id: int, job: Job, *, after_seq: int = -1, size: int = 2000
) -> list[ItemView]:
    """The next items that have their outcome, in order; empty at the end. An export calls it with a transaction a
    batch, so that it never holds a snapshot for long."""
    parameters = {
        "account_id": account_id,
        "bucket": job.bucket,
        "job_id": job.id,
        "context": job.context,
        "after": after_seq,
        "limit": size,
    }
    return [_view(row) for row in session.execute(_SETTLED, parameters).mappings()]


def get(session: Session, account_id: int, public_id: str) -> ItemView:
    """One item by its public id; NotFound for a malformed id and for another account's too."""
    try:
        job_id, seq = parse_item_id(public_id)
    except ValueError:
        raise NotFound("There is no such item.") from None
    found = at(session, account_id, job_id, seq)
    if found is None:
        raise NotFound("There is no such item.")
    return found


def at(session: Session, account_id: int, job_id: UUID, seq: int) -> ItemView | None:
    """One item by its place; None when the account has no such one."""
    row = session.execute(_ONE, {"account_id": account_id, "job_id": job_id, "seq": seq}).mappings().first()
    return None if row is None else _view(row)


def _view(row: Any) -> ItemView:
    facts = None
    if row["width"] is not None:
        facts = {
            "width": row["width"],
            "height": row["height"],
            "format": row["format"],
            "bytes": row["bytes"],
            "sha256": bytes(row["sha256"]).hex(),
            "pdq": None if row["pdq"] is None else f"{int(row['pdq'], 2):064x}",
            "pdq_quality": row["pdq_quality"],
            "colours": row["colours"],
            "sharpness": row["sharpness"],
        }
    return ItemView(
        job_id=row["job_id"],
        seq=row["seq"],
        client_id=row["client_id"],
        product_id=row["product_id"],
        url=row["url"],
        filename=row["filename"],
        outcome=row["outcome"],
        code=row["code"],
        detail=row["detail"],
        tags=row["tags"] or [],
        labels=row["labels"] or [],
        moderation=overlaid(row["moderation"], row["decision"]),
        facts=facts,
        work_key=row["work_key"],
        finished_at=row["finished_at"],
        category=row["category"],
    )


def _columns(context: str) -> str:
    """What `_view` reads; a person's verdict is that of the picture in this context."""
    return f"""
    SELECT i.job_id, i.seq, i.client_id, i.product_id, i.url, i.filename, i.category, r.outcome, r.code, r.detail,
      r.tags, r.moderation, r.created_at AS finished_at, g.sha256, g.work_key, g.width, g.height, g.format, g.bytes,
      g.pdq::text AS pdq, g.pdq_quality, g.colours, g.sharpness,
      {labels_of("i.account_id", "r.sha256")},
      {decision_of("i.account_id", "r.sha256", context)}
    """


_OF_ITS_JOB = _columns(":context")
_RESULT = " ON r.bucket = i.bucket AND r.job_id = i.job_id AND r.seq = i.seq"
# Asked for item by item (OFFSET 0), by the whole key: of a new job Postgres has no statistics, takes it for one row and
# would join each of its items with all of its results.
_ITS_RESULT = """ JOIN LATERAL (
  SELECT * FROM results WHERE bucket = :bucket AND job_id = :job_id AND seq = i.seq OFFSET 0) r ON true"""
_IMAGE = " LEFT JOIN images g ON g.account_id = i.account_id AND g.sha256 = r.sha256"
_OF_JOB = " WHERE i.account_id = :account_id AND i.bucket = :bucket AND i.job_id = :job_id AND i.seq > :after"
_LIMIT = " ORDER BY i.seq LIMIT :limit"

_FILTERED = """
 AND (CAST(:verdict AS text) IS NULL OR coalesce((SELECT d.verdict FROM human_decisions d
   WHERE d.account_id = i.account_id AND d.sha256 = r.sha256 AND d.context = :context),
   r.moderation ->> 'verdict') = :verdict)
 AND (CAST(:label AS text) IS NULL OR r.tags @> jsonb_build_array(jsonb_build_object('label', CAST(:label AS text)))
   OR EXISTS (SELECT FROM current_labels l WHERE l.account_id = i.account_id AND l.sha256 = r.sha256
     AND CAST(:label AS text) = ANY(l.present)))
"""
_PAGE = text(
    f"{_OF_ITS_JOB} FROM items i LEFT{_ITS_RESULT}{_IMAGE}{_OF_JOB}{_FILTERED}"
    " AND (CAST(:outcome AS text) IS NULL OR coalesce(r.outcome, 'open') = :outcome)"
    f" AND (CAST(:code AS text) IS NULL OR r.code = :code){_LIMIT}"
)
# From the index of failures: of each code the next few, of these the first.
_PAGE_BY_CODES = text(
    f"""{_OF_ITS_JOB} FROM (
      SELECT next.* FROM unnest(CAST(:codes AS text[])) AS asked(code) CROSS JOIN LATERAL (
        SELECT * FROM results WHERE bucket = :bucket AND job_id = :job_id AND code = asked.code AND seq > :after
        ORDER BY seq LIMIT :limit) next
      ORDER BY next.seq LIMIT :limit) r
    JOIN LATERAL (
      SELECT * FROM items WHERE bucket = :bucket AND job_id = :job_id AND seq = r.seq OFFSET 0) i ON true
    {_IMAGE}{_OF_JOB}{_LIMIT}"""
)
_SETTLED = text(f"{_OF_ITS_JOB} FROM items i{_ITS_RESULT}{_IMAGE}{_OF_JOB}{_LIMIT}")
_ONE = text(
    f"{_columns('j.context')} FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id"
    f" LEFT JOIN results r{_RESULT}{_IMAGE}"
    " WHERE j.account_id = :account_id AND j.id = :job_id AND i.seq = :seq"
)
