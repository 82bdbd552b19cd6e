"""A picture server in a process of its own, so that serving costs the system under test nothing but CPU.

python -m bench.pictures FOLDER    prints its port, then serves every file of the folder until stdin closes

A query is appended to the file's bytes, which decoders do not mind: so one file is as many pictures as are asked for.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: "
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class _Protocol(asyncio.Protocol):
    """Just enough HTTP/1.1 for a well-behaved client: GET, keep-alive, one request at a time."""

    def __init__(self, files: dict[bytes, bytes]) -> None:
        self._files = files
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            request, _, self._pending = self._pending.partition(b"\r\n\r\n")
            path, _, query = request.split(b" ", 2)[1].partition(b"?")
            body = self._files.get(path)
            size = len(body or b"") + len(query)
            self._transport.write(MISSING if body is None else HEAD + b"%d\r\n\r\n" % size + body + query)


async def _serve(folder: Path) -> None:
    files = {f"/{path.name}".encode(): path.read_bytes() for path in folder.iterdir() if path.is_file()}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(files), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The port on which a child process serves `folder` inside the block."""
    command = [sys.executable, "-m", "bench.pictures", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.stdin.close()
            child.wait(10)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
