"""Progress of a job where there is no terminal."""

import io

import pytest
from rich.console import Console

from db.session import Database
from worker import finalise, live
from worker.client import Client
from worker.job_files import NDJSON
from worker.url_lists import row


class Log(io.StringIO):
    """What a log gets: no terminal."""

    def console(self) -> Console:
        return Console(file=self, width=40)


def test_a_log_gets_a_line_every_few_seconds() -> None:
    now = [0.0]
    log = Log()
    lines = live.Lines(log.console(), 5.0, lambda: now[0])
    progress = {"settled": 3, "rate": 2.0, "eta_s": 90.0, "outcomes": {"failed": 1}}
    job = {"state": "running", "settled_at": None, "total": 200, "progress": progress}
    for now[0] in (0.0, 1.0, 4.9, 5.1, 9.0, 11.0):
        lines.show(job)
    lines.show(job | {"state": "finished", "settled_at": "2026-01-01"})
    line = "running: 3/200 done, 2.0 images/s, 1 min 30 s to go, 1 failed\n"
    assert log.getvalue() == 3 * line


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    log = Log()
    job = {"state": "running", "settled_at": None, "total": 2}
    job["progress"] = {"settled": 0, "rate": None, "eta_s": None, "outcomes": {}}
    live.Lines(Console(file=log, force_terminal=True), 5.0).show(job)
    assert log.getvalue() == ""


def test_a_wait_without_a_terminal_shows_where_it_is(
    client: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LINE_EVERY_S", 0.0)
    rows = [row({"url": "http://example.org/1.jpg"})]
    job = client.submit(lambda: rows, NDJSON, params={}, idempotency_key="k")["id"]
    log = Log()
    looks = []

    def meanwhile() -> None:
        looks.append(1)
        if len(looks) == 2:
            client.cancel(job)
            finalise.run_once(db)

    live.wait(client, job, log.console(), meanwhile=meanwhile)
    assert log.getvalue().startswith("accepted: 0/1 done\n")
    assert log.getvalue().count("\n") == len(looks) - 1
