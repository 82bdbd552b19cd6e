"""A worker's prefork child: what it is made of, its heartbeat and its stop. It imports torch only when work comes.

The parent imports this module too, and must stay free of torch and of the device.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from billiard import active_children, current_process  # type: ignore[import-untyped]
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutting_down

from db import moderations
from db.errors import DbError
from db.session import Database
from worker import collector, log, wiring
from worker.heartbeat import Counters, Heartbeat
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from worker.infer import Inference
    from worker.predictors import Predictors


class Child:
    """The process-wide state of one prefork child: one device, one database pool, one heartbeat."""

    def __init__(self, settings: WorkerSettings, index: int) -> None:
        self.settings = settings
        self.device = settings.devices[index % len(settings.devices)]
        self.stop = threading.Event()
        self._counters = Counters()
        self._database: Database = wiring.database(settings, "worker")
        self._started = time.monotonic()
        self._canary_at: float | None = None
        self._busy = False
        self._pools: Callable[[int, FrameType | None], Any] | int | None = None
        self._warmed: dict[str, str] = {}
        self._inference: Inference | None = None
        self._predictors: Predictors | None = None
        self._heartbeat = Heartbeat(self._database, "worker", every_s=settings.heartbeat_s, stats=self._stats)

    def start(self) -> None:
        """Say that this child lives."""
        self._heartbeat.start()

    def close(self) -> None:
        """Say goodbye: leases that are left go back at once."""
        self._heartbeat.stop()
        self._database.dispose()

    def drain(self, hint: int) -> None:
        """Run the infer stage. A fault that nobody expected ends this process: the next has a clean device."""
        if self.stop.is_set():
            raise SystemExit(0)  # it was told to stop in an earlier drain, and nobody has ended it since
        self._busy = True
        self._listen()
        try:
            self._stage().run(hint)
        except DbError as error:
            log.get("worker").warning("drain ended early", code=error.code, error=str(error))
        except Exception:  # noqa: BLE001 — top of the stage
            log.get("worker").exception("drain failed, replacing this process")
            os._exit(70)
        finally:
            self._busy = False

    def _listen(self) -> None:
        """A SIGTERM ends a drain between two pictures, however many come: chunks in hand are recorded or given back.
        With nothing in hand it ends the process, as the pool's own handler does.

        Not at the start of the process, because the pool sets its handler after that: it leaves in the middle of
        whatever runs, and a second signal kills.
        """
        pools = signal.getsignal(signal.SIGTERM)
        if pools == self._told or threading.current_thread() is not threading.main_thread():
            return
        self._pools = pools
        signal.signal(signal.SIGTERM, self._told)

    def _told(self, signum: int, frame: FrameType | None) -> None:
        if self._busy:
            self.stop.set()
        elif callable(self._pools):
            self._pools(signum, frame)
        else:
            raise SystemExit(0)

    def heard_canary(self) -> None:
        """A canary came through the broker: with nothing else to do, be ready for the next upload."""
        self._canary_at = time.monotonic()
        if self.settings.warm_models:
            self._warm()

    def _warm(self) -> None:
        """Load what a single upload needs before one comes: its sender waits, and torch and a network take seconds."""
        try:
            with self._database.transaction() as session:
                models = moderations.models(session)
        except DbError as error:
            log.get("worker").warning("no models loaded ahead", code=error.code, error=str(error))
            return
        if not models or models == self._warmed:
            return
        stage = self._stage()
        from worker.predictors import ModelUnavailable

        # What does not load is told by the predictors, and asked for again at a later canary.
        with suppress(ModelUnavailable):
            stage.predictor(models)
            self._warmed = models

    def _stage(self) -> "Inference":
        if self._inference is None:
            from worker.infer import Inference
            from worker.predictors import Predictors

            self._predictors = Predictors(self.settings, self._database, self.device)
            self._inference = Inference(
                self.settings, self._database, wiring.blobs(self.settings), self._predictors, self._heartbeat.id,
                self._counters,
            )  # fmt: skip
            self._inference.stop = self.stop
        return self._inference

    def _stats(self) -> dict[str, Any]:
        now = time.monotonic()
        canary_age = None if self._canary_at is None else round(now - self._canary_at, 1)
        return {
            "device": self.device, "busy": self._busy, "canary_age_s": canary_age,
            "up_s": round(now - self._started, 1), **self._counters.snapshot(),
            # `tagmill doctor` reads these: else only the log would say why a job waits.
            "not_loaded": [] if self._predictors is None else self._predictors.not_loaded(),
        }  # fmt: skip


_child: Child | None = None


def current() -> Child:
    """This process' child state. Made by Celery's signal; made here when a task runs without a pool (tests)."""
    global _child
    if _child is None:
        _child = Child(WorkerSettings(), 0)
        _child.start()
    return _child


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _started(**_: object) -> None:
    global _child
    settings = WorkerSettings()
    log.configure(settings.log_format)
    child = Child(settings, getattr(current_process(), "index", 0))
    child.start()
    collector.settle()
    _child = child


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _stopped(**_: object) -> None:
    if _child is not None:
        _child.close()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stopping(**_: object) -> None:
    """In the parent: Celery's warm shutdown waits for running tasks, so tell them to end."""
    for process in active_children():
        if process.pid is not None:
            os.kill(process.pid, signal.SIGTERM)
