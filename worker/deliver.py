"""Sends events to webhooks, in a thread with an event loop of its own; belongs to the maintenance role.

    every turn:   events of the outbox ─► deliveries (one transaction) · claim what is due, as far as there are places
    each of them: sign ─► POST (worker/webhook_post.py) ─► record the outcome, and when to try again

No transaction is open while something is sent. If this process dies in between, the lease of the delivery runs out and
the next sender sends the same event with the same `webhook-id` again: at least once, never lost.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

from db import delivery_queue, pending, webhook_secrets
from db.delivery_codes import OURS
from db.delivery_queue import Bounds, Claimed, Tried
from db.errors import LeaseLost, Unavailable
from db.session import Database
from db.webhook_secrets import Keys, NoKey
from worker import delivery_schedule, failpoints, log, wiring
from worker.heartbeat import Counters
from worker.settings import WorkerSettings
from worker.steady import Steady
from worker.webhook_post import Answer, Poster

T = TypeVar("T")
DB_THREADS: Final = 3
FAN_OUT: Final = 500
MAX_CLAIMS: Final = 5
"""Leases in a row that ended in nothing, after which a delivery counts as failed without being sent."""
SPARE_S: Final = 30.0
"""What a lease lasts beyond the longest try: time to record it, also while Postgres is away for a moment."""
LEAST_PAUSE_S: Final = 0.02


class Sender:
    """The loop of one process. For one event loop."""

    def __init__(
        self, settings: WorkerSettings, database: Database, owner: UUID, counters: Counters, poster: Poster
    ) -> None:
        self._settings = settings
        self._database = database
        self._owner = owner
        self._counters = counters
        self._poster = poster
        self._keys = Keys(settings.webhook_keys)
        self._bounds = Bounds(settings.webhook_per_endpoint, settings.webhook_per_account)
        self._lease_s = settings.webhook_timeout_s + SPARE_S
        self._threads = ThreadPoolExecutor(DB_THREADS, "webhooks")
        self._running: dict[asyncio.Task[None], Claimed] = {}
        self._log = log.get("maintenance")

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Send until `stopping`; then end what is under way, which takes as long as one try at most."""
        steady = Steady(self._log, "webhooks")
        try:
            while not stopping():
                began = 0
                with steady, suppress(Unavailable):
                    began = await self.turn()
                await self._rest(began)
            await self._end()
        finally:
            self._threads.shutdown(wait=False)

    async def turn(self) -> int:
        """Fan out and claim once; how many deliveries began."""
        free = self._settings.webhook_concurrency - len(self._running)
        claimed = await self._in_thread(partial(self._claim, free))
        for each in claimed:
            task = asyncio.create_task(self._deliver(each))
            self._running[task] = each
            task.add_done_callback(self._done)
        return len(claimed)

    async def settled(self) -> None:
        """Until nothing is under way."""
        while self._running:
            await asyncio.wait(self._running)

    def _claim(self, free: int) -> list[Claimed]:
        with self._database.transaction() as session:
            if not pending.deliveries(session):
                return []
        while True:
            with self._database.transaction() as session:
                if delivery_queue.fan_out(session, FAN_OUT) < FAN_OUT:
                    break
        with self._database.transaction() as session:
            return delivery_queue.claim(session, self._owner, self._lease_s, free, self._bounds)

    async def _deliver(self, claimed: Claimed) -> None:
        """One delivery from claim to record. What it cannot record is sent again when the lease is over."""
        began = time.monotonic()
        answer = await self._try(claimed)
        failpoints.hit("deliver_after_send")
        await self._record(claimed, _outcome(claimed, answer, time.monotonic() - began))

    async def _try(self, claimed: Claimed) -> Answer:
        if claimed.claims > MAX_CLAIMS:
            return Answer("sender_died")
        secrets = []
        for salt, key in claimed.salts:
            with suppress(NoKey):
                secrets.append(self._keys.secret(salt, key))
        if not secrets:
            return Answer("no_signing_key")
        body = message(claimed)
        headers = webhook_secrets.headers(secrets, str(claimed.event_id), int(claimed.now_s), body)
        return await self._poster.post(claimed.url, headers, body)

    async def _record(self, claimed: Claimed, tried: Tried) -> None:
        give_up = time.monotonic() + SPARE_S
        while True:
            try:
                disabled = await self._in_thread(partial(self._record_now, claimed, tried))
            except LeaseLost:
                # Deleted, disabled or taken over meanwhile: the outcome is somebody else's to tell.
                return
            except Unavailable as error:
                if time.monotonic() >= give_up:
                    self._log.warning("delivery not recorded, it will be sent again", error=str(error))
                    return
                await asyncio.sleep(0.25)
                continue
            break
        self._counters.add(**{"webhooks_delivered" if tried.code is None else "webhooks_failed": 1})
        if disabled:
            # The id only: a URL may hold a token.
            self._log.warning("webhook disabled", webhook=str(claimed.webhook_id), reason=disabled)

    def _record_now(self, claimed: Claimed, tried: Tried) -> str | None:
        with self._database.transaction() as session:
            return delivery_queue.record(session, claimed, tried, disable_days=self._settings.webhook_disable_days)

    def _release(self, claimed: Claimed) -> None:
        with suppress(Unavailable), self._database.transaction() as session:
            delivery_queue.release(session, claimed)

    async def _rest(self, began: int) -> None:
        """Until a place is free, or the next poll. After a turn that found something there may be more at once."""
        await asyncio.sleep(LEAST_PAUSE_S)
        if self._running:
            await asyncio.wait(
                self._running, timeout=self._settings.webhook_poll_s, return_when=asyncio.FIRST_COMPLETED
            )
        elif not began:
            await asyncio.sleep(self._settings.webhook_poll_s)

    async def _end(self) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=self._settings.webhook_timeout_s + 1)
        for task, claimed in dict(self._running).items():
            task.cancel()
            await self._in_thread(partial(self._release, claimed))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("delivery failed unexpectedly", error=repr(error))

    def _in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


def message(claimed: Claimed) -> bytes:
    """The body: the same bytes at every try."""
    told = {"type": claimed.type, "timestamp": claimed.created_at.isoformat(), "data": claimed.payload}
    return json.dumps(told, separators=(",", ":"), sort_keys=True).encode()


def _outcome(claimed: Claimed, answer: Answer, seconds: float) -> Tried:
    if answer.code is None:
        return Tried(None, answer.status, seconds)
    again_s = delivery_schedule.again(
        claimed.type,
        answer.code,
        claimed.step,
        retry_after_s=answer.retry_after_s,
        chance=random.random(),
    )
    pause_s = delivery_schedule.pause(answer.status, answer.retry_after_s)
    return Tried(answer.code, answer.status, seconds, again_s, pause_s, ours=answer.code in OURS)


def keep(settings: WorkerSettings, owner: UUID, stop: threading.Event, counters: Counters) -> None:
    """Send until `stop`. To be called in a thread of its own; its connections are its own too: no duty waits for it."""
    database = wiring.database(settings.model_copy(update={"database_pool": DB_THREADS}), "webhooks")
    steady = Steady(log.get("maintenance"), "webhooks")
    while not stop.is_set():
        with steady:
            asyncio.run(_send(settings, database, owner, stop, counters))
        stop.wait(settings.webhook_poll_s)
    database.dispose()


async def _send(
    settings: WorkerSettings, database: Database, owner: UUID, stop: threading.Event, counters: Counters
) -> None:
    async with wiring.poster(settings) as poster:
        await Sender(settings, database, owner, counters, poster).run(stop.is_set)
