"""Keeps what hosts asked for (Retry-After) in Postgres, where it outlives this crawler; makes nobody wait itself."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from db import hosts
from db.errors import Unavailable
from db.session import Database
from worker.log import get
from worker.politeness import HostGate
from worker.steady import Steady

EVERY_S = 0.5  # what a crash can forget


class Pauses:
    """The pauses of one gate. `in_thread` runs a call where it may wait for the database."""

    def __init__(
        self, database: Database, gate: HostGate, in_thread: Callable[[Callable[[], None]], Awaitable[None]]
    ) -> None:
        self._database = database
        self._gate = gate
        self._in_thread = in_thread
        self._known: dict[str, float] = {}
        self._steady = Steady(get("crawler"), "pauses")

    async def keep(self) -> None:
        """Save again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.save()

    async def save(self) -> None:
        """Write the pauses that are new or longer than what was written; what fails is left to the next time."""
        with self._steady:
            await self._save()

    async def _save(self) -> None:
        now = asyncio.get_running_loop().time()
        # Seconds from now shrink; the moment at which they end tells what is new.
        ends = {host: now + seconds for host, seconds in self._gate.deferrals().items()}
        new = {host: end - now for host, end in ends.items() if end > self._known.get(host, 0.0) + 0.05}
        if not new:
            return
        try:
            await self._in_thread(partial(self._defer, new))
        except Unavailable as error:
            get("crawler").warning("pauses not kept yet", hosts=len(new), error=str(error))
        else:
            self._known = ends

    def _defer(self, seconds_by_host: dict[str, float]) -> None:
        with self._database.transaction() as session:
            hosts.defer(session, seconds_by_host)
