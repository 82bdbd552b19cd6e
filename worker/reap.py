"""Takes chunks back from owners that stopped: expired leases and silent heartbeats; it judges no item itself.

    under the lock `reap`:  lost lease → ready again, or, after too many claims, split, or one item → failed `poison`

After an outage of the database everybody's heartbeat and lease is old. So it waits a grace time after each failure to
reach it, and after its own start, until those who live have said so: an outage must cost nobody an attempt.
"""

import time
from collections.abc import Callable

from db import locks, rescue
from db.errors import Unavailable
from db.rescue import Reaped
from db.session import Database
from worker.log import get

BATCH = 200


class Reaper:
    """One process' reaper. `grace_s`: the time in which every live owner beats and extends its leases."""

    def __init__(
        self, database: Database, *, stale_s: float, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._stale_s = stale_s
        self._grace_s = grace_s
        self._clock = clock
        self._not_before = clock() + grace_s

    def run_once(self) -> Reaped:
        """One pass over what is lost now; nothing when another process is at it. Each batch is one transaction."""
        total = Reaped()
        try:
            while self._batch(total) == BATCH:
                continue
        except Unavailable:
            self._not_before = self._clock() + self._grace_s
            raise
        if total.released or total.split or total.poisoned:
            get("reap").info("took chunks back", released=total.released, split=total.split, poisoned=total.poisoned)
        return total

    def _batch(self, total: Reaped) -> int:
        with self._database.transaction() as session:
            # The lock first, also in the grace time: it is how an outage is noticed.
            if not locks.try_lock(session, "reap") or self._clock() < self._not_before:
                return 0
            reaped = rescue.reap(session, limit=BATCH, stale_s=self._stale_s)
        total.released += reaped.released
        total.split += reaped.split
        total.poisoned += reaped.poisoned
        return reaped.released + reaped.split + reaped.poisoned
