"""Hash banks: made, read, changed, removed; and what the banks say of pictures. Entries are in `db.bank_entries`.

A bank belongs to an account, or, without one, to the installation: then it holds for every account.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db import audit, bank_changes
from db.bank_tables import Bank
from db.errors import Conflict, NotFound
from db.ids import uuid7
from db.policy_evidence import Hit

KINDS: Final = ("block", "allow")
DISTANCE: Final = 31
QUALITY: Final = 50
"""What PDQ's authors advise: alike up to 31 of 256 bits, and nothing to match below a quality of 50."""
MAX_DISTANCE: Final = 47

# SQL for an entry `e` and its bank `b`: whether the entry counts now.
COUNTS: Final = """e.enabled AND e.removed_at IS NULL AND e.quarantined_at IS NULL AND e.expired_at IS NULL
      AND (e.expires_at IS NULL OR e.expires_at > now()) AND b.enabled AND b.removed_at IS NULL"""
# SQL for an entry `e` that is not removed: `Entry.state`.
STATE: Final = """CASE WHEN e.quarantined_at IS NOT NULL THEN 'quarantined' WHEN e.expired_at IS NOT NULL THEN 'expired'
      WHEN NOT e.enabled THEN 'off' WHEN e.wide IS NOT NULL THEN 'wide' ELSE 'on' END"""


@dataclass(frozen=True)
class BankSums:
    """A bank, and how many of its entries are in which state."""

    bank: Bank
    states: dict[str, int]


def create(
    session: Session,
    account_id: int | None,
    name: str,
    kind: str,
    *,
    actor: str,
    description: str | None = None,
    distance: int = DISTANCE,
    quality: int = QUALITY,
) -> Bank:
    """A new, empty bank; Conflict when there is one of that name."""
    parameters = {
        "id": uuid7(),
        "account_id": account_id,
        "name": name,
        "kind": kind,
        "description": description,
        "distance": distance,
        "quality": quality,
        "actor": actor,
    }
    added = session.execute(_CREATE, parameters).scalar()
    if added is None:
        raise Conflict(f"There is a bank named {name!r} already.")
    audit.record(session, account_id, actor, "bank.create", str(added), kind=kind, distance=distance)
    return session.get_one(Bank, added)


def read(session: Session, account_id: int | None, bank_id: UUID, *, lock: bool = False) -> Bank:
    """A bank of this account (of the installation without one); NotFound. `lock` it to change it or its entries."""
    query = select(Bank).where(
        Bank.id == bank_id, Bank.account_id.is_not_distinct_from(account_id), Bank.removed_at.is_(None)
    )
    locked = query.with_for_update().execution_options(populate_existing=True)
    bank = session.scalar(locked if lock else query)
    if bank is None:
        raise NotFound("There is no such bank.")
    return bank


def visible(session: Session, account_id: int, bank_id: UUID) -> Bank:
    """A bank that holds for the account: one of its own, or of the installation; NotFound."""
    bank = session.scalar(select(Bank).where(Bank.id == bank_id, Bank.removed_at.is_(None)))
    if bank is None or bank.account_id not in (None, account_id):
        raise NotFound("There is no such bank.")
    return bank


def by_name(session: Session, account_id: int | None, name: str) -> Bank:
    """The bank of that name; NotFound."""
    query = select(Bank).where(
        Bank.name == name, Bank.account_id.is_not_distinct_from(account_id), Bank.removed_at.is_(None)
    )
    bank = session.scalar(query)
    if bank is None:
        raise NotFound(f"There is no bank named {name!r}.")
    return bank


def listed(session: Session, account_id: int | None) -> list[BankSums]:
    """The banks that hold for an account, its own first; of the installation alone without one."""
    query = select(Bank).where(Bank.removed_at.is_(None))
    if account_id is None:
        query = query.where(Bank.account_id.is_(None))
    else:
        query = query.where((Bank.account_id == account_id) | Bank.account_id.is_(None))
    banks = list(session.scalars(query.order_by(Bank.account_id.is_(None), Bank.name)))
    sums: dict[UUID, dict[str, int]] = {bank.id: {} for bank in banks}
    for bank_id, state, count in session.execute(_SUMS, {"ids": list(sums)}):
        sums[bank_id][state] = count
    return [BankSums(bank, sums[bank.id]) for bank in banks]


