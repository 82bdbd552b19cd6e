"""Works on shadow runs: a process of its own, beside the line and never in its way.

    turn:    no ready chunk of a job? → claim a run → its next pictures → both models → record, hand back
    process: turns until nothing has been due for a while; lowest priority, first to go when memory runs out

It shares neither a process nor a device with live work: a candidate that hangs, crashes or eats memory harms this
process alone. It is started by `worker.shadow_companion`, or by hand with `tagmill shadow work`.
"""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from db import erasure_fence, images, registry, shadow, shadow_sample
from db.blob_store import Blobs
from db.errors import LeaseLost, NotFound, Unavailable
from db.ids import uuid7
from db.learning_tables import ShadowRun
from db.session import Database
from db.shadow_sample import Sample, SamplePicture
from ml import artifact
from worker import failpoints, log, wiring
from worker.infer import BlobAltered
from worker.predictors import DOES_NOT_LOAD, folder
from worker.settings import WorkerSettings
from worker.shadow_pair import Models, Outcome

TURN = 32  # pictures of a claim: what a death costs, and how long live work may wait for the processor's caches
IDLE_S = 3.0  # before a run that has seen everything is looked at again
LINGER_S = 60.0
PATIENCE_S = 900  # a turn that takes longer hangs: it loses its lease, and its process ends
_LAST_WORDS_S = 20


class ModelNotLoaded(Exception):
    """One of the two models does not load here. `code` is the reason's."""

    def __init__(self, ref: str, cause: BaseException) -> None:
        super().__init__(f"{ref}: {cause or type(cause).__name__}")
        self.code = str(getattr(cause, "code", "model_unavailable"))


