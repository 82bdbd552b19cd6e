"""What the audit log holds of verdicts: digests of decisions and of the machine's verdicts, and their recomputation.

A digest is SHA-256 over lines in Postgres's own form of jsonb, whose text does not depend on how a row was written.

    decisions.record     a batch of rows of `decisions`, whole
    moderation.record    the verdicts of one infer chunk: number, picture and moderation of each item

A stored verdict may change after that (policy, bank, rerun). Each such change is a decision with `before` and `after`,
so the first verdict can be found again, and the last one has to be what is stored. An erasure removes rows, and adds an
entry in place of each that spoke of them (`db.erased_evidence`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import audit
from db.ids import item_id

OF_DECISIONS: Final = "decisions.record"
OF_VERDICTS: Final = "moderation.record"
ACTIONS: Final = (OF_DECISIONS, OF_VERDICTS)


@dataclass(frozen=True, slots=True)
class Flaw:
    """Rows that are not what an audit entry says of them. `what`: edited, removed or inserted."""

    what: str
    detail: str


def cover_decisions(session: Session, account_id: int, batch: UUID) -> None:
    """Add the audit entry of a batch of decisions, in the transaction that wrote them; none for an empty batch."""
    row = session.execute(_OF_BATCH, {"account_id": account_id, "batch": batch}).one()
    if row.items:
        one = {"item": item_id(row.job_id, row.seq), "verdict": row.verdict} if row.items == 1 else {}
        detail = {"kind": row.kind, "decisions": row.items, **one, "digest": row.digest}
        audit.record(session, account_id, row.actor, OF_DECISIONS, str(batch), **detail)


def cover_verdicts(
    session: Session, account_id: int, bucket: int, job_id: UUID, seqs: Sequence[int], chunk: int
) -> None:
    """Add the audit entry of the verdicts that were just stored of a chunk's items; none where there are none."""
    if not seqs:
        return
    parameters = {"account_id": account_id, "bucket": bucket, "job_id": job_id, "seqs": list(seqs)}
    row = session.execute(_OF_RESULTS, parameters).one()
    if row.seqs:
        detail = {"items": len(row.seqs), "seqs": ranges(row.seqs), "chunk": chunk, "digest": row.digest}
        audit.record(session, account_id, "system", OF_VERDICTS, str(job_id), **detail)


def check(session: Session, account_id: int, action: str, subject: str, detail: Mapping[str, Any]) -> Flaw | None:
    """Recompute what an audit entry of `ACTIONS` says; None when it is so."""
    if "flaw" in detail:
        return Flaw("edited", f"found before an erasure: {detail['flaw']}")
    if action == OF_DECISIONS:
        return _check_decisions(session, account_id, UUID(subject), detail)
    return _check_verdicts(session, account_id, UUID(subject), detail)


def uncovered(session: Session, account_id: int | None) -> Flaw | None:
    """A decision that no audit entry speaks of; all accounts' without `account_id`."""
    row = session.execute(_UNCOVERED, {"account_id": account_id}).first()
    if row is None:
        return None
    return Flaw("inserted", f"decision {row.id} on item {item_id(row.job_id, row.seq)}: no audit entry speaks of it")


def digest_of_batch(session: Session, account_id: int, batch: UUID) -> dict[str, Any]:
    """What an entry says of a batch of decisions as it is now, also of an empty one."""
    row = session.execute(_OF_BATCH, {"account_id": account_id, "batch": batch}).one()
    return {"kind": row.kind, "decisions": row.items, "digest": row.digest}


def digest_of_verdicts(session: Session, account_id: int, job_id: UUID, seqs: Sequence[int]) -> str | None:
    """The digest of what the machine said first of these items; None where that cannot be found again."""
    lines = _first_verdicts(session, account_id, job_id, seqs)
    return None if isinstance(lines, Flaw) or not lines else _digest_of(lines)


def ranges(seqs: Iterable[int]) -> str:
    """Rising numbers in short: 0-3,5."""
    parts: list[list[int]] = []
    for seq in seqs:
        if parts and parts[-1][-1] == seq - 1:
            parts[-1][1:] = [seq]
        else:
            parts.append([seq])
    return ",".join("-".join(map(str, part)) for part in parts)


def numbers(written: str) -> Iterator[int]:
    """What `ranges` was given."""
    for part in filter(None, written.split(",")):
        low, _, high = part.partition("-")
        yield from range(int(low), int(high or low) + 1)


def _check_decisions(session: Session, account_id: int, batch: UUID, detail: Mapping[str, Any]) -> Flaw | None:
    row = session.execute(_OF_BATCH, {"account_id": account_id, "batch": batch}).one()
    if row.items < detail["decisions"]:
        return Flaw("removed", f"{detail['decisions'] - row.items} of {detail['decisions']} decisions of batch {batch}")
    if row.items > detail["decisions"]:
        return Flaw("inserted", f"{row.items - detail['decisions']} decisions into batch {batch}")
    if row.digest != detail["digest"]:
        which = f"decision on item {detail['item']}" if "item" in detail else f"a decision of {row.items}"
        return Flaw("edited", f"{which}, batch {batch}")
    return None


