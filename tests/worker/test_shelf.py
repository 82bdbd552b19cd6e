"""Working copies that go into the blob store together."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from worker import shelf
from worker.shelf import Shelf


class Blobs:
    """Notes what is stored together. `refuse`: keys that the disk does not take; `closed`: nothing is through yet."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.refuse: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def put(self, key: str, data: bytes) -> None:
        self.groups.append([key])

    def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        assert self.gate.wait(10)
        keys = [key for key, _ in blobs]
        self.groups.append(keys)
        if self.refuse & set(keys):
            raise OSError("full")


def on_shelf(use: Callable[[Shelf, Blobs], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        blobs = Blobs()
        own = Shelf(blobs, lambda call: asyncio.get_running_loop().run_in_executor(None, call))  # type: ignore[arg-type]
        return await use(own, blobs)

    return asyncio.run(main())


def test_what_comes_at_once_is_stored_together_and_no_more_than_agreed() -> None:
    async def use(own: Shelf, blobs: Blobs) -> None:
        await asyncio.gather(*(own.put(str(number), b"x") for number in range(shelf.MOST + 3)))
        assert sorted(map(len, blobs.groups)) == [3, shelf.MOST]
        await own.put("late", b"x")
        assert blobs.groups[-1] == ["late"]

    on_shelf(use)


def test_what_is_urgent_waits_for_no_other() -> None:
    async def use(own: Shelf, blobs: Blobs) -> None:
        blobs.gate.clear()
        bulk = [asyncio.create_task(own.put(str(number), b"x")) for number in range(shelf.MOST)]
        await asyncio.sleep(0)
        await own.put("urgent", b"x", urgent=True)
        assert blobs.groups == [["urgent"]]
        assert not any(task.done() for task in bulk)
        blobs.gate.set()
        await asyncio.gather(*bulk)

    on_shelf(use)


def test_nobody_is_told_that_it_is_stored_when_it_is_not() -> None:
    async def use(own: Shelf, blobs: Blobs) -> None:
        blobs.refuse = {"1"}
        ended = await asyncio.gather(*(own.put(str(number), b"x") for number in range(3)), return_exceptions=True)
        assert [str(error) for error in ended] == ["full"] * 3
        await own.put("2", b"x")

    on_shelf(use)


def test_who_is_cancelled_costs_the_others_nothing() -> None:
    async def use(own: Shelf, blobs: Blobs) -> None:
        gone, stays = (asyncio.create_task(own.put(key, b"x")) for key in ("gone", "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        with pytest.raises(asyncio.CancelledError):
            await gone

    on_shelf(use)
