"""Erasures: asked for, worked off in bounded steps, and kept as receipts of what was removed: ids, hashes and counts.

    asked → running       its first step, by any maintenance process (`worker.erasing`) or the command
    running → running     a step; if its process dies, the next one goes on: what is erased is no longer found
    running → finished    no row and no blob is left, and the journal is written
    finished, settled     it was looked for once more, when all that was in hand at its time has long ended

While a step runs nobody records pictures of that account (`db.erasure_fence`); between steps the line goes on.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, blob_removals, erased_items, erased_pictures, erasure_fence, erasure_targets
from db.accounts import by_name
from db.erasure_tables import Erasure
from db.errors import BadSelection, NotFound
from db.ids import parse_item_id, uuid7
from db.session import changed

KINDS: Final = ("item", "product", "subject", "job", "picture", "account")
BATCH: Final = 1000
"""Items of one step."""
AGAIN_S: Final = 1800.0
"""When it is looked for once more: longer than any lease, request or transaction of ours lasts."""


def ask(
    session: Session,
    account_id: int | None,
    kind: str,
    target: str,
    *,
    actor: str,
    reference: str | None = None,
    ends_account: bool = False,
) -> Erasure:
    """nothing → asked. `account_id` None: these bytes in every account. Raises NotFound, BadSelection."""
    target = _checked(session, account_id, kind, target)
    erasure_id = uuid7()
    digest = erasure_targets.digest_of(session, kind, target)
    session.execute(
        _ASK,
        {
            "id": erasure_id,
            "account_id": account_id,
            "kind": kind,
            "target": target,
            "digest": digest,
            "reference": reference,
            "actor": actor,
            "ends": ends_account,
        },
    )
    audit.record(session, account_id, actor, "erasure.ask", str(erasure_id), kind=kind, target_sha256=digest.hex())
    return session.get_one(Erasure, erasure_id)


def get(session: Session, account_id: int, erasure_id: UUID) -> Erasure:
    """One erasure of the account; NotFound for another account's too."""
    found = session.scalar(select(Erasure).where(Erasure.account_id == account_id, Erasure.id == erasure_id))
    if found is None:
        raise NotFound("There is no such erasure.")
    return found


def by_id(session: Session, erasure_id: UUID) -> Erasure:
    """One erasure of whatever account; NotFound."""
    found = session.scalar(select(Erasure).where(Erasure.id == erasure_id).execution_options(populate_existing=True))
    if found is None:
        raise NotFound("There is no such erasure.")
    return found


def page(
    session: Session, account_id: int | None, *, after: UUID | None = None, limit: int = 50, every: bool = False
) -> list[Erasure]:
    """The account's erasures, newest first, from the one before `after` on; `every`: those of all."""
    query = select(Erasure).order_by(Erasure.id.desc()).limit(limit)
    if not every:
        query = query.where(Erasure.account_id == account_id)
    if after is not None:
        query = query.where(Erasure.id < after)
    return list(session.scalars(query))


def waiting(session: Session) -> Sequence[tuple[UUID, bool]]:
    """Erasures to go on with: those not finished, oldest first, then (True) those to be looked for once more."""
    return [(row.id, row.again) for row in session.execute(_WAITING, {"again_s": AGAIN_S})]


def preview(
    session: Session, account_id: int | None, kind: str, target: str, steps: int = 10
) -> tuple[Mapping[str, int], bool]:
    """What an erasure would remove now, by doing so many steps of it, and whether that is not all: roll back."""
    erasure = ask(session, account_id, kind, target, actor="preview")
    more = all(step(session, erasure.id) for _ in range(steps))
    return dict(by_id(session, erasure.id).counts), more


def step(session: Session, erasure_id: UUID, limit: int = BATCH) -> bool:
    """Erase the next part; False when no row is left. Its transaction holds the account's lock."""
    erasure = session.scalars(
        select(Erasure).where(Erasure.id == erasure_id).with_for_update().execution_options(populate_existing=True)
    ).one()
    if erasure.state == "asked":
        session.execute(_START, {"id": erasure_id})
    if erasure.kind == "picture" and erasure.target is not None:
        whose = erased_pictures.EVERYBODY if erasure.account_id is None else erasure.account_id
        sha256 = bytes.fromhex(erasure.target)
        erased_pictures.tombstones(session, whose, erasure_id, [sha256], fenced=True)
    account_id = erasure.account_id
    if account_id is None:  # one account a step: nobody waits for another one's
        account_id = session.scalar(_NEXT_ACCOUNT, {"after": erasure.place.get("after", 0)})
    if account_id is not None:
        erasure_fence.take_lock(session, account_id)
        if counts := _part(session, erasure, account_id, limit):
            session.execute(_COUNT, {"id": erasure_id, "counts": json.dumps(_sum(erasure.counts, counts))})
            return True
        if erasure.account_id is None:
            session.execute(_PASS, {"id": erasure_id, "place": json.dumps({"after": account_id})})
            return True
    session.execute(_ROWS_GONE, {"id": erasure_id})
    return False


