"""Entries of hash banks: added, changed, removed, released, read. Every change of what counts opens a change of the
bank (`db.bank_changes`), in the same transaction."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, bank_changes, banks
from db.bank_tables import Bank, Entry
from db.errors import Conflict, DbError, NotFound
from db.ids import parse_item_id, uuid7

BATCH: Final = 1000
HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A hash (64 hexadecimal digits) and what is known of it; `external_id` is its id at the `source`."""

    pdq: str
    reason: str | None = None
    source: str | None = None
    external_id: str | None = None
    comment: str | None = None
    share: float = 1.0
    enabled: bool = True
    expires_at: datetime | None = None
    sha256: bytes | None = None


@dataclass(frozen=True)
class Imported:
    """`added` entries, `known` ones that the bank has already, `removed` ones; the change that works them off."""

    added: int
    known: int
    removed: int
    change_id: UUID | None


@dataclass(frozen=True)
class Picture:
    """The hash of an item's picture."""

    sha256: bytes
    pdq: str
    quality: int


class WeakHash(DbError):
    """The picture has so little detail that its hash would match pictures which have nothing to do with it."""

    code = "weak_hash"


def picture_of(session: Session, account_id: int | None, public_id: str) -> Picture:
    """The picture of an item (of any account without one); NotFound, and Conflict where it has no hash."""
    try:
        job_id, seq = parse_item_id(public_id)
    except ValueError:
        raise NotFound("There is no such item.") from None
    row = session.execute(_PICTURE, {"account_id": account_id, "job_id": job_id, "seq": seq}).first()
    if row is None:
        raise NotFound("There is no such item.")
    if row.pdq is None:
        raise Conflict("The item has no picture with a PDQ hash.")
    return Picture(bytes(row.sha256), f"{int(row.pdq, 2):064x}", row.pdq_quality or 0)


def of_item(session: Session, account_id: int | None, bank_id: UUID, public_id: str) -> Picture:
    """The picture of an item, for an entry of this bank; NotFound, Conflict, WeakHash."""
    bank = banks.read(session, account_id, bank_id)
    picture = picture_of(session, account_id, public_id)
    if picture.quality < bank.quality:
        raise WeakHash(f"Its PDQ quality is {picture.quality}, and the bank matches from {bank.quality} upwards.")
    return picture


def add(session: Session, account_id: int | None, bank_id: UUID, new: NewEntry, actor: str) -> tuple[Entry, UUID]:
    """One more entry, and the change that works it off; Conflict when the bank has the hash already."""
    bank = banks.read(session, account_id, bank_id, lock=True)
    bank.revision += 1
    session.flush()
    added = session.scalar(_ADD, {"rows": json.dumps([_row(bank, new, actor, uuid7())])})
    if added is None:
        raise Conflict("The bank has this hash already.")
    change = bank_changes.open_(session, bank, "match", actor, entry_id=added, after=bank.revision - 1)
    audit.record(session, account_id, actor, "bank.entry_add", str(added), bank=str(bank.id))
    return session.get_one(Entry, added), change


def add_many(
    session: Session,
    account_id: int | None,
    bank_id: UUID,
    new: Sequence[NewEntry],
    actor: str,
    *,
    gone: Sequence[str] = (),
) -> Imported:
    """Add entries that the bank does not have, and remove those whose external ids are `gone`: a list from elsewhere,
    which may come again. All of it is one change."""
    bank = banks.read(session, account_id, bank_id, lock=True)
    before = bank.revision
    bank.revision += 1
    session.flush()
    added = 0
    for start in range(0, len(new), BATCH):
        part = new[start : start + BATCH]
        # Ids of one millisecond are not in order by themselves, and a bank is listed by them.
        ids = sorted(uuid7() for _ in part)
        rows = [_row(bank, each, actor, id_) for each, id_ in zip(part, ids, strict=True)]
        added += len(session.execute(_ADD, {"rows": json.dumps(rows)}).all())
    tombstones = {"bank_id": bank.id, "revision": bank.revision, "gone": list(gone)}
    removed = len(session.execute(_REMOVE_EXTERNAL, tombstones).all())
    if not added and not removed:
        return Imported(0, len(new), 0, None)
    change = bank_changes.open_(session, bank, "match", actor, after=before)
    audit.record(session, account_id, actor, "bank.import", str(bank.id), added=added, removed=removed)
    return Imported(added, len(new) - added, removed, change)


