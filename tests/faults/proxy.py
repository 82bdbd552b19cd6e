"""A TCP proxy between processes that breaks the network on request, in user space: no root, no firewall.

    with Proxy(server.port) as wire:  # in front of Postgres: Proxy(port, postgres=True)
        url = wire.url(server.url)   # what the process under test is given
        wire.stall()                 # holds every byte, also those of new connections …
        wire.flow()                  # … and lets them go
        wire.half_open()             # swallows what existing connections say: neither side hears anything
        wire.reset()                 # RST to both sides of what is open; refuse(): also to whoever comes, until flow()
        wire.retarget(port)          # new connections go elsewhere
        wire.cut_after_commit("INSERT INTO results")

The last one reads the Postgres protocol: the COMMIT of the next transaction that said these words goes to the server,
which answers; the answer is dropped and the client's connection cut. So what was committed is not known to be.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

COMMITTED: Final = b"C\x00\x00\x00\x0bCOMMIT\x00"
_UNTYPED: Final = {80877103, 80877104}  # may we have TLS, GSS: the start-up message comes after the answer
_NOW: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class Statements:
    """What a client says in the Postgres protocol: the SQL of the transaction so far, and whether it commits now."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self._buffer = b""
        self._started = False
        self._named: dict[bytes, bytes] = {}

    def commits(self, data: bytes) -> bool:
        """Take more of the stream; True if a COMMIT is in it, of the transaction that `said` these statements."""
        self._buffer += data
        found = False
        while (message := self._next()) is not None:
            kind, body = message
            sql = self._sql(kind, body)
            if sql.upper().startswith(b"COMMIT"):
                found = True
            elif sql.upper().startswith((b"BEGIN", b"ROLLBACK")):
                self.said = []
            elif sql:
                self.said.append(sql)
        return found

    def _sql(self, kind: bytes, body: bytes) -> bytes:
        if kind == b"Q":
            return body.rstrip(b"\0").strip()
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._named[name] = sql.strip()
        elif kind == b"B":
            return self._named.get(body.split(b"\0", 2)[1], b"")
        return b""

    def _next(self) -> tuple[bytes, bytes] | None:
        skip = 1 if self._started else 0
        if len(self._buffer) < skip + 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer, skip)
        if len(self._buffer) < skip + length:
            return None
        kind, body = self._buffer[:skip], self._buffer[skip + 4 : skip + length]
        self._buffer = self._buffer[skip + length :]
        if not self._started:
            self._started = struct.unpack_from("!I", body)[0] not in _UNTYPED
            return b"", b""
        return kind, body


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: "Proxy", client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.dead = False  # half-open: bytes vanish, ends are not told
        self.cutting = False
        self._proxy = proxy
        self._client = client
        self._server = server
        self._statements = Statements()
        self._answer = b""

    async def upstream(self, data: bytes) -> None:
        """What the client says."""
        if self._proxy.postgres and self._statements.commits(data):
            self.cutting = self._proxy.cut_now(self._statements.said)
            self._statements.said = []
        self._server.write(data)
        await self._server.drain()

    async def downstream(self, data: bytes) -> None:
        """What the server answers."""
        if self.cutting:
            self._answer += data
            if COMMITTED in self._answer:
                self._proxy.cut += 1
                self.reset()
            return
        self._client.write(data)
        await self._client.drain()

    def reset(self) -> None:
        for writer in (self._client, self._server):
            found: socket.socket | None = writer.get_extra_info("socket")
            if found is not None and found.fileno() >= 0:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            writer.transport.abort()


class Proxy:
    """Listens on a loopback port of its own, in a thread with an event loop; its methods may be called from tests."""

    def __init__(self, target: int, *, postgres: bool = False) -> None:
        self.port = 0
        self.accepted = 0
        self.cut = 0  # connections cut after their COMMIT
        self.postgres = postgres  # follow what is said from the start: prepared statements go by their names later
        self._target = target
        self._cuts: Counter[bytes] = Counter()
        self._links: set[Link] = set()
        self._refusing = False

    def url(self, url: str) -> str:
        """The same URL through this proxy."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self.port}")))

    @property
    def open(self) -> int:
        """Connections that go through now."""
        return len(self._links)

    def stall(self) -> None:
        self._call(lambda: self._flowing.clear())

    def flow(self) -> None:
        """All is well from here on, but for connections that were made half-open."""
        self._refusing = False
        self._call(lambda: self._flowing.set())

    def half_open(self) -> int:
        """What is open says and hears nothing any more; new connections are well. How many."""
        return self._call(lambda: self._each(lambda link: setattr(link, "dead", True)))

    def reset(self) -> int:
        return self._call(lambda: self._each(Link.reset))

    def refuse(self) -> None:
        self._refusing = True
        self.reset()

    def retarget(self, port: int) -> None:
        self._target = port

    def cut_after_commit(self, words: str, times: int = 1) -> None:
        """Cut the next `times` connections whose transaction said `words` in one of its statements."""
        self._call(lambda: self._cuts.update({words.encode(): times}))

    def forget(self) -> None:
        """Cut no more."""
        self._call(self._cuts.clear)

    def cut_now(self, said: list[bytes]) -> bool:
        """Whether the transaction that said this is one to cut; it counts. As all that changes `_cuts`, in the loop."""
        for words, left in self._cuts.items():
            if left and any(words in sql for sql in said):
                self._cuts[words] -= 1
                return True
        return False

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self._thread.start()
        assert self._ready.wait(60), "the proxy does not listen"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _call(self, what: Callable[[], int | None]) -> int:
        async def there() -> int:
            return int(what() or 0)

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(60)

    def _each(self, what: Callable[[Link], object]) -> int:
        links = list(self._links)
        for link in links:
            what(link)
        return len(links)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._each(Link.reset)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            await self._flowing.wait()
            if self._refusing:
                raise ConnectionRefusedError
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            writer.transport.abort()
            return
        link = Link(self, writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(link, reader, to_server, link.upstream),
                self._pump(link, from_server, writer, link.downstream),
            )
        except OSError:
            link.reset()
        except asyncio.CancelledError:
            return  # the proxy ends
        finally:
            self._links.discard(link)
            writer.close()
            to_server.close()

    async def _pump(
        self,
        link: Link,
        reader: asyncio.StreamReader,
        other: asyncio.StreamWriter,
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        while data := await reader.read(65_536):
            await self._flowing.wait()
            if not link.dead:
                await send(data)
        if link.dead:
            await self._stop.wait()  # an end that is not told
        elif other.can_write_eof() and not other.is_closing():
            other.write_eof()
