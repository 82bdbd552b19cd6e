"""Resolves names on its own threads; decides nothing about the addresses (worker/netguard.py does).

    name ─► looked up already? join it ─► a place of its domain ─► a thread ─► addresses
         ─► no answer in time: NoAnswerInTime; the thread goes on, and keeps its places until it ends

A thread cannot be stopped, and one whose name servers are dead is busy for ten seconds and more. So a domain has a
few of the threads and never all: whoever owns it harms nobody else's names.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver, ResolveResult

from worker.errors import NoAnswerInTime

_AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
_Lookup = asyncio.Future[Sequence[_AddressInfo]]
# Under two letters of a country, what is this short is rather a registry's (co.uk, com.au) than somebody's.
_REGISTRY: Final = 3


def domain_of(host: str) -> str:
    """The end of a name that belongs to one owner: its last two labels, three under the likes of co.uk."""
    labels = host.rstrip(".").lower().split(".")
    country = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= _REGISTRY
    return ".".join(labels[-3 if country else -2 :])


class PoolResolver(AbstractResolver):
    """getaddrinfo on a pool of threads.

    aiohttp's own resolver runs on the loop's default pool, four to six threads on a small machine: a handful of
    names whose servers do not answer would stop the resolution of all others.
    """

    def __init__(self, timeout_s: float = 4.0, *, threads: int = 256, per_domain: int = 16) -> None:
        """`timeout_s`: longest time for one name, with its waits. `per_domain`: most threads for one domain.

        The threads are started as they are needed. There should be a few times as many as names asked at once.
        """
        self._timeout_s = timeout_s
        self._per_domain = per_domain
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dns")
        self._free = asyncio.Semaphore(threads)
        self._domains: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._running: dict[tuple[str, int], _Lookup] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name; raises socket.gaierror, NoAnswerInTime among them."""
        try:
            async with asyncio.timeout(self._timeout_s):
                lookup = self._running.get((host, family)) or await self._start(host, family)
                found = await asyncio.shield(lookup)
        except TimeoutError:
            raise NoAnswerInTime from None
        return [
            ResolveResult(
                hostname=host,
                host=str(sockaddr[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, sockaddr in found
        ]

    async def close(self) -> None:
        """Start no further look-up; those under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _start(self, host: str, family: int) -> _Lookup:
        """A lookup that runs; its places are free again when its thread is, whoever still waits for it."""
        name = domain_of(host)
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = asyncio.Semaphore(self._per_domain)
        await domain.acquire()
        try:
            await self._free.acquire()
        except asyncio.CancelledError:
            domain.release()
            raise
        if (other := self._running.get((host, family))) is not None:
            self._free.release()
            domain.release()
            return other
        try:
            lookup = asyncio.get_running_loop().run_in_executor(self._pool, _look_up, host, family)
        except RuntimeError:  # the machine gives no further thread, or the pool is closed
            self._free.release()
            domain.release()
            raise NoAnswerInTime from None
        self._running[host, family] = lookup
        lookup.add_done_callback(partial(self._ended, (host, family), domain))
        return lookup

    def _ended(self, key: tuple[str, int], domain: asyncio.Semaphore, lookup: _Lookup) -> None:
        del self._running[key]
        self._free.release()
        domain.release()
        if not lookup.cancelled():
            lookup.exception()  # perhaps nobody waits for it any more, and asyncio would complain


def _look_up(host: str, family: int) -> Sequence[_AddressInfo]:
    try:
        return socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
