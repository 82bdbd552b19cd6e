"""Counts how large the blob store is, for the heartbeat to tell; slow on purpose, and removes nothing."""

import asyncio

from db.blobs import LocalBlobs
from worker.heartbeat import Counters
from worker.log import get
from worker.steady import Steady

EVERY_S = 6 * 3600.0  # every file is looked at


async def keep(blobs: LocalBlobs, counters: Counters) -> None:
    """Count now and again and again, until cancelled. In a thread of its own: the crawler's few are for its chunks."""
    steady = Steady(get("crawler"), "blob usage")
    while True:
        with steady:
            usage = await asyncio.to_thread(blobs.usage)
            counters.set(**{f"{kind}_bytes": float(size) for kind, size in usage.items()})
        await asyncio.sleep(EVERY_S)