def read(session: Session, account_id: int | None, bank_id: UUID, entry_id: UUID) -> Entry:
    """An entry of a bank that is the account's (the installation's without one); NotFound."""
    banks.read(session, account_id, bank_id)
    entry = session.scalar(
        select(Entry).where(Entry.id == entry_id, Entry.bank_id == bank_id, Entry.removed_at.is_(None))
    )
    if entry is None:
        raise NotFound("There is no such entry.")
    return entry


def by_hash(session: Session, account_id: int | None, bank_id: UUID, pdq: str) -> Entry:
    """The entry of a hash; NotFound."""
    banks.read(session, account_id, bank_id)
    wanted = f"{int(pdq, 16):0256b}" if HASH.fullmatch(pdq) else None
    entry = session.scalar(
        select(Entry).where(Entry.bank_id == bank_id, Entry.pdq == wanted, Entry.removed_at.is_(None))
    )
    if entry is None:
        raise NotFound("There is no such entry.")
    return entry


def page(
    session: Session,
    account_id: int | None,
    bank_id: UUID,
    *,
    state: str | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> list[Entry]:
    """A bank's entries, newest first; only those in a state."""
    banks.read(session, account_id, bank_id)
    query = select(Entry).where(Entry.bank_id == bank_id, Entry.removed_at.is_(None))
    if after is not None:
        query = query.where(Entry.id < after)
    if state is not None:
        query = query.where(*_STATES[state])
    return list(session.scalars(query.order_by(Entry.id.desc()).limit(limit)))


def change(
    session: Session, account_id: int | None, bank_id: UUID, entry_id: UUID, actor: str, **values: Any
) -> tuple[Entry, UUID | None]:
    """Change `enabled`, `share`, `expires_at`, `reason` or `comment`; what works it off, if that is needed."""
    bank = banks.read(session, account_id, bank_id, lock=True)
    entry = read(session, account_id, bank_id, entry_id)
    if "share" in values:
        values["share"] = _share(values["share"])
    given = {name: value for name, value in values.items() if getattr(entry, name) != value}
    for name, value in given.items():
        setattr(entry, name, value)
    if not given:
        return entry, None
    audit.record(session, account_id, actor, "bank.entry_change", str(entry.id), fields=sorted(given))
    if not given.keys() & {"enabled", "share", "expires_at"}:
        session.flush()
        return entry, None
    if "expires_at" in given:
        entry.expired_at = None  # maintenance sets it again, if that time is over
    return entry, _changed(session, bank, entry, "match", actor)


def remove(session: Session, account_id: int | None, bank_id: UUID, entry_id: UUID, actor: str) -> UUID:
    """The entry counts no more and is not listed; the change that works it off."""
    bank = banks.read(session, account_id, bank_id, lock=True)
    entry = read(session, account_id, bank_id, entry_id)
    entry.removed_at = session.scalar(text("SELECT now()"))
    audit.record(session, account_id, actor, "bank.entry_remove", str(entry.id), bank=str(bank.id))
    return _changed(session, bank, entry, "recheck", actor)


def release(
    session: Session, account_id: int | None, bank_id: UUID, entry_id: UUID, actor: str
) -> tuple[Entry, UUID | None]:
    """Somebody has looked at what an entry hit until now: out of quarantine it counts again, also for what came
    meanwhile (the change that works it off); a wide one goes on to count (None). Conflict when it is neither."""
    bank = banks.read(session, account_id, bank_id, lock=True)
    entry = read(session, account_id, bank_id, entry_id)
    if entry.quarantined_at is None and entry.wide is None:
        raise Conflict("The entry is not in quarantine, and not wide.")
    held = entry.quarantined_at is not None
    entry.quarantined_at = entry.wide = None
    entry.released_at = session.scalar(text("SELECT now()"))
    audit.record(session, account_id, actor, "bank.entry_release", str(entry.id), bank=str(bank.id))
    session.flush()
    return entry, _changed(session, bank, entry, "match", actor) if held else None


def _changed(session: Session, bank: Bank, entry: Entry, mode: str, actor: str) -> UUID:
    bank.revision += 1
    entry.revision = bank.revision
    session.flush()
    return bank_changes.open_(session, bank, mode, actor, entry_id=entry.id, after=bank.revision - 1)


def _share(share: float) -> float:
    """To a millionth: what is smaller is no picture, and below 1e-45 no number of Postgres' `real`."""
    return round(share, 6)


def _row(bank: Bank, new: NewEntry, actor: str, id_: UUID) -> dict[str, Any]:
    return {
        "id": str(id_),
        "bank_id": str(bank.id),
        "account_id": bank.account_id,
        "pdq": new.pdq,
        "revision": bank.revision,
        "enabled": new.enabled,
        "share": _share(new.share),
        "reason": new.reason,
        "source": new.source,
        "external_id": new.external_id,
        "comment": new.comment,
        "sha256": None if new.sha256 is None else new.sha256.hex(),
        "actor": actor,
        "expires_at": None if new.expires_at is None else new.expires_at.isoformat(),
    }


_STATES: Final = {
    "quarantined": (Entry.quarantined_at.is_not(None),),
    "expired": (Entry.quarantined_at.is_(None), Entry.expired_at.is_not(None)),
    "wide": (Entry.quarantined_at.is_(None), Entry.expired_at.is_(None), Entry.enabled, Entry.wide.is_not(None)),
    "on": (Entry.quarantined_at.is_(None), Entry.expired_at.is_(None), Entry.enabled, Entry.wide.is_(None)),
    "off": (Entry.quarantined_at.is_(None), Entry.expired_at.is_(None), ~Entry.enabled),
}
STATES: Final = tuple(_STATES)
_PICTURE = text(
    """
    SELECT g.sha256, g.pdq::text AS pdq, g.pdq_quality
    FROM jobs j JOIN items i ON i.bucket = j.bucket AND i.job_id = j.id
    LEFT JOIN ingests n ON n.bucket = i.bucket AND n.job_id = i.job_id AND n.seq = i.seq AND n.outcome = 'done'
    LEFT JOIN images g ON g.account_id = j.account_id AND g.sha256 = n.sha256
    WHERE (CAST(:account_id AS bigint) IS NULL OR j.account_id = :account_id) AND j.id = :job_id AND i.seq = :seq
    """
)
_ADD = text(
    """
    INSERT INTO hash_entries (id, bank_id, account_id, pdq, revision, enabled, share, reason, source, external_id,
      comment, sha256, actor, expires_at)
    SELECT id, bank_id, account_id, ('x' || pdq)::bit(256), revision, enabled, share, reason, source, external_id,
      comment, decode(sha256, 'hex'), actor, expires_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS n(id uuid, bank_id uuid, account_id bigint, pdq text,
      revision bigint, enabled boolean, share real, reason text, source text, external_id text, comment text,
      sha256 text, actor text, expires_at timestamptz)
    ON CONFLICT (bank_id, pdq) WHERE removed_at IS NULL DO NOTHING RETURNING id
    """
)
_REMOVE_EXTERNAL = text(
    """
    UPDATE hash_entries SET removed_at = now(), revision = :revision
    WHERE bank_id = :bank_id AND external_id = ANY(:gone) AND removed_at IS NULL RETURNING id
    """
)
