"""The maintenance process: runs dispatcher, reaper, finaliser and tidying, each in its own thread and pace.

Any number of these processes may run: what must not happen twice at a time takes an advisory lock in Postgres.
A duty that fails is logged and tried again at its next turn; no duty waits for another.
"""

import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from types import FrameType
from uuid import UUID

from db import blob_removals, buckets, delivery_queue, hosts, idempotency, locks, sessions, shadow, validators, workers
from db.errors import DbError
from db.session import Database
from worker import deliver, finalise, log, model_moves, retaining, sealing, wiring
from worker.dispatch import Dispatcher, Turns
from worker.erasing import Eraser
from worker.heartbeat import Counters, Heartbeat, Stopwatch
from worker.late import Decider
from worker.log import Throttle
from worker.looking import Look
from worker.orphan_sweep import OrphanSweep
from worker.reap import Reaper
from worker.replaying import Replayer
from worker.reporting import REVIEWS_EVERY_S, Report
from worker.settings import WorkerSettings

# What is done every second shares one look at indexes (`worker.looking`) while nothing of its kind is there.
BAN_EVERY_S = 1.0
LATE_EVERY_S = 1.0
MODELS_EVERY_S = 1.0
REPLAY_EVERY_S = 1.0  # somebody waits for it
SEAL_EVERY_S = 1.0
ERASE_EVERY_S = 5.0
JOURNALS_EVERY_S = 60.0  # a database that was restored from before an erasure forgets again
DRIFT_EVERY_S = 600.0  # it is due once a day; more often, to catch up after an outage


@dataclass(frozen=True)
class Duty:
    """Something to do every `every_s`, or after as long as it says; `run` says how many things it did."""

    name: str
    every_s: float | Callable[[], float]
    run: Callable[[], int]


def duties(
    settings: WorkerSettings, database: Database, dispatcher: Dispatcher, owner: UUID, stop: threading.Event
) -> list[Duty]:
    """What this process does, and how often; `owner` is its name in the leases it takes."""
    # Twice what a live owner may need: a beat, or a third of a lease to extend it.
    grace_s = max(2 * settings.heartbeat_s, settings.lease_s * 2 / 3)
    turns = Turns(dispatcher, settings)
    reaper = Reaper(database, stale_s=settings.stale_s, grace_s=grace_s)

    def reap_once() -> int:
        reaped = reaper.run_once()
        return reaped.released + reaped.split + reaped.poisoned

    def drop_bucket() -> int:
        with database.transaction() as session:  # alone: it locks tables for a moment
            return int(buckets.drop_empty(session) is not None)

    def end_shadow_runs() -> int:
        with database.transaction() as session:
            return shadow.settle(session)

    look = Look(database)
    failed_days: dict[date, float] = {}

    def compute_drift() -> int:
        from worker import drifting  # numpy, which the first seconds of this process need not wait for

        return drifting.run_once(database, failed_days)

    def ban() -> int:
        from worker import banning  # numpy again

        return banning.run_once(database, settings.bank_surge, stop)

    return [
        *forgetting(settings, database, look, stop),
        Duty("dispatch", turns.pause_s, turns),
        Duty("reap", settings.reap_every_s, reap_once),
        Duty("finalise", settings.finalise_every_s, look.gated("jobs", lambda: finalise.run_once(database))),
        Duty("shadow", settings.reap_every_s, end_shadow_runs),
        Duty("seal", SEAL_EVERY_S, look.gated("audit", lambda: sealing.run_once(database))),
        Duty("tidy", settings.tidy_every_s, partial(tidy, settings, database)),
        Duty("buckets", settings.tidy_every_s, drop_bucket),
        Duty("ban", BAN_EVERY_S, look.gated("banks", ban)),
        Duty("late", LATE_EVERY_S, look.gated("jobs", Decider(settings, database, owner, stop).run_once)),
        Duty(
            "models", MODELS_EVERY_S, look.gated("moves", lambda: model_moves.due(database, model_moves.in_a_process))
        ),
        Duty("replay", REPLAY_EVERY_S, look.gated("replays", Replayer(database, stop).run_once)),
        Duty("drift", DRIFT_EVERY_S, compute_drift),
    ]


def tidy(settings: WorkerSettings, database: Database) -> int:
    """Forget what has had its time; whether a new bucket was opened. One process at a time."""
    with database.transaction() as session:
        if not locks.try_lock(session, "tidy"):
            return 0
        hosts.forget(session)
        workers.forget(session)
        idempotency.forget(session)
        validators.forget(session, settings.validator_keep_days)
        sessions.forget(session)
        blob_removals.forget(session)
        delivery_queue.forget(session, settings.webhook_keep_days)
        return int(buckets.open_when_full(session) is not None)


def forgetting(settings: WorkerSettings, database: Database, look: Look, stop: threading.Event) -> list[Duty]:
    """What this process does to forget: on request, again after a restored backup, for age, and what nothing names."""
    open_blobs = partial(wiring.blobs, settings)
    eraser = Eraser(database, open_blobs, stop)
    orphans = OrphanSweep(settings, database, open_blobs, stop)
    return [
        Duty("erase", ERASE_EVERY_S, look.gated("erasures", eraser.run_once)),
        Duty("journals", JOURNALS_EVERY_S, eraser.replay),
        Duty("retention", settings.tidy_every_s, lambda: retaining.run_once(settings, database, open_blobs)),
        Duty("orphans", settings.tidy_every_s, orphans.run_once),
    ]


def keep(duty: Duty, stop: threading.Event, counters: Counters) -> None:
    """Run one duty until `stop`; failures cost a line per ten seconds and nothing else."""
    logger = log.get("maintenance")
    throttle = Throttle(10)
    while not stop.is_set():
        try:
            with Stopwatch(counters, f"{duty.name}_s", cpu=f"{duty.name}_cpu_s"):
                counters.add(**{duty.name: duty.run()})
            throttle.reset()
        except DbError as error:
            if throttle.ready():
                logger.warning("duty failed, will try again", duty=duty.name, code=error.code, error=str(error))
        except Exception:  # top of the stage: one duty's fault must not end the others
            if throttle.ready():
                logger.exception("duty failed unexpectedly, will try again", duty=duty.name)
        stop.wait(duty.every_s() if callable(duty.every_s) else duty.every_s)


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    settings = WorkerSettings()
    log.configure(settings.log_format)
    stop = threading.Event()

    def stopping(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopping)
    signal.signal(signal.SIGINT, stopping)
    database = wiring.database(settings, "maintenance")
    dispatcher = Dispatcher(settings, database)
    counters = Counters()
    report = Report(settings, counters)
    with Heartbeat(database, "maintenance", every_s=settings.heartbeat_s, stats=report.stats) as beat:
        threads = [
            threading.Thread(target=keep, args=(duty, stop, counters), name=duty.name)
            for duty in duties(settings, database, dispatcher, beat.id, stop)
        ]
        count = Duty("count", REVIEWS_EVERY_S, lambda: report.count_reviews(database))
        threads.append(threading.Thread(target=keep, args=(count, stop, counters), name=count.name))
        threads.append(threading.Thread(target=deliver.keep, args=(settings, beat.id, stop, counters), name="webhooks"))
        for thread in threads:
            thread.start()
        log.get("maintenance").info("maintenance started")
        while not stop.wait(3600):
            continue
        for thread in threads:
            thread.join()
    dispatcher.close()
    database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
