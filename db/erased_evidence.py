"""Evidence after an erasure: what the audit log's digests spoke of is partly gone, so what is left gets new ones.

`before` looks up, while all is still there, which entries speak of what goes and whether they are whole; `after` adds
for each an entry that takes its place (`detail.erasure` names the erasure) with a digest over the rest. An entry that
was not whole before gets no digest: an erasure must not hide what somebody changed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit, evidence

FLAW = "flaw"


@dataclass(frozen=True, slots=True)
class Cover:
    """An entry whose rows go in part. `rest`: the items that stay of a chunk's verdicts; None for a batch of
    decisions. `flaw`: what was wrong with it before."""

    action: str
    subject: str
    detail: Mapping[str, Any]
    rest: tuple[int, ...] | None
    flaw: str | None


def before(session: Session, account_id: int, job_id: UUID, seqs: Sequence[int]) -> list[Cover]:
    """The entries that speak of verdicts on these items, and of what changed them."""
    gone = frozenset(seqs)
    covers = []
    for row in session.execute(_VERDICTS, {"account_id": account_id, "subject": str(job_id)}):
        spoken = list(evidence.numbers(row.detail["seqs"]))
        if gone.isdisjoint(spoken):
            continue
        rest = tuple(seq for seq in spoken if seq not in gone)
        covers.append(_cover(session, account_id, row, rest))
    changed = session.scalars(_BATCHES_OF_ITEMS, {"account_id": account_id, "job_id": job_id, "seqs": list(seqs)})
    return covers + of_batches(session, account_id, list(changed))


def before_pictures(session: Session, account_id: int, shas: Collection[bytes]) -> list[Cover]:
    """The entries that speak of decisions on these pictures."""
    batches = session.scalars(_BATCHES_OF_PICTURES, {"account_id": account_id, "shas": list(shas)})
    return of_batches(session, account_id, list(batches))


def after(session: Session, account_id: int, erasure_id: UUID, covers: Sequence[Cover]) -> None:
    """Add the entries that take the place of those; in the same transaction, behind what was removed."""
    for cover in covers:
        if cover.rest is None:
            detail: dict[str, Any] = {**evidence.digest_of_batch(session, account_id, UUID(cover.subject))}
        else:
            digest = evidence.digest_of_verdicts(session, account_id, UUID(cover.subject), cover.rest)
            detail = {"items": len(cover.rest), "seqs": evidence.ranges(cover.rest), "digest": digest}
            detail["chunk"] = cover.detail.get("chunk")
        detail["erasure"] = str(erasure_id)
        if cover.flaw is not None:
            detail = {**detail, "digest": None, FLAW: cover.flaw}
        audit.record(session, account_id, "system", cover.action, cover.subject, **detail)


def of_batches(session: Session, account_id: int, batches: Sequence[UUID]) -> list[Cover]:
    """The entries that speak of these batches of decisions."""
    parameters = {"account_id": account_id, "subjects": sorted({str(batch) for batch in batches})}
    return [_cover(session, account_id, row, None) for row in session.execute(_DECIDED, parameters)]


def _cover(session: Session, account_id: int, row: Any, rest: tuple[int, ...] | None) -> Cover:
    flaw = evidence.check(session, account_id, row.action, row.subject, row.detail)
    return Cover(row.action, row.subject, row.detail, rest, None if flaw is None else f"{flaw.what} {flaw.detail}")


_VERDICTS = text(
    f"""
    SELECT a.action, a.subject, a.detail FROM audit_log a
    WHERE a.account_id = :account_id AND a.action = 'moderation.record' AND a.subject = :subject
      AND {evidence.CURRENT}
    """
)
_DECIDED = text(
    f"""
    SELECT a.action, a.subject, a.detail FROM audit_log a
    WHERE a.account_id = :account_id AND a.action = 'decisions.record' AND a.subject = ANY(:subjects)
      AND {evidence.CURRENT}
    """
)
_BATCHES_OF_ITEMS = text(
    """
    SELECT DISTINCT batch FROM decisions WHERE account_id = :account_id AND job_id = :job_id AND seq = ANY(:seqs)
      AND kind IN ('policy', 'bank', 'rerun') AND batch IS NOT NULL
    """
)
_BATCHES_OF_PICTURES = text(
    "SELECT DISTINCT batch FROM decisions WHERE account_id = :account_id AND sha256 = ANY(:shas) AND batch IS NOT NULL"
)
