"""Carries out training runs: claims one, trains from its last checkpoint, keeps its lease, registers what comes of it.

    claim → manifest, start weights → ml.train (checkpoints in the run's folder) → model folder, registered as candidate
               ↑ a thread beats while it trains; a run that was cancelled or taken over stops at its next step

A trainer that dies is noticed by its lease: whoever claims next goes on from the checkpoint, if it sees the same disk.
One that is asked to stop writes a checkpoint after its step and hands the run back.
"""

import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from db import datasets, registry, training, training_log
from db.blob_store import Blobs
from db.errors import DbError, LeaseLost, Unavailable
from db.ids import uuid7
from db.session import Database, Session
from db.tables import Dataset, TrainingRun
from ml import artifact
from ml.errors import ModelError, TrainingError, TrainingStopped
from worker import failpoints, manifests, model_bundle, start_weights
from worker.errors import WorkerError
from worker.log import get
from worker.train_progress import Progress

Event = Mapping[str, Any]
LEASE_S = 60.0
TELL_S = 3.0  # how often the row says how far the run is
_MOST_ENTRIES = training_log.KEPT


class RunStopped(WorkerError):
    """The run was cancelled or taken over, or this process was asked to stop before it began."""

    code = "run_stopped"


class TrainingCrashed(WorkerError):
    """The training raised what nobody foresaw: a network too deep for its pictures, a device that is not there."""

    code = "training_crashed"


