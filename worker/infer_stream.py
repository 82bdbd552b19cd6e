"""The pictures of many chunks as one stream of batches, so that the device never waits at a chunk's border.

    source:  for each chunk, claimed when the last one's pictures are all handed out: its pictures without scores
    results: to every chunk that waits for this picture; a chunk with all of them is recorded in its own thread

One stream is for one set of models. Chunks may end in any order; the same bytes go through at most once.
A chunk on its last chance goes through alone: if it kills the process, no innocent chunk is judged with it.
Between two batches, an urgent chunk overtakes: it goes through in a stream of its own, whatever its models, and is
recorded, while the pictures of this one wait, decoded or not (docs/decisions/0020).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from db.chunks import ChunkImage
from db.errors import BlobError, BlobsAway
from ml import batcher
from ml.scores import Scores
from worker import verdicts
from worker.infer_work import Analyses, Work
from worker.log import get
from worker.predictors import ModelUnavailable

if TYPE_CHECKING:
    from worker.infer import Inference

Key = tuple[int, bytes]  # account, SHA-256 of the original: nothing is shared between accounts
REMEMBERED = 4096
AWAY_S = 10.0  # how long a chunk waits whose pictures could not be read because the blob store is away
RECORDS_AHEAD = 3

# What inference says of one picture, in the words of db/codes.py.
CODES = {
    "unreadable": "blob_missing",
    "not_a_working_copy": "blob_altered",
    "corrupt_working_copy": "blob_altered",
    "scores_not_finite": "inference_failed",
}


class Device:
    """A predictor's device, and what it counted since somebody asked last."""

    def __init__(self, predictor: batcher.Predicts) -> None:
        self.predictor = predictor
        self.beside = isinstance(predictor, batcher.Submits) and predictor.depth > 0
        self._told = self._figures()

    def since_last(self) -> dict[str, float]:
        """By name of the counter."""
        told, self._told = self._told, self._figures()
        return {name: value - told[name] for name, value in self._told.items()}

    def _figures(self) -> dict[str, float]:
        return dict(self.predictor.figures) if isinstance(self.predictor, batcher.Submits) else {}