def _check_verdicts(session: Session, account_id: int, job_id: UUID, detail: Mapping[str, Any]) -> Flaw | None:
    lines = _first_verdicts(session, account_id, job_id, list(numbers(detail["seqs"])))
    if isinstance(lines, Flaw):
        return lines
    if lines and _digest_of(lines) != detail["digest"]:
        return Flaw("edited", f"a verdict of job {job_id} among items {detail['seqs']}")
    return None


def _first_verdicts(session: Session, account_id: int, job_id: UUID, seqs: Sequence[int]) -> list[str] | Flaw:
    """The lines of the digest over these items, each with the verdict that it had first."""
    parameters = {"account_id": account_id, "job_id": job_id, "seqs": list(seqs)}
    stored = {row.seq: row for row in session.execute(_STORED, parameters)}
    if missing := [seq for seq in seqs if seq not in stored]:
        return Flaw("removed", f"the result of item {item_id(job_id, missing[0])}")
    changes: dict[int, list[tuple[str, str]]] = defaultdict(list)  # the newest first
    for row in session.execute(_CHANGES, parameters):
        changes[row.seq].append((row.before, row.after))
    lines = []
    for seq in seqs:
        first = first_of(stored[seq].moderation, changes[seq])
        if first is None:
            return Flaw("edited", f"the verdict of item {item_id(job_id, seq)} is not what its last decision left")
        lines.append(f'[{seq}, "{stored[seq].sha256}", {first}]')
    return lines


def _digest_of(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def first_of(now: str, changes: list[tuple[str, str]]) -> str | None:
    """What the verdict was before all changes; None when they do not lead to what it is now. Not by their order alone:
    the clocks of two machines, which order decisions, may differ."""
    while changes:
        place = next((place for place, (_, after) in enumerate(changes) if after == now), None)
        if place is None:
            return None
        now, _ = changes.pop(place)
    return now


_REPLACED = """NOT EXISTS (SELECT FROM audit_log n WHERE n.action = '{action}' AND a.action = '{action}'
      AND n.subject = a.subject AND n.account_id = a.account_id AND n.id > a.id AND n.detail ? 'erasure'
      AND n.detail ->> 'chunk' IS NOT DISTINCT FROM a.detail ->> 'chunk')"""
CURRENT: Final = " AND ".join(_REPLACED.format(action=action) for action in ACTIONS)
"""SQL, of an entry `a` of `ACTIONS`: no erasure has put another one in its place."""
_DIGEST = """encode(sha256(convert_to(string_agg({line}::text, E'\\n' ORDER BY {order}), 'UTF8')), 'hex')"""
_DECISION = """jsonb_build_array(d.id, d.account_id, encode(d.sha256, 'hex'), d.context, d.job_id, d.seq, d.kind,
      d.verdict, d.code, d.text, d.actor, d.policy, d.rule, d.before, d.after, d.takes_back, d.comment,
      to_char(d.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))"""
_OF_BATCH = text(
    f"""
    SELECT count(*) AS items, {_DIGEST.format(line=_DECISION, order="d.id")} AS digest, min(d.actor) AS actor,
      min(d.kind) AS kind, min(d.verdict) AS verdict, min(d.job_id::text)::uuid AS job_id, min(d.seq) AS seq
    FROM decisions d WHERE d.account_id = :account_id AND d.batch = :batch
    """
)
_OF_RESULTS = text(
    f"""
    SELECT coalesce(array_agg(r.seq ORDER BY r.seq), '{{}}') AS seqs,
      {_DIGEST.format(line="jsonb_build_array(r.seq, encode(r.sha256, 'hex'), r.moderation)", order="r.seq")} AS digest
    FROM results r
    WHERE r.bucket = :bucket AND r.job_id = :job_id AND r.seq = ANY(:seqs) AND r.account_id = :account_id
      AND r.outcome = 'done' AND r.moderation IS NOT NULL
    """
)
_STORED = text(
    """
    SELECT r.seq, encode(r.sha256, 'hex') AS sha256, r.moderation::text AS moderation
    FROM jobs j JOIN results r ON r.bucket = j.bucket AND r.job_id = j.id
    WHERE j.id = :job_id AND j.account_id = :account_id AND r.seq = ANY(:seqs)
      AND r.outcome = 'done' AND r.moderation IS NOT NULL
    """
)
_CHANGES = text(
    """
    SELECT d.seq, d.before::text AS before, d.after::text AS after FROM decisions d
    WHERE d.job_id = :job_id AND d.account_id = :account_id AND d.seq = ANY(:seqs)
      AND d.kind IN ('policy', 'bank', 'rerun') AND d.before IS NOT NULL AND d.after IS NOT NULL
    ORDER BY d.id DESC
    """
)
_UNCOVERED = text(
    """
    SELECT d.id, d.job_id, d.seq FROM decisions d
    WHERE (CAST(:account_id AS bigint) IS NULL OR d.account_id = :account_id) AND NOT EXISTS (
      SELECT FROM audit_log a WHERE a.action = 'decisions.record' AND a.subject = d.batch::text)
      AND d.created_at > coalesce((SELECT max(p.upto) FROM audit_pruned p), '-infinity')
    ORDER BY d.id LIMIT 1
    """
)
