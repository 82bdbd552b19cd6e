"""Pictures that might be labelled next: analysed by a model, not labelled by anybody. Chooses none of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.ids import item_id

MIN_PDQ_QUALITY = 50  # below, PDQ says that the hash is not to be matched


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with what the model said of it (the stored form of an analysis), and an item that shows it."""

    sha256: bytes
    item_id: str
    url: str | None
    filename: str | None
    scores: dict[str, Any]
    pdq: bytes | None


def unlabelled(
    session: Session, account_id: int, model: str, groups: Sequence[str], *, since: datetime, limit: int, seed: int = 0
) -> list[Picture]:
    """At most `limit` of the pictures with a result since then which the model (name@version) has scored and of which
    nobody has said a label of these groups: the same random sample for the same seed. Reads the results since then."""
    parameters = {"account": account_id, "model": model, "groups": list(groups), "since": since, "limit": limit,
                  "seed": seed, "quality": MIN_PDQ_QUALITY}  # fmt: skip
    rows = session.execute(_UNLABELLED, parameters)
    return [
        Picture(
            bytes(row.sha256), item_id(row.job_id, row.seq), row.url, row.filename, row.scores, _hash(row.pdq)
        )
        for row in rows
    ]  # fmt: skip


def labelled_hashes(session: Session, account_id: int, groups: Sequence[str], limit: int) -> list[bytes]:
    """The PDQ hashes of the pictures that have a label of these groups, those labelled last first."""
    parameters = {"account": account_id, "groups": list(groups), "limit": limit, "quality": MIN_PDQ_QUALITY}
    return [found for row in session.execute(_HASHES, parameters) if (found := _hash(row.pdq)) is not None]


def _hash(bits: str | None) -> bytes | None:
    return None if bits is None else int(bits, 2).to_bytes(32, "big")


_UNLABELLED = text(
    """
    WITH seen AS (
      SELECT DISTINCT ON (sha256) sha256, bucket, job_id, seq FROM results
      WHERE account_id = :account AND created_at >= :since AND outcome = 'done' AND sha256 IS NOT NULL
      ORDER BY sha256, created_at DESC
    )
    SELECT s.sha256, s.job_id, s.seq, i.url, i.filename, a.scores,
      CASE WHEN m.pdq_quality >= :quality THEN CAST(m.pdq AS text) END AS pdq
    FROM seen s
    JOIN analyses a ON a.account_id = :account AND a.sha256 = s.sha256 AND a.model = :model
    JOIN images m ON m.account_id = :account AND m.sha256 = s.sha256
    JOIN items i ON i.bucket = s.bucket AND i.job_id = s.job_id AND i.seq = s.seq
    WHERE NOT EXISTS (SELECT FROM current_labels l
      WHERE l.account_id = :account AND l.sha256 = s.sha256 AND l."group" = ANY (:groups))
    ORDER BY hashtextextended(encode(s.sha256, 'hex'), :seed), s.sha256 LIMIT :limit
    """
)
_HASHES = text(
    """
    SELECT CAST(m.pdq AS text) AS pdq FROM current_labels l
    JOIN images m ON m.account_id = l.account_id AND m.sha256 = l.sha256
    WHERE l.account_id = :account AND l."group" = ANY (:groups) AND m.pdq_quality >= :quality
    ORDER BY l.id DESC LIMIT :limit
    """
)
