"""The review queue's door: pictures that a person shall look at come in, and leave when no person is needed any more.

A task is a picture (its bytes) in a context: it is open once however many items show it. Claims are in
`db.review_leases`, what people say in `db.review_verdicts`.

The order of the queue: `priority = (0.05 + risk) · sqrt(exposure) · 2^(age / 4 h)`. A product of risk, exposure and age
whose order never changes by waiting alone, because age counts as an exponent: so it is one number, computed when the
task comes in (`rank`, lowest first), one index finds the next task, and nothing waits for ever.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.ids import item_id, uuid7

DOUBLING_S: Final = 4 * 3600
"""Seconds of waiting that count as much as twice the risk."""
MIN_PDQ_QUALITY: Final = 50
"""Below it PDQ's authors advise not to compare (ThreatExchange, hashing/hashing.pdf)."""
ALSO: Final = 50
"""Other items of the same picture that a task names."""
OUTRANKING: Final = ("escalated", "banned_after_approval", "appeal")
"""Reasons for which a person looks although a person has decided before; the later in this list, the stronger."""


@dataclass(frozen=True, slots=True)
class Audit:
    """An automatic verdict (approve, reject) that was drawn with the probability `share`, to be judged blind."""

    verdict: str
    share: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture for people, seen in an item. `reason`: the code of the verdict's main reason, audit, or one of
    OUTRANKING. `risk` in 0…1; `exposure`: how often it is shown, from 1. It never goes to the actors `not_for`."""

    job_id: UUID
    seq: int
    sha256: bytes
    context: str
    reason: str
    policy: str | None = None
    category: str | None = None
    risk: float = 0.5
    exposure: int = 1
    not_for: tuple[str, ...] = ()
    level: str = "reviewer"
    audit: Audit | None = None


def enqueue(session: Session, account_id: int, candidates: Sequence[Candidate]) -> int:
    """Open a task for each picture that has none; in an open one raise the risk and add the items. How many tasks were
    opened or changed.

    Pictures that a person has decided on are left out (but for OUTRANKING reasons), and those of a rerun's job, whose
    results are only staged. One statement, whatever the number; in the order of the bytes, so that two never deadlock.
    """
    if not candidates:
        return 0
    rows = [_row(*alike) for alike in _alike(candidates)]
    found = session.execute(
        _ENQUEUE,
        {"account_id": account_id, "rows": json.dumps(rows), "outranking": list(OUTRANKING), "also": ALSO,
         "doubling_s": DOUBLING_S, "quality": MIN_PDQ_QUALITY},
    )  # fmt: skip
    return len(found.all())


def close_resolved(session: Session, account_id: int, pictures: Iterable[tuple[bytes, str]]) -> int:
    """open → closed for those of these pictures (bytes, context) that nothing sends to people any more: no result of
    them in that context has the verdict `review`. How many.

    Tasks of another origin stay (audits, appeals, escalations, bans against approvals), and so does what somebody has
    in hand.
    """
    wanted = [{"sha256": sha.hex(), "context": context} for sha, context in sorted(set(pictures))]
    if not wanted:
        return 0
    found = session.execute(
        _CLOSE_RESOLVED,
        {"account_id": account_id, "rows": json.dumps(wanted), "outranking": list(OUTRANKING)},
    )
    return len(found.all())


def _alike(candidates: Sequence[Candidate]) -> Iterable[tuple[Candidate, list[str]]]:
    """Candidates of one picture and context as one, with the ids of its other items."""
    by_picture: dict[tuple[bytes, str], tuple[Candidate, list[str]]] = {}
    for each in candidates:
        key = (each.sha256, each.context)
        if key not in by_picture:
            by_picture[key] = (each, [])
            continue
        first, also = by_picture[key]
        strong, other = sorted((first, each), key=_strength, reverse=True)
        also.append(item_id(other.job_id, other.seq))
        together = replace(
            strong,
            risk=max(first.risk, each.risk),
            exposure=first.exposure + each.exposure,
            not_for=tuple(dict.fromkeys((*first.not_for, *each.not_for))),
        )
        by_picture[key] = (together, also)
    return [by_picture[key] for key in sorted(by_picture)]


def _strength(candidate: Candidate) -> tuple[int, float]:
    if candidate.reason in OUTRANKING:
        return 1 + OUTRANKING.index(candidate.reason), candidate.risk
    return (-1 if candidate.audit is not None else 0), candidate.risk


def _row(candidate: Candidate, also: list[str]) -> dict[str, Any]:
    audit = candidate.audit
    return {
        "id": str(uuid7()),
        "sha256": candidate.sha256.hex(),
        "context": candidate.context,
        "level": candidate.level,
        "reason": candidate.reason,
        "policy": candidate.policy,
        "category": candidate.category,
        "risk": min(1.0, max(0.0, candidate.risk)),
        "exposure": max(1, candidate.exposure),
        "job_id": str(candidate.job_id),
        "seq": candidate.seq,
        "items": 1 + len(also),
        "also": also[:ALSO],
        "not_for": list(candidate.not_for),
        "audit_verdict": audit and audit.verdict,
        "audit_share": audit and audit.share,
    }


def rank(created_at: str, risk: str, exposure: str) -> str:
    """SQL of a task's place in the queue: seconds since 1970 at which a task of priority 1 would have had to come in to
    stand here. `:doubling_s` is DOUBLING_S."""
    weight = f"((0.05 + {risk}::float8) * sqrt({exposure}::float8))"
    return f"extract(epoch FROM {created_at})::float8 - :doubling_s * ln({weight}) / ln(2.0::float8)"


_STRENGTH = "coalesce(array_position(CAST(:outranking AS text[]), {reason}), 0)"
_ITEM = "(replace(excluded.job_id::text, '-', '') || '-' || excluded.seq)"
_STRONGER = f"{_STRENGTH.format(reason='excluded.reason')} > {_STRENGTH.format(reason='t.reason')}"
_ENQUEUE = text(
    f"""
    WITH wanted AS (
      SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(id uuid, sha256 text, context text, level text,
        reason text, policy text, category text, risk real, exposure int, job_id uuid, seq int, items int,
        also text[], not_for text[], audit_verdict text, audit_share float8))
    INSERT INTO review_tasks AS t (id, account_id, sha256, context, level, reason, policy, category, risk, exposure,
      rank, job_id, seq, items, also, pdq, not_for, audit_verdict, audit_share)
    SELECT w.id, :account_id, decode(w.sha256, 'hex'), w.context, w.level, w.reason, w.policy,
      coalesce(w.category, i.category), w.risk, w.exposure, {rank("now()", "w.risk", "w.exposure")}, w.job_id, w.seq,
      w.items, w.also, CASE WHEN g.pdq_quality >= :quality THEN g.pdq END, w.not_for, w.audit_verdict, w.audit_share
    FROM wanted w
    LEFT JOIN images g ON g.account_id = :account_id AND g.sha256 = decode(w.sha256, 'hex')
    LEFT JOIN jobs j ON j.id = w.job_id AND j.account_id = :account_id
    LEFT JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id AND i.seq = w.seq
    WHERE NOT EXISTS (SELECT FROM reruns n WHERE n.account_id = :account_id AND n.job_id = w.job_id)
      AND (w.reason = ANY(:outranking) OR NOT EXISTS (
        SELECT FROM human_decisions h WHERE h.account_id = :account_id AND h.sha256 = decode(w.sha256, 'hex')
          AND h.context = w.context))
    ORDER BY w.sha256, w.context
    ON CONFLICT (account_id, sha256, context, kind) WHERE state = 'open' AND kind <> 'gold' DO UPDATE SET
      risk = greatest(t.risk, excluded.risk),
      exposure = t.exposure + excluded.exposure,
      rank = {rank("t.created_at", "greatest(t.risk, excluded.risk)", "(t.exposure + excluded.exposure)")},
      items = t.items + excluded.items,
      also = (t.also || {_ITEM} || excluded.also)[1:CAST(:also AS int)],
      not_for = ARRAY(SELECT DISTINCT unnest(t.not_for || excluded.not_for)),
      -- who has it in hand and must not decide it (any more) loses it
      lease_owner = CASE WHEN t.lease_owner <> ALL(excluded.not_for) THEN t.lease_owner END,
      lease_until = CASE WHEN t.lease_owner <> ALL(excluded.not_for) THEN t.lease_until END,
      level = CASE WHEN {_STRONGER} THEN excluded.level ELSE t.level END,
      reason = CASE WHEN {_STRONGER} OR t.reason = 'audit' THEN excluded.reason ELSE t.reason END,
      version = t.version + CASE WHEN {_STRONGER} THEN 1 ELSE 0 END
    RETURNING id
    """
)
_CLOSE_RESOLVED = text(
    """
    UPDATE review_tasks t SET state = 'closed', version = t.version + 1, lease_owner = NULL, lease_until = NULL
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS w(sha256 text, context text)
    WHERE t.account_id = :account_id AND t.sha256 = decode(w.sha256, 'hex') AND t.context = w.context
      AND t.kind = 'first' AND t.state = 'open' AND t.reason <> 'audit' AND t.reason <> ALL(:outranking)
      AND coalesce(t.lease_until, '-infinity') <= now()
      AND NOT EXISTS (
        SELECT FROM results r JOIN jobs j ON j.bucket = r.bucket AND j.id = r.job_id
        WHERE r.account_id = :account_id AND r.sha256 = t.sha256 AND r.outcome = 'done'
          AND r.moderation ->> 'verdict' = 'review' AND j.context = t.context
          AND NOT EXISTS (SELECT FROM reruns n WHERE n.job_id = j.id))
    RETURNING t.id
    """
)
