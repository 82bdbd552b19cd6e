"""The ingest stage: one chunk of URLs or uploads in, working copies and outcomes out; claims and ends no chunk.

for every item at once:  its turn at the host ─► fetch  (or read the upload); what is known ends here (worker.reuse)
                         ─► normalise in the sandbox ─► working copy into the blob store ─► outcome
paused and busy hosts:   the item is put off, into a chunk of its own, and holds up nobody
end of the chunk:        images, outcomes, follow-up chunks, `done`, in one transaction
"""

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from db.blob_store import Blobs
from db.blobs import raw_key, work_key
from db.chunks import Chunk, ChunkItem
from db.errors import BlobError
from db.images import ImageRecord
from db.recording import Deferred, IngestOutcome
from db.session import Session
from db.validators import Remembered, Validators
from worker import failpoints
from worker.byte_budget import ByteBudget, Share
from worker.errors import Deferral, FetchFailure
from worker.fetcher import Fetched, Fetcher, NotModified
from worker.heartbeat import Counters, Stopwatch
from worker.places import Places
from worker.politeness import HostGate, host_of, visit
from worker.retry import RetryPolicy
from worker.reuse import Reuse, may_reuse
from worker.sandbox import Normalised, NormaliseFailure, Normaliser
from worker.sandbox_frames import FACTS
from worker.settings import WorkerSettings
from worker.shelf import Shelf

