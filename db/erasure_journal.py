"""What an erasure erased, as a file beside the blobs: ids and hashes, for a database that was restored from before it.

A backup of the database that is older than an erasure knows neither the erasure nor its tombstones. The journals do,
and they are not in it.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, erasures, evidence
from db.errors import BadJournal

VERSION: Final = 1


def document(session: Session, erasure_id: UUID) -> bytes:
    """The journal of an erasure as it is now."""
    erasure = erasures.by_id(session, erasure_id)
    seqs: dict[UUID, list[int]] = defaultdict(list)
    for row in session.execute(_ITEMS, {"id": erasure_id}):
        seqs[row.job_id].append(row.seq)
    pictures = session.execute(_PICTURES, {"id": erasure_id})
    said = {
        "version": VERSION,
        "id": str(erasure.id),
        "account": erasure.account_id,
        "kind": erasure.kind,
        "target": erasures.shown_target(erasure),
        "target_sha256": erasure.target_sha256.hex(),
        "reference": erasure.reference,
        "actor": erasure.actor,
        "ends_account": erasure.ends_account,
        "asked_at": erasure.created_at.isoformat(),
        "items": {job_id.hex: evidence.ranges(found) for job_id, found in seqs.items()},
        "pictures": [[row.account_id, bytes(row.sha256).hex(), row.fenced] for row in pictures],
    }
    return json.dumps(said, separators=(",", ":")).encode()


def unknown(session: Session, ids: Sequence[UUID]) -> list[UUID]:
    """Those of these erasures that this database has never heard of."""
    return list(session.scalars(_UNKNOWN, {"ids": list(ids)}))


def restore(session: Session, data: bytes) -> UUID:
    """nothing → asked, with the tombstones of a journal: what it erased, and is there again, is erased once more.
    Raises BadJournal."""
    try:
        said = json.loads(data)
        if said["version"] != VERSION:
            raise BadJournal(f"A journal of version {said['version']} is none that this version reads.")
        target = str(said["account"]) if said["kind"] == "account" else said["target"]
        items = [(UUID(job), seq) for job, written in said["items"].items() for seq in evidence.numbers(written)]
        pictures = [(int(account), bytes.fromhex(sha), bool(fenced)) for account, sha, fenced in said["pictures"]]
        row = {
            "id": UUID(said["id"]),
            "account_id": said["account"],
            "kind": said["kind"],
            "target": target,
            "digest": bytes.fromhex(said["target_sha256"]),
            "reference": said["reference"],
            "actor": said["actor"],
            "ends": bool(said["ends_account"]),
            "asked_at": said["asked_at"],
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadJournal(f"It cannot be read: {error.__class__.__name__}") from None
    session.execute(_ADD, row)
    _add_tombstones(session, row, items, pictures)
    audit.record(session, row["account_id"], "system", "erasure.replay", said["id"], items=len(items))
    erasure_id: UUID = row["id"]
    return erasure_id


def reopen(session: Session) -> int:
    """Every erasure is looked for once more, as after a restored backup; how many."""
    return len(session.execute(_REOPEN).all())


def _add_tombstones(
    session: Session,
    row: dict[str, Any],
    items: Sequence[tuple[UUID, int]],
    pictures: Sequence[tuple[int, bytes, bool]],
) -> None:
    ours = {"id": row["id"], "account_id": row["account_id"], "asked_at": row["asked_at"]}
    jobs, seqs = [job for job, _ in items], [seq for _, seq in items]
    session.execute(_ADD_ITEMS, {**ours, "jobs": jobs, "seqs": seqs})
    if pictures:
        session.execute(_ADD_PICTURES, [{**ours, "account": a, "sha": sha, "fenced": f} for a, sha, f in pictures])


_ITEMS = text("SELECT job_id, seq FROM erased_items WHERE erasure_id = :id ORDER BY job_id, seq")
_PICTURES = text(
    "SELECT account_id, sha256, fenced FROM erased_pictures WHERE erasure_id = :id ORDER BY account_id, sha256"
)
_UNKNOWN = text(
    """
    SELECT u.id FROM unnest(CAST(:ids AS uuid[])) AS u(id)
    WHERE NOT EXISTS (SELECT FROM erasures e WHERE e.id = u.id) ORDER BY u.id
    """
)
_ADD = text(
    """
    INSERT INTO erasures (id, account_id, kind, target, target_sha256, reference, actor, ends_account, replayed,
      created_at)
    VALUES (:id, :account_id, :kind, :target, :digest, :reference, :actor, :ends, true, :asked_at)
    ON CONFLICT (id) DO NOTHING
    """
)
# An erasure over all accounts has items of several: whose each is, its job says.
_ADD_ITEMS = text(
    """
    INSERT INTO erased_items (job_id, seq, account_id, erasure_id, erased_at)
    SELECT i.job_id, i.seq, coalesce(CAST(:account_id AS bigint), j.account_id), :id, :asked_at
    FROM unnest(CAST(:jobs AS uuid[]), CAST(:seqs AS integer[])) AS i(job_id, seq) LEFT JOIN jobs j ON j.id = i.job_id
    WHERE coalesce(CAST(:account_id AS bigint), j.account_id) IS NOT NULL
    ON CONFLICT DO NOTHING
    """
)
_ADD_PICTURES = text(
    """
    INSERT INTO erased_pictures (account_id, sha256, erasure_id, fenced, erased_at)
    VALUES (:account, :sha, :id, :fenced, :asked_at) ON CONFLICT DO NOTHING
    """
)
_REOPEN = text(
    """
    UPDATE erasures SET replayed = true, state = 'running', finished_at = NULL, settled_at = NULL, rows_at = NULL
    WHERE state = 'finished' RETURNING id
    """
)
