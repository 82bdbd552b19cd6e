"""Working copies on their way into the blob store, many in one go: the disk is asked once for all of them.

put ─► others gather, for a moment ─► one thread writes them all ─► everybody's put has ended
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from db.blob_store import Blobs

GATHER_S: Final = 0.05
MOST: Final = 32  # pictures that go together, as open files and in memory


class Shelf:
    """For one event loop. `in_thread` runs what waits for the disk."""

    def __init__(self, blobs: Blobs, in_thread: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._blobs = blobs
        self._in_thread = in_thread
        self._waiting: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def put(self, key: str, data: bytes, *, urgent: bool = False) -> None:
        """It is on the disk when this ends. What is urgent waits for no other."""
        if urgent:
            await self._in_thread(partial(self._blobs.put, key, data))
            return
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.append((key, data, stored))
        if len(self._waiting) >= MOST:
            self._go()
        elif self._timer is None:
            self._timer = loop.call_later(GATHER_S, self._go)
        await stored

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        group, self._waiting = self._waiting, []
        task = asyncio.create_task(self._write(group))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, group: list[tuple[str, bytes, asyncio.Future[None]]]) -> None:
        blobs = [(key, data) for key, data, _ in group]
        try:
            await self._in_thread(partial(self._blobs.put_many, blobs))
        except BaseException as error:
            for _, _, stored in group:
                if not stored.done():
                    stored.set_exception(error if isinstance(error, Exception) else OSError("not stored"))
            if not isinstance(error, Exception):
                raise
            return
        for _, _, stored in group:
            if not stored.done():  # its task may have been cancelled
                stored.set_result(None)