class Stream:
    """One pass from the first chunk until no more of its kind is ready; with `alone`, of the first chunk only."""

    def __init__(self, stage: "Inference", *, alone: bool = False) -> None:
        self._stage = stage
        self._alone = alone
        self._last = alone
        self._lock = threading.Lock()
        self._open: dict[int, Work] = {}
        self._waiting: dict[Key, list[Work]] = {}
        self._seen: OrderedDict[Key, Analyses] = OrderedDict()
        self._held: Work | None = None
        self._slots = threading.BoundedSemaphore(RECORDS_AHEAD)
        self._records: list[Future[None]] = []
        self._timings = batcher.Timings()
        self._counted = batcher.Timings()

    def run(self, first: Work) -> Work | None:
        """Score and record; a chunk that was claimed but needs other models is handed back for the next stream."""
        if first.complete:
            self._stage.record(first)
            return None
        try:
            predictor = self._stage.predictor(first.models)
        except ModelUnavailable as error:
            self._stage.give_back(first, delay_s=error.retry_s)
            return None
        delay_s = 0.0
        with ThreadPoolExecutor(1, "record") as self._recorder:
            try:
                self._score(first, predictor)
            except BlobsAway as error:
                # The pictures are not at fault: what has its scores keeps them, the rest is tried again, by anybody.
                get("infer").warning("the blob store is away", code=error.code, error=str(error))
                delay_s = AWAY_S
        for record in self._records:
            record.result()  # a bug in recording must not pass in silence
        for work in self._open.values():
            self._stage.give_back(work, delay_s=delay_s)  # stopped in the middle
        return self._held

    def _score(self, first: Work, predictor: batcher.Predicts) -> None:
        settings = self._stage.settings
        self._device = Device(predictor)
        scored = batcher.stream(
            self._source(first),
            predictor,
            decode_threads=settings.decoders(gpu=self._device.beside),
            batch_size=settings.batch_size,
            ahead=settings.infer_ahead,
            expected=(BlobError, OSError),
            timings=self._timings,
        )
        for key, result in scored:
            self._deliver(key, result)
            self._stage.overtaking.scored(key[0], overtook=self._alone)
            if not self._last:
                self._let_overtake(key[0])

    def _source(self, first: Work) -> Iterator[tuple[Key, Callable[[], bytes]]]:
        work: Work | None = first
        while work is not None:
            for image in self._enlist(work):
                if self._stage.stop.is_set():
                    return
                yield (work.chunk.account_id, image.sha256), partial(self._stage.read, image)
            work = self._next(work)

    def _let_overtake(self, account: int) -> None:
        """Put through the next urgent chunk, if there is one that may overtake this account's."""
        if any(work.last_chance for work in self._open.values()) or not self._stage.overtaking.due():
            return
        urgent = self._stage.claim(but_not=self._stage.overtaking.ahead(account))
        if urgent is None:
            return
        if urgent.last_chance:
            self._stage.give_back(urgent)
            self._last = True  # this stream ends with the chunk in hand, so that the other one gets the process
        else:
            Stream(self._stage, alone=True).run(urgent)

    def _next(self, current: Work) -> Work | None:
        """The chunk after `current`; None ends this stream, and the stage claims again when it is through."""
        work = None if current.last_chance or self._last else self._stage.claim()
        if work is None or (work.models == current.models and not work.last_chance):
            return work
        if work.last_chance:
            self._stage.give_back(work)
        else:
            self._held = work
        return None

    def _enlist(self, work: Work) -> list[ChunkImage]:
        """Take in a chunk; the pictures that are not under way or scored already."""
        new: list[ChunkImage] = []
        with self._lock:
            self._open[work.chunk.id] = work
            for sha256, image in list(work.waiting.items()):
                key = (work.chunk.account_id, sha256)
                if key in self._seen:
                    work.receive(sha256, self._seen[key])
                    continue
                works = self._waiting.setdefault(key, [])
                if not works:
                    new.append(image)
                works.append(work)
            complete = work.complete
        if complete:
            self._record(work)
        return new

    def _deliver(self, key: Key, result: "Mapping[str, Scores] | batcher.Failure") -> None:
        with self._lock:
            works = self._waiting.pop(key)
            if isinstance(result, batcher.Failure):
                for work in works:
                    work.fail(key[1], CODES.get(result.code, result.code), result.detail)
            else:
                analyses = {scores.model: verdicts.stored(scores) for scores in result.values()}
                self._seen[key] = analyses
                if len(self._seen) > REMEMBERED:
                    self._seen.popitem(last=False)
                for work in works:
                    work.receive(key[1], analyses)
            complete = [work for work in works if work.complete]
        for work in works:
            self._stage.leases.moved(work.chunk)
        for work in complete:
            self._count()
            self._record(work)

    def _count(self) -> None:
        """Add to the process' counters what the batcher has timed since the last call."""
        now, last = self._timings, self._counted
        self._stage.counters.add(
            read_s=now.read_s - last.read_s,
            decode_s=now.decode_s - last.decode_s,
            forward_s=now.forward_s - last.forward_s,
            starved_s=now.starved_s - last.starved_s,
        )
        if self._device.beside:
            since = self._device.since_last()
            self._stage.counters.add(device_wall_s=now.wall_s - last.wall_s, **since)
            if since["device_out_of_memory"]:
                get("infer").warning("out of memory, the batch is halved", batch=self._device.predictor.batch_size)
        self._counted = replace(now)

    def _record(self, work: Work) -> None:
        """Record in the background, a few chunks ahead at most."""
        with self._lock:
            if self._open.pop(work.chunk.id, None) is None:
                return
        self._slots.acquire()
        record = self._recorder.submit(self._stage.record, work)
        record.add_done_callback(lambda _: self._slots.release())
        self._records.append(record)
