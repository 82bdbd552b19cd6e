"""What a hostile or broken web server does, one function per behaviour, in raw bytes; no counting, no sockets."""

import gzip
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from time import time
from typing import Protocol


class Wire(Protocol):
    """The server's end of a connection. `send` waits for room and raises ConnectionError once the client is gone."""

    async def send(self, data: bytes) -> None: ...
    async def pause(self, seconds: float) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...
    def count(self, path: str) -> int: ...


class Request(Protocol):
    """What was asked."""

    @property
    def path(self) -> str: ...
    @property
    def query(self) -> Mapping[str, list[str]]: ...
    @property
    def host(self) -> str: ...
    def header(self, name: str) -> str | None: ...


Behaviour = Callable[[Wire, Request, str], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def png(width: int = 8, height: int = 8, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A small valid picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\x00" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PICTURE = png()


def respond(body: bytes, *headers: str, status: str = "200 OK", kind: str = "image/png") -> bytes:
    """A well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def named(name: str) -> Callable[[Behaviour], Behaviour]:
    """Registers a behaviour under the first part of its path; the rest of the path is its argument."""

    def register(behaviour: Behaviour) -> Behaviour:
        BEHAVIOURS[name] = behaviour
        return behaviour

    return register


def _one(request: Request, name: str, default: str) -> str:
    return request.query.get(name, [default])[0]


def _says(name: str, answer: bytes, *, close: bool = True) -> None:
    """A behaviour that is one fixed string of bytes."""

    async def behaviour(wire: Wire, request: Request, argument: str) -> None:
        await wire.send(answer)
        if close:
            wire.close()

    BEHAVIOURS[name] = behaviour


# Well-behaved, for comparison.
_says("image", respond(PICTURE), close=False)
_says("close", respond(PICTURE, "Connection: close"))
_says("no-length", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PICTURE)
_says(
    "chunked",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PICTURE), PICTURE),
    close=False,
)
_says("wrong-type", respond(PICTURE, kind="text/html"), close=False)

# Lengths that lie.
_says("short-body", respond(PICTURE).replace(b"Content-Length: ", b"Content-Length: 1"))
_says("long-body", respond(PICTURE[:-10]) + PICTURE[-10:] + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
_says("negative-length", respond(PICTURE).replace(b"Content-Length: ", b"Content-Length: -"))
_says("word-length", respond(PICTURE).replace(b"Content-Length: ", b"Content-Length: many"))
_says("double-length", respond(PICTURE, "Content-Length: 3"))
_says("length-and-chunked", respond(b"4\r\nevil\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
_says("huge-length", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + PICTURE)
_says("short-chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + PICTURE)
_says("bad-chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\nzz\r\nmore\r\n0\r\n\r\n")
_says(
    "chunk-extension",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;" + b"x" * 1_000_000 + b"\r\nevil\r\n0\r\n\r\n",
)

# Heads that break the protocol or the bank.
_says("bad-status", b"HTTP/1.1 two hundred\r\n\r\n")
_says("not-http", b"220 smtp.example ESMTP\r\n")
_says("big-header", b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 1_000_000 + b"\r\n\r\n")
_says("many-headers", b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n")
_says("upgrade", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\nraw bytes")

# Bodies that are no picture.
_says("html", respond(b"\xef\xbb\xbf\n <!DOCTYPE html><title>Sign in</title>", kind="image/jpeg"), close=False)
_says("json", respond(b'{"error": "gone"}', kind="image/jpeg"), close=False)
_says("svg", respond(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'), close=False)
_says("empty", respond(b""), close=False)
_says("no-content", b"HTTP/1.1 204 No Content\r\n\r\n", close=False)
_says("partial", respond(PICTURE[:40], "Content-Range: bytes 0-39/100", status="206 Partial Content"))
_says("truncated", respond(PICTURE[:40]), close=False)

# Encodings nobody asked for.
_says("gzip", respond(gzip.compress(PICTURE), "Content-Encoding: gzip"))
_says("gzip-bomb", respond(gzip.compress(bytes(20_000_000), 9), "Content-Encoding: gzip"))
_says("br", respond(PICTURE, "Content-Encoding: br"))
_says("twice-encoded", respond(PICTURE, "Content-Encoding: identity", "Content-Encoding: deflate"))
_says("identity", respond(PICTURE, "Content-Encoding: identity"), close=False)
_says("gzip-transfer", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n")

# Opting out.
_says("noai", respond(PICTURE, "X-Robots-Tag: noindex, NoAI"))
_says("noimageai", respond(PICTURE, "X-Robots-Tag: noimageai"))
_says("noai-us", respond(PICTURE, "X-Robots-Tag: tagmill: noindex, noai"))
_says("noai-other", respond(PICTURE, "X-Robots-Tag: otherbot: noai"), close=False)
_says("noai-several", respond(PICTURE, "X-Robots-Tag: all", "X-Robots-Tag: noai"))


@named("drip-body")
async def drip_body(wire: Wire, request: Request, argument: str) -> None:
    """One byte at a time, each just in time for the read timeout."""
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        await wire.send(b"\xff")
        await wire.pause(float(argument or 0.02))


@named("drip-header")
async def drip_header(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        await wire.send(b"x")
        await wire.pause(float(argument or 0.02))


@named("flood-1xx")
async def flood(wire: Wire, request: Request, argument: str) -> None:
    while True:
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await wire.pause(0.002)


@named("silent")
async def silent(wire: Wire, request: Request, argument: str) -> None:
    await wire.pause(600)


@named("stall-body")
async def stall(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(5000))
    await wire.pause(600)


@named("endless")
async def endless(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\x89PNG")
    while True:
        await wire.send(bytes(65_536))


@named("endless-chunked")
async def endless_chunked(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await wire.send(b"10000\r\n" + bytes(65_536) + b"\r\n")


@named("steady")
async def steady(wire: Wire, request: Request, argument: str) -> None:
    """Never too slow, never done."""
    await wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        await wire.send(bytes(4096))
        await wire.pause(0.02)


@named("reset")
async def reset(wire: Wire, request: Request, argument: str) -> None:
    wire.reset()


@named("hang-up")
async def hang_up(wire: Wire, request: Request, argument: str) -> None:
    wire.close()


@named("reset-body")
async def reset_body(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(5000))
    await wire.pause(0.05)
    wire.reset()


@named("status")
async def status(wire: Wire, request: Request, argument: str) -> None:
    """status/503?after=7: a status, with Retry-After if asked for; after=+60 is a date that far ahead."""
    headers = []
    if after := _one(request, "after", ""):
        headers.append(
            f"Retry-After: {formatdate(time() + float(after[1:]), usegmt=True) if after[0] == '+' else after}"
        )
    await wire.send(respond(b"<html>sorry", *headers, status=f"{argument} Whatever", kind="text/html"))


@named("flaky")
async def flaky(wire: Wire, request: Request, argument: str) -> None:
    """flaky/2?status=500: fails the first two times, then is a picture. status=reset, silent: other failures."""
    if wire.count(request.path) > int(argument):
        await wire.send(respond(PICTURE))
    elif _one(request, "status", "500") == "reset":
        wire.reset()
    else:
        await status(wire, request, _one(request, "status", "500"))


@named("redirect")
async def redirect(wire: Wire, request: Request, argument: str) -> None:
    """redirect?to=URL&status=302"""
    code = _one(request, "status", "302")
    await wire.send(respond(b"", f"Location: {_one(request, 'to', '')}", status=f"{code} Moved"))


@named("nowhere")
async def nowhere(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(respond(b"", status="302 Found"))


@named("loop")
async def loop(wire: Wire, request: Request, argument: str) -> None:
    await wire.send(respond(b"", "Location: /loop", status="301 Moved"))


@named("chain")
async def chain(wire: Wire, request: Request, argument: str) -> None:
    """chain/50: that many hops, then a picture."""
    left = int(argument)
    if left == 0:
        await wire.send(respond(PICTURE))
    else:
        await wire.send(respond(b"", f"Location: {left - 1}", status="307 Temporary Redirect"))


@named("etag")
async def etag(wire: Wire, request: Request, argument: str) -> None:
    marks = ('ETag: "v1"', "Last-Modified: Tue, 01 Sep 2026 10:00:00 GMT")
    if request.header("If-None-Match") == '"v1"' or request.header("If-Modified-Since"):
        await wire.send(("HTTP/1.1 304 Not Modified\r\n" + "\r\n".join(marks) + "\r\n\r\n").encode())
    else:
        await wire.send(respond(PICTURE, *marks, 'Set-Cookie: session="secret"'))


@named("endless-extension")
async def endless_extension(wire: Wire, request: Request, argument: str) -> None:
    """A chunk whose extension never ends: no byte of body ever arrives."""
    await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;")
    while True:
        await wire.send(b"x" * 4096)
        await wire.pause(0.01)
