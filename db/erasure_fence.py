"""Keeps what was erased from being written again by work that began before: the lock, and what a chunk may not write.

who records a chunk     takes the account's lock shared, then asks what of it was erased meanwhile
who says or decides     takes it shared before it reads what it is about: labels, decisions, appeals, known answers
who erases              takes it alone, for one bounded step: it sees all that was recorded before, and what is
                        recorded after sees its tombstones
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from db import blob_removals, erased_items, locks
from db.chunks import Chunk


class Pictured(Protocol):
    """What is refused of a picture: its bytes and its working copy."""

    @property
    def sha256(self) -> bytes: ...

    @property
    def work_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Refused:
    """Of a chunk: items (numbers) that nothing is written of; `again`: those that are to be fetched anew, for what they
    were to use again was erased, or their copy was removed as that of an erased picture after it was stored."""

    seqs: frozenset[int] = frozenset()
    again: frozenset[int] = frozenset()

    def __contains__(self, seq: int) -> bool:
        return seq in self.seqs or seq in self.again


def share_lock(session: Session, account_id: int) -> None:
    """For a transaction that writes something about pictures of an account, before it reads or locks anything: it waits
    for a step of an erasure, and for nobody else."""
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _key(account_id)})


def take_lock(session: Session, account_id: int) -> None:
    """For a step of an erasure: nobody records pictures of this account until it is committed."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(account_id)})


def refused(
    session: Session,
    chunk: Chunk,
    seqs: Sequence[int],
    pictures: Mapping[int, Pictured],
    reused: Collection[int] = (),
) -> Refused:
    """What of these items of a chunk was erased: the items themselves, or the pictures that they turned out to show.

    `reused`: items whose image was known before. Under `share_lock`. What the chunk stored of refused pictures is noted
    to be removed.
    """
    shas = sorted({each.sha256 for each in pictures.values()})
    parameters = {"account_id": chunk.account_id, "job_id": chunk.job_id, "seqs": list(seqs), "shas": shas}
    gone: set[int] = set()
    erasures: dict[bytes, UUID] = {}
    for row in session.execute(_REFUSED, parameters):
        if row.seq is not None:
            gone.add(row.seq)
        else:
            erasures[bytes(row.sha256)] = row.erasure_id
    hit: dict[UUID, list[int]] = defaultdict(list)
    for seq, picture in pictures.items():
        if seq not in gone and picture.sha256 in erasures:
            hit[erasures[picture.sha256]].append(seq)
    for erasure_id, found in sorted(hit.items()):
        keys = [(chunk.job_id, seq) for seq in found]
        erased_items.erase(session, chunk.account_id, erasure_id, keys)
        gone.update(found)
    known = set(reused)
    again = _without_image(session, chunk, {s: p for s, p in pictures.items() if s in known}) - gone
    new = {seq: picture.work_key for seq, picture in pictures.items() if seq not in known and seq not in gone}
    lost = blob_removals.keep(session, set(new.values()), chunk.id)
    again.update(seq for seq, key in new.items() if key in lost)
    stored = {pictures[seq].work_key for seq in gone if seq in pictures}
    blob_removals.ask(session, chunk.account_id, stored)
    return Refused(frozenset(gone), frozenset(again))


def _without_image(session: Session, chunk: Chunk, pictures: Mapping[int, Pictured]) -> set[int]:
    if not pictures:
        return set()
    shas = sorted({each.sha256 for each in pictures.values()})
    there = {bytes(sha) for sha in session.scalars(_THERE, {"account_id": chunk.account_id, "shas": shas})}
    return {seq for seq, picture in pictures.items() if picture.sha256 not in there}


def _key(account_id: int) -> int:
    return locks.lock_key("erasure", account_id)


_REFUSED = text(
    """
    SELECT seq, CAST(NULL AS bytea) AS sha256, erasure_id FROM erased_items
    WHERE job_id = :job_id AND seq = ANY(:seqs)
    UNION ALL
    SELECT NULL, e.sha256, e.erasure_id FROM erased_pictures e
    WHERE e.account_id IN (:account_id, 0) AND e.sha256 = ANY(:shas) AND e.fenced
      AND e.erased_at >= (SELECT j.created_at FROM jobs j WHERE j.id = :job_id)
    """
)
_THERE = text("SELECT sha256 FROM images WHERE account_id = :account_id AND sha256 = ANY(:shas)")
