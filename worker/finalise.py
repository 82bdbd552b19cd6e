"""Closes jobs whose items all have their outcome; the job row's lock in `endings.finish` makes it happen once.

under the lock `finalise`:  jobs without an open chunk → finished (or settled, if cancelled), one event each
"""

from db import endings, locks
from db.session import Database
from worker import failpoints
from worker.log import get

BATCH = 100


def run_once(database: Database) -> int:
    """Finish what can be finished; the number of jobs closed. One transaction a job: one that fails harms no other."""
    with database.transaction() as session:
        if not locks.try_lock(session, "finalise"):
            return 0
        ready = endings.finishable(session, BATCH)
    closed = 0
    for job_id in ready:
        with database.transaction() as session:
            finished = endings.finish(session, job_id)
            failpoints.hit("before_finish_job")
        if finished:
            closed += 1
            get("finalise").info("job closed", job=str(job_id))
    return closed
