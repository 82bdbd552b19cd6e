"""Which of the pictures there are match a hash: one exact look at all of an account's images, in Postgres.

With the extension pgvector, distances are its operator's; without, those of `bit_count`. Both look at every image: an
index of pgvector's would be approximate, and a ban that misses pictures is none.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.bank_tables import Entry
from db.banks import COUNTS


@dataclass(frozen=True, slots=True)
class Match:
    """A picture within the distance, and the newest result that shows it, with the verdict that counts there."""

    sha256: bytes
    distance: int
    seen_at: datetime
    job_id: UUID | None
    seq: int | None
    verdict: str | None


def matches(
    session: Session, account_id: int | None, pdq: str, distance: int, quality: int, limit: int
) -> tuple[int, list[Match]]:
    """How many of an account's pictures (all accounts' without one) match a hash, and the newest of them."""
    parameters = {"account_id": account_id, "pdq": bits(pdq), "distance": distance, "quality": quality, "limit": limit}
    rows = session.execute(text(_MATCHES.format(apart=apart(session))), parameters).all()
    found = [Match(bytes(r.sha256), int(r.distance), r.created_at, r.job_id, r.seq, r.verdict) for r in rows]
    return (rows[0].total if rows else 0), found


@dataclass(frozen=True, slots=True)
class Near:
    """An entry within its bank's distance of a hash; `counts`: it decides on pictures now."""

    entry: Entry
    bank: str
    kind: str
    distance: int
    counts: bool


def near(session: Session, account_id: int | None, pdq: str, limit: int = 100) -> list[Near]:
    """The entries of an account's banks (the installation's without one) that a hash matches, the nearest first."""
    rows = session.execute(_NEAR, {"account_id": account_id, "pdq": bits(pdq), "limit": limit}).all()
    entries = {e.id: e for e in session.scalars(select(Entry).where(Entry.id.in_([row.id for row in rows])))}
    return [Near(entries[row.id], row.name, row.kind, row.distance, row.counts) for row in rows]


def hits(
    session: Session,
    account_id: int | None,
    entry_id: UUID,
    *,
    after: tuple[datetime, bytes] | None = None,
    limit: int = 100,
) -> list[Match]:
    """What an entry hit among an account's pictures (all accounts' without one), newest first."""
    at, sha = after or (None, None)
    parameters = {"account_id": account_id, "entry_id": entry_id, "at": at, "sha": sha, "limit": limit}
    rows = session.execute(_HITS, parameters)
    return [Match(bytes(r.sha256), r.distance, r.created_at, r.job_id, r.seq, r.verdict) for r in rows]


def bits(pdq: str) -> str:
    """The hash as Postgres writes `bit(256)`."""
    return f"{int(pdq, 16):0256b}"


def apart(session: Session) -> str:
    """SQL of the distance between the image `i` and the hash asked for."""
    vector = session.scalar(text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')"))
    return VECTOR if vector else PLAIN


PLAIN: Final = "bit_count(i.pdq # CAST(:pdq AS bit(256)))"
VECTOR: Final = "(i.pdq <~> CAST(:pdq AS bit(256)))"
# Of a picture `n`: the newest result that shows it.
_SHOWN: Final = """
    LEFT JOIN LATERAL (
      SELECT r.job_id, r.seq, coalesce(d.verdict, r.moderation ->> 'verdict') AS verdict
      FROM results r JOIN jobs j ON j.id = r.job_id
      LEFT JOIN human_decisions d ON d.account_id = r.account_id AND d.sha256 = r.sha256 AND d.context = j.context
      WHERE r.account_id = n.account_id AND r.sha256 = n.sha256 AND r.outcome = 'done'
      ORDER BY r.created_at DESC LIMIT 1) r ON true
    ORDER BY n.created_at DESC, n.sha256 DESC
"""
_MATCHES: Final = (
    """
    SELECT n.*, r.job_id, r.seq, r.verdict FROM (
      SELECT i.account_id, i.sha256, i.created_at, {apart} AS distance, count(*) OVER () AS total
      FROM images i
      WHERE (CAST(:account_id AS bigint) IS NULL OR i.account_id = :account_id)
        AND i.pdq_quality >= :quality AND {apart} <= :distance
      ORDER BY i.created_at DESC, i.sha256 DESC LIMIT :limit) n
"""
    + _SHOWN
)
_HITS = text(
    """
    SELECT n.*, r.job_id, r.seq, r.verdict FROM (
      SELECT account_id, sha256, distance, created_at FROM hash_hits
      WHERE entry_id = :entry_id AND (CAST(:account_id AS bigint) IS NULL OR account_id = :account_id)
        AND (CAST(:at AS timestamptz) IS NULL OR (created_at, sha256) < (:at, CAST(:sha AS bytea)))
      ORDER BY created_at DESC, sha256 DESC LIMIT :limit) n
"""
    + _SHOWN
)
_NEAR = text(
    f"""
    SELECT e.id, b.name, b.kind, bit_count(e.pdq # CAST(:pdq AS bit(256))) AS distance, {COUNTS} AS counts
    FROM hash_entries e JOIN hash_banks b ON b.id = e.bank_id
    WHERE b.account_id IS NOT DISTINCT FROM CAST(:account_id AS bigint) AND b.removed_at IS NULL
      AND e.removed_at IS NULL AND bit_count(e.pdq # CAST(:pdq AS bit(256))) <= b.distance
    ORDER BY distance, e.id LIMIT :limit
    """
)
