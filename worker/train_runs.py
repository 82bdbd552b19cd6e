"""Carries out training runs: claims one, trains from its last checkpoint, keeps its lease, registers what comes of it.

    claim → manifest, start weights → ml.train (checkpoints in the run's folder) → model folder, registered as candidate
               ↑ a thread beats while it trains; a run that was cancelled or taken over stops at its next step

A trainer that dies is noticed by its lease: whoever claims next goes on from the checkpoint, if it sees the same disk.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from db import datasets, registry, training
from db.blobs import LocalBlobs
from db.errors import DbError, LeaseLost, Unavailable
from db.ids import uuid7
from db.session import Database
from db.tables import Dataset, TrainingRun
from ml import artifact
from ml.errors import ModelError
from worker import failpoints, manifests, model_bundle
from worker.errors import WorkerError
from worker.log import get

Event = Mapping[str, Any]
LEASE_S = 60.0


class RunStopped(WorkerError):
    """The run was cancelled or taken over, or this process was asked to stop."""

    code = "run_stopped"


class Trainer:
    """Trains claimed runs in this process. `stop` may be set from anywhere, also from a signal handler."""

    def __init__(
        self,
        database: Database,
        blobs: LocalBlobs,
        model_root: Path,
        *,
        lease_s: float = LEASE_S,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.stop = threading.Event()
        self._database = database
        self._blobs = blobs
        self._root = model_root
        self._lease_s = lease_s
        self._on_event = on_event
        self._owner = uuid7()
        self._lost = threading.Event()
        self._progress: dict[str, Any] | None = None
        self._log = get("train")

    def run_once(self, run_id: UUID | None = None) -> TrainingRun | None:
        """Claim a waiting run (or this one) and carry it out; the run as it is afterwards, None when none waits."""
        with self._database.transaction() as session:
            run = training.claim(session, self._owner, self._lease_s, run_id)
            if run is None:
                return None
            dataset = datasets.by_id(session, run.dataset_id)
        self._lost.clear()
        ended = threading.Event()
        beats = threading.Thread(target=self._beat, args=(run, ended), name="beat", daemon=True)
        beats.start()
        try:
            self._carry_out(run, dataset)
        except RunStopped as error:
            self._log.info("training stopped", run=str(run.id), why=str(error))
            with self._database.transaction() as session:
                training.release(session, run)
        except LeaseLost as error:
            self._log.warning("the run is another trainer's by now", run=str(run.id), why=str(error))
        except Unavailable:
            raise  # the lease runs out, and the next trainer goes on from the checkpoint
        except (ModelError, WorkerError, DbError, OSError) as error:
            code = getattr(error, "code", "io_error")
            self._log.error("training failed", run=str(run.id), code=code, error=str(error))
            with self._database.transaction() as session:
                training.fail(session, run, code, str(error))
        finally:
            ended.set()
            beats.join()
        with self._database.transaction() as session:
            return training.get(session, run.id)

    def folder(self, run: TrainingRun) -> Path:
        """Where checkpoints and the cache of a run are; kept until its model is registered."""
        return self._root / ".runs" / str(run.id)

    def _carry_out(self, run: TrainingRun, dataset: Dataset) -> None:
        from ml import train
        from ml.train_config import from_dict

        manifest = manifests.load(self._blobs, dataset)
        config = from_dict({**run.config, "name": run.name, "version": run.version})
        out = self.folder(run)
        out.mkdir(parents=True, exist_ok=True)
        made = train.train(
            manifest,
            manifests.root_of(self._blobs, dataset),
            config,
            out,
            init=self._init(run),
            resume=True,
            on_event=self._heard,
        )
        self._heard({"event": "trained", "sha256": made.sha256})
        brought = model_bundle.bring(self._root, out / "model")
        with self._database.transaction() as session:
            registry.install_model(session, brought.card, brought.sha256)
            training.finish(session, run)

    def _init(self, run: TrainingRun) -> artifact.Artifact | Path | None:
        """Registered weights by name@version, or those of a file."""
        if run.init is None:
            return None
        if "@" not in run.init:
            return Path(run.init)
        with self._database.transaction() as session:
            model = registry.by_ref(session, run.init)
        return artifact.load(self._root / model.name / model.version, model.sha256)

    def _heard(self, event: Event) -> None:
        """An event of the training, in its own thread: the place where it can be stopped."""
        if event["event"] in ("epoch", "checkpoint"):
            # Only what a successor can build on counts as progress.
            self._progress = {key: value for key, value in event.items() if key not in ("event", "path")}
        self._on_event(event)
        if event["event"] == "checkpoint":
            failpoints.hit("train_checkpoint")
        if self._lost.is_set():
            raise RunStopped("the run was cancelled or taken over")
        if self.stop.is_set():
            raise RunStopped("asked to stop")

    def _beat(self, run: TrainingRun, ended: threading.Event) -> None:
        while not ended.wait(self._lease_s / 4):
            progress, self._progress = self._progress, None
            try:
                with self._database.transaction() as session:
                    if not training.beat(session, run, self._lease_s, progress):
                        self._lost.set()
                        return
            except Unavailable as error:
                self._progress = self._progress or progress
                self._log.warning("no heartbeat", run=str(run.id), error=str(error))
