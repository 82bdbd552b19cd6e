"""Activations and rollbacks that somebody asked for where the weights cannot be read.

nothing → asked      `ask`; one at a time for a task
asked   → done       `end`, in the transaction that moves the models
asked   → refused    `end`, with the code of what spoke against it; or `take`, when three tries died
"""

from typing import Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import audit, registry
from db.errors import Conflict
from db.ids import uuid7
from db.model_tables import ModelMove

MAX_ATTEMPTS: Final = 3


def ask(
    session: Session,
    action: str,
    ref: str,
    *,
    actor: str,
    forced: str | None = None,
    account_id: int | None = None,
) -> ModelMove:
    """nothing → asked. `account_id`: whose audit log says so. Raises NotFound; Conflict when the task has one that
    waits, or for a rollback of a version that is not active (any more)."""
    model = registry.by_ref(session, ref)
    if action == "rollback" and model.state != "active":
        raise Conflict(f"{ref} is {model.state}, not active: somebody was quicker.")
    move_id = uuid7()
    parameters = {"id": move_id, "action": action, "task": model.task, "ref": ref, "forced": forced, "actor": actor}
    try:
        with session.begin_nested():
            session.execute(_ASK, parameters)
    except IntegrityError:
        raise Conflict(f"A change of the model for {model.task} is under way: wait for it.") from None
    audit.record(session, account_id, actor, f"model.{action}.ask", ref, move=str(move_id), forced=forced)
    return session.get_one(ModelMove, move_id)


def take(session: Session) -> ModelMove | None:
    """The move that waits longest, with one more try counted; None when none waits."""
    session.execute(_GIVE_UP, {"most": MAX_ATTEMPTS})
    found = session.scalar(_TAKE)
    return None if found is None else session.get_one(ModelMove, found, populate_existing=True)


def lock(session: Session, move_id: UUID) -> ModelMove | None:
    """The move, if it still waits; nobody else ends it before the transaction does."""
    query = select(ModelMove).where(ModelMove.id == move_id, ModelMove.state == "asked")
    return session.scalar(query.with_for_update())


def end(session: Session, move_id: UUID, code: str | None = None, detail: str | None = None) -> None:
    """asked → done, or with a `code` asked → refused."""
    session.execute(_END, {"id": move_id, "code": code, "detail": None if detail is None else detail[:1000]})


def newest(session: Session, limit: int = 10) -> list[ModelMove]:
    """The newest moves first."""
    return list(session.scalars(select(ModelMove).order_by(ModelMove.id.desc()).limit(limit)))


_ASK = text(
    "INSERT INTO model_moves (id, action, task, ref, forced, actor) VALUES (:id, :action, :task, :ref, :forced, :actor)"
)
_GIVE_UP = text(
    "UPDATE model_moves SET state = 'refused', code = 'worker_died', ended_at = now(), detail = 'three tries died'"
    " WHERE state = 'asked' AND attempts >= :most"
)
_TAKE = text(
    """
    UPDATE model_moves SET attempts = attempts + 1 WHERE id = (
      SELECT id FROM model_moves WHERE state = 'asked' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
    """
)
_END = text(
    """
    UPDATE model_moves SET state = CASE WHEN CAST(:code AS text) IS NULL THEN 'done' ELSE 'refused' END, code = :code,
      detail = :detail, ended_at = now() WHERE id = :id AND state = 'asked'
    """
)
