"""The outbox: events written in the same transaction as what they tell, once an (account, subject, type, round).

Who sends them, and to whom: `db.delivery_queue`.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.chunks import Chunk
from db.ids import item_id, uuid7

# type → what it tells. An endpoint may ask for any of them; `webhook.ping` goes to the one that is tried out.
EVENTS: Final[dict[str, str]] = {
    "job.finished": "Every item of a job has its outcome; again after each retry, in its next round.",
    "job.cancelled": "A job was cancelled, and what was in work has ended.",
    "item.failed": "Items of a job that failed, with their codes, at most 100 an event.",
    "moderation.decided": "A picture that was sent to be moderated has its verdict.",
    "review.decided": "A person decided on a picture.",
    "appeal.decided": "A person decided on an appeal.",
    "model.activated": "Another model version is active, for every account.",
    "webhook.ping": "Somebody tries the endpoint out.",
}
MAX_PAYLOAD: Final = 18_000
"""Bytes of JSON: with its frame an event stays below the 20 KB that receivers are told to expect."""
FAILURES: Final = 100
"""Most items of one `item.failed`."""


def emit(
    session: Session, account_id: int, type_: str, subject: str, payload: dict[str, Any], *, round_: int = 0
) -> bool:
    """Add an event; False when the account has one of this (subject, type, round) already."""
    if type_ not in EVENTS:
        raise ValueError(f"no such event: {type_}")
    added = session.execute(
        text(
            "INSERT INTO outbox (id, account_id, type, subject, round, payload)"
            " VALUES (:id, :account_id, :type, :subject, :round, CAST(:payload AS jsonb))"
            " ON CONFLICT (account_id, subject, type, round) DO NOTHING RETURNING id"
        ),
        {
            "id": uuid7(),
            "account_id": account_id,
            "type": type_,
            "subject": subject,
            "round": round_,
            "payload": json.dumps(thin(payload)),
        },
    )
    return added.first() is not None


def wanted(session: Session, account_id: int, type_: str) -> bool:
    """Whether an endpoint of the account asks for such events: for those that are not worth a row otherwise."""
    return bool(session.scalar(_WANTED, {"account_id": account_id, "type": type_}))


def failures(session: Session, chunk: Chunk, failed: Sequence[tuple[int, str]]) -> int:
    """`item.failed` of what a chunk ended with, (seq, code) each: how many events. None where nobody asks for them."""
    if not failed or not wanted(session, chunk.account_id, "item.failed"):
        return 0
    groups = [failed[at : at + FAILURES] for at in range(0, len(failed), FAILURES)]
    for number, group in enumerate(groups):
        payload = {
            "job": str(chunk.job_id),
            "round": chunk.round,
            "items": [{"item": item_id(chunk.job_id, seq), "code": code} for seq, code in group],
        }
        emit(session, chunk.account_id, "item.failed", f"chunk:{chunk.id}", payload, round_=number)
    return len(groups)


def activated(session: Session, task: str, ref: str, replaced: str | None) -> int:
    """`model.activated` to every account that asks for it; how many."""
    payload = json.dumps({"task": task, "model": ref, "replaced": replaced})
    told = session.scalar(_BROADCAST, {"type": "model.activated", "subject": ref, "payload": payload})
    return int(told or 0)


def thin(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload as it fits into an event: its largest members are left out until it does, and named in `omitted`.

    Who wants them reads them from the API.
    """
    kept = dict(payload)
    omitted: list[str] = []
    while len(json.dumps(kept)) > MAX_PAYLOAD and kept.keys() - {"omitted"}:
        largest = max(kept.keys() - {"omitted"}, key=lambda name: (len(json.dumps(kept[name])), name))
        del kept[largest]
        omitted.append(largest)
        kept["omitted"] = omitted
    return kept


_WANTED = text(
    """
    SELECT EXISTS (SELECT 1 FROM webhooks WHERE account_id = :account_id AND state = 'enabled'
      AND (types IS NULL OR :type = ANY(types)))
    """
)
_BROADCAST = text("SELECT tagmill_broadcast(:type, :subject, CAST(:payload AS jsonb))")