def finish(session: Session, erasure_id: UUID, journal: bytes, more: Mapping[str, int], *, again: bool = False) -> bool:
    """running → finished, with the SHA-256 of its journal, once no blob of it is left; the audit log has the receipt.
    `again`, of one that is finished: settled, and what it was asked for by name is forgotten."""
    session.execute(text("SELECT FROM erasures WHERE id = :id FOR UPDATE"), {"id": erasure_id})
    erasure = by_id(session, erasure_id)
    if (erasure.state == "finished") != again or erasure.settled_at is not None:
        return False  # another process was faster
    if erasure.rows_at is None or blob_removals.waiting(session, erasure_id):
        return False
    keys = blob_removals.removed(session, erasure_id)
    blobs = {"uploads": sum(k.startswith("raw/") for k in keys), "copies": sum(k.startswith("work/") for k in keys)}
    counts = {**_sum(erasure.counts, more), **{name: count for name, count in blobs.items() if count}}
    parameters = {"id": erasure_id, "counts": json.dumps(counts), "journal": journal}
    session.execute(_SETTLE if again else _FINISH, parameters)
    action = "erasure.settle" if again else "erasure.finish"
    audit.record(
        session, erasure.account_id, "system", action, str(erasure_id), counts=counts, journal_sha256=journal.hex()
    )
    return True


def shown_target(erasure: Erasure) -> str | None:
    """What of its target a receipt says: ids and hashes, never a name that a customer or a person chose."""
    return erasure.target if erasure.kind in ("item", "job", "picture") else None


def _part(session: Session, erasure: Erasure, account_id: int, limit: int) -> Counter[str]:
    """A step within one account; empty when nothing is left there."""
    keys = erasure_targets.items_of(session, erasure, account_id, limit)
    if not keys:
        named = erasure_targets.of_tombstones(session, erasure.id, limit)
        keys = [key for owner, key in named if owner == account_id]
    shas = [bytes(sha) for sha in session.scalars(_PICTURES, {"id": erasure.id, "account_id": account_id})]
    if not keys and erasure.replayed:
        for sha in session.scalars(_FENCED, {"id": erasure.id, "account_id": account_id}):
            keys += erasure_targets.of_picture(session, account_id, bytes(sha), erasure.created_at, limit)
    found = erased_items.Erased()
    if keys:
        found = erased_items.erase(session, account_id, erasure.id, erased_items.with_relatives(session, keys))
        uploads = {bytes.fromhex(key.rpartition("/")[2]) for key in found.raw_keys}
        found.shas |= uploads
    elif erasure.kind == "picture" and erasure.target is not None:
        found.shas.add(bytes.fromhex(erasure.target))
    if not +found.counts:
        found.shas |= set(shas)  # once more, what was written of them since
    unused = erased_pictures.unused(session, account_id, found.shas)
    found.counts += erased_pictures.forget(session, account_id, erasure.id, unused)
    if not +found.counts and erasure.kind == "account":
        found.counts += _rest_of(session, erasure, account_id)
    if not +found.counts and erasure.kind == "job":
        found.counts["job_names"] = changed(session.execute(_JOB_NAME, {"id": erasure.target}))
    return +found.counts


def _rest_of(session: Session, erasure: Erasure, account_id: int) -> Counter[str]:
    """What an account has beside pictures: names of jobs, stored answers, events; with `ends_account` also its keys,
    people, webhooks and banks, and its name."""
    counts: Counter[str] = Counter()
    steps = _CONTENTS | (_ENDS if erasure.ends_account else {})
    for name, statement in steps.items():
        counts[name] = changed(session.execute(statement, {"account_id": account_id, "asked": erasure.created_at}))
    return counts


def _checked(session: Session, account_id: int | None, kind: str, target: str) -> str:
    if account_id is None and kind != "picture":
        raise BadSelection("Over all accounts only the bytes of a picture can be erased.")
    if kind == "picture":
        if len(target) != 64 or set(target.lower()) - set("0123456789abcdef"):
            raise BadSelection("A picture is named by the SHA-256 of its bytes, 64 hexadecimal digits.")
        return target.lower()
    if kind == "account":
        if by_name(session, target).id != account_id:
            raise NotFound("There is no such account.")
        return str(account_id)
    if kind in ("item", "job"):
        try:
            job_id, seq = parse_item_id(target) if kind == "item" else (UUID(target), 0)
        except ValueError:
            raise NotFound(f"There is no such {kind}.") from None
        if not session.scalar(_THERE, {"account_id": account_id, "job": job_id, "seq": seq}):
            raise NotFound(f"There is no such {kind}.")
        return target if kind == "item" else str(job_id)
    if not 1 <= len(target) <= 256:
        raise BadSelection("A name has 1 to 256 characters.")
    return target


