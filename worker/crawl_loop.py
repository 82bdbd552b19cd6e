"""The crawler's loop: leases several ingest chunks at a time, runs them side by side, and records each as it ends.

    while not stopping:  room for another chunk? ─► claim ─► ingest.work ─► record (one transaction)
    beside it:           the same for the interactive lane, which has places, threads and a quick poll of its own
                         extend leases that moved · keep the hosts' pauses in Postgres · sweep the blob store · beat

One event loop does the network; the database and the blob store are spoken to from threads.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from uuid import UUID

from db import banks, chunks, hosts, recording
from db.chunks import Chunk
from db.errors import BlobsAway, LeaseLost, Unavailable
from db.session import Database
from db.states import MAX_ATTEMPTS
from worker import blob_sweep, blob_usage, failpoints, log, wiring
from worker.heartbeat import Counters, Stopwatch
from worker.ingest import Harvest, Ingest
from worker.leases import Leases
from worker.pauses import Pauses
from worker.politeness import HostGate, host_of
from worker.sandbox import SandboxError
from worker.settings import WorkerSettings
from worker.steady import Steady
from worker.wanted_facts import may_leave_out_hashes, wanted_facts

T = TypeVar("T")
DB_THREADS = 4
URGENT_DB_THREADS = 2  # a single upload does not wait until thousands of rows are written
SANDBOX_START_S = 60.0
UNWELL_S = 10.0  # how long a chunk waits that met a full disk or a sandbox that does not start


class Crawler:
    """The loop of one process. For one event loop."""

    def __init__(
        self,
        settings: WorkerSettings,
        database: Database,
        ingest: Ingest,
        gate: HostGate,
        owner: UUID,
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._database = database
        self._ingest = ingest
        self._gate = gate
        self._owner = owner
        self._counters = counters
        # Every step of an item ends by a limit of its own: its turn at the host, the fetch, a new sandbox, the decode.
        step_s = settings.host_wait_s + settings.fetch_timeout_s + settings.sandbox_wall_s + SANDBOX_START_S
        if settings.blob_store:
            step_s += 2 * settings.s3_timeout_s
        self._leases = Leases(database, settings.lease_s, step_s=step_s)
        self._threads = ThreadPoolExecutor(DB_THREADS, "db")
        self._urgent_threads = ThreadPoolExecutor(URGENT_DB_THREADS, "db-urgent")
        self._running: dict[asyncio.Task[None], Harvest] = {}
        self._overtaking: set[asyncio.Task[None]] = set()  # those of them that hold a place of the interactive lane
        self._claiming = asyncio.Lock()  # a chunk on its last chance must know who else comes in
        self._alone_next = False
        self._claimed_at = 0.0
        self._log = log.get("crawler")
        self._claims = Steady(self._log, "claim")

    async def run(self, stop: asyncio.Event) -> None:
        """Crawl until `stop`; then end what is in hand within the grace time and hand back the rest."""
        pauses = Pauses(self._database, self._gate, self._in_thread)
        beside = [
            asyncio.create_task(self._keep_leases()),
            asyncio.create_task(self._claim_urgent(stop)),
            asyncio.create_task(pauses.keep()),
            asyncio.create_task(blob_sweep.keep(wiring.blobs(self._settings), self._in_thread)),
            asyncio.create_task(blob_usage.keep(wiring.blobs(self._settings), self._counters)),
        ]
        try:
            while not stop.is_set():
                claimed = False
                with self._claims:
                    claimed = await self._claim()
                if not claimed:
                    await self._rest(stop)
            await self._end()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await pauses.save()
            self._threads.shutdown(wait=False)
            self._urgent_threads.shutdown(wait=False)

    async def _rest(self, stop: asyncio.Event) -> None:
        """Until a chunk ends, the next poll is due or it is time to stop."""
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait(
                {stopping, *self._running}, timeout=self._settings.ingest_poll_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopping.cancel()

    async def _claim_urgent(self, stop: asyncio.Event) -> None:
        """Lease chunks of the interactive lane into the places kept for them, however much other work is in hand."""
        steady = Steady(self._log, "urgent")
        while not stop.is_set():
            await asyncio.sleep(self._settings.urgent_poll_s)
            if not self._running and time.monotonic() - self._claimed_at >= self._settings.urgent_quiet_s:
                continue  # the loop beside this one, which has room for everything then, looks often enough
            with steady:
                while not stop.is_set() and await self._claim(urgent=True):
                    pass

    async def _claim(self, *, urgent: bool = False) -> bool:
        """Lease one more chunk if there is room for it; False when there is none to be had."""
        async with self._claiming:
            if not self._room(urgent):
                return False
            try:
                harvest, paused = await self._in_thread(partial(self._claim_now, urgent), urgent=urgent)
            except Unavailable as error:
                self._log.warning("no chunk claimed", error=str(error))
                return False
            if harvest is None:
                return False
            if _last_chance(harvest.chunk) and self._running:
                # If it kills the process, no innocent chunk may be judged with it: alone, when the others are through.
                self._leases.remove(harvest.chunk)
                await self._in_thread(partial(self._release, harvest.chunk, 0.0))
                self._alone_next = True
                return False
            self._alone_next = False
            self._claimed_at = time.monotonic()
            self._gate.restore(paused)
            task = asyncio.create_task(self._chunk(harvest))
            self._running[task] = harvest
            if urgent:
                self._overtaking.add(task)
            task.add_done_callback(self._done)
            return True

    def _room(self, urgent: bool) -> bool:
        """Whether another chunk may be claimed beside those that run."""
        running = self._running
        if running and (self._alone_next or any(_last_chance(harvest.chunk) for harvest in running.values())):
            return False
        if urgent:
            return len(self._overtaking) < self._settings.urgent_chunks
        harvests = [harvest for task, harvest in running.items() if task not in self._overtaking]
        open_items = sum(len(harvest.rest) for harvest in harvests)
        return len(harvests) < self._settings.ingest_chunks and open_items < self._settings.ingest_items

    def _claim_now(self, urgent: bool) -> tuple[Harvest | None, dict[str, float]]:
        watch = Stopwatch(self._counters, "claim_s", cpu="claim_cpu_s")
        with watch, self._database.transaction() as session:
            if urgent and not chunks.urgent_ready(session, "ingest"):
                return None, {}
            if not self._running and not chunks.any_ready(session, "ingest"):
                return None, {}
            claimed = chunks.claim(session, "ingest", self._owner, self._settings.lease_s, urgent=urgent)
            if not claimed:
                return None, {}
            items = chunks.items(session, claimed[0])
            paused = hosts.blocked_until(session, sorted({host_of(item.url) for item in items if item.url}))
            with_banks = may_leave_out_hashes(claimed[0]) and banks.any_for(session, claimed[0].account_id)
            harvest = Harvest(claimed[0], items, facts=wanted_facts(claimed[0], banks=with_banks))
            harvest.remembered = self._ingest.remembered(session, harvest)
        self._leases.add(claimed[0])
        failpoints.hit("after_claim")
        return harvest, paused

    async def _chunk(self, harvest: Harvest) -> None:
        """One chunk from claim to end. What it could not end is left to the reaper."""
        chunk = harvest.chunk
        started = time.perf_counter()
        try:
            await self._ingest.work(harvest, partial(self._leases.moved, chunk))
            await self._record(harvest, harvest.deferred())
        except* (SandboxError, OSError, BlobsAway) as group:
            # A full disk, a store that is away or a sandbox that does not start: the pictures are not at fault, so no
            # attempt is lost.
            self._log.error("chunk put back", chunk=chunk.id, error=str(group.exceptions[0]))
            await self._in_thread(partial(self._release, chunk, UNWELL_S))
        except* Exception:  # noqa: BLE001 — top of the stage
            self._log.exception("chunk failed", chunk=chunk.id, attempt=chunk.attempts)
        finally:
            self._leases.remove(chunk)
        self._log.info(
            "chunk ended",
            chunk=chunk.id,
            items=len(harvest.items),
            done=sum(outcome.image is not None for outcome in harvest.outcomes),
            failed=sum(outcome.image is None for outcome in harvest.outcomes),
            deferred=len(harvest.deferrals),
            seconds=round(time.perf_counter() - started, 2),
        )

    async def _record(self, harvest: Harvest, deferred: list[recording.Deferred]) -> None:
        """End the chunk; tries as long as the lease can last while the database is away."""
        give_up = time.monotonic() + self._settings.lease_s
        while True:
            try:
                urgent = harvest.chunk.lane == "interactive"
                await self._in_thread(partial(self._record_now, harvest, deferred), urgent=urgent)
                failpoints.hit("after_ingest_commit")
                self._counters.add(chunks=1, items=len(harvest.outcomes), deferred=len(harvest.deferrals))
                return
            except LeaseLost:
                # Also after a connection lost at COMMIT, when the chunk did end: either way nothing is left to do.
                self._log.warning("outcomes dropped, the chunk is no longer ours", chunk=harvest.chunk.id)
                return
            except Unavailable as error:
                self._log.warning("chunk not recorded yet", chunk=harvest.chunk.id, error=str(error))
                if time.monotonic() >= give_up:
                    return
                await asyncio.sleep(0.25)

    def _record_now(self, harvest: Harvest, deferred: list[recording.Deferred]) -> None:
        watch = Stopwatch(self._counters, "record_s", cpu="record_cpu_s")
        with watch, self._database.transaction() as session:
            recording.finish_ingest(session, harvest.chunk, harvest.outcomes, deferred)
            failpoints.hit("before_ingest_commit")

    def _release(self, chunk: Chunk, delay_s: float) -> None:
        try:
            with self._database.transaction() as session:
                chunks.release(session, chunk, delay_s=delay_s)
        except Unavailable as error:
            self._log.warning("chunk not given back, its lease will run out", chunk=chunk.id, error=str(error))

    async def _end(self) -> None:
        """Give what runs the grace time; then keep what is through and hand the rest to other crawlers."""
        if self._running:
            self._log.info("stopping", chunks=len(self._running), grace_s=self._settings.stop_grace_s)
            await asyncio.wait(self._running, timeout=self._settings.stop_grace_s)
        unfinished = dict(self._running)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for harvest in unfinished.values():
            with Steady(self._log, "end"):  # one that fails costs the others nothing
                if harvest.outcomes or harvest.deferrals:
                    await self._record(harvest, harvest.deferred(stopped=True))
                else:
                    await self._in_thread(partial(self._release, harvest.chunk, 0.0))

    async def _keep_leases(self) -> None:
        steady = Steady(self._log, "leases")
        while True:
            await asyncio.sleep(self._leases.every_s)
            with steady:
                lost = {(chunk.id, chunk.fence) for chunk in await self._in_thread(self._leases.extend)}
                for task, harvest in self._running.items():
                    if (harvest.chunk.id, harvest.chunk.fence) in lost:
                        task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._overtaking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("chunk task failed", error=repr(error))

    def _in_thread(self, call: Callable[[], T], *, urgent: bool = False) -> Awaitable[T]:
        threads = self._urgent_threads if urgent else self._threads
        return asyncio.get_running_loop().run_in_executor(threads, call)


def _last_chance(chunk: Chunk) -> bool:
    """Whether a crash now would split the chunk or give up its one item."""
    return chunk.attempts >= MAX_ATTEMPTS
