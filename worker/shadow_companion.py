"""Starts, beside a worker, a process that works on shadow runs while one has something to do. Scores nothing itself.

The worker role is where working copies and models are; the process is not one of its own that do live work.
"""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

from db import shadow
from db.errors import Unavailable
from db.session import Database
from worker import leashed, wiring
from worker.log import get
from worker.settings import WorkerSettings
from worker.steady import Steady

EVERY_S = 5.0


def start(settings: WorkerSettings) -> None:
    """Look after it from a thread. To be called in the worker's parent process only."""
    threading.Thread(target=_keep, args=(settings,), name="shadow", daemon=True).start()


def _keep(settings: WorkerSettings) -> None:
    database = wiring.database(settings.model_copy(update={"database_pool": 1}), "shadow")
    companion: subprocess.Popen[bytes] | None = None
    steady = Steady(get("worker"), "shadow")
    while True:
        time.sleep(EVERY_S)
        with steady, suppress(Unavailable):
            if companion is not None and companion.poll() is None:
                continue
            if companion is not None and companion.returncode:
                get("worker").warning("process of shadow runs died", status=companion.returncode)
            companion = _started(database)


def _started(database: Database) -> subprocess.Popen[bytes] | None:
    with database.transaction() as session:
        if not shadow.due(session):
            return None
    # By the kernel's word it ends with this thread, however the worker ends.
    return leashed.spawn([sys.executable, "-m", "worker.shadow"], on_parent_death=signal.SIGTERM)
