"""Counts how large the blob store is, for the heartbeat to tell; slow on purpose, and removes nothing.

A count looks at every file, so it may take a hundredth of the time: a young store is counted every half minute, one of
many millions of files a few times a day.
"""

import asyncio
import threading
import time

from db.blob_store import Blobs
from worker.heartbeat import Counters
from worker.log import get
from worker.steady import Steady

LEAST_S = 30.0
MOST_S = 6 * 3600.0
PAUSES = 100
"""How many times as long as the count took nothing is counted."""


async def keep(blobs: Blobs, counters: Counters) -> None:
    """Count now and again and again, until cancelled; a count under way ends then too, or the process could not.

    In a thread of its own: the crawler's few are for its chunks. Nothing is told before the first count is through.
    """
    steady = Steady(get("crawler"), "blob usage")
    ended = threading.Event()
    try:
        while True:
            began = time.monotonic()
            with steady:
                usage = await asyncio.to_thread(blobs.usage, ended.is_set)
                if usage is not None:
                    counters.set(**{f"{kind}_bytes": float(size) for kind, size in usage.items()})
            await asyncio.sleep(pause(time.monotonic() - began))
    finally:
        ended.set()


def pause(took_s: float) -> float:
    """Seconds until the next count, after one that took so long."""
    return min(MOST_S, max(LEAST_S, PAUSES * took_s))
