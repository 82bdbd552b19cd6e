"""Postgres behind a wire that cuts after COMMIT, swallows or stands still: nothing twice, nothing half, no one waits
for ever."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

import db.session
from db.errors import Unavailable
from db.session import Database, long_statements
from tests.api.conftest import gunicorn
from tests.api.rows import count
from tests.conftest import Services, TestAccount
from tests.faults.front import Front
from tests.faults.proxy import Proxy
from tests.faults.servers import frozen
from tests.faults.system import MODULES, System, until
from tests.faults.test_processes import working_child

pytestmark = pytest.mark.faults
# What a transaction says when it ends a chunk, hands one out, closes a job, makes deliveries, leases and ends one.
COMMITS = {
    "a chunk's end": "UPDATE chunks SET state = 'done'",
    "a claim": "UPDATE chunks c SET state = 'leased'",
    "a job's end": "UPDATE jobs SET settled_at",
    "the outbox": "UPDATE outbox o SET fanned_at",
    "a delivery's lease": "UPDATE deliveries d SET owner",
    "a delivery's end": "UPDATE deliveries SET owner = NULL",
}


@pytest.fixture
def wire(services: Services) -> Iterator[Proxy]:
    with Proxy(services.postgres.port, postgres=True) as wire:
        yield wire


def test_the_connection_is_cut_after_commit(system: System, wire: Proxy, endpoint: dict[str, str]) -> None:
    """What was committed is not known to be: no outcome, no end and no event comes twice, and none is missing."""
    system.restart(*MODULES, TAGMILL_DATABASE_URL=wire.url(system.database_url), **endpoint)
    before, ended = system.pids(), list[UUID]()
    for cuts, (what, words) in enumerate(COMMITS.items(), 1):
        wire.cut_after_commit(words)
        ended.append(system.submit(24))
        until(lambda cuts=cuts: wire.cut == cuts, 120, f"a cut at {what}")  # type: ignore[misc]
        system.settle(ended[-1])
    assert system.pids() == before
    told = "SELECT count(*) FROM deliveries WHERE state <> 'delivered'"
    # The lease that nobody knows of would last for 45 s; one that is younger than ten is somebody's.
    hurry = text(
        "UPDATE deliveries SET lease_until = now() WHERE state = 'pending' AND lease_until < now() + interval '35 s'"
    )

    def delivered() -> bool:
        with system.owner.transaction() as session:
            session.execute(hurry)
        return system.count(told) == 0

    until(delivered, 120, "the deliveries")
    heard: dict[str, set[str | None]] = {}
    for asked in system.server.log:
        if asked.path == "/hook":
            heard.setdefault(json.loads(asked.body)["data"]["job"], set()).add(asked.header("webhook-id"))
    # And perhaps of a job of an earlier test, whose event had not been looked at when the endpoint was made.
    assert [len(heard.get(str(job), ())) for job in ended] == [1] * len(ended), "untold, or sent under two ids"


def test_the_connection_is_cut_after_a_submit(system: System, wire: Proxy) -> None:
    """The client hears 503, asks again with its key, and has one job."""
    jobs = "SELECT count(*) FROM jobs"
    before = system.count(jobs)
    with Front(system, {"TAGMILL_DATABASE_URL": wire.url(system.database_url)}) as front:
        order = system.pictures.more(20)
        wire.cut_after_commit("INSERT INTO jobs")
        first = front.submit(order, "once")
        assert (first.status, first.body["code"], wire.cut) == (503, "unavailable", 1)
        assert int(first.headers["retry-after"]) > 0
        assert system.count(jobs) == before + 1, "it was committed"
        again = front.submit(order, "once")
        assert again.headers["idempotent-replayed"] == "true"
        assert system.count(jobs) == before + 1
        system.settle(front.job(again))


def test_half_open_connections_to_postgres(system: System, wire: Proxy) -> None:
    """Neither side hears the other, and nobody tells: every process gives up in time and connects anew."""
    settings = {"TAGMILL_DATABASE_URL": wire.url(system.database_url), "TAGMILL_STATEMENT_TIMEOUT_MS": "2000"}
    system.restart(*MODULES, **settings)
    child = working_child(system, system.role("worker"))
    job = system.submit(120)
    before = system.pids()
    with system.caught([child], "infer"):
        assert wire.half_open() >= 3
    system.settle(job)
    assert system.pids() == before


def test_a_connection_that_is_asked_whether_it_lives_answers_soon(database_url: str, wire: Proxy) -> None:
    """Else it is given up, long before a statement of it would be."""
    database = Database(wire.url(database_url))
    try:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
        wire.half_open()
        began = time.monotonic()
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
        assert time.monotonic() - began < 20  # three seconds are meant; a statement has 35
    finally:
        database.dispose()


def test_a_connection_gives_up_on_a_server_that_says_nothing(
    database_url: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the time of a statement is over; later on if that is meant."""
    monkeypatch.setattr(db.session, "SPARE_S", 1)
    database = Database(wire.url(database_url), statement_timeout_ms=2000)
    try:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
            long_statements(session, 60)
            session.execute(text("SELECT pg_sleep(3.5)"))  # more than a statement may take otherwise, and what is spare
        with pytest.raises(Unavailable), database.transaction() as session:
            session.execute(text("SELECT 1"))
            wire.half_open()
            session.execute(text("SELECT 1"))
    finally:
        database.dispose()


