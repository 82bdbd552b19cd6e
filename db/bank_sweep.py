"""What new entries of hash banks hit among the pictures there are: all pictures meet a few entries in Postgres, or many
entries in memory."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import text
from sqlalchemy.orm import Session

from db import bank_matching
from db.bank_index import HashIndex
from db.bank_search import apart
from db.bank_tables import BankChange
from db.banks import COUNTS
from db.session import driver_connection, long_statements

ONE_BY_ONE: Final = 16
"""Up to so many new entries, a look at all images for each is cheaper than bringing the images here."""
PAGE: Final = 65_536
"""Images of a page of the other way."""

_IMAGE_ROW: Final = np.dtype(
    [
        *(("fields", ">i2"), ("n1", ">i4"), ("account", ">i8"), ("n2", ">i4"), ("sha256", "u1", 32)),
        *(("n3", ">i4"), ("quality", ">i2"), ("n4", ">i4"), ("bits", ">i4"), ("pdq", "u1", 32)),
    ]
)
_HEAD: Final = 19
_TAIL: Final = 2


def find(session: Session, change: BankChange, after: tuple[int, bytes] | None = None) -> tuple[int, bytes] | None:
    """Store what the entries of a change hit among the pictures there are.

    Many entries take the pictures page by page: then this is to be called again with the position that it returns,
    in a transaction of its own each time; None at the end.
    """
    parameters = {"bank_id": change.bank_id, "entry_id": change.entry_id, "after": change.after, "upto": change.upto}
    long_statements(session, 600)
    entries = session.execute(_ENTRIES, {**parameters, "limit": ONE_BY_ONE + 1}).all()
    if len(entries) <= ONE_BY_ONE:
        statement = text(_FIND.format(apart=apart(session)))
        for entry in entries:
            session.execute(statement, {**entry._mapping, "account_id": change.account_id})
        return None
    entries = session.execute(_ENTRIES, {**parameters, "limit": None}).all()
    return _page(session, change.account_id, entries, after)


def _page(
    session: Session, account_id: int | None, entries: Sequence[Any], after: tuple[int, bytes] | None
) -> tuple[int, bytes] | None:
    at = after or (0, b"")
    statement = _COPY_ONE if account_id is not None else _COPY_ALL
    parameters: tuple[Any, ...] = (*at, PAGE) if account_id is None else (account_id, at[1], PAGE)
    with driver_connection(session).cursor() as cursor, cursor.copy(statement, parameters) as copy:
        data = b"".join(bytes(part) for part in copy)
    rows = np.frombuffer(data[_HEAD : len(data) - _TAIL], _IMAGE_ROW)
    index = HashIndex(np.frombuffer(b"".join(int(entry.pdq, 2).to_bytes(32, "big") for entry in entries), np.uint8))
    good = rows[rows["quality"] >= entries[0].quality]
    by_account: dict[int, list[dict[str, Any]]] = {}
    for picture, entry, distance in zip(*index.search(good["pdq"], entries[0].distance), strict=True):
        hit = {"sha256": good["sha256"][picture].tobytes(), "number": entries[entry].number, "distance": int(distance)}
        by_account.setdefault(int(good["account"][picture]), []).append(hit)
    for account, found in sorted(by_account.items()):
        bank_matching.record(session, account, found, retroactive=True)
    return None if len(rows) < PAGE else (int(rows["account"][-1]), rows["sha256"][-1].tobytes())


_FIND: Final = """
    INSERT INTO hash_hits (account_id, sha256, entry_id, bank_id, distance, retroactive)
    SELECT i.account_id, i.sha256, :id, :bank_id, {apart}, true FROM images i
    WHERE (CAST(:account_id AS bigint) IS NULL OR i.account_id = :account_id)
      AND i.pdq_quality >= :quality AND {apart} <= :distance
    ON CONFLICT DO NOTHING
"""
_ENTRIES = text(
    f"""
    SELECT e.id, e.number, e.bank_id, e.pdq::text AS pdq, b.distance, b.quality
    FROM hash_entries e JOIN hash_banks b ON b.id = e.bank_id
    WHERE e.bank_id = :bank_id AND e.revision > :after AND e.revision <= :upto AND {COUNTS}
      AND (CAST(:entry_id AS uuid) IS NULL OR e.id = :entry_id) ORDER BY e.number LIMIT :limit
    """
)
_COPY = """
    COPY (SELECT account_id, sha256, pdq_quality, pdq FROM images
      WHERE {where} AND pdq IS NOT NULL AND pdq_quality IS NOT NULL
      ORDER BY account_id, sha256 LIMIT %s) TO STDOUT (FORMAT binary)
"""
_COPY_ONE = _COPY.format(where="account_id = %s AND sha256 > %s")
_COPY_ALL = _COPY.format(where="(account_id, sha256) > (%s, %s)")
