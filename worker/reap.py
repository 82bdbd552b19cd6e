"""Takes chunks back from owners that stopped: expired leases and silent heartbeats; it judges no item itself.

under the lock `reap`:  lost lease → ready again, or, after too many claims, split, or one item → failed `poison`
"""

from db import locks, rescue
from db.rescue import Reaped
from db.session import Database
from worker.log import get

BATCH = 200


def run_once(database: Database, *, stale_s: float) -> Reaped:
    """One pass over what is lost now; nothing when another process is at it. Each batch is one transaction."""
    total = Reaped()
    while True:
        with database.transaction() as session:
            if not locks.try_lock(session, "reap"):
                break
            reaped = rescue.reap(session, limit=BATCH, stale_s=stale_s)
        total.released += reaped.released
        total.split += reaped.split
        total.poisoned += reaped.poisoned
        if reaped.released + reaped.split + reaped.poisoned < BATCH:
            break
    if total.released or total.split or total.poisoned:
        get("reap").info("took chunks back", released=total.released, split=total.split, poisoned=total.poisoned)
    return total
