"""The infer stage: leases chunks of working copies, scores them in batches across chunks, records results.

    claim chunk → its pictures → (scores stored before?) → blobs → decode ahead → batches → scores → policy → rows
          ↑ the next chunk is claimed while the last pictures of this one are still on the device
    record: scores, results and the chunk's end in one transaction; a lost lease rolls all of it back

No transaction is open while pictures are read, decoded or scored. The batches are made in `worker.infer_stream`.
"""

import hashlib
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from db import chunks
from db.blob_store import Blobs
from db.chunks import ChunkImage
from db.errors import BlobError, LeaseLost, Unavailable
from db.recording import InferOutcome
from db.session import Database
from ml.batcher import Predicts
from worker import failpoints, infer_rows
from worker.heartbeat import Counters, Stopwatch
from worker.infer_stream import Stream
from worker.infer_work import Work
from worker.leases import LeaseKeeper, Leases
from worker.log import get
from worker.overtaking import Overtaking
from worker.predictors import Predictors
from worker.settings import WorkerSettings


class BlobAltered(BlobError):
    """The working copy is not what the crawler stored."""

    code = "blob_altered"


@dataclass
class Drained:
    """What one task did; `lost`: chunks that were another's by the time they could have ended."""

    chunks: int = 0
    images: int = 0
    lost: int = 0


class Inference:
    """The stage in one process. One `run` at a time; `stop` may be set from anywhere, also from a signal handler."""

    def __init__(
        self,
        settings: WorkerSettings,
        database: Database,
        blobs: Blobs,
        predictors: Predictors,
        owner: UUID,
        counters: Counters | None = None,
    ) -> None:
        self.settings = settings
        self.counters = counters or Counters()
        self.leases = Leases(database, settings.lease_s)
        self.overtaking = Overtaking(settings.urgent_poll_s, time.monotonic)
        self.stop = threading.Event()
        self._database = database
        self._blobs = blobs
        self._predictors = predictors
        self._owner = owner
        self._deadline = 0.0
        self._drained = Drained()
        self._log = get("infer")

    def run(self, hint: int | None = None) -> Drained:
        """Work until nothing is ready, the time budget ends or `stop` is set; the hinted chunk first."""
        self._deadline = time.monotonic() + self.settings.infer_budget_s
        self._drained = Drained()
        try:
            with LeaseKeeper(self.leases, self.settings.hung_after_s):
                work = self.claim(hint)
                while work is not None and not self.stop.is_set():
                    work = Stream(self).run(work) or self.claim()
            if work is not None:
                self.give_back(work)
        finally:
            self.leases.clear()  # after a fault: what was in hand must not be extended with later work
        if self._drained.chunks or self._drained.lost:
            times = {name: value for name, value in self.counters.snapshot().items() if name.endswith("_s")}
            self._log.info("drained", **vars(self._drained), since_start=times)
        return self._drained

    def claim(self, hint: int | None = None, *, but_not: Collection[int] | None = None) -> Work | None:
        """Lease one chunk and read what its pictures need; None when nothing is ready or it is time to end.

        With `but_not`, only of the interactive lane, and of none of these accounts.
        """
        urgent = but_not is not None
        # The chunk in hand is worked on beyond the time to end, and what is urgent overtakes it to the last.
        if self.stop.is_set() or (time.monotonic() >= self._deadline and not urgent):
            return None
        watch = Stopwatch(self.counters, "claim_s", cpu="claim_cpu_s")
        try:
            with watch, self._database.transaction() as session:
                if urgent and not chunks.urgent_ready(session, "infer"):
                    return None
                lease_s = self.settings.lease_s
                claimed = chunks.claim(
                    session, "infer", self._owner, lease_s, 1, hint, urgent=urgent, but_not=but_not or ()
                )
                if not claimed:
                    return None
                work = infer_rows.read(session, claimed[0])
        except Unavailable as error:
            self._log.warning("no chunk claimed", error=str(error))
            return None
        self.leases.add(work.chunk)
        failpoints.hit("infer_after_claim")
        return work

    def predictor(self, models: Mapping[str, str]) -> Predicts:
        """The predictor of these models, loaded at the first use. Raises ModelUnavailable."""
        with self.leases.moving(self.settings.model_load_s), Stopwatch(self.counters, "load_s"):
            return self._predictors.get(models)

    def read(self, image: ChunkImage) -> bytes:
        """The bytes of a working copy. Raises BlobMissing or BlobAltered."""
        failpoints.hit("on_image", image.sha256.hex())
        data = self._blobs.get(image.work_key)
        if image.work_sha256 is not None and hashlib.sha256(data).digest() != image.work_sha256:
            raise BlobAltered(f"{image.work_key} was changed after it was stored")
        return data

    def record(self, work: Work) -> None:
        """End a complete chunk. Tries as long as the lease can last; what it cannot record, another will do again."""
        outcomes = work.outcomes(top_k=self.settings.tags_top_k, min_score=self.settings.tags_min_score)
        give_up = time.monotonic() + self.settings.lease_s
        try:
            while not self._recorded(work, outcomes):
                if time.monotonic() >= give_up:
                    self._drained.lost += 1
                    return
                self.leases.trying()
                time.sleep(0.25)
        except LeaseLost:
            # Also after a connection lost at COMMIT, when the chunk did end: either way nothing is left to do.
            self._log.warning("result dropped, the chunk is no longer ours", chunk=work.chunk.id)
            self._drained.lost += 1
            return
        finally:
            self.leases.remove(work.chunk)
        failpoints.hit("after_infer_commit")
        self._drained.chunks += 1
        self._drained.images += len(outcomes)
        self.counters.add(chunks=1, images=len(outcomes), late=len(outcomes) * work.late, known_scores=work.known)

    def give_back(self, work: Work, *, delay_s: float = 0.0) -> None:
        """Make a chunk ready again with its attempt returned; scores it has already are kept."""
        self.leases.remove(work.chunk)
        try:
            with self._database.transaction() as session:
                if chunks.release(session, work.chunk, delay_s=delay_s):
                    infer_rows.store_scores(session, work)
        except Unavailable as error:
            self._log.warning("chunk not given back, its lease will run out", chunk=work.chunk.id, error=str(error))

    def _recorded(self, work: Work, outcomes: list[InferOutcome]) -> bool:
        try:
            watch = Stopwatch(self.counters, "record_s", cpu="record_cpu_s")
            with watch, self._database.transaction() as session:
                infer_rows.record(session, work, outcomes, audit_share=self.settings.audit_share)
                failpoints.hit("before_infer_commit")
        except Unavailable as error:
            self._log.warning("chunk not recorded yet", chunk=work.chunk.id, error=str(error))
            return False
        return True
