"""The size of the blob store: told soon after the start, kept up to date cheaply, and no hindrance to a stop."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from db.blobs import LocalBlobs, work_key
from worker import blob_usage
from worker.heartbeat import Counters


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not said():
            await asyncio.sleep(0.005)


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 20)


def test_a_store_that_was_empty_at_the_start_is_counted_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_usage, "LEAST_S", 0.01)
    monkeypatch.setattr(blob_usage, "PAUSES", 0)
    blobs, counters = LocalBlobs(tmp_path), Counters()

    async def line() -> None:
        task = asyncio.create_task(blob_usage.keep(blobs, counters))
        await until(lambda: counters.snapshot().get("work_bytes") == 0.0)
        blobs.put(work_key(1, b"a" * 32), b"x" * 100)
        await until(lambda: counters.snapshot()["work_bytes"] == 100.0)
        await ended(task)

    asyncio.run(line())


def test_counting_takes_a_hundredth_of_the_time_and_at_least_four_turns_a_day() -> None:
    assert blob_usage.pause(0.001) == 30.0
    assert blob_usage.pause(6.0) == 600.0
    assert blob_usage.pause(3600.0) == 6 * 3600.0


def test_nothing_is_told_before_the_first_count_is_through_and_a_stop_ends_it(tmp_path: Path) -> None:
    """A loop waits for its threads when it closes: a count of minutes would hold up the end of the process."""
    counters, counting, told = Counters(), threading.Event(), threading.Event()

    class Large(LocalBlobs):
        def usage(self, ended: Callable[[], bool] = lambda: False) -> dict[str, int] | None:
            counting.set()
            for _ in range(1000):
                if ended():
                    told.set()
                    return super().usage(ended)
                threading.Event().wait(0.01)
            return {}

    async def line() -> None:
        task = asyncio.create_task(blob_usage.keep(Large(tmp_path), counters))
        await until(counting.is_set)
        await ended(task)

    asyncio.run(line())
    assert told.is_set()
    assert counters.snapshot() == {}
