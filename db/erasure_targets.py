"""Which items an erasure is about: the next of them, in bounded steps, until there is none. Reads only.

Only what was submitted before the erasure was asked for counts: who submits the same again afterwards wants it.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.blobs import raw_key
from db.erasure_tables import Erasure
from db.ids import parse_item_id

Key = tuple[UUID, int]


def digest_of(session: Session, kind: str, target: str) -> bytes:
    """The SHA-256 that stays of a target, for who knows it to recognise it."""
    found: bytes = session.execute(_DIGEST, {"said": f"{kind}:{target}"}).scalar_one()
    return bytes(found)


def items_of(session: Session, erasure: Erasure, account_id: int, limit: int) -> list[Key]:
    """The next items that the target names, at most `limit`; those that are erased are not among them."""
    if erasure.target is None:
        return []
    parameters = {"account_id": account_id, "asked": erasure.created_at, "limit": limit, "target": erasure.target}
    return _FINDERS[erasure.kind](session, parameters)


def of_picture(session: Session, account_id: int, sha256: bytes, asked: Any, limit: int) -> list[Key]:
    """The next items of the account that show these bytes, or were uploaded as them."""
    raw = raw_key(account_id, sha256)
    parameters = {"account_id": account_id, "sha": sha256, "raw": raw, "asked": asked, "limit": limit}
    return _keys(session, _OF_PICTURE, parameters)


def of_tombstones(session: Session, erasure_id: UUID, limit: int) -> list[tuple[int, Key]]:
    """Items that are there although this erasure has a tombstone of them, or of what a rerun copied them from: after a
    backup was restored, or where a copy was being made just then. With account."""
    rows = session.execute(_OF_TOMBSTONES, {"id": erasure_id, "limit": limit})
    return [(row.account_id, (row.job_id, row.seq)) for row in rows]


def _of_item(session: Session, parameters: dict[str, Any]) -> list[Key]:
    job_id, seq = parse_item_id(parameters["target"])
    return _keys(session, _OF_ITEM, {**parameters, "job": job_id, "seq": seq})


def _of_picture(session: Session, parameters: dict[str, Any]) -> list[Key]:
    sha256 = bytes.fromhex(parameters["target"])
    return of_picture(session, parameters["account_id"], sha256, parameters["asked"], parameters["limit"])


def _keys(session: Session, query: Any, parameters: dict[str, Any]) -> list[Key]:
    return [(row.job_id, row.seq) for row in session.execute(query, parameters)]


_DIGEST = text("SELECT sha256(convert_to(CAST(:said AS text), 'UTF8'))")
# What a place still has: an erased one has none of it.
_NAMED = "num_nonnulls(i.url, i.raw_key) = 1"
_OF_ITEM = text(
    f"""
    SELECT i.job_id, i.seq FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id
    WHERE j.account_id = :account_id AND j.id = :job AND i.seq = :seq AND {_NAMED}
    """
)
_OF_JOB = text(
    f"""
    SELECT i.job_id, i.seq FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id
    WHERE j.account_id = :account_id AND j.id = CAST(:target AS uuid) AND {_NAMED} ORDER BY i.seq LIMIT :limit
    """
)
_OF_PRODUCT = text(
    f"""
    SELECT i.job_id, i.seq FROM items i JOIN jobs j ON j.id = i.job_id
    WHERE i.account_id = :account_id AND i.product_id = :target AND j.created_at <= :asked AND {_NAMED}
    UNION
    SELECT m.job_id, m.seq FROM moderations m
    WHERE m.account_id = :account_id AND m.subject_product = :target AND m.created_at <= :asked
    LIMIT :limit
    """
)
_OF_SUBJECT = text(
    """
    SELECT m.job_id, m.seq FROM moderations m
    WHERE m.account_id = :account_id AND m.subject_user = :target AND m.created_at <= :asked LIMIT :limit
    """
)
_OF_PICTURE = text(
    f"""
    SELECT found.job_id, found.seq FROM (
      SELECT r.job_id, r.seq FROM results r
      WHERE r.account_id = :account_id AND r.sha256 = :sha AND r.outcome = 'done'
      UNION SELECT r.job_id, r.seq FROM results r
      WHERE r.account_id = :account_id AND r.sha256 = :sha AND r.outcome = 'failed' AND r.sha256 IS NOT NULL
      UNION SELECT i.job_id, i.seq FROM items i WHERE i.raw_key = :raw AND i.account_id = :account_id
      UNION SELECT g.job_id, g.seq FROM jobs j JOIN ingests g ON g.bucket = j.bucket AND g.job_id = j.id
      WHERE j.account_id = :account_id AND g.sha256 = :sha AND g.outcome = 'done'
        AND (j.settled_at IS NULL OR j.cancelled > 0 OR coalesce((j.settled ->> 'cancelled')::int, 0) > 0)
    ) AS found JOIN jobs j ON j.id = found.job_id
    JOIN items i ON i.bucket = j.bucket AND i.job_id = found.job_id AND i.seq = found.seq
    WHERE j.created_at <= :asked AND {_NAMED} LIMIT :limit
    """
)
# Job by job, the oldest that has anything left.
_OF_ACCOUNT = text(
    f"""
    SELECT i.job_id, i.seq FROM (
      SELECT j.id, j.bucket FROM jobs j WHERE j.account_id = :account_id AND j.created_at <= :asked AND EXISTS (
        SELECT FROM items i WHERE i.bucket = j.bucket AND i.job_id = j.id AND {_NAMED})
      ORDER BY j.id LIMIT 1) AS next
    JOIN items i ON i.bucket = next.bucket AND i.job_id = next.id WHERE {_NAMED} ORDER BY i.seq LIMIT :limit
    """
)
_OF_TOMBSTONES = text(
    f"""
    SELECT e.account_id, e.job_id, e.seq FROM erased_items e JOIN jobs j ON j.id = e.job_id
    JOIN items i ON i.bucket = j.bucket AND i.job_id = e.job_id AND i.seq = e.seq
    WHERE e.erasure_id = :id AND {_NAMED}
    UNION
    SELECT e.account_id, r.job_id, k.seq FROM erased_items e
    JOIN rerun_items k ON k.job_id = e.job_id AND k.source_seq = e.seq
    JOIN reruns r ON r.id = k.rerun_id JOIN jobs j ON j.id = r.job_id
    JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id AND i.seq = k.seq
    WHERE e.erasure_id = :id AND {_NAMED}
    ORDER BY 2, 3 LIMIT :limit
    """
)
_FINDERS: Final[dict[str, Callable[[Session, dict[str, Any]], list[Key]]]] = {
    "item": _of_item,
    "job": lambda session, parameters: _keys(session, _OF_JOB, parameters),
    "product": lambda session, parameters: _keys(session, _OF_PRODUCT, parameters),
    "subject": lambda session, parameters: _keys(session, _OF_SUBJECT, parameters),
    "picture": _of_picture,
    "account": lambda session, parameters: _keys(session, _OF_ACCOUNT, parameters),
}
