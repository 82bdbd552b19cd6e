"""Works off erasures: rows in bounded steps, then datasets, then blobs, then the journal; and forgets again after a
database was restored from before one.

    rows      `db.erasures.step`, each in a transaction of its own, under the account's lock
    datasets  `worker.erased_datasets`
    blobs     `db.blob_removals`: what no row names
    journal   `db.erasure_journal`, a file beside the blobs; then it is finished

Any process may go on where another one died.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final
from uuid import UUID

from db import blob_removals, erasure_journal, erasures
from db.blob_store import Blobs
from db.blobs import journal_key
from db.errors import BadJournal, BlobMissing
from db.session import Database
from worker import erased_datasets, failpoints
from worker.log import get

MARGIN_S: Final = 60.0
"""Clocks of machines that store blobs, and of the database, may be apart by so much."""
BLOBS: Final = 500


class Eraser:
    """The duty. `open_blobs`: called at first use, for without the store nothing but this is missing."""

    def __init__(self, database: Database, open_blobs: Callable[[], Blobs], stop: threading.Event) -> None:
        self._database = database
        self._open_blobs = open_blobs
        self._stop = stop
        self._log = get("erasing")

    @cached_property
    def blobs(self) -> Blobs:
        """The blob store."""
        return self._open_blobs()

    def run_once(self) -> int:
        """Go on with every erasure that waits, and remove blobs; how many of both ended."""
        with self._database.transaction() as session:
            waiting = erasures.waiting(session)
        ended = sum(self.work_off(erasure_id, again=again) for erasure_id, again in waiting)
        return ended + self.remove_blobs()

    def work_off(self, erasure_id: UUID, *, again: bool = False) -> bool:
        """One erasure to its end; False if it is not there yet."""
        more = True
        while more:
            if self._stop.is_set():
                return False
            with self._database.transaction() as session:
                more = erasures.step(session, erasure_id)
                failpoints.hit("before_erasure_commit")
        counts = erased_datasets.forget(self._database, self.blobs, erasure_id)
        self.remove_blobs()
        with self._database.transaction() as session:
            journal = erasure_journal.document(session, erasure_id)
        self.blobs.put(journal_key(erasure_id), journal)
        with self._database.transaction() as session:
            return erasures.finish(session, erasure_id, hashlib.sha256(journal).digest(), counts, again=again)

    def remove_blobs(self) -> int:
        """Remove what is noted; how many."""
        removed = 0
        while not self._stop.is_set():
            with self._database.transaction() as session:
                due = blob_removals.due(session, BLOBS)
                may_go = [each for each in due if not each.wanted]
                went_now = self.blobs.delete_each_older([(each.key, each.asked_s + MARGIN_S) for each in may_go])
                gone = [each.key for each, went in zip(may_go, went_now, strict=True) if went]
                kept = [each.key for each in due if each.key not in set(gone)]
                blob_removals.end(session, gone, kept)
            removed += len(gone)
            if len(due) < BLOBS:
                break
        return removed

    def replay(self, files: Sequence[Path] | None = None) -> int:
        """Take in the journals of erasures that this database does not know: it is older than they are. How many.
        `files`: journals from elsewhere, instead of those beside the blobs; they are put there too."""
        if files is not None:
            for file in files:
                self.blobs.put(journal_key(UUID(file.stem)), file.read_bytes())
        with self._database.transaction() as session:
            unknown = erasure_journal.unknown(session, self.blobs.journals())
        taken = 0
        for erasure_id in unknown:
            try:
                data = self.blobs.get(journal_key(erasure_id))
                with self._database.transaction() as session:
                    erasure_journal.restore(session, data)
                taken += 1
            except (BadJournal, BlobMissing) as error:
                self._log.error("journal not taken in", erasure=str(erasure_id), code=error.code, error=str(error))
        if taken:
            self._log.warning("this database is older than erasures that were made: forgetting again", erasures=taken)
        return taken
