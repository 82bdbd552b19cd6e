"""An API that says it is away for a moment is asked again: not too soon, under the same key, and not for ever."""

import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from worker import live
from worker.client import ApiProblem, Client, Unreachable
from worker.patience import until_answered
from worker.service import free_port

AWAY = {"code": "unavailable", "title": "The service cannot answer now", "detail": "The database cannot be reached."}
PROGRESS = {
    "settled": 1, "outcomes": {"done": 1}, "ingest": {"done": 1, "failed": 0}, "rate": None, "eta_s": None,
}  # fmt: skip
JOB = {"id": "j", "state": "finished", "settled_at": "now", "total": 1, "progress": PROGRESS}


class Shaky(ThreadingHTTPServer):
    """Refuses with each of `refusals` (status, headers) in turn, then answers; notes time, method and key."""

    def __init__(self, *refusals: tuple[int, dict[str, str]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refusals = list(refusals)
        self.asked: list[tuple[float, str, str | None]] = []
        self.bodies: list[bytes] = []

    def __enter__(self) -> "Shaky":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.server_port}", "k")


class _Handler(BaseHTTPRequestHandler):
    server: Shaky

    def do_GET(self) -> None:
        self._answer(b"rows" if self.path.startswith("/v1/jobs/j/results") else json.dumps(JOB).encode())

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.server.bodies.append(body)
        self._answer(json.dumps(JOB).encode())

    def _answer(self, content: bytes) -> None:
        self.server.asked.append((time.monotonic(), self.command, self.headers["Idempotency-Key"]))
        status, headers = self.server.refusals.pop(0) if self.server.refusals else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        content = json.dumps(AWAY).encode() if status != 200 else content
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def submit(client: Client, **more: int) -> dict[str, Any]:
    def body() -> Iterator[bytes]:
        yield b"one"
        yield b"two"

    return client.submit(body, "application/x-ndjson", params={}, idempotency_key="key", **more)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_waiting_goes_on_through_an_outage(status: int) -> None:
    text = io.StringIO()
    with Shaky((status, {}), (status, {})) as server, server.client() as client:
        job = live.wait(client, "j", Console(file=text))
        assert job == JOB
        assert len(server.asked) == 3
    assert "The database cannot be reached. Trying again" in text.getvalue()


def test_what_will_not_pass_is_said_at_once() -> None:
    with Shaky((500, {}), (500, {})) as server, server.client() as client:
        with pytest.raises(ApiProblem):
            live.wait(client, "j", Console(quiet=True))
        with pytest.raises(ApiProblem):
            submit(client)
        assert len(server.asked) == 2


def test_the_api_says_when_to_come_again() -> None:
    looks: list[float] = []
    with Shaky((503, {"Retry-After": "3"})) as server, server.client() as client:
        live.wait(client, "j", Console(quiet=True), meanwhile=lambda: looks.append(time.monotonic()))
        (first, *_), (second, *_) = server.asked
    assert second - first >= 3
    # The demo looks after its roles meanwhile.
    assert len([look for look in looks if first < look < second]) >= 3


def test_patience_ends_with_the_last_failure() -> None:
    with Shaky(*[(503, {"Retry-After": "1000"})] * 9) as server, server.client() as client:
        with pytest.raises(ApiProblem) as caught:
            until_answered(lambda: client.job("j"), give_up_s=0.5)
        assert (caught.value.status, caught.value.retry_after_s, len(server.asked)) == (503, 1000, 2)
    with Client(f"http://127.0.0.1:{free_port()}", "k") as nobody, pytest.raises(Unreachable):
        until_answered(lambda: nobody.job("j"), give_up_s=0.2)


def test_a_submit_is_repeated_whole_under_the_same_key() -> None:
    with Shaky((503, {"Retry-After": "3"}), (502, {})) as server, server.client() as client:
        assert submit(client) == JOB
        assert [(method, key) for _, method, key in server.asked] == [("POST", "key")] * 3
        assert server.bodies == [b"onetwo"] * 3
        times = [at for at, *_ in server.asked]
        assert times[1] - times[0] >= 3


def test_a_body_that_can_be_read_once_is_sent_once() -> None:
    with Shaky((503, {})) as server, server.client() as client:
        with pytest.raises(ApiProblem):
            submit(client, attempts=1)
        assert len(server.asked) == 1


def test_the_wait_command_saves_the_results_after_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outage may begin between the job's end and its results."""
    from worker import cli_jobs

    with Shaky() as server:
        monkeypatch.setenv("TAGMILL_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TAGMILL_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("TAGMILL_API_KEY", "k")
        with monkeypatch.context() as patch:
            wait = live.wait

            def then_an_outage(*given: Any, **named: Any) -> dict[str, Any]:
                job = wait(*given, **named)
                server.refusals.append((503, {}))
                return job

            patch.setattr(live, "wait", then_an_outage)
            cli_jobs.wait("j", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"rows"
