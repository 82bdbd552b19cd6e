"""Questions of many tasks put as one: while one thread answers, and a short time before, the next ones gather."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Together(Generic[K, V]):
    """`await together.ask(key)` from any number of tasks of one event loop.

    `answer` is given distinct keys and returns what it knows of them, where it may wait: `in_thread` runs it. What it
    raises is raised to all who asked. `gather_s`: how long the first waits for others, unless it is urgent or
    they are `most`.
    """

    def __init__(
        self,
        answer: Callable[[Collection[K]], Mapping[K, V]],
        in_thread: Callable[[Callable[[], Mapping[K, V]]], Awaitable[Mapping[K, V]]],
        *,
        gather_s: float,
        most: int,
    ) -> None:
        self._answer = answer
        self._in_thread = in_thread
        self._gather_s = gather_s
        self._most = most
        self._waiting: list[tuple[K, asyncio.Future[V | None]]] = []
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, key: K, *, urgent: bool = False) -> V | None:
        """What is known of this key; None if nothing."""
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, future))
        if urgent or len(self._waiting) >= self._most:
            self._hurry.set()
        if self._task is None:
            self._task = asyncio.create_task(self._keep())
        return await future

    async def _keep(self) -> None:
        try:
            while self._waiting:
                try:
                    async with asyncio.timeout(self._gather_s):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
                self._hurry.clear()
                asked, self._waiting = self._waiting, []
                await self._settle(asked)
        finally:
            self._task = None
            for _, future in self._waiting:
                future.cancel()  # only where the loop is ending

    async def _settle(self, asked: list[tuple[K, asyncio.Future[V | None]]]) -> None:
        keys = {key for key, _ in asked}
        try:
            found = await self._in_thread(lambda: self._answer(keys))
        except Exception as error:  # noqa: BLE001 — theirs to handle who asked
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for key, future in asked:
            if not future.done():  # its task may have been cancelled
                future.set_result(found.get(key))
