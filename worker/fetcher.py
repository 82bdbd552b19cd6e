"""Fetches one picture's bytes from a stranger's server, under limits; retries, politeness and decoding are elsewhere.

    check URL ─► connect (guarded socket) ─► headers ─► redirect? check again, ≤ 5 times
              ─► status, opt-out and encoding ─► body, counted and timed as it comes ─► Fetched

Every expected failure is a value (worker/errors.py). Content-Type is never believed.
"""

import asyncio
import hashlib
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from worker.byte_budget import Share
from worker.errors import FetchFailure, UrlRefused, fetch_failure
from worker.netguard import NetGuard
from worker.optout import OPT_OUT
from worker.resolver import PoolResolver
from worker.responses import (
    body_problem,
    etag,
    explain,
    header,
    is_answer_to,
    last_modified,
    redirect_target,
    response_problem,
)

_READ_BUFFER: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may cost, and how the crawler presents itself. Seconds, bytes, bytes per second.

    `user_agent` should hold a contact URL; its first word, up to the slash, is the name that
    X-Robots-Tag may address. An empty `opt_out` switches the opt-out headers off.
    """

    total_s: float = 20.0
    dns_s: float = 4.0
    connect_s: float = 5.0
    sock_read_s: float = 8.0
    min_rate: int = 2048
    min_rate_after_s: float = 5.0
    max_bytes: int = 25_000_000
    max_redirects: int = 5
    user_agent: str = "Tagmill/0.1 (+https://example.org/tagmill)"
    opt_out: frozenset[str] = OPT_OUT

    @property
    def agent(self) -> str:
        """The crawler's name as servers address it."""
        return self.user_agent.partition("/")[0].strip()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete body. `sha256` is the digest (32 bytes). The validators serve a later conditional fetch of the URL;
    after a redirect there are none, for they are another URL's."""

    data: bytes | bytearray
    sha256: bytes
    final_url: str
    status: int
    etag: str | None
    last_modified: str | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class NotModified:
    """The server says that what the given validators name is still current."""

    final_url: str
    status: int
    etag: str | None
    last_modified: str | None


Outcome = Fetched | NotModified | FetchFailure
_DEFAULT_LIMITS: Final = FetchLimits()


class _Trip:
    """Where a fetch stands, so that a timeout can say what it interrupted."""

    __slots__ = ("began", "in_body", "limit", "share", "url")

    def __init__(self, limit: asyncio.Timeout, share: Share | None) -> None:
        self.url: URL | None = None
        self.began = 0.0
        self.in_body = False
        self.limit = limit
        self.share = share

    async def room(self, size: int) -> None:
        """Wait until `size` bytes may be held; the server's time does not run meanwhile, for it is not its fault."""
        if self.share is None:
            return
        loop = asyncio.get_running_loop()
        asked, deadline = loop.time(), self.limit.when()
        assert deadline is not None, "the whole fetch has its time"
        self.limit.reschedule(None)
        await self.share.take(size)
        self.limit.reschedule(deadline + loop.time() - asked)