def _sum(known: Mapping[str, Any], more: Mapping[str, int]) -> dict[str, int]:
    return {
        name: int(known.get(name, 0)) + more.get(name, 0) for name in (*known, *(n for n in more if n not in known))
    }


_ASK = text(
    """
    INSERT INTO erasures (id, account_id, kind, target, target_sha256, reference, actor, ends_account)
    VALUES (:id, :account_id, :kind, :target, :digest, :reference, :actor, :ends)
    """
)
_THERE = text("SELECT EXISTS (SELECT FROM jobs WHERE id = :job AND account_id = :account_id AND total > :seq)")
_WAITING = text(
    """
    SELECT id, finished_at IS NOT NULL AS again FROM erasures WHERE settled_at IS NULL
      AND (finished_at IS NULL OR finished_at < now() - make_interval(secs => :again_s))
    ORDER BY finished_at IS NOT NULL, created_at
    """
)
_START = text("UPDATE erasures SET state = 'running', started_at = now() WHERE id = :id AND state = 'asked'")
_COUNT = text("UPDATE erasures SET counts = CAST(:counts AS jsonb) WHERE id = :id")
_NEXT_ACCOUNT = text("SELECT min(id) FROM accounts WHERE id > :after")
_PASS = text("UPDATE erasures SET place = CAST(:place AS jsonb) WHERE id = :id")
_ROWS_GONE = text("UPDATE erasures SET rows_at = coalesce(rows_at, now()), place = '{}' WHERE id = :id")
_FINISH = text(
    """
    UPDATE erasures SET state = 'finished', finished_at = now(), counts = CAST(:counts AS jsonb),
      journal_sha256 = :journal WHERE id = :id
    """
)
_SETTLE = text(
    """
    UPDATE erasures SET settled_at = now(), counts = CAST(:counts AS jsonb), journal_sha256 = :journal,
      target = CASE WHEN kind IN ('product', 'subject') THEN NULL ELSE target END WHERE id = :id
    """
)
_LEFT: Final = " OR ".join(
    f"EXISTS (SELECT FROM {table} t WHERE t.account_id = e.account_id AND t.sha256 = e.sha256)"
    for table in ("images", "analyses", "validators", "labels", "decisions", "review_tasks", "hash_hits", "appeals")
)
# Of pictures that this erasure forgot something was written since.
_PICTURES = text(
    f"""
    SELECT e.sha256 FROM erased_pictures e
    WHERE e.erasure_id = :id AND e.account_id = :account_id AND ({_LEFT}) LIMIT 1000
    """
)
_FENCED = text(
    "SELECT sha256 FROM erased_pictures WHERE erasure_id = :id AND account_id IN (:account_id, 0) AND fenced"
)
_JOB_NAME = text("UPDATE jobs SET name = NULL WHERE id = CAST(:id AS uuid) AND name IS NOT NULL")
_CONTENTS: Final = {
    "job_names": text(
        "UPDATE jobs SET name = NULL WHERE account_id = :account_id AND name IS NOT NULL AND created_at <= :asked"
    ),
    "answers": text("DELETE FROM idempotency WHERE account_id = :account_id AND created_at <= :asked"),
    "events": text("DELETE FROM outbox WHERE account_id = :account_id AND created_at <= :asked"),
    "drift_days": text("DELETE FROM drift WHERE account_id = :account_id"),
    "replays": text("DELETE FROM replays WHERE account_id = :account_id AND created_at <= :asked"),
}
_ENDS: Final = {
    "keys": text(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()), name = 'erased'"
        " WHERE account_id = :account_id AND (revoked_at IS NULL OR name <> 'erased')"
    ),
    "sessions": text("DELETE FROM console_sessions WHERE account_id = :account_id"),
    "links": text("DELETE FROM sign_in_links WHERE account_id = :account_id"),
    "people": text("DELETE FROM people WHERE account_id = :account_id"),
    "webhooks": text("DELETE FROM webhooks WHERE account_id = :account_id"),
    "banks": text("DELETE FROM hash_banks WHERE account_id = :account_id"),
    "name": text("UPDATE accounts SET name = 'erased-' || id WHERE id = :account_id AND name <> 'erased-' || id"),
}