class Shadow:
    """The stage in one process, one turn at a time."""

    def __init__(
        self,
        settings: WorkerSettings,
        database: Database,
        blobs: Blobs,
        *,
        device: str = "cpu",
        settle_s: float = shadow.SETTLE_S,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._device = device
        self._settle_s = settle_s
        self._owner = uuid7()
        self._models: tuple[tuple[str, str], Models] | None = None
        self._left: ShadowRun | None = None  # by an outage of the database, in the middle of a turn
        self._log = log.get("shadow")

    def turn(self) -> bool:
        """Claim one run and do its next pictures; False when nothing was due. Raises Unavailable."""
        with self._database.transaction() as session:
            if self._left is not None:
                shadow.release(session, self._left)  # an outage must not count as a death
            if not shadow.due(session, self._settle_s):
                return False
            run = shadow.claim(session, self._owner, self._settings.lease_s)
            if run is None:
                return False
            sample = shadow_sample.next_pictures(session, run, TURN, self._settle_s)
        self._left = run
        failpoints.hit("shadow_after_claim")
        try:
            with self._beating(run):
                outcome = self._worked(run, sample.pictures)
            self._record(run, sample, outcome)
        except ModelNotLoaded as error:
            self._log.error("model does not load", run=str(run.id), code=error.code, error=str(error))
            with suppress(LeaseLost), self._database.transaction() as session:
                shadow.not_loaded(session, run, error.code, str(error), self._settings.model_retry_s)
        except LeaseLost:
            self._log.info("turn dropped, the run has ended or is another's", run=str(run.id))
        self._left = None
        return True

    def _worked(self, run: ShadowRun, pictures: list[SamplePicture]) -> Outcome:
        if not pictures:
            return Outcome()
        return self._loaded(run).compare(pictures, self._read)

    def _record(self, run: ShadowRun, sample: Sample, outcome: Outcome) -> None:
        with self._database.transaction() as session:
            for account_id in sorted({each.picture.account_id for each in outcome.compared} | set(outcome.analyses)):
                erasure_fence.share_lock(session, account_id)
            shadow_sample.record(
                session,
                run,
                outcome.compared,
                sample.position,
                spent=outcome.spent,
                agreed=outcome.agreed,
                delay_s=0.0 if sample.more else IDLE_S,
            )
            for account_id, scores in sorted(outcome.analyses.items()):
                images.record_analyses(session, account_id, run.model, scores)
            shadow.settle(session)
            failpoints.hit("before_shadow_commit")
        if outcome.compared:
            self._log.info("compared", model=run.model, against=run.against, pictures=len(outcome.compared))

    def _read(self, picture: SamplePicture) -> bytes:
        data = self._blobs.get(picture.work_key)
        if picture.work_sha256 is not None and hashlib.sha256(data).digest() != picture.work_sha256:
            raise BlobAltered(f"{picture.work_key} was changed after it was stored")
        return data

    def _loaded(self, run: ShadowRun) -> Models:
        """Both models of the run; those of the last run are let go."""
        refs = (run.against, run.model)
        if self._models is not None and self._models[0] == refs:
            return self._models[1]
        self._models = None
        started = time.perf_counter()
        active, candidate = (self._artifact(ref) for ref in refs)
        try:
            models = Models(
                active,
                candidate,
                device=self._device,
                backend=self._settings.backend,
                batch_size=self._settings.batch_size,
            )
        except DOES_NOT_LOAD as error:
            raise ModelNotLoaded(" or ".join(refs), error) from error
        self._models = (refs, models)
        self._log.info("models loaded", models=list(refs), seconds=round(time.perf_counter() - started, 2))
        return models

    def _artifact(self, ref: str) -> artifact.Artifact:
        name, _, version = ref.rpartition("@")
        try:
            with self._database.transaction() as session:
                expected = registry.by_ref(session, ref).sha256
            return artifact.load(folder(self._settings.model_root, name, version), expected)
        except (*DOES_NOT_LOAD, NotFound) as error:
            raise ModelNotLoaded(ref, error) from error

    @contextmanager
    def _beating(self, run: ShadowRun) -> Iterator[None]:
        """Inside, a thread keeps the lease, but not for ever."""
        ended = threading.Event()
        give_up = time.monotonic() + PATIENCE_S

        def beat() -> None:
            while not ended.wait(self._settings.lease_s / 4) and time.monotonic() < give_up:
                with suppress(Unavailable), self._database.transaction() as session:
                    if not shadow.beat(session, run, self._settings.lease_s):
                        return
            if not ended.is_set():
                self._log.error("turn takes too long, its lease is given up", run=str(run.id), model=run.model)

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def work(stage: Shadow, stop: threading.Event, linger_s: float | None, patience_s: int | None = None) -> None:
    """Turns until `stop`, or until nothing has been due for `linger_s`. A turn that takes longer than `patience_s` ends
    the process: what hangs would keep its place, and no other process be started for the run."""
    worked_at = time.monotonic()
    while not stop.is_set():
        try:
            if patience_s is not None:
                signal.alarm(patience_s)  # its default action: a network that hangs inside a call hears no Python
            if stage.turn():
                worked_at = time.monotonic()
                continue
        except Unavailable as error:
            log.get("shadow").warning("no turn", code=error.code, error=str(error))
        if linger_s is not None and time.monotonic() - worked_at > linger_s:
            return
        stop.wait(1.0)


def stand_back() -> None:
    """Let everything else on this machine go first, and be the first to end when memory runs out."""
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def stop_on_signals(stop: threading.Event) -> None:
    """Make SIGTERM and SIGINT end the process after the turn in hand, or in any case soon."""

    def stopping(*_: object) -> None:
        stop.set()
        # A network that hangs inside a call hears no Python: the alarm's default ends the process.
        signal.alarm(_LAST_WORDS_S)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopping)


def main(*, linger_s: float | None = LINGER_S, device: str = "cpu") -> int:
    """Work until nothing is due, or until SIGTERM."""
    settings = WorkerSettings()
    log.configure(settings.log_format)
    stop = threading.Event()
    stop_on_signals(stop)
    stand_back()
    database = wiring.database(settings.model_copy(update={"database_pool": 2}), "shadow")
    try:
        work(Shadow(settings, database, wiring.blobs(settings), device=device), stop, linger_s, PATIENCE_S)
    finally:
        database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
