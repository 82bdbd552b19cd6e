"""Closes jobs whose items all have their outcome; the job row's lock in `endings.finish` makes it happen once.

under the lock `finalise`:  jobs without an open chunk → finished (or settled, if cancelled), one event each
"""

from uuid import UUID

from db import endings, locks
from db.errors import DbError
from db.session import Database
from worker import failpoints
from worker.log import get

BATCH = 100


def run_once(database: Database) -> int:
    """Finish what can be finished; the number of jobs closed. One that fails harms no other."""
    with database.transaction() as session:
        if not locks.try_lock(session, "finalise"):
            return 0
        ready = endings.finishable(session, BATCH)
    closed = 0
    for job_id in ready:
        try:
            finished = _finish(database, job_id)
        except DbError as error:
            get("finalise").warning("job not closed yet", job=str(job_id), code=error.code)
            continue
        if finished:
            closed += 1
            get("finalise").info("job closed", job=str(job_id))
    return closed


def _finish(database: Database, job_id: UUID) -> bool:
    """Short transactions: some thousand outcomes of a cancelled job each, then the end."""
    after: int | None = -1
    while after is not None:
        with database.transaction() as session:
            after = endings.cancel_rest(session, job_id, after)
    with database.transaction() as session:
        finished = endings.finish(session, job_id)
        failpoints.hit("before_finish_job")
    return finished
