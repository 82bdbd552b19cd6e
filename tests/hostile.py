"""A loopback HTTP server for tests: serves pictures fast, misbehaves on request, and counts what was asked of it.

    with HostileServer(files={"a.png": data}, folder=Path("photos"), latency_s=0.01) as server:
        server.url("a.png"), server.url("drip-body"), server.url("status/404"), server.asked["/a.png"]

A path that is no file names a behaviour of tests/misbehaviour.py (raw bytes on the socket, no HTTP library).
It runs in its own thread and event loop, so synchronous tests and other processes can use it.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote

from aiohttp.abc import AbstractResolver, ResolveResult

from tests.misbehaviour import BEHAVIOURS, Wire, respond

CERTIFICATES = Path(__file__).parent / "tls"


@dataclass(frozen=True)
class Asked:
    """One request as it arrived. `at` is the server's monotonic clock, `raw` its head, byte for byte; then its body."""

    path: str
    query: Mapping[str, list[str]]
    host: str
    at: float
    raw: bytes
    body: bytes = b""

    def header(self, name: str) -> str | None:
        for line in self.raw.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.strip().lower() == name.lower().encode():
                return value.strip().decode("latin-1")
        return None


@dataclass
class HostileServer:
    """`addresses`: loopback addresses to listen on, all with one port. `tls`: "valid" or "expired" (tests/tls)."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    folder: Path | None = None
    latency_s: float = 0.0
    addresses: tuple[str, ...] = ("127.0.0.1",)
    tls: str | None = None

    port: int = 0
    connections: int = 0
    asked: Counter[str] = field(default_factory=Counter)  # by path
    asked_hosts: Counter[str] = field(default_factory=Counter)  # by Host header, without port
    peak: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # most at once, by host
    peak_paths: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    active: Counter[str] = field(default_factory=Counter)
    log: list[Asked] = field(default_factory=list)
    keep_log: bool = True

    def url(self, path: str = "", host: str | None = None) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host or self.addresses[0]}:{self.port}/{path.lstrip('/')}"

    def __enter__(self) -> Self:
        self._cache: dict[str, bytes] = {}
        self.wires: set[Connection] = set()
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="hostile-server", daemon=True)
        self._thread.start()
        self._started.wait(10)
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def body(self, path: str) -> bytes | None:
        """The file behind a request's path, from the dict or the folder."""
        name = unquote(path.lstrip("/"))
        if name in self.files:
            return self.files[name]
        if self.folder is None or ".." in name or not name:
            return None
        if name not in self._cache:
            file = self.folder / name
            if not file.is_file():
                return None
            self._cache[name] = file.read_bytes()
        return self._cache[name]

    def enter(self, asked: Asked) -> None:
        self.asked[asked.path] += 1
        self.asked_hosts[asked.host] += 1
        for key, peak in ((f"host {asked.host}", self.peak), (f"path {asked.path}", self.peak_paths)):
            self.active[key] += 1
            name = key[5:]
            peak[name] = max(peak[name], self.active[key])
        if self.keep_log:
            self.log.append(asked)

    def leave(self, asked: Asked) -> None:
        self.active[f"host {asked.host}"] -= 1
        self.active[f"path {asked.path}"] -= 1

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        context = None
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / f"{self.tls}.pem")
        servers = []
        try:
            for address in self.addresses:
                servers.append(
                    await self._loop.create_server(
                        lambda: Connection(self), address, self.port, ssl=context, backlog=1024
                    )
                )
                self.port = servers[0].sockets[0].getsockname()[1]
        except OSError as error:
            self._failed = error
            self._stop.set()
        self._started.set()
        await self._stop.wait()
        for server in servers:
            server.close()
        for wire in list(self.wires):
            wire.abort()


class Connection(asyncio.Protocol, Wire):
    """One client connection: splits requests, answers files at once and hands the rest to a behaviour."""

    def __init__(self, server: HostileServer) -> None:
        self.server = server
        self.buffer = b""
        self.current: Asked | None = None
        self.writable = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections += 1
        self.server.wires.add(self)
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.wires.discard(self)
        self._done()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.buffer.startswith(b"\x16"):  # a TLS hello: as web servers do
            self.transport.write(respond(b"", status="400 Bad Request"))
            self.transport.close()
            return
        if self.current is None:
            self._next()

    def _next(self) -> None:
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        announced = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        length = int(announced[1]) if announced else 0
        if len(rest) < length:
            return
        sent, self.buffer = rest[:length], rest[length:]
        target = head.split(b" ", 2)[1].decode("latin-1")
        path, _, query = target.partition("?")
        asked = Asked(path, parse_qs(query), "", time.monotonic(), head, sent)
        host = (asked.header("Host") or "").rsplit(":", 1)[0]
        self.current = asked = Asked(path, asked.query, host, asked.at, head, sent)
        self.server.enter(asked)
        body = self.server.body(path)
        if body is None:
            self.task = asyncio.get_running_loop().create_task(self._misbehave(asked))
        elif self.server.latency_s:
            asyncio.get_running_loop().call_later(self.server.latency_s, self._answer, body)
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(respond(body))
        self._done()
        if self.buffer:
            self._next()

    async def _misbehave(self, asked: Asked) -> None:
        name, _, argument = asked.path.lstrip("/").partition("/")
        behave = BEHAVIOURS.get(name)
        try:
            if behave is None:
                await self.send(respond(b"no such behaviour", status="404 Not Found"))
            else:
                await behave(self, asked, argument)
        except ConnectionError:
            pass
        finally:
            self.task = None
            self._done()
        if self.buffer:
            self._next()

    def _done(self) -> None:
        if self.current is not None:
            self.server.leave(self.current)
            self.current = None

    async def send(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.write(data)
        await self.writable.wait()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """Close with a TCP reset instead of a FIN."""
        raw: socket.socket = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def abort(self) -> None:
        self.transport.abort()

    def count(self, path: str) -> int:
        return self.server.asked[path]


class FixedResolver(AbstractResolver):
    """Names to addresses by a table, so that no test asks a real name server; other names do not exist.

    The value of a name is a list of addresses, or a list of such lists: one per look-up, the last one repeated.
    """

    def __init__(self, names: Mapping[str, list[str] | list[list[str]]], default: str | None = None) -> None:
        self.names = names
        self.default = default
        self.looked_up: Counter[str] = Counter()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        answers = self.names.get(host.rstrip("."), [self.default] if self.default else [])
        turn = self.looked_up[host]
        self.looked_up[host] += 1
        chosen = answers[min(turn, len(answers) - 1)] if answers and isinstance(answers[0], list) else answers
        if not chosen:
            # Spellings of an address (0x7f000001, 127.1) resolve without a name server, as they do everywhere.
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
            chosen = [str(sockaddr[0]) for *_, sockaddr in found]
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if ":" in str(address) else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in chosen
        ]

    async def close(self) -> None:
        pass
