"""Late verdicts without a worker: what waits for a model longer than its policy allows is decided by maintenance.

    claim late chunks (db.chunks.claim_late) → what is known of their pictures → policy, without a model → record

A model is late above all when no process is there that could load it: nobody but maintenance would see that. It claims,
decides and records as a worker does, by fence and owner, so whoever of the two has a chunk first ends it. Chunks that
ask for more than verdicts are left to workers: they wait for their tags anyway.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from db import chunks
from db.chunks import Chunk
from db.errors import LeaseLost, Unavailable
from db.session import Database
from worker import infer_rows
from worker.log import get
from worker.settings import WorkerSettings

AT_ONCE = 64
"""Chunks of one claim: it looks at every open job, so it should bring some; what takes too long goes back."""


class Decider:
    """Decides late chunks in the name of `owner`, whose heartbeat the reaper knows."""

    def __init__(self, settings: WorkerSettings, database: Database, owner: UUID, stop: threading.Event) -> None:
        self._settings = settings
        self._database = database
        self._owner = owner
        self._stop = stop
        self._log = get("late")

    def run_once(self) -> int:
        """Decide all that is late; how many pictures that were."""
        decided = 0
        while not self._stop.is_set():
            with self._database.transaction() as session:
                claimed = chunks.claim_late(session, self._owner, self._settings.lease_s, AT_ONCE)
            pictures = self._decide(claimed)
            if pictures:
                self._log.warning("late, decided without waiting for a model", images=pictures)
            decided += pictures
            if len(claimed) < AT_ONCE:
                break
        return decided

    def _decide(self, claimed: Sequence[Chunk]) -> int:
        """End these chunks one by one, as long as their leases surely last; the others go back as they were."""
        until = time.monotonic() + self._settings.lease_s / 3
        left = list(claimed)
        decided = 0
        try:
            while left and not self._stop.is_set() and time.monotonic() < until:
                try:
                    decided += self._end(left[0])
                except LeaseLost:
                    self._log.warning("late verdicts dropped, the chunk is no longer ours", chunk=left[0].id)
                except Unavailable:
                    raise  # it goes back too: nothing is wrong with it
                except Exception:
                    left.pop(0)  # its lease runs out and the attempt counts, as if a worker had died of it
                    raise
                left.pop(0)
        finally:
            self._give_back(left)
        return decided

    def _end(self, chunk: Chunk) -> int:
        """Decide and record one chunk; how many pictures it had."""
        settings = self._settings
        with self._database.transaction() as session:
            work = infer_rows.read(session, chunk)
        outcomes = work.outcomes(top_k=settings.tags_top_k, min_score=settings.tags_min_score)
        with self._database.transaction() as session:
            infer_rows.record(session, work, outcomes, audit_share=settings.audit_share)
        return len(outcomes)

    def _give_back(self, left: Sequence[Chunk]) -> None:
        with suppress(Unavailable):  # then their leases run out
            for chunk in left:
                with self._database.transaction() as session:
                    chunks.release(session, chunk)