class Trainer:
    """Trains claimed runs in this process. `stop` may be set from anywhere, also from a signal handler.

    `max_threads`: most threads that compute, and most that prepare pictures; None: as the run says.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        model_root: Path,
        *,
        lease_s: float = LEASE_S,
        max_threads: int | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.stop = threading.Event()
        self._database = database
        self._blobs = blobs
        self._root = model_root
        self._lease_s = lease_s
        self._max_threads = max_threads
        self._on_event = on_event
        self._owner = uuid7()
        self._lost = threading.Event()
        self._progress: dict[str, Any] | None = None
        self._live = Progress()
        self._entries: list[Event] = []
        self._lock = threading.Lock()
        self._log = get("train")

    def run_once(self, run_id: UUID | None = None) -> TrainingRun | None:
        """Claim a waiting run (or this one) and carry it out; the run as it is afterwards, None when none waits."""
        with self._database.transaction() as session:
            run = self.claim(session, run_id)
        return None if run is None else self.carry_out(run)

    def claim(self, session: Session, run_id: UUID | None = None) -> TrainingRun | None:
        """Lease a run to this trainer. In the transaction that queues it, no other can be quicker."""
        return training.claim(session, self._owner, self._lease_s, run_id)

    def carry_out(self, run: TrainingRun) -> TrainingRun:
        """Train a run that `claim` gave, to its end or to the stop; the run as it is afterwards."""
        with self._database.transaction() as session:
            dataset = datasets.by_id(session, run.dataset_id)
        self._lost.clear()
        self._live, self._entries = Progress(run.live), []
        ended = threading.Event()
        beats = threading.Thread(target=self._beat, args=(run, ended), name="beat", daemon=True)
        beats.start()
        try:
            self._carry_out(run, dataset)
        except (RunStopped, TrainingStopped) as error:
            self._log.info("training stopped", run=str(run.id), why=str(error))
            self._end(run, lambda session: training.release(session, run), {"event": "stopped", "why": str(error)})
            self._tidy(run)
        except Unavailable:
            raise  # the lease runs out, and the next trainer goes on from the checkpoint
        except (ModelError, WorkerError, DbError, OSError) as error:
            self._fail(run, error)
        except Exception as error:  # noqa: BLE001 — torch raises of every kind, and would again
            self._log.exception("training crashed", run=str(run.id))
            self._fail(run, TrainingCrashed(f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}"))
        finally:
            ended.set()
            beats.join()
        with self._database.transaction() as session:
            return training.get(session, run.id)

    def folder(self, run: TrainingRun) -> Path:
        """Where checkpoints and the cache of a run are; kept until it is finished or cancelled. A failed one's stay."""
        return self._root / ".runs" / str(run.id)

    def _carry_out(self, run: TrainingRun, dataset: Dataset) -> None:
        from ml import train
        from ml.train_config import from_dict

        manifest = manifests.load(self._blobs, dataset)
        config = from_dict({**run.config, "name": run.name, "version": run.version})
        out = self.folder(run)
        out.mkdir(parents=True, exist_ok=True)
        with manifests.pictures(self._blobs, dataset, manifest) as root:
            made = train.train(
                manifest,
                root,
                config,
                out,
                init=self._init(run),
                resume=True,
                max_threads=self._max_threads,
                on_event=self._heard,
                should_stop=self.stop.is_set,
            )
        self._heard({"event": "trained", "sha256": made.sha256})
        brought = model_bundle.bring(self._root, out / "model")

        def end(session: Session) -> None:
            registry.install_model(session, brought.card, brought.sha256)
            training.finish(session, run)

        self._end(run, end, {"event": "finished", "model": f"{run.name}@{run.version}"})
        self._tidy(run)

    def _tidy(self, run: TrainingRun) -> None:
        """Drop the checkpoint and the decoded pictures of a run that nobody goes on with."""
        try:
            with self._database.transaction() as session:
                state = training.get(session, run.id).state
        except Unavailable:
            return
        if state in ("finished", "cancelled"):
            shutil.rmtree(self.folder(run), ignore_errors=True)

    def _init(self, run: TrainingRun) -> artifact.Artifact | Path | None:
        """Registered weights by name@version, torchvision's own, or those of a file."""
        if run.init is None:
            return None
        if run.init == start_weights.IMAGENET:
            return start_weights.imagenet(self._root, run.config["architecture"])
        if "@" not in run.init:
            return Path(run.init)
        with self._database.transaction() as session:
            model = registry.by_ref(session, run.init)
        return artifact.load(self._root / model.name / model.version, model.sha256)

    def _fail(self, run: TrainingRun, error: Exception) -> None:
        code = getattr(error, "code", "io_error")
        self._log.error("training failed", run=str(run.id), code=code, error=str(error))
        detail = str(error)
        if isinstance(error, TrainingError) and error.checkpoint:
            detail += f"; the last good checkpoint is {error.checkpoint}"

        def end(session: Session) -> None:
            if code == "rank_died":  # the same run may well go on
                training.give_back(session, run, code, detail)
            else:
                training.fail(session, run, code, detail)

        self._end(run, end, {"event": "failed", "code": code, "detail": detail})

    def _heard(self, event: Event) -> None:
        """An event of the training, in its own thread: the place where it learns that the run is no longer its own."""
        with self._lock:
            if event["event"] in ("epoch", "checkpoint"):
                # Only what a successor can build on counts as progress.
                self._progress = {key: value for key, value in event.items() if key not in ("event", "path")}
            self._live.hear(event)
            if event["event"] != "step" and len(self._entries) < _MOST_ENTRIES:
                self._entries.append(event)
        self._on_event(event)
        if event["event"] == "checkpoint":
            failpoints.hit("train_checkpoint")
        if self._lost.is_set():
            raise RunStopped("the run was cancelled or taken over")
        if self.stop.is_set() and event["event"] in ("picture_skipped", "started"):
            raise RunStopped("asked to stop before the first step")

    def _beat(self, run: TrainingRun, ended: threading.Event) -> None:
        while not ended.wait(min(TELL_S, self._lease_s / 4)):
            try:
                if not self._tell(run):
                    self._lost.set()
                    return
            except Unavailable as error:
                self._log.warning("no heartbeat", run=str(run.id), error=str(error))

    def _tell(self, run: TrainingRun) -> bool:
        """Renew the lease and write what is new; False when the run is no longer ours."""
        with self._lock:
            progress, self._progress = self._progress, None
            entries, self._entries = self._entries, []
            live = self._live.snapshot()
        try:
            with self._database.transaction() as session:
                if not training.beat(session, run, self._lease_s, progress, live):
                    return False
                training_log.append(session, run.id, entries)
        except Unavailable:
            with self._lock:
                self._progress = self._progress or progress
                self._entries = entries + self._entries
            raise
        return True

    def _end(self, run: TrainingRun, end: Callable[[Session], object], event: Event) -> None:
        """The run's last transaction of this trainer, with what was not told yet; nothing if the run is not ours."""
        try:
            if not self._tell(run):
                raise LeaseLost("it was cancelled or taken over")
            with self._database.transaction() as session:
                end(session)
                training_log.append(session, run.id, [event])
        except LeaseLost as error:
            self._log.warning("the run is no longer this trainer's", run=str(run.id), why=str(error))
