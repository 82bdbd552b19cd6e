"""Forgets pictures of an account: bytes that no item of it shows any more, with all that was made from them or said.

What hash banks hold of a picture stays: a ban is not taken back by who was banned (see docs/privacy.md).
Callers hold the account's erasure lock (`db.erasure_fence`).
"""

from collections import Counter
from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import blob_removals, erased_evidence
from db.blobs import raw_key
from db.session import changed

EVERYBODY: Final = 0
"""The account of tombstones that hold for all accounts."""


def tombstones(
    session: Session, account_id: int, erasure_id: UUID, shas: Collection[bytes], *, fenced: bool = False
) -> None:
    """Note that these bytes are erased. `fenced`: what was submitted before the erasure may not have them."""
    parameters = {"account_id": account_id, "erasure_id": erasure_id, "shas": sorted(shas), "fenced": fenced}
    session.execute(_TOMBSTONES, parameters)


def unused(session: Session, account_id: int, shas: Collection[bytes]) -> list[bytes]:
    """Those of these bytes that no item of the account shows, or will when it is analysed."""
    if not shas:
        return []
    used = session.scalars(_USED, {"account_id": account_id, "shas": sorted(shas)})
    return sorted(set(shas) - {bytes(sha) for sha in used})


def forget(
    session: Session, account_id: int, erasure_id: UUID, shas: Collection[bytes], *, said: bool = True
) -> Counter[str]:
    """Remove all that is there of these bytes; how many rows, by kind. Their blobs are noted to be removed. Without
    `said`, what people said and decided stays."""
    counts: Counter[str] = Counter()
    if not shas:
        return counts
    given: dict[str, Any] = {"account_id": account_id, "shas": sorted(shas)}
    tombstones(session, account_id, erasure_id, shas)
    keys = set(session.scalars(_IMAGES, given))
    counts["pictures"] = len(keys)
    for name, statement in _MADE.items():
        counts[name] = changed(session.execute(statement, given))
    if said:
        counts += _said(session, erasure_id, given)
    keys |= {raw_key(account_id, sha) for sha in shas}
    blob_removals.ask(session, account_id, keys, erasure_id=erasure_id)
    return counts


def _said(session: Session, erasure_id: UUID, given: dict[str, Any]) -> Counter[str]:
    counts: Counter[str] = Counter()
    account_id = given["account_id"]
    covers = erased_evidence.before_pictures(session, account_id, given["shas"])
    for name, statement in _SAID.items():
        counts[name] = changed(session.execute(statement, given))
    subjects = [str(each) for query in (_TASKS, _APPEALS) for each in session.scalars(query, given)]
    counts["reviews_and_appeals"] = len(subjects)
    told = {"account_id": account_id, "subjects": subjects}
    counts["events"] = changed(session.execute(_EVENTS, told)) if subjects else 0
    erased_evidence.after(session, account_id, erasure_id, covers)
    return counts


_TOMBSTONES = text(
    """
    INSERT INTO erased_pictures (account_id, sha256, erasure_id, fenced, erased_at)
    SELECT :account_id, sha, e.id, :fenced, e.created_at
    FROM unnest(CAST(:shas AS bytea[])) AS sha, erasures e WHERE e.id = :erasure_id
    ON CONFLICT DO NOTHING
    """
)
# Settled jobs say it in their results, where indexes are; jobs in work in what they have fetched so far.
_USED = text(
    """
    SELECT DISTINCT s.sha FROM unnest(CAST(:shas AS bytea[])) AS s(sha)
    WHERE EXISTS (SELECT FROM results r
        WHERE r.account_id = :account_id AND r.sha256 = s.sha AND r.outcome = 'done')
      OR EXISTS (SELECT FROM results r
        WHERE r.account_id = :account_id AND r.sha256 = s.sha AND r.outcome = 'failed' AND r.sha256 IS NOT NULL)
    UNION
    SELECT g.sha256 FROM jobs j JOIN ingests g ON g.bucket = j.bucket AND g.job_id = j.id
    WHERE j.account_id = :account_id AND j.settled_at IS NULL AND g.outcome = 'done' AND g.sha256 = ANY(:shas)
    """
)
_OF_PICTURE = "account_id = :account_id AND sha256 = ANY(:shas)"
_IMAGES = text(f"DELETE FROM images WHERE {_OF_PICTURE} RETURNING work_key")
_DELETE = "DELETE FROM {table} WHERE " + _OF_PICTURE
_MADE = {
    name: text(_DELETE.format(table=table))
    for name, table in (
        ("analyses", "analyses"),
        ("validators", "validators"),
        ("bank_hits", "hash_hits"),
        ("bank_rechecks", "bank_rechecks"),
        ("shadow_pictures", "shadow_pictures"),
    )
}
_SAID = {
    name: text(_DELETE.format(table=table))
    for name, table in (
        ("labels", "labels"),
        ("decisions", "decisions"),
        ("known_answers", "review_gold"),
        ("exposures", "review_exposures"),
    )
}
_TASKS = text(f"DELETE FROM review_tasks WHERE {_OF_PICTURE} RETURNING id")
_APPEALS = text(f"DELETE FROM appeals WHERE {_OF_PICTURE} RETURNING id")
_EVENTS = text("DELETE FROM outbox WHERE account_id = :account_id AND subject = ANY(:subjects)")
