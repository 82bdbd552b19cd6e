"""Moves a rerun to its end, one short transaction a batch; a process that dies is continued by the next call.

diff:      pairs by keyset → sums
publish, roll back, drop:   batch → commit → batch … until nothing is left
"""

from collections.abc import Callable
from uuid import UUID

from db import publishing, rerun_diff, reruns
from db.publishing import Moved
from db.rerun_diff import Difference
from db.session import Database
from worker import failpoints

Step = Callable[..., Moved]
STEPS: dict[str, Step] = {"publish": publishing.publish, "rollback": publishing.roll_back, "drop": publishing.drop}


def difference(database: Database, account_id: int, rerun_id: UUID) -> Difference:
    """What publishing would change, or changed."""
    with database.transaction() as session:
        rerun = reruns.get(session, account_id, rerun_id)
    found, after = Difference(rerun.task), -1
    while True:
        with database.transaction() as session:
            pairs = rerun_diff.batch(session, rerun, after=after)
        if not pairs:
            return found
        for pair in pairs:
            found.add(pair)
        after = pairs[-1].seq


def carry_out(
    database: Database,
    account_id: int,
    rerun_id: UUID,
    step: Step,
    *,
    batch: int = 500,
    progress: Callable[[int], None] = lambda items: None,
) -> int:
    """Repeat a step of `db.publishing` to its end; the number of results written. `progress` hears items looked at."""
    changed = 0
    while True:
        with database.transaction() as session:
            moved = step(session, account_id, rerun_id, limit=batch)
        changed += moved.changed
        progress(moved.items)
        if not moved.more:
            return changed
        failpoints.hit("between_rerun_batches")
