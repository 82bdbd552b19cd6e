"""An object store for tests: moto's server as a process of its own on loopback, and a front that makes it ill."""

import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from db.settings import BlobSettings
from worker.service import free_port

BUCKET = "pictures"
STORE = f"s3://{BUCKET}/tagmill"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "hunter2-hunter2"}
_NOW = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


def needed() -> None:
    """Skip where the store's client or its server is not installed."""
    for name in ("obstore", "moto", "flask_cors"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'tagmill[s3]' 'moto[s3]' flask-cors")


def settings(folder: Path, port: int, *, timeout_s: float = 30, store: str = STORE) -> BlobSettings:
    """Of the bucket behind this port."""
    return BlobSettings(
        blob_root=folder, blob_store=store, s3_endpoint=f"http://127.0.0.1:{port}", s3_timeout_s=timeout_s
    )


def variables(port: int, timeout_s: float = 30) -> dict[str, str]:
    """The same, as the environment of a process."""
    return {
        **CREDENTIALS,
        "TAGMILL_BLOB_STORE": STORE,
        "TAGMILL_S3_ENDPOINT": f"http://127.0.0.1:{port}",
        "TAGMILL_S3_TIMEOUT_S": str(timeout_s),
    }


@contextmanager
def moto(log: Path) -> Iterator[int]:
    """The port of a server with an empty bucket."""
    needed()
    port = free_port()
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=out,
            stderr=out,
            env={**os.environ, **CREDENTIALS},
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                assert ask(port, "PUT", f"/{BUCKET}") == 200, "the bucket cannot be made"
                break
            except OSError:
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, "the object store does not come up"
                time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait(60)


def ask(port: int, method: str, path: str) -> int:
    """The status of one request without a body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class StoreFront:
    """Passes requests on to a port; `ill` says what it does instead: `hang` (no answer), `reset` (RST), `slow`
    (`pause_s` before it passes on), `500`, `503` (SlowDown), `403`. To requests of the methods `only`,
    if it names any. `asked` counts what was done."""

    def __init__(self, target: int) -> None:
        self.ill = ""
        self.only: tuple[str, ...] = ()
        self.pause_s = 0.5
        self.asked: Counter[str] = Counter()
        self._target = target
        self._ended = threading.Event()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                return

            def pass_on(self) -> None:
                front.serve(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="front", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def well(self) -> None:
        """Pass on again."""
        self.ill, self.only = "", ()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """One request, in a thread of its own."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        ill = self.ill if not self.only or request.command in self.only else ""
        self.asked[ill or request.command] += 1
        if ill == "hang":
            self._ended.wait(120)
            request.close_connection = True
        elif ill == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            request.connection.close()
            request.close_connection = True
        elif ill.isdecimal():
            code = {"500": "InternalError", "503": "SlowDown", "403": "InvalidAccessKeyId"}[ill]
            said = f"<Error><Code>{code}</Code><AWSAccessKeyId>test-key</AWSAccessKeyId></Error>".encode()
            self._answer(request, int(ill), {"Content-Type": "application/xml"}, said)
        else:
            if ill == "slow":
                self._ended.wait(self.pause_s)
            self._pass_on(request, body)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._target, timeout=60)
        try:
            hop = {"connection", "transfer-encoding", "content-length"}
            headers = {name: value for name, value in request.headers.items() if name.lower() not in hop}
            connection.request(
                request.command, request.path, body or None, headers | {"Content-Length": str(len(body))}
            )
            answer = connection.getresponse()
            data = answer.read()
            told = {name: value for name, value in answer.getheaders() if name.lower() not in hop}
            if request.command == "HEAD":
                told["Content-Length"] = answer.getheader("Content-Length") or "0"
            self._answer(request, answer.status, told, data)
        finally:
            connection.close()

    def _answer(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes) -> None:
        request.send_response_only(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)
