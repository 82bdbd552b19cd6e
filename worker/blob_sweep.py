"""Removes the temporary files that killed writers left in the blob store; published blobs are none of its business."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from db.blob_store import Blobs
from worker.log import get
from worker.steady import Steady

EVERY_S = 600.0
OLD_S = 3600.0  # no upload may take so long to arrive


async def keep(blobs: Blobs, in_thread: Callable[[Callable[[], int]], Awaitable[int]]) -> None:
    """Sweep now and again and again, until cancelled. `in_thread` runs a call where it may wait for the disk."""
    log = get("crawler")
    steady = Steady(log, "blob sweep")
    while True:
        with steady:
            swept = await in_thread(lambda: blobs.sweep(OLD_S, time.time()))
            if swept:
                log.info("temporary files removed", files=swept)
        await asyncio.sleep(EVERY_S)
