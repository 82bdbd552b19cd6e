"""Decisions on pictures: people's, which outrank everything automatic, and the re-decisions of policies and banks.

A person's decision belongs to the bytes (SHA-256) in a context and not to the item that it was made on: the same
picture elsewhere in that context, and in any rerun, has it too. Rows are only added.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.ids import uuid7

HUMAN: Final = ("review", "appeal")
"""Kinds that a person makes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on an item's picture. `kind`: policy, bank, review or appeal; `verdict` None takes back."""

    job_id: UUID
    seq: int
    sha256: bytes
    context: str
    kind: str
    verdict: str | None
    actor: str
    code: str | None = None
    text: str | None = None
    policy: str | None = None
    rule: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    takes_back: UUID | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Human:
    """What a person decided last on a picture in a context."""

    id: UUID
    verdict: str
    kind: str
    code: str | None
    actor: str


def append(session: Session, account_id: int, decisions: Sequence[Decision]) -> list[UUID]:
    """Add decisions, in order; their ids, which rise with it."""
    if not decisions:
        return []
    # Ids of one millisecond are not in order by themselves, and the newest decision is the one with the highest.
    ids = sorted(uuid7() for _ in decisions)
    rows = [
        {
            "id": str(id_),
            "job_id": str(decision.job_id),
            "seq": decision.seq,
            "sha256": decision.sha256.hex(),
            "context": decision.context,
            "kind": decision.kind,
            "verdict": decision.verdict,
            "code": decision.code,
            "text": decision.text,
            "actor": decision.actor,
            "policy": decision.policy,
            "rule": decision.rule,
            "before": decision.before,
            "after": decision.after,
            "takes_back": None if decision.takes_back is None else str(decision.takes_back),
            "comment": decision.comment,
        }
        for id_, decision in zip(ids, decisions, strict=True)
    ]
    session.execute(_ADD, {"account_id": account_id, "rows": json.dumps(rows)})
    return ids


def human(session: Session, account_id: int, shas: Sequence[bytes], context: str) -> dict[bytes, Human]:
    """People's decisions on those of these pictures that have one in this context."""
    rows = session.execute(_HUMAN, {"account_id": account_id, "context": context, "shas": list(shas)})
    return {bytes(row.sha256): Human(row.id, row.verdict, row.kind, row.code, row.actor) for row in rows}


def decision_of(account_id: str, sha256: str, context: str) -> str:
    """SQL of a person's decision on a picture as JSON (NULL: none), for queries that show it beside the verdict."""
    return f"""
      (SELECT jsonb_build_object('id', d.id, 'verdict', d.verdict, 'code', d.code, 'text', d.text, 'kind', d.kind,
        'at', d.created_at)
      FROM human_decisions d
      WHERE d.account_id = {account_id} AND d.sha256 = {sha256} AND d.context = {context}) AS decision
    """


_ADD = text(
    """
    INSERT INTO decisions (id, account_id, sha256, context, job_id, seq, kind, verdict, code, text, actor, policy, rule,
      before, after, takes_back, comment)
    SELECT id, :account_id, decode(sha256, 'hex'), context, job_id, seq, kind, verdict, code, text, actor, policy, rule,
      before, after, takes_back, comment
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id uuid, sha256 text, context text, job_id uuid, seq int,
      kind text, verdict text, code text, text text, actor text, policy text, rule text, before jsonb, after jsonb,
      takes_back uuid, comment text)
    """
)
_HUMAN = text(
    """
    SELECT id, sha256, verdict, kind, code, actor FROM human_decisions
    WHERE account_id = :account_id AND context = :context AND sha256 = ANY(:shas)
    """
)