class Fetcher:
    """One keep-alive session over guarded sockets, for one event loop: `async with Fetcher(guard) as fetcher`.

    It sets no limit on requests in flight: that is the gate's (worker/politeness.py), and a second queue in
    here would count against the connect timeout.
    """

    def __init__(
        self,
        guard: NetGuard,
        limits: FetchLimits = _DEFAULT_LIMITS,
        *,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`ssl_context`: for an operator's own certificate authority; certificates are verified by default."""
        self._guard = guard
        self._limits = limits
        self._resolver = resolver
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        limits = self._limits
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=self._resolver or PoolResolver(limits.dns_s),
            # Safe to cache: the guard looks at each connection, not at the look-up.
            ttl_dns_cache=30,
            keepalive_timeout=10,
            socket_factory=self._guard.socket_factory,
            ssl=self._ssl,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                # From the look-up on, which has its own time; a connection's own is sock_connect.
                connect=limits.dns_s + limits.connect_s,
                sock_connect=limits.connect_s,
                sock_read=limits.sock_read_s,
            ),
            headers={
                "User-Agent": limits.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BUFFER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(
        self, url: str, *, etag: str | None = None, last_modified: str | None = None, share: Share | None = None
    ) -> Outcome:
        """The body behind `url`; with validators of an earlier fetch, NotModified if nothing changed. They are told to
        that URL only, never to where it redirects.

        Before a body is read, `share` takes what it may come to; it is the caller's to release, whatever comes.
        """
        conditions: dict[str, str] = {}
        if etag:
            conditions["If-None-Match"] = etag
        if last_modified:
            conditions["If-Modified-Since"] = last_modified
        limit = asyncio.timeout(self._limits.total_s)
        trip = _Trip(limit, share)
        try:
            async with limit:
                return await self._follow(trip, url, conditions)
        except UrlRefused as refused:
            return fetch_failure(refused.code, refused.detail)
        except (aiohttp.ServerTimeoutError, aiohttp.ClientError) as error:
            return explain(error)
        except TimeoutError:
            return self._out_of_time(trip)
        except OSError as error:
            return explain(error)

    async def _follow(self, trip: _Trip, text: str, conditions: dict[str, str]) -> Outcome:
        assert self._session is not None, "the fetcher is not entered"
        loop = asyncio.get_running_loop()
        url, direct = self._guard.check_url(text), True
        for _ in range(self._limits.max_redirects + 1):
            trip.url, trip.began, trip.in_body = url, loop.time(), False
            response = await self._session.get(url, headers=conditions, allow_redirects=False)
            try:
                problem = response_problem(response, self._limits.agent, self._limits.opt_out)
                if problem is not None:
                    return problem
                if response.status in (301, 302, 303, 307, 308):
                    target = redirect_target(url, response)
                    if isinstance(target, FetchFailure):
                        return target
                    url = self._guard.check_url(target)
                    conditions, direct = {}, False
                    continue
                if response.status == 304:
                    if not conditions:
                        return fetch_failure("bad_response", "304 to an unconditional request", status=304)
                    if not is_answer_to(response, conditions):
                        return fetch_failure("bad_response", "304 for a version that was not asked about", status=304)
                    return NotModified(str(url), 304, etag(response), last_modified(response))
                return await self._read(trip, url, response, direct=direct)
            finally:
                # Gives a connection whose answer has fully arrived back to the pool, closes any other.
                response.close()
        return fetch_failure("too_many_redirects", f"more than {self._limits.max_redirects} redirects")

    async def _read(self, trip: _Trip, url: URL, response: aiohttp.ClientResponse, *, direct: bool) -> Outcome:
        limits = self._limits
        announced = response.content_length
        if (announced or 0) > limits.max_bytes:
            return fetch_failure("too_large", f"announced as more than {limits.max_bytes} bytes")
        await trip.room(limits.max_bytes if announced is None else announced)
        loop = asyncio.get_running_loop()
        trip.began, trip.in_body = loop.time(), True
        data = bytearray()
        while part := await response.content.readany():
            if len(data) + len(part) > limits.max_bytes:
                return fetch_failure("too_large", f"more than {limits.max_bytes} bytes")
            data += part
            elapsed = loop.time() - trip.began
            # A byte now and then re-arms every read timeout; only the average tells.
            if elapsed > limits.min_rate_after_s and len(data) < limits.min_rate * elapsed:
                return fetch_failure("too_slow", f"less than {limits.min_rate} bytes per second")
        if trip.share is not None:
            trip.share.shrink(len(data))
        problem = body_problem(data)
        if problem is not None:
            return problem
        return Fetched(
            data=data,
            sha256=hashlib.sha256(data).digest(),
            final_url=str(url),
            status=response.status,
            etag=etag(response) if direct else None,
            last_modified=last_modified(response) if direct else None,
            content_type=header(response, "Content-Type"),
        )

    def _out_of_time(self, trip: _Trip) -> FetchFailure:
        total = self._limits.total_s
        silent = self._limits.dns_s + self._limits.connect_s + self._limits.sock_read_s
        elapsed = asyncio.get_running_loop().time() - trip.began
        if not trip.in_body and elapsed > silent:
            # Silence would have ended earlier, so bytes came: headers in drips, or interim answers without end.
            return fetch_failure("too_slow", f"no complete headers within {total:g} s")
        return fetch_failure("timeout", f"not complete within {total:g} s")
