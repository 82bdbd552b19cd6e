"""A picture server in a process of its own, so that serving costs the system under test nothing but CPU.

python -m bench.pictures FOLDER [--etags] [--latency-ms N]   prints its port, serves every file until stdin closes

A query is appended to the file's bytes, which decoders do not mind: so one file is as many pictures as are asked for.
With --etags every answer has an ETag, and a request that names it gets a 304. With --latency-ms each answer waits.
"""

import argparse
import asyncio
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: "
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class _Protocol(asyncio.Protocol):
    """Just enough HTTP/1.1 for a well-behaved client: GET, keep-alive, one request at a time."""

    def __init__(self, files: dict[bytes, bytes], etags: Mapping[bytes, bytes], latency_s: float) -> None:
        self._files = files
        self._etags = etags
        self._latency_s = latency_s
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of asyncio's class

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            request, _, self._pending = self._pending.partition(b"\r\n\r\n")
            path, _, query = request.split(b" ", 2)[1].partition(b"?")
            answer = self._answer(request, path, query)
            if self._latency_s:
                asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, answer)
            else:
                self._transport.write(answer)

    def _answer(self, request: bytes, path: bytes, query: bytes) -> bytes:
        body = self._files.get(path)
        if body is None:
            return MISSING
        mark = b"" if path not in self._etags else b"\r\nETag: %b" % _etag(self._etags[path], query)
        if mark and b"\r\nIf-None-Match: " + mark[8:] in request:
            return b"HTTP/1.1 304 Not Modified%b\r\n\r\n" % mark
        return HEAD + b"%d%b\r\n\r\n" % (len(body) + len(query), mark) + body + query


def _etag(of_file: bytes, query: bytes) -> bytes:
    return b'"%b-%08x"' % (of_file, zlib.crc32(query))


async def _serve(folder: Path, *, with_etags: bool, latency_s: float) -> None:
    files = {f"/{path.name}".encode(): path.read_bytes() for path in folder.iterdir() if path.is_file()}
    etags = {path: b"%08x" % zlib.crc32(body) for path, body in files.items()} if with_etags else {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(files, etags, latency_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def paths(folder: Path, count: int) -> list[str]:
    """So many pictures of a server of this folder. Where it has fewer files, some come again as other pictures."""
    names = sorted(path.name for path in folder.iterdir())[:count]
    return names + [f"{names[n % len(names)]}?{n}" for n in range(len(names), count)]


@contextmanager
def serving(folder: Path, *, etags: bool = False, latency_ms: int = 0) -> Iterator[int]:
    """The port on which a child process serves `folder` inside the block."""
    command = [sys.executable, "-m", "bench.pictures", str(folder), "--latency-ms", str(latency_ms)]
    command += ["--etags"] if etags else []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.stdin.close()
            child.wait(10)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--etags", action="store_true")
    arguments.add_argument("--latency-ms", type=float, default=0.0)
    options = arguments.parse_args()
    uvloop.run(_serve(options.folder, with_etags=options.etags, latency_s=options.latency_ms / 1000))
