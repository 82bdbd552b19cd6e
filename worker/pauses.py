"""Keeps what hosts asked for (Retry-After) in Postgres, where it outlives this crawler; makes nobody wait itself."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from db import hosts
from db.errors import Unavailable
from db.session import Database
from worker.log import get
from worker.politeness import HostGate

EVERY_S = 0.5  # what a crash can forget


async def keep(database: Database, gate: HostGate, in_thread: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
    """Write new and longer pauses as they come, until cancelled."""
    known: dict[str, float] = {}
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(EVERY_S)
        now = loop.time()
        # Seconds from now shrink; the moment at which they end tells what is new.
        ends = {host: now + seconds for host, seconds in gate.deferrals().items()}
        new = {host: end - now for host, end in ends.items() if end > known.get(host, 0.0) + 0.05}
        if not new:
            continue
        try:
            await in_thread(partial(_defer, database, new))
        except Unavailable as error:
            get("crawler").warning("pauses not kept yet", hosts=len(new), error=str(error))
        else:
            known = ends


def _defer(database: Database, seconds_by_host: dict[str, float]) -> None:
    with database.transaction() as session:
        hosts.defer(session, seconds_by_host)
