"""A receiver for trying webhooks out: verifies what arrives on a loopback port and tells about it; keeps nothing.

For a person in front of a terminal, not for production: one secret, no queue, and it forgets ids when it ends.
"""

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from db import webhook_secrets
from db.webhook_secrets import BadSignature

HOST: Final = "127.0.0.1"
MAX_BODY: Final = 64 * 1024
IDLE_S: Final = 10.0


class Heard:
    """What one request was: `problem` None for a verified event, `again` for an id that was heard before."""

    def __init__(self, event_id: str, body: bytes, problem: str | None, again: bool) -> None:
        self.event_id = event_id
        self.problem = problem
        self.again = again
        self.event: dict[str, Any] = {} if problem else json.loads(body)


def server(secret: bytes, port: int, heard: Callable[[Heard], None], status: int = 204) -> ThreadingHTTPServer:
    """A server that is ready to `serve_forever`, and answers `status` to verified events. Port 0: any free one."""
    known: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= MAX_BODY):
                self._answer(413)
                return
            body = self.rfile.read(int(length))
            given = {name.lower(): value for name, value in self.headers.items()}
            event_id, problem = given.get("webhook-id", ""), None
            try:
                webhook_secrets.verify(secret, given, body, time.time())
                told = Heard(event_id, body, None, event_id in known)
                known.add(event_id)
            except (BadSignature, ValueError) as error:
                problem = str(error)
                told = Heard(event_id, body, problem, False)
            heard(told)
            self._answer(401 if problem else status)

        def _answer(self, code: int) -> None:
            self.send_response_only(code)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            return

    return ThreadingHTTPServer((HOST, port), Handler)
