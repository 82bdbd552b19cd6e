"""Replays as runs: queued, leased by a maintenance process, and ended with what they came to.

nothing → queued     `enqueue`, by whoever asks
queued  → running    `claim`, also of a run whose lease ran out: the process died. A what-if then begins anew; a
                     re-decision goes on where its days were done
running → finished   its owner, with the result
running → failed     its owner, or `settle` when three owners in a row died
queued, running → cancelled   its account; the owner notices at its next beat
"""

import json
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit
from db.errors import Conflict, LeaseLost, NotFound
from db.ids import uuid7
from db.policy import Policy
from db.replay_tables import Replay
from db.whatif import Window

KINDS: Final = ("what_if", "redecide")
MAX_ATTEMPTS: Final = 3


def enqueue(
    session: Session,
    account_id: int | None,
    kind: str,
    policy: Policy,
    document: dict[str, Any],
    window: Window,
    *,
    actor: str,
) -> Replay:
    """nothing → queued. `document` is the policy's. BadSelection for a window that is none."""
    window.check()
    selection = {key: value for key, value in window.document().items() if key not in ("since", "until")}
    run = Replay(
        id=uuid7(),
        account_id=account_id,
        kind=kind,
        policy=policy.ref,
        document=document,
        since=window.since,
        until=window.until,
        selection=selection,
        actor=actor,
    )
    session.execute(_ADD, {**_plain(run), "document": json.dumps(document), "selection": json.dumps(selection)})
    if kind == "redecide":
        audit.record(
            session, account_id, actor, "policy.redecide", policy.ref, run=str(run.id), window=window.document()
        )
    return session.get_one(Replay, run.id)


def window_of(run: Replay) -> Window:
    """The window of a run, as far as it is still to be done."""
    job = run.selection.get("job")
    return Window(
        since=run.since,
        until=run.until if run.reached is None else min(run.until, run.reached),
        context=run.selection.get("context"),
        job=None if job is None else UUID(job),
        policy=run.selection.get("policy"),
    )


def claim(session: Session, owner: UUID, lease_s: float) -> Replay | None:
    """queued → running with a new fence, oldest first; None when none waits."""
    session.execute(_GIVE_UP, {"most": MAX_ATTEMPTS})
    found = session.scalar(_CLAIM, {"owner": owner, "lease_s": lease_s})
    return None if found is None else session.get_one(Replay, found, populate_existing=True)


def waits(session: Session) -> bool:
    """Whether a run waits for a process."""
    return bool(session.scalar(_WAITS))


def move(session: Session, run: Replay, analyses: int, changed: int, reached: Any, lease_s: float) -> None:
    """Note how far the run is and renew its lease. Raises LeaseLost when it is another's, or was cancelled: stop."""
    parameters = {**_ours(run), "analyses": analyses, "changed": changed, "reached": reached, "lease_s": lease_s}
    if session.execute(_MOVE, parameters).first() is None:
        raise LeaseLost(f"The replay {run.id} is no longer ours.")


def release(session: Session, run: Replay) -> None:
    """running → queued by its owner, at a graceful stop: the attempt is given back."""
    session.execute(_RELEASE, _ours(run))


def finish(session: Session, run: Replay, result: dict[str, Any]) -> None:
    """running → finished. Raises LeaseLost."""
    _end(session, run, "finished", result, None, None)


def fail(session: Session, run: Replay, code: str, detail: str) -> None:
    """running → failed. Raises LeaseLost."""
    _end(session, run, "failed", None, code, detail[:500])


def cancel(session: Session, account_id: int | None, run_id: UUID, *, actor: str) -> Replay:
    """queued, running → cancelled; Conflict when it has ended. What was re-decided by then stays."""
    run = get(session, account_id, run_id)
    if session.execute(_CANCEL, {"id": run.id}).first() is None:
        raise Conflict(f"The replay is {run.state} already.")
    audit.record(session, account_id, actor, "replay.cancel", str(run.id), policy=run.policy)
    session.refresh(run)
    return run


def get(session: Session, account_id: int | None, run_id: UUID) -> Replay:
    """A run of the account (None: one over all accounts); NotFound."""
    mine = Replay.account_id.is_not_distinct_from(account_id)
    run = session.scalar(select(Replay).where(mine, Replay.id == run_id))
    if run is None:
        raise NotFound("There is no such replay.")
    return run


def page(session: Session, account_id: int | None, *, after: UUID | None = None, limit: int = 50) -> list[Replay]:
    """The account's runs, newest first, from the one before `after` on."""
    query = select(Replay).where(Replay.account_id.is_not_distinct_from(account_id))
    if after is not None:
        query = query.where(Replay.id < after)
    return list(session.scalars(query.order_by(Replay.id.desc()).limit(limit)))


def _end(
    session: Session, run: Replay, state: str, result: dict[str, Any] | None, code: str | None, detail: str | None
) -> None:
    stored = None if result is None else json.dumps(result)
    parameters = {**_ours(run), "state": state, "result": stored, "code": code, "detail": detail}
    if session.execute(_END, parameters).first() is None:
        raise LeaseLost(f"The replay {run.id} is no longer ours.")


def _ours(run: Replay) -> dict[str, Any]:
    return {"id": run.id, "owner": run.owner, "fence": run.fence}


def _plain(run: Replay) -> dict[str, Any]:
    return {name: getattr(run, name) for name in ("id", "account_id", "kind", "policy", "since", "until", "actor")}


_ADD = text(
    """
    INSERT INTO replays (id, account_id, kind, policy, document, since, until, selection, actor)
    VALUES (:id, :account_id, :kind, :policy, CAST(:document AS jsonb), :since, :until, CAST(:selection AS jsonb),
      :actor)
    """
)
_WAITS = text(
    "SELECT EXISTS (SELECT 1 FROM replays WHERE state = 'queued' OR (state = 'running' AND lease_until < now()))"
)
_GIVE_UP = text(
    """
    UPDATE replays SET state = 'failed', code = 'worker_died', ended_at = now(), owner = NULL, lease_until = NULL,
      detail = attempts || ' processes in a row died while they worked on it'
    WHERE state = 'running' AND lease_until < now() AND attempts >= :most
    """
)
_CLAIM = text(
    """
    UPDATE replays SET state = 'running', owner = :owner, fence = fence + 1, attempts = attempts + 1,
      lease_until = now() + make_interval(secs => :lease_s), started_at = coalesce(started_at, now())
    WHERE id = (
      SELECT id FROM replays WHERE state = 'queued' OR (state = 'running' AND lease_until < now())
      ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
    """
)
_MOVE = text(
    """
    UPDATE replays SET lease_until = now() + make_interval(secs => :lease_s), analyses = :analyses,
      changed = :changed, reached = coalesce(:reached, reached)
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_RELEASE = text(
    """
    UPDATE replays SET state = 'queued', owner = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0)
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running'
    """
)
_END = text(
    """
    UPDATE replays SET state = :state, result = CAST(:result AS jsonb), code = :code, detail = :detail,
      ended_at = now(), owner = NULL, lease_until = NULL
    WHERE id = :id AND owner = :owner AND fence = :fence AND state = 'running' RETURNING id
    """
)
_CANCEL = text(
    """
    UPDATE replays SET state = 'cancelled', ended_at = now(), owner = NULL, lease_until = NULL
    WHERE id = :id AND state IN ('queued', 'running') RETURNING id
    """
)