def test_postgres_stands_still(system: System, services: Services) -> None:
    """SIGSTOP of every process of it. The API says so within ten seconds and keeps no thread; all goes on after."""
    system.settle(system.submit(8))
    with Front(system, {"TAGMILL_STATEMENT_TIMEOUT_MS": "2000"}, threads=8) as front:
        assert front.ask("GET", "/readyz").status == 200
        job = system.submit(60)
        orders = [system.pictures.more(2) for _ in range(10)]
        before = system.pids()
        with frozen(services.postgres):
            ready = front.ask("GET", "/readyz")
            # Three seconds for what it has, five to connect anew; without an end of its own it would wait for ever.
            assert (ready.status, ready.seconds < 25) == (503, True), ready
            with ThreadPoolExecutor(10) as clients:
                replies = list(clients.map(front.submit, orders))
            assert {(reply.status, reply.headers["retry-after"]) for reply in replies} == {(503, "5")}
            alive = front.ask("GET", "/healthz")
            assert (alive.status, alive.seconds < 5) == (200, True), "it asks nobody"
        until(lambda: front.ask("GET", "/readyz").status == 200, 60, "the API to be ready again")
        accepted = [front.job(front.submit(order)) for order in orders[:4]]
        system.settle(job, *accepted)
        assert system.pids() == before


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGQUIT], ids=["killed", "immediate"])
def test_postgres_stops_in_the_middle_of_a_copy(
    services: Services, database_url: str, owner_db: Database, account: TestAccount, tmp_path: Path, stop: int
) -> None:
    """The job is absent, and the client's retry with the same key makes it, whole."""
    number = 300_000
    body = b"".join(b'{"url": "http://shop.example/%d.jpg"}\n' % n for n in range(number))
    headers = {"Authorization": f"Bearer {account.secret}", "Content-Type": "application/x-ndjson"}
    headers["Idempotency-Key"] = "once"
    with gunicorn(database_url, tmp_path, max_items_per_job=number) as server, ThreadPoolExecutor(1) as client:

        def submit() -> tuple[int, dict[str, object]]:
            connection = HTTPConnection(server.address, timeout=300)
            connection.request("POST", "/v1/jobs", body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        first = client.submit(submit)
        with psycopg.connect(database_url, autocommit=True) as looking:
            copied = "SELECT coalesce(max(tuples_processed), 0) FROM pg_stat_progress_copy"
            until(lambda: looking.execute(copied).fetchone()[0] > 1000, 120, "the COPY")  # type: ignore[index]
            assert services.postgres.pid is not None
            os.kill(services.postgres.pid, stop)
        services.postgres.kill()
        assert first.result(120)[0] == 503
        services.postgres.start()
        assert [count(owner_db, table) for table in ("jobs", "items", "chunks")] == [0, 0, 0]
        status, accepted = submit()
        assert (status, accepted["total"]) == (202, number)
        assert count(owner_db, "items") == number
        with owner_db.transaction() as session:
            covered = session.scalar(text("SELECT sum(hi - lo) FROM chunks"))
        assert covered == number


def test_postgres_refuses_every_connection(system: System, wire: Proxy) -> None:
    """What is open is cut, what is new is refused: the API answers all the while, and is well afterwards."""
    with Front(system, {"TAGMILL_DATABASE_URL": wire.url(system.database_url)}) as front:
        order = system.pictures.more(4)
        wire.refuse()
        assert front.submit(order).status == 503
        assert front.ask("GET", "/readyz").status == 503
        assert front.ask("GET", "/healthz").status == 200
        wire.flow()
        system.settle(front.job(front.submit(order)))
