"""Which entries of hash banks pictures match: new pictures against all entries, and new entries against all pictures.

The entries are held in memory, an index for each bank (`db.bank_index`), and follow the database by the banks'
revisions: a picture that is recorded has met every entry that was committed before.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from db.bank_index import HashIndex
from db.images import ImageRecord
from db.session import changed, driver_connection

MAX_BANKS: Final = 256
"""Banks held in memory; the one not used for longest goes first."""
FRESH: Final = 4096
"""Changed entries that are kept beside a bank's index before it is built anew."""

# Rows of COPY's binary form: a count of fields, and for each its length and its bytes; a bit string begins with its
# own length. Fixed in size, as these columns are.
_ENTRY_ROW: Final = np.dtype(
    [
        *(("fields", ">i2"), ("n1", ">i4"), ("number", ">i8"), ("n2", ">i4"), ("counts", "u1")),
        *(("n3", ">i4"), ("bits", ">i4"), ("pdq", "u1", 32)),
    ]
)
_HEAD: Final = 19
_TAIL: Final = 2


@dataclass(frozen=True)
class _Bank:
    """A bank's entries at a revision. Of what is in `changed` (sorted), the index is out of date; `fresh` is not."""

    revision: int
    numbers: NDArray[np.int64]
    index: HashIndex
    changed: NDArray[np.int64]
    fresh_numbers: NDArray[np.int64]
    fresh: HashIndex

    def search(self, queries: NDArray[np.uint8], distance: int) -> Iterator[tuple[int, int, int]]:
        """(number of the query, number of the entry, distance)."""
        query, row, apart = self.index.search(queries, distance)
        numbers = self.numbers[row]
        kept = ~np.isin(numbers, self.changed)
        yield from zip(query[kept].tolist(), numbers[kept].tolist(), apart[kept].tolist(), strict=True)
        query, row, apart = self.fresh.search(queries, distance)
        yield from zip(query.tolist(), self.fresh_numbers[row].tolist(), apart.tolist(), strict=True)


class Indexes:
    """The banks that this process has matched with. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._banks: OrderedDict[UUID, _Bank] = OrderedDict()

    def get(self, session: Session, bank_id: UUID, revision: int) -> _Bank:
        """The bank's entries, at this revision or a later one."""
        with self._lock:
            bank = self._banks.get(bank_id)
        if bank is None or bank.revision < revision:
            bank = _refreshed(session, bank_id, revision, bank)
        with self._lock:
            known = self._banks.get(bank_id)
            if known is None or known.revision < bank.revision:
                self._banks[bank_id] = bank
            self._banks.move_to_end(bank_id)
            if len(self._banks) > MAX_BANKS:
                self._banks.popitem(last=False)
        return bank


_INDEXES: Final = Indexes()


def match(session: Session, account_id: int, images: Sequence[ImageRecord]) -> int:
    """Record what these pictures of an account hit in the banks that hold for it; how many hits are new. To be called
    under `bank_changes.share_lock`: no change of a bank can miss these pictures then."""
    banks = session.execute(_BANKS, {"account_id": account_id}).all()
    if not banks:
        return 0
    known = [(image.sha256, image.pdq, image.pdq_quality or 0) for image in images if image.pdq is not None]
    found: list[dict[str, Any]] = []
    for bank in banks:
        good = [(sha, pdq) for sha, pdq, quality in known if quality >= bank.quality]
        queries = np.frombuffer(b"".join(pdq for _, pdq in good), np.uint8).reshape(-1, 32)
        for query, number, distance in _INDEXES.get(session, bank.id, bank.revision).search(queries, bank.distance):
            found.append({"sha256": good[query][0], "number": number, "distance": distance})
    return record(session, account_id, found)


def record(session: Session, account_id: int, found: Sequence[dict[str, Any]], *, retroactive: bool = False) -> int:
    """Store hits, {sha256, number of the entry, distance} each; those stored already stay. How many are new."""
    if not found:
        return 0
    parameters = {
        "account_id": account_id,
        "retroactive": retroactive,
        "shas": [row["sha256"] for row in found],
        "numbers": [row["number"] for row in found],
        "distances": [row["distance"] for row in found],
    }
    return changed(session.execute(_RECORD, parameters))


def _refreshed(session: Session, bank_id: UUID, revision: int, old: _Bank | None) -> _Bank:
    rows = _entries(session, bank_id, 0 if old is None else old.revision)
    live = rows[rows["counts"] == 1]
    if old is not None:
        numbers, hashes = live["number"].astype(np.int64), live["pdq"]
        kept = ~np.isin(old.fresh_numbers, rows["number"])
        numbers = np.concatenate((old.fresh_numbers[kept], numbers))
        hashes = np.concatenate((old.fresh.hashes[kept], hashes))
        changed = np.union1d(old.changed, rows["number"].astype(np.int64))
        if len(changed) <= FRESH:
            return _Bank(revision, old.numbers, old.index, changed, numbers, HashIndex(hashes))
        rows = _entries(session, bank_id, 0)
        live = rows[rows["counts"] == 1]
    none = np.empty(0, np.int64)
    empty = HashIndex(np.empty((0, 32), np.uint8))
    return _Bank(revision, live["number"].astype(np.int64), HashIndex(live["pdq"]), none, none, empty)


def _entries(session: Session, bank_id: UUID, after: int) -> NDArray[Any]:
    """Entries whose revision is above `after`: number, hash, and whether they may count."""
    with driver_connection(session).cursor() as cursor, cursor.copy(_COPY_ENTRIES, (bank_id, after)) as copy:
        data = b"".join(bytes(part) for part in copy)
    return np.frombuffer(data[_HEAD : len(data) - _TAIL], _ENTRY_ROW)


_BANKS = text(
    """
    SELECT id, revision, distance, quality FROM hash_banks
    WHERE (account_id = :account_id OR account_id IS NULL) AND enabled AND removed_at IS NULL AND revision > 0
    """
)
_COPY_ENTRIES = """
    COPY (SELECT number, enabled AND removed_at IS NULL AND quarantined_at IS NULL AND expired_at IS NULL, pdq
      FROM hash_entries WHERE bank_id = %s AND revision > %s) TO STDOUT (FORMAT binary)
"""
_RECORD = text(
    """
    INSERT INTO hash_hits (account_id, sha256, entry_id, bank_id, distance, retroactive)
    SELECT :account_id, f.sha256, e.id, e.bank_id, f.distance, :retroactive
    FROM unnest(CAST(:shas AS bytea[]), CAST(:numbers AS bigint[]), CAST(:distances AS smallint[]))
      AS f(sha256, number, distance) JOIN hash_entries e ON e.number = f.number
    ORDER BY 2, 3 ON CONFLICT DO NOTHING
    """
)
