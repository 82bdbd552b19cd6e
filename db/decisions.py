"""Decisions on pictures: people's, which outrank everything automatic, and what changed an automatic verdict later:
policies, banks, published reruns.

A person's decision belongs to the bytes (SHA-256) in a context and not to the item that it was made on: the same
picture elsewhere in that context, and in any rerun, has it too. Rows are only added, and the audit log holds a digest
of them (`db.evidence`).
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import evidence, moderation_state
from db.ids import uuid7

HUMAN: Final = ("review", "appeal")
"""Kinds that a person makes."""
BATCH: Final = 500
"""Decisions under one digest in the audit log."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on an item's picture. `kind`: policy, bank, rerun, review or appeal; `verdict` None takes back.
    `before` and `after`: the result's moderation; of a person's decision `before` is filled in, the scores among it."""

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
    """Add decisions, in order, and their digest to the audit log; their ids, which rise with it. Of re-decisions the
    results are changed before."""
    # Ids of one millisecond are not in order by themselves, and the newest decision is the one with the highest.
    ids = sorted(uuid7() for _ in decisions)
    by_people = _by_people(decisions)
    for context, shas in by_people:
        moderation_state.meet(session, account_id, context, shas)
    for begin in range(0, len(ids), BATCH):
        part = slice(begin, begin + BATCH)
        rows = [_row(*each) for each in zip(ids[part], decisions[part], strict=True)]
        parameters = {"account_id": account_id, "batch": ids[begin], "rows": json.dumps(rows), "human": list(HUMAN)}
        session.execute(_ADD, parameters)
        evidence.cover_decisions(session, account_id, ids[begin])
    # A person's decision is one on every upload of the picture in that context; a re-decision on its own item, whose
    # result has it already.
    for context, shas in by_people:
        moderation_state.refresh_pictures(session, account_id, context, shas)
    moderation_state.refresh(session, account_id, {d.job_id for d in decisions if d.kind not in HUMAN})
    return ids


def _by_people(decisions: Sequence[Decision]) -> list[tuple[str, list[bytes]]]:
    """The pictures that people decided on, by context; both in order, so that two writers lock alike."""
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    for decision in decisions:
        if decision.kind in HUMAN:
            found[decision.context].add(decision.sha256)
    return [(context, sorted(shas)) for context, shas in sorted(found.items())]


def _row(id_: UUID, decision: Decision) -> dict[str, Any]:
    return {
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


def human(session: Session, account_id: int, shas: Sequence[bytes], context: str) -> dict[bytes, Human]:
    """People's decisions on those of these pictures that have one in this context."""
    rows = session.execute(_HUMAN, {"account_id": account_id, "context": context, "shas": list(shas)})
    return {bytes(row.sha256): Human(row.id, row.verdict, row.kind, row.code, row.actor) for row in rows}


def overlaid(moderation: Mapping[str, Any] | None, decision: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A result's moderation as readers see it: `verdict` is what counts, `automatic` what the machine said, `decision`
    what a person did. A person's word stands also where no job asked the machine."""
    if moderation is None and decision is None:
        return None
    said: Mapping[str, Any] = moderation if moderation is not None else _SILENT
    automatic = said.get("verdict")
    verdict = decision["verdict"] if decision is not None else automatic
    return {**said, "verdict": verdict, "automatic": automatic, "decision": decision}


def decision_of(account_id: str, sha256: str, context: str) -> str:
    """SQL of a person's decision on a picture as JSON (NULL: none), for queries that show it beside the verdict."""
    return f"""
      (SELECT jsonb_build_object('id', d.id, 'verdict', d.verdict, 'code', d.code, 'text', d.text, 'kind', d.kind,
        'at', d.created_at)
      FROM human_decisions d
      WHERE d.account_id = {account_id} AND d.sha256 = {sha256} AND d.context = {context}) AS decision
    """


_SILENT: Final[dict[str, Any]] = {"scores": None, "reasons": [], "policy": None, "model": None}
# What the machine had said when a person decided is kept with it: it may be decided again later.
_ADD = text(
    """
    INSERT INTO decisions (id, account_id, sha256, context, job_id, seq, kind, verdict, code, text, actor, policy, rule,
      before, after, takes_back, comment, batch)
    SELECT n.id, :account_id, decode(n.sha256, 'hex'), n.context, n.job_id, n.seq, n.kind, n.verdict, n.code, n.text,
      n.actor, n.policy, n.rule, coalesce(n.before, CASE WHEN n.kind = ANY(:human) THEN (
        SELECT r.moderation FROM jobs j JOIN results r ON r.bucket = j.bucket AND r.job_id = j.id AND r.seq = n.seq
        WHERE j.id = n.job_id AND j.account_id = :account_id) END),
      n.after, n.takes_back, n.comment, :batch
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(id uuid, sha256 text, context text, job_id uuid, seq int,
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