def states(session: Session, bank_id: UUID) -> dict[str, int]:
    """How many entries of the bank are in which state."""
    return {state: count for _, state, count in session.execute(_SUMS, {"ids": [bank_id]})}


def change(session: Session, account_id: int | None, bank_id: UUID, actor: str, **values: Any) -> Bank:
    """Change `description`, `distance`, `quality` or `enabled`; what that means for pictures is worked off."""
    bank = read(session, account_id, bank_id, lock=True)
    given = {name: value for name, value in values.items() if getattr(bank, name) != value}
    if not given:
        return bank
    wider = given.get("distance", 0) > bank.distance or given.get("quality", 101) < bank.quality
    for name, value in given.items():
        setattr(bank, name, value)
    if set(given) != {"description"}:
        # Hits that were never looked for must be found; those that no longer count need no search.
        mode = "match" if wider or given.get("enabled") else "recheck"
        bank.revision += 1
        session.flush()
        bank_changes.open_(session, bank, mode, actor)
    audit.record(session, account_id, actor, "bank.change", str(bank.id), fields=sorted(given))
    return bank


def remove(session: Session, account_id: int | None, bank_id: UUID, actor: str) -> UUID:
    """The bank and its entries count no more; old decisions keep naming them. The change that works it off."""
    bank = read(session, account_id, bank_id, lock=True)
    bank.removed_at = session.scalar(text("SELECT now()"))
    bank.revision += 1
    session.flush()
    change_id = bank_changes.open_(session, bank, "recheck", actor)
    audit.record(session, account_id, actor, "bank.remove", str(bank.id))
    return change_id


def any_for(session: Session, account_id: int) -> bool:
    """Whether the account or the installation has a bank."""
    return bool(session.scalar(_ANY, {"account_id": account_id}))


def hits_of(session: Session, account_id: int, shas: Sequence[bytes]) -> dict[bytes, list[Hit]]:
    """What banks say now of those of these pictures that they know: the nearest entry first."""
    return by_picture(session.execute(_HITS, {"account_id": account_id, "shas": list(shas)}))


def by_picture(rows: Iterable[Any]) -> dict[bytes, list[Hit]]:
    """Hits of entries (columns as in `_HITS`), of those that are rolled out to the picture."""
    found: dict[bytes, list[Hit]] = {}
    for row in rows:
        sha = bytes(row.sha256)
        if rolled_out(sha, row.share):
            found.setdefault(sha, []).append(Hit(row.name, row.kind, row.entry_id, row.distance, row.reason))
    return found


def rolled_out(sha256: bytes, share: float) -> bool:
    """Whether a picture belongs to this share of all pictures; a larger share contains a smaller one."""
    return share >= 1 or int.from_bytes(hashlib.sha256(sha256).digest()[:4], "big") < share * 2**32


_CREATE = text(
    """
    INSERT INTO hash_banks (id, account_id, name, kind, description, distance, quality, actor)
    VALUES (:id, :account_id, :name, :kind, :description, :distance, :quality, :actor)
    ON CONFLICT DO NOTHING RETURNING id
    """
)
_SUMS = text(
    f"""
    SELECT e.bank_id, {STATE} AS state, count(*) AS count
    FROM hash_entries e WHERE e.bank_id = ANY(:ids) AND e.removed_at IS NULL GROUP BY 1, 2
    """
)
_ANY = text(
    """
    SELECT EXISTS (SELECT FROM hash_banks WHERE (account_id = :account_id OR account_id IS NULL) AND removed_at IS NULL)
    """
)
_HITS = text(
    f"""
    SELECT h.sha256, h.entry_id, h.distance, b.name, b.kind, e.reason, e.share
    FROM hash_hits h JOIN hash_entries e ON e.id = h.entry_id JOIN hash_banks b ON b.id = e.bank_id
    JOIN images i ON i.account_id = h.account_id AND i.sha256 = h.sha256
    WHERE h.account_id = :account_id AND h.sha256 = ANY(:shas) AND h.distance <= b.distance
      AND i.pdq_quality >= b.quality AND {COUNTS}
    ORDER BY h.distance, h.entry_id
    """
)
