"""Automatic verdicts decided again: by another policy, or because a hash bank now knows the picture, or no longer does.

    result's moderation, if it is still what was judged → its new verdict, reasons, rule and policy
    → a row in `decisions` with both → tasks of the review queue opened or closed → moderations told

Scores and model stay what they were. What a person decided is not here: it outranks any verdict of a result, and is
read beside it. Which results, and what they become, is the caller's business.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import decisions, review_queue
from db.decisions import Decision
from db.policy import Policy, Verdict
from db.policy_evidence import Hit
from db.review_sources import candidate


@dataclass(frozen=True, slots=True)
class Change:
    """A result and what its verdict becomes. `was`: the verdict, rule and policy that it was judged with; if it has
    others by now, it is left alone. `patch`: the parts of its moderation that are replaced."""

    bucket: int
    job_id: UUID
    seq: int
    sha256: bytes
    context: str
    was: tuple[str, str | None, str]
    patch: Mapping[str, Any]


def patch(policy: Policy, verdict: Verdict, hits: Sequence[Hit] = ()) -> dict[str, Any]:
    """The parts of a result's moderation that a decision makes; the other ones are the model's."""
    shown = [{"bank": hit.bank, "kind": hit.kind, "entry": str(hit.entry), "distance": hit.distance} for hit in hits]
    return {
        "verdict": verdict.verdict,
        "reasons": verdict.reasons,
        "rule": verdict.rule,
        "policy": policy.ref,
        "hits": shown,
    }


def apply(session: Session, account_id: int, changes: Sequence[Change], *, kind: str, actor: str) -> list[Change]:
    """Write these verdicts; those that were written. `kind`: policy or bank, as `decisions` calls it.

    Rows are locked in the order of their keys, so that two callers never deadlock.
    """
    if not changes:
        return []
    rows = [
        {
            "n": number,
            "bucket": change.bucket,
            "job_id": str(change.job_id),
            "seq": change.seq,
            "verdict": change.was[0],
            "rule": change.was[1],
            "policy": change.was[2],
            "patch": dict(change.patch),
        }
        for number, change in enumerate(changes)
    ]
    written = session.execute(_APPLY, {"account_id": account_id, "rows": json.dumps(rows)}).all()
    done = [(changes[row.n], row.before, row.after) for row in written]
    _queue(session, account_id, done)  # tasks before uploads, as reviewers lock them: neither waits for the other
    decisions.append(session, account_id, [_decision(kind, actor, *each) for each in done])
    return [change for change, _, _ in done]


def _decision(kind: str, actor: str, change: Change, before: dict[str, Any], after: dict[str, Any]) -> Decision:
    first: Mapping[str, Any] = next((r for r in after["reasons"] if r.get("verdict") == after["verdict"]), {})
    return Decision(
        job_id=change.job_id,
        seq=change.seq,
        sha256=change.sha256,
        context=change.context,
        kind=kind,
        verdict=after["verdict"],
        actor=actor,
        code=first.get("code"),
        text=first.get("text"),
        policy=after["policy"],
        rule=after["rule"],
        before=before,
        after=after,
    )


def _queue(session: Session, account_id: int, done: Sequence[tuple[Change, dict[str, Any], dict[str, Any]]]) -> None:
    """People look at what became doubtful, and need not look at what no longer is."""
    wanted, left = [], []
    for change, before, after in done:
        if after["verdict"] == "review":
            asked = candidate(account_id, change.job_id, change.seq, change.sha256, change.context, after, 0.0)
            wanted += [] if asked is None else [asked]
        elif before["verdict"] == "review":
            left.append((change.sha256, change.context))
    review_queue.enqueue(session, account_id, wanted)
    review_queue.close_resolved(session, account_id, left)


_APPLY = text(
    """
    WITH given AS (
      SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(n int, bucket int, job_id uuid, seq int, verdict text,
        rule text, policy text, patch jsonb)
    ), old AS (
      SELECT g.n, g.patch, r.bucket, r.job_id, r.seq, r.moderation
      FROM given g JOIN results r ON r.bucket = g.bucket AND r.job_id = g.job_id AND r.seq = g.seq
      WHERE r.account_id = :account_id AND r.outcome = 'done' AND r.moderation ->> 'verdict' = g.verdict
        AND r.moderation ->> 'rule' IS NOT DISTINCT FROM g.rule AND r.moderation ->> 'policy' = g.policy
      ORDER BY r.bucket, r.job_id, r.seq FOR UPDATE OF r
    )
    UPDATE results r SET moderation = o.moderation || o.patch
    FROM old o WHERE r.bucket = o.bucket AND r.job_id = o.job_id AND r.seq = o.seq
    RETURNING o.n, o.moderation AS before, r.moderation AS after
    """
)
