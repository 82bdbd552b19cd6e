"""What the server of a URL called the bytes that an account fetched from it last (RFC 9110: ETag, Last-Modified), so
that a later fetch may ask whether they changed. Nothing is shared between accounts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.images import COLUMNS, ImageRecord, record_of
from db.session import changed
from db.urls import without_fragment

FRESH = "1 day"
"""A server that says the same again is noted this seldom: else every repeated job would write every row anew."""


@dataclass(frozen=True, slots=True)
class Validators:
    """As the server sent them; at least one of the two."""

    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a URL gave the last time. `old`: that the server still says so is worth a note."""

    validators: Validators
    image: ImageRecord
    old: bool


def known(session: Session, account_id: int, urls: Sequence[str], made_by: int) -> dict[str, Remembered]:
    """Those of these URLs whose validators are known, and whose picture is there as this normaliser makes it."""
    hashes = {_hash(url): url for url in urls}
    parameters = {"account_id": account_id, "hashes": list(hashes), "made_by": made_by}
    return {
        hashes[bytes(row.url_hash)]: Remembered(Validators(row.etag, row.last_modified), record_of(row), row.old)
        for row in session.execute(_KNOWN, parameters)
    }


def record(session: Session, account_id: int, said: Mapping[str, tuple[Validators, bytes]]) -> None:
    """Note by URL what its server said and of which bytes (sorted, so that two writers never deadlock)."""
    if not said:
        return
    # By hash: URLs that differ in their fragments are one.
    by_hash = {_hash(url).hex(): (each, sha256.hex()) for url, (each, sha256) in said.items()}
    rows = [
        {"url": url, "sha": sha256, "etag": each.etag, "modified": each.last_modified}
        for url, (each, sha256) in sorted(by_hash.items(), key=lambda item: item[0])
    ]
    session.execute(_RECORD, {"account_id": account_id, "rows": json.dumps(rows)})


def forget(session: Session, days: float, limit: int = 20_000) -> int:
    """Drop what no server has said for so many days, at most `limit`; returns how many."""
    return len(session.execute(_FORGET, {"days": days, "limit": limit}).all())


def forget_urls(session: Session, account_id: int, urls: Sequence[str]) -> int:
    """Drop what is known of these URLs; how many."""
    hashes = sorted({_hash(url) for url in urls})
    return changed(session.execute(_FORGET_URLS, {"account_id": account_id, "hashes": hashes})) if hashes else 0


def _hash(url: str) -> bytes:
    return blake2b(without_fragment(url).encode(), digest_size=16).digest()


_KNOWN = text(
    f"""
    SELECT v.url_hash, v.etag, v.last_modified, v.seen_at < now() - interval '{FRESH}' AS old, {COLUMNS}
    FROM validators v JOIN images i ON i.account_id = v.account_id AND i.sha256 = v.sha256
    WHERE v.account_id = :account_id AND v.url_hash = ANY(:hashes) AND i.made_by = :made_by
    """
)
_RECORD = text(
    f"""
    INSERT INTO validators (account_id, url_hash, sha256, etag, last_modified)
    SELECT :account_id, decode(url, 'hex'), decode(sha, 'hex'), etag, modified
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(url text, sha text, etag text, modified text)
    ON CONFLICT (account_id, url_hash) DO UPDATE SET sha256 = excluded.sha256, etag = excluded.etag,
      last_modified = excluded.last_modified, seen_at = now()
    WHERE validators.seen_at < now() - interval '{FRESH}'
      OR (validators.sha256, validators.etag, validators.last_modified)
        IS DISTINCT FROM (excluded.sha256, excluded.etag, excluded.last_modified)
    """
)
_FORGET_URLS = text("DELETE FROM validators WHERE account_id = :account_id AND url_hash = ANY(:hashes)")
_FORGET = text(
    """
    DELETE FROM validators WHERE (account_id, url_hash) IN (
      SELECT account_id, url_hash FROM validators WHERE seen_at < now() - make_interval(secs => :days * 86400)
      LIMIT :limit)
    RETURNING 1
    """
)
