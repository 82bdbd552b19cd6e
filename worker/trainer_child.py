"""One training run in a process of its own: `python -m worker.trainer_child`, started by the trainer role.

It steps back for other processes, takes no more threads than it may, and ends with the run.
"""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from db.errors import Unavailable
from worker import log, wiring
from worker.settings import WorkerSettings
from worker.train_progress import words

AGAIN = 75  # EX_TEMPFAIL: the database went away; the run's lease frees it


def main() -> int:
    """Claim the oldest run that waits and carry it out. Exit code 0 however it ended, also if none waited."""
    settings = WorkerSettings()
    log.configure(settings.log_format)
    os.nice(settings.trainer_nice)
    _give_way()
    logger = log.get("trainer")

    def heard(event: Mapping[str, Any]) -> None:
        if event["event"] != "step":
            logger.info(words(event))

    from worker.train_runs import Trainer  # brings torch

    database = wiring.database(settings, "training")
    trainer = Trainer(
        database,
        wiring.blobs(settings),
        settings.model_root,
        lease_s=settings.lease_s,
        max_threads=settings.trainer_threads or max(1, (os.cpu_count() or 1) // 2),
        on_event=heard,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: trainer.stop.set())
    try:
        run = trainer.run_once()
    except Unavailable as error:
        logger.warning("the database went away", error=str(error))
        return AGAIN
    finally:
        database.dispose()
    if run is not None:
        logger.info("run ended", run=str(run.id), model=f"{run.name}@{run.version}", state=run.state, code=run.code)
    return 0


def _give_way() -> None:
    """Where memory runs out, the kernel shall end this process and not the database."""
    with suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text("800")


if __name__ == "__main__":
    sys.exit(main())