T = TypeVar("T")
# Pauses are rounded up to these, so that a chunk with many paused hosts leaves a few chunks behind, not hundreds.
PAUSES_S = (1, 2, 3, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


@dataclass
class Harvest:
    """What a chunk has come to so far: an outcome or a deferral for every item that is through. `facts`: those that are
    computed of its pictures; `remembered`: what its URLs gave the last time, if that may be used again."""

    chunk: Chunk
    items: Sequence[ChunkItem]
    outcomes: list[IngestOutcome] = field(default_factory=list)
    deferrals: list[tuple[int, Deferral]] = field(default_factory=list)
    facts: Collection[str] = FACTS
    remembered: Mapping[str, Remembered] = field(default_factory=dict)

    @property
    def rest(self) -> list[int]:
        """Items that are not through."""
        through = {o.seq for o in self.outcomes} | {seq for seq, _ in self.deferrals}
        return [item.seq for item in self.items if item.seq not in through]

    def deferred(self, *, stopped: bool = False) -> list[Deferred]:
        """The follow-up chunks: items by pause. With `stopped`, what is not through is to start at once elsewhere."""
        groups: dict[tuple[float, bool], list[int]] = defaultdict(list)
        for seq, deferral in self.deferrals:
            pause = next((p for p in PAUSES_S if p >= deferral.wait_s), PAUSES_S[-1])
            groups[float(pause), deferral.code != "host_busy"].append(seq)
        if stopped and self.rest:
            groups[0.0, False].extend(self.rest)
        return [Deferred(seqs, delay, counts=counts) for (delay, counts), seqs in sorted(groups.items())]


class Ingest:
    """What every chunk of one crawler process shares. For one event loop."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        fetcher: Fetcher,
        gate: HostGate,
        normaliser: Normaliser,
        blobs: Blobs,
        counters: Counters,
        reuse: Reuse | None = None,
    ) -> None:
        """Without `reuse` everything is fetched and decoded anew."""
        self._fetcher = fetcher
        self._gate = gate
        self._normaliser = normaliser
        self._blobs = blobs
        self._counters = counters
        self._reuse = reuse
        self._wait_s = settings.host_wait_s
        self._policy = RetryPolicy(max_attempts=settings.fetch_attempts, max_deferrals=settings.max_deferrals)
        # Fetched bodies wait here for the sandbox: without it a fast network would fill the memory.
        self._in_hand = Places(settings.ingest_in_hand)
        self._budget = ByteBudget(settings.ingest_in_hand_mb * 2**20)
        self._threads = ThreadPoolExecutor(settings.blob_threads, "blobs")
        self._shelf = Shelf(blobs, self._in_thread)

    def close(self) -> None:
        """Let the blob threads end."""
        self._threads.shutdown(wait=False)
        if self._reuse is not None:
            self._reuse.close()

    def remembered(self, session: Session, harvest: Harvest) -> dict[str, Remembered]:
        """What the chunk's URLs gave the last time, as far as it may be used again."""
        if self._reuse is None:
            return {}
        return self._reuse.remembered(session, harvest.chunk, harvest.items, harvest.facts)

    async def work(self, harvest: Harvest, moved: Callable[[], None]) -> None:
        """Bring every item of the chunk through; `moved` is called at every step forward.

        When cancelled, `harvest` holds what was through by then.
        """
        async with asyncio.TaskGroup() as group:
            for item in harvest.items:
                group.create_task(self._through(harvest, item, moved))

    async def _through(self, harvest: Harvest, item: ChunkItem, moved: Callable[[], None]) -> None:
        outcome = await self._item(harvest, item, moved)
        if isinstance(outcome, Deferral):
            harvest.deferrals.append((item.seq, outcome))
        else:
            harvest.outcomes.append(outcome)
        moved()

    async def _item(self, harvest: Harvest, item: ChunkItem, moved: Callable[[], None]) -> IngestOutcome | Deferral:
        chunk = harvest.chunk
        known = harvest.remembered.get(item.url or "")
        share = self._budget.share(chunk.account_id, urgent=_urgent(chunk))
        if item.url is None:
            await self._in_hand.take(chunk.account_id, urgent=_urgent(chunk))
            try:
                return await self._upload(harvest, item, share)
            finally:
                share.release()
                self._in_hand.give()
        fetched = await self._fetch(chunk, item.url, share, moved, known)
        if isinstance(fetched, NotModified):
            assert known is not None, "only what is known is asked about"
            if self._reuse is not None and await self._reuse.there(known.image, urgent=_urgent(chunk)):
                return self._unchanged(item, known)
            fetched = await self._fetch(chunk, item.url, share, moved)
            assert not isinstance(fetched, NotModified), "no condition was sent"
        if isinstance(fetched, Deferral):
            # A busy host is only slow: its items wait for ever. A pausing one may do so a number of times.
            if fetched.code == "host_busy" or chunk.deferrals < self._policy.max_deferrals:
                return fetched
            return IngestOutcome(item.seq, code=fetched.code, detail=f"put off {chunk.deferrals} times")
        if isinstance(fetched, FetchFailure):
            return IngestOutcome(item.seq, code=fetched.code, detail=fetched.detail, status=fetched.status)
        try:
            failpoints.hit("after_fetch")
            moved()
            outcome = await self._keep(harvest, item.seq, fetched.data, fetched.sha256, fetched.status)
        finally:
            share.release()
            self._in_hand.give()
        if outcome.image is not None and (fetched.etag or fetched.last_modified):
            outcome = replace(outcome, url=item.url, said=Validators(fetched.etag, fetched.last_modified))
        return outcome

    async def _fetch(
        self, chunk: Chunk, url: str, share: Share, moved: Callable[[], None], known: Remembered | None = None
    ) -> Fetched | NotModified | FetchFailure | Deferral:
        """A fetched body holds a place in `_in_hand` and its `share`, which the caller gives back."""
        said = Validators(None, None) if known is None else known.validators

        async def once() -> Fetched | NotModified | FetchFailure:
            await self._in_hand.take(chunk.account_id, urgent=_urgent(chunk))
            answer: Fetched | NotModified | FetchFailure | None = None
            try:
                with Stopwatch(self._counters, "fetch_s"):
                    answer = await self._fetcher.fetch(
                        url, etag=said.etag, last_modified=said.last_modified, share=share
                    )
            finally:
                if not isinstance(answer, Fetched):
                    share.release()
                    self._in_hand.give()
            moved()
            return answer

        return await visit(
            self._gate,
            host_of(url),
            once,
            policy=self._policy,
            deferrals=chunk.deferrals,
            wait_s=self._wait_s,
            account=chunk.account_id,
            urgent=_urgent(chunk),
        )

    def _unchanged(self, item: ChunkItem, known: Remembered) -> IngestOutcome:
        self._counters.add(not_modified=1)
        outcome = IngestOutcome(item.seq, image=known.image, status=304, reused="not_modified")
        return replace(outcome, url=item.url, said=known.validators) if known.old else outcome

    async def _upload(self, harvest: Harvest, item: ChunkItem, share: Share) -> IngestOutcome:
        assert item.raw_key is not None
        try:
            await share.take(await self._in_thread(partial(self._blobs.size, item.raw_key)))
            data = await self._in_thread(partial(self._blobs.get, item.raw_key))
        except (BlobError, OSError) as error:
            return IngestOutcome(item.seq, code="blob_missing", detail=str(getattr(error, "code", "unreadable")))
        if not data:
            return IngestOutcome(item.seq, code="empty_body")
        sha256 = hashlib.sha256(data).digest()
        if raw_key(harvest.chunk.account_id, sha256) != item.raw_key:
            return IngestOutcome(item.seq, code="blob_altered")
        return await self._keep(harvest, item.seq, data, sha256, None)

    async def _keep(
        self, harvest: Harvest, seq: int, data: bytes | bytearray, sha256: bytes, status: int | None
    ) -> IngestOutcome:
        """Normalise and store, unless it was before; `data` is the original, `sha256` its digest."""
        chunk = harvest.chunk
        if self._reuse is not None and may_reuse(chunk):
            image = await self._reuse.known(chunk.account_id, sha256, harvest.facts, urgent=_urgent(chunk))
            if image is not None:
                self._counters.add(known_bytes=1)
                return IngestOutcome(seq, image=image, status=status, reused="known_bytes")
        asked = time.perf_counter()
        made = await self._normaliser.normalise(
            data, facts=harvest.facts, account=chunk.account_id, urgent=_urgent(chunk)
        )
        waited = time.perf_counter() - asked
        if isinstance(made, NormaliseFailure):
            return IngestOutcome(seq, code=made.code, detail=made.detail, status=status)
        work_sha256 = hashlib.sha256(made.work).digest()
        # Named by the copy's own bytes: other limits or another encoder never overwrite what a row has pinned.
        key = work_key(chunk.account_id, work_sha256)
        with Stopwatch(self._counters, "blob_s"):
            await self._shelf.put(key, made.work, urgent=_urgent(chunk))
        failpoints.hit("after_blob_put")
        self._counters.add(pictures=1, normalise_s=made.seconds, sandbox_wait_s=waited - made.seconds)
        image = _record(sha256, len(data), key, work_sha256, made)
        if self._reuse is not None:
            image = replace(image, made_by=self._reuse.made_by)
        return IngestOutcome(seq, image=image, status=status)

    def _in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


def _urgent(chunk: Chunk) -> bool:
    """Whether its pictures come before the others of their account, wherever pictures wait."""
    return chunk.lane == "interactive"


def _record(sha256: bytes, size: int, key: str, work_sha256: bytes, made: Normalised) -> ImageRecord:
    return ImageRecord(
        sha256=sha256,
        work_key=key,
        bytes=size,
        width=made.width,
        height=made.height,
        format=made.format,
        work_sha256=work_sha256,
        pdq=made.pdq,
        pdq_quality=made.pdq_quality,
        colours=made.colours,
        sharpness=made.sharpness,
    )
