"""The trainer role: waits for training runs and carries each out in a process of its own; imports no torch itself.

    a run waits → child: `worker.trainer_child` (claims, trains, registers, ends) → look again

So an idle trainer is as small as any other role, and what a training takes of memory goes with its end.
"""

import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

from db import training
from db.errors import Unavailable
from db.session import Database
from worker import leashed, log, wiring
from worker.heartbeat import Heartbeat
from worker.log import Throttle
from worker.roleprocess import pause_before_restart
from worker.settings import WorkerSettings

CHILD = [sys.executable, "-m", "worker.trainer_child"]
FRESH_S = 2.0  # a run just queued may be about to be carried out by the command that queued it
_LOOK_S = 0.5


class TrainerRole:
    """One process that looks for runs, and the child that it may have at the time."""

    def __init__(self, settings: WorkerSettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._child: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._due = 0.0
        self._trained = 0
        self._throttle = Throttle(10)
        self._log = log.get("trainer")

    def stats(self) -> dict[str, Any]:
        """For the heartbeat."""
        return {"training": self._child is not None, "children": self._trained}

    def turn(self, now: float) -> float:
        """Look once: at the child, or for a run. Returns the seconds to wait. `now` is time.monotonic()."""
        if self._child is not None:
            self._look_at(self._child, now)
            return _LOOK_S
        if now >= self._due and self._waits():
            # From the main thread: the kernel ends the child with the thread that started it.
            self._child = leashed.spawn(CHILD)
            self._trained += 1
            return _LOOK_S
        return self._settings.trainer_poll_s

    def close(self) -> None:
        """Ask the child for its checkpoint and wait for it; past the grace time its lease frees the run."""
        if self._child is not None:
            grace = self._settings.stop_grace_s
            leashed.end_child(self._child, ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)))

    def _look_at(self, child: "subprocess.Popen[bytes]", now: float) -> None:
        code = child.poll()
        if code is None:
            return
        self._child = None
        self._failures = 0 if code == 0 else self._failures + 1
        if code != 0:
            pause = pause_before_restart(self._failures)
            self._due = now + pause
            self._log.warning("a training process died", code=code, pause_s=pause)

    def _waits(self) -> bool:
        try:
            with self._database.transaction() as session:
                found = training.waiting(session, FRESH_S) > 0
        except Unavailable as error:
            if self._throttle.ready():
                self._log.warning("cannot look for runs", error=str(error))
            return False
        self._throttle.reset()
        return found


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    settings = WorkerSettings()
    log.configure(settings.log_format)
    stop = threading.Event()

    def stopping(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopping)
    signal.signal(signal.SIGINT, stopping)
    database = wiring.database(settings, "trainer")
    role = TrainerRole(settings, database)
    with Heartbeat(database, "trainer", every_s=settings.heartbeat_s, stats=role.stats):
        log.get("trainer").info("trainer started")
        try:
            while not stop.wait(role.turn(time.monotonic())):
                continue
        finally:
            role.close()
    database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
