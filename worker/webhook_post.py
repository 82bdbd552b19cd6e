"""Sends one event to a stranger's server and says how that ended; what was answered is never kept, only its status.

    check URL ─► connect (guarded socket) ─► POST ─► status line and headers ─► a glance at the body ─► Answer

The address is looked at when a socket connects to it (worker/netguard.py), at every try: a name that was public when it
was registered may lead into our network today.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver

from db.delivery_codes import DELIVERY_CODES
from db.webhook_targets import Targets
from worker.errors import UrlRefused
from worker.netguard import NetGuard
from worker.resolver import PoolResolver
from worker.responses import explain
from worker.retry import parse_retry_after

GLANCE_BYTES: Final = 1024
GLANCE_S: Final = 1.0
"""What of a body is read, so that the connection can serve the next event; a longer or slower one costs it."""
DNS_S: Final = 4.0
CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a try ended: `code` None for a 2xx, else a key of DELIVERY_CODES; the status, if there was one."""

    code: str | None
    status: int | None = None
    retry_after_s: float | None = None


class Poster:
    """One session over guarded sockets, for one event loop: `async with Poster(guard, targets) as poster`."""

    def __init__(
        self,
        guard: NetGuard,
        targets: Targets,
        *,
        total_s: float = 15.0,
        user_agent: str = "Tagmill",
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`total_s`: longest time of one try. `ssl_context`: for an operator's own certificate authority."""
        self._guard = guard
        self._targets = targets
        self._total_s = total_s
        self._user_agent = user_agent
        self._resolver = resolver
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=self._resolver or PoolResolver(DNS_S, threads=64, per_domain=8),
            ttl_dns_cache=30,
            keepalive_timeout=10,
            socket_factory=self._guard.socket_factory,
            ssl=self._ssl,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=DNS_S + CONNECT_S, sock_connect=CONNECT_S),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity", "Content-Type": "application/json"},
            auto_decompress=False,
            trust_env=False,
            read_bufsize=4096,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One try. Every failure is a value; nothing is raised for what a server does."""
        if (problem := self._targets.problem(url)) is not None:
            return Answer(problem)
        try:
            async with asyncio.timeout(self._total_s):
                return await self._send(url, headers, body)
        except UrlRefused as refused:
            return Answer(refused.code)
        except (aiohttp.ServerTimeoutError, aiohttp.ClientError) as error:
            return _failed(error)
        except TimeoutError:
            return Answer("timeout")
        except OSError as error:
            return _failed(error)

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert self._session is not None, "the poster is not entered"
        checked = self._guard.check_url(url)
        response = await self._session.post(checked, headers=headers, data=body, allow_redirects=False)
        try:
            answer = _answer(response)
            # The status has said it all. A body is nobody's business: at most a glance, then the connection goes.
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(GLANCE_S):
                    await response.content.read(GLANCE_BYTES)
            return answer
        finally:
            response.close()


def _answer(response: aiohttp.ClientResponse) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer(None, status)
    if 300 <= status < 400:
        return Answer("redirect", status)
    wait = parse_retry_after(response.headers.get("Retry-After"), time.time()) if status in (429, 503) else None
    if status in (410, 429):
        return Answer(f"http_{status}", status, wait)
    if 400 <= status < 600:
        return Answer("http_4xx" if status < 500 else "http_5xx", status, wait)
    return Answer("bad_response", None)


def _failed(error: Exception) -> Answer:
    code = explain(error).code
    return Answer(code if code in DELIVERY_CODES else "bad_response")
