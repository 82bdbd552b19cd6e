"""A web server on loopback that serves a list of picture files and nothing else; for the demo and for tests."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote

from worker.service import LOOPBACK


class PictureServer:
    """``with PictureServer(paths) as server: server.urls``: one URL per file, in order, ending in the file's name."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = {f"/{number}/{path.name}": path for number, path in enumerate(paths, start=1)}
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self._files))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="picture-server", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{self.port}{quote(name, errors='surrogateescape')}" for name in self._files]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(files: dict[str, Path]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # A look-up, not a path: nothing outside the list can be asked for.
            path = files.get(unquote(self.path, errors="surrogateescape"))
            try:
                data = path.read_bytes() if path else None
            except OSError:
                data = None
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: Any) -> None:
            return  # the crawler's log says what was fetched

    return Handler
