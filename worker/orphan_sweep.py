"""Removes blobs that no row names: whoever stored them died before it could say so (an API in the middle of an upload,
a crawler before its chunk's end).

Slowly, a turn over some folders and the next turn behind them; once through, again after a day at the soonest. A blob
goes when all of this holds:

    it is old             `orphan_hours`: whoever stored it has long said so, or is dead. Stored again, it is young
    nothing names it      no item, no image, no dataset; asked again while the account's erasure lock lets nobody record
    most are named        of what was looked at in this turn, else this is the store of another database

An erasure's blobs, which rows named, are `worker.erasing`'s.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Final

from db import erasure_fence, orphan_blobs
from db.blob_store import Blobs
from db.session import Database
from worker.log import get
from worker.retaining import named_by_datasets
from worker.settings import WorkerSettings

BUDGET_S: Final = 2.0
"""Longest turn, but for the folder in hand: of ten minutes, a third of a percent."""
BATCH: Final = 500


def doubtful(unnamed: int, named: int) -> bool:
    """Whether a turn that saw so many may be over the store of another database."""
    return unnamed > named


class OrphanSweep:
    """The duty. `open_blobs`: called when something is due."""

    def __init__(
        self,
        settings: WorkerSettings,
        database: Database,
        open_blobs: Callable[[], Blobs],
        stop: threading.Event,
    ) -> None:
        self._hours = settings.orphan_hours
        self._database = database
        self._open_blobs = open_blobs
        self._stop = stop

    def run_once(self) -> int:
        """One turn; how many blobs were removed."""
        if not self._hours:
            return 0
        with self._database.transaction() as session:
            place = orphan_blobs.begin(session)
        if place is None:
            return 0
        turn = _Turn(self._database, self._open_blobs(), time.time() - 3600 * self._hours)
        through = self._walk(turn, place)
        with self._database.transaction() as session:
            if through:
                orphan_blobs.end(session, turn.removed)
            else:
                orphan_blobs.move(session, turn.place or place, turn.removed)
        turn.say()
        return turn.removed

    def _walk(self, turn: "_Turn", after: str) -> bool:
        """Folder by folder; whether the last one was among them."""
        until = time.monotonic() + BUDGET_S
        batch: list[str] = []
        for folder in turn.blobs.folders(after):
            for key in turn.blobs.older(folder, turn.than):
                batch.append(key)
                if len(batch) == BATCH:
                    turn.look(batch)
                    batch.clear()
            turn.place = folder
            if self._stop.is_set() or time.monotonic() > until:
                turn.look(batch)
                return False
        turn.look(batch)
        return True


class _Turn:
    """What one turn looked at and removed. `than`: what was stored later stays (Unix seconds)."""

    def __init__(self, database: Database, blobs: Blobs, than: float) -> None:
        self.blobs = blobs
        self.than = than
        self.place = ""
        self.removed = 0
        self._database = database
        self._named = 0
        self._unnamed = 0
        self._left = 0
        self._in_datasets: Collection[str] | None = None

    def look(self, keys: Collection[str]) -> None:
        """Remove those that may go."""
        if not keys:
            return
        with self._database.transaction() as session:
            found = orphan_blobs.unnamed(session, keys)
        self._named += len(keys) - len(found)
        if not found:
            return
        if self._in_datasets is None:
            self._in_datasets = named_by_datasets(self._database, self.blobs)
        if self._in_datasets is None:
            return
        found = [key for key in found if key not in self._in_datasets]
        self._unnamed += len(found)
        if doubtful(self._unnamed, self._named):
            self._left += len(found)
            return
        by_account: defaultdict[int, list[str]] = defaultdict(list)
        for key in found:
            by_account[int(key.split("/")[1])].append(key)
        for account_id, theirs in sorted(by_account.items()):
            self._remove(account_id, theirs)

    def _remove(self, account_id: int, keys: Collection[str]) -> None:
        with self._database.transaction() as session:
            erasure_fence.take_lock(session, account_id)
            unnamed = orphan_blobs.unnamed(session, keys)
            self.removed += sum(self.blobs.delete_each_older([(key, self.than) for key in unnamed]))

    def say(self) -> None:
        """One line for what was done, and one for what was not."""
        log = get("orphans")
        if self.removed:
            log.info("blobs removed that nothing names", blobs=self.removed)
        if self._left:
            log.warning(
                "most blobs looked at are named by nothing here, so they stay: is this the store of another database?",
                unnamed=self._unnamed,
                named=self._named,
            )
