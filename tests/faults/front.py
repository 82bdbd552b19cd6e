"""The API of a running system, as a client meets it: what it accepts, the oracle expects."""

import http.client
import json
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from db import accounts
from tests.faults.system import Role, System
from tests.oracle import Expected
from worker.roles import Listen, command
from worker.service import free_port

Order = Sequence[tuple[str, Expected]]  # pictures of a job: paths, and what must come of them


@dataclass(frozen=True)
class Reply:
    """An answer, and the seconds it took."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    seconds: float


@dataclass
class Front:
    """The API as a process of its own: one gunicorn worker, `threads` threads; `settings` are TAGMILL_ variables."""

    system: System
    settings: dict[str, str] = field(default_factory=dict)
    threads: int = 16

    def __enter__(self) -> Self:
        with self.system.owner.transaction() as session:
            _, self._key = accounts.create_key(session, self.system.account_id, "front", accounts.SCOPES)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.role in self.system.roles:
            self.role.signal(signal.SIGTERM)
            # What a fault left in a thread of it may take as long as the server grants: nobody waits for that here.
            with suppress(subprocess.TimeoutExpired):
                self.role.process.wait(5)
            self.system.end(self.role)

    def start(self) -> None:
        """Start it, at a new port, and wait until it serves."""
        self.port = free_port()
        listen = Listen(port=self.port, workers=1, threads=self.threads)
        self.role: Role = self.system.start("api", command("api", listen), **self.settings)
        deadline = time.monotonic() + 120
        while True:
            try:
                if self.ask("GET", "/healthz").status == 200:
                    return
            except OSError:
                assert self.role.process.poll() is None, self.role.log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the API does not come up"
            time.sleep(0.05)

    @property
    def authorization(self) -> str:
        """What a client of it presents."""
        return f"Bearer {self._key}"

    def ask(self, method: str, path: str, body: bytes | None = None, timeout: float = 120, **headers: str) -> Reply:
        """One request on a connection of its own. Raises OSError or HTTPException when there is no answer."""
        given = {"Authorization": self.authorization, **{n.replace("_", "-"): v for n, v in headers.items()}}
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        named = {name.lower(): value for name, value in answer.getheaders()}
        parsed = json.loads(text) if "json" in named.get("content-type", "") else {}
        return Reply(answer.status, parsed, named, time.monotonic() - began)

    def submit(self, order: Order, key: str | None = None, timeout: float = 120) -> Reply:
        """A job of these pictures; what is accepted is noted for the oracle."""
        lines = "".join(json.dumps({"url": self.system.server.url(path)}) + "\n" for path, _ in order)
        more = {} if key is None else {"Idempotency_Key": key}
        reply = self.ask("POST", "/v1/jobs", lines.encode(), timeout, Content_Type="application/x-ndjson", **more)
        if reply.status == 202:
            self.system.accepted[UUID(reply.body["id"])] = [expected for _, expected in order]
        return reply

    def job(self, reply: Reply) -> UUID:
        """The job that was accepted."""
        assert reply.status == 202, reply
        return UUID(reply.body["id"])
