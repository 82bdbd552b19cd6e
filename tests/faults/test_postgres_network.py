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

import psycopg
import pytest
from sqlalchemy import text

import db.session
from db import webhooks
from db.errors import Unavailable
from db.session import Database, long_statements
from db.webhook_secrets import Keys
from tests.api.conftest import gunicorn
from tests.api.rows import count
from tests.conftest import Services, TestAccount
from tests.faults.front import Front
from tests.faults.proxy import Proxy
from tests.faults.system import MODULES, System, until

pytestmark = pytest.mark.faults
KEY = "k" * 40
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


def pids(system: System) -> dict[str, int]:
    return {role.name: role.pid for role in system.roles if role.process.poll() is None}


def frozen(services: Services) -> list[int]:
    """Every process of the server."""
    pid = services.postgres.pid
    assert pid is not None
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.fixture
def endpoint(system: System) -> Iterator[dict[str, str]]:
    """An endpoint that hears of every job's end; settings under which it is sent to."""
    system.server.files["hook"] = b"ok"  # type: ignore[index]
    with system.owner.transaction() as session:
        url = system.server.url("hook")
        hook, _ = webhooks.create(session, system.account_id, url, None, None, keys=Keys([KEY]), actor="test")
    yield {
        "TAGMILL_WEBHOOK_KEYS": KEY,
        "TAGMILL_WEBHOOK_HTTP": "1",
        "TAGMILL_WEBHOOK_PORTS": str(system.server.port),
        "TAGMILL_WEBHOOK_CIDRS": "127.0.0.0/8",
        "TAGMILL_WEBHOOK_POLL_S": "0.1",
    }
    with system.owner.transaction() as session:
        webhooks.delete(session, system.account_id, hook.id, actor="test")


def test_the_connection_is_cut_after_commit(system: System, wire: Proxy, endpoint: dict[str, str]) -> None:
    """What was committed is not known to be: no outcome, no end and no event comes twice, and none is missing."""
    system.restart(*MODULES, TAGMILL_DATABASE_URL=wire.url(system.database_url), **endpoint)
    before, ended = pids(system), []
    for cuts, (what, words) in enumerate(COMMITS.items(), 1):
        wire.cut_after_commit(words)
        ended.append(system.submit(24))
        until(lambda cuts=cuts: wire.cut == cuts, 60, f"a cut at {what}")  # type: ignore[misc]
        system.settle(ended[-1], timeout=90)
    assert pids(system) == before
    told = "SELECT count(*) FROM deliveries WHERE state <> 'delivered'"
    hurry = text("UPDATE deliveries SET lease_until = now() WHERE owner IS NOT NULL AND state = 'pending'")

    def delivered() -> bool:
        with system.owner.transaction() as session:
            session.execute(hurry)  # the lease that nobody knows of would last for 45 s
        return system.count(told) == 0

    until(delivered, 60, "the deliveries")
    heard = [json.loads(asked.body)["data"]["job"] for asked in system.server.log if asked.path == "/hook"]
    ids = {asked.header("webhook-id") for asked in system.server.log if asked.path == "/hook"}
    assert set(heard) == {str(job) for job in ended}
    assert len(ids) == len(ended), "an event was sent under two ids"


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
    job = system.submit(120)
    until(lambda: system.outcomes(job) > 0, 60, "the first outcomes")
    before = pids(system)
    assert wire.half_open() >= 3
    assert system.outcomes(job) < 120, "it was not under load"
    system.settle(job, timeout=90)
    assert pids(system) == before


def test_a_connection_gives_up_on_a_server_that_says_nothing(
    database_url: str, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon where it is asked whether it lives; else when the time of a statement is over; later on if that is meant."""
    monkeypatch.setattr(db.session, "SPARE_S", 0.5)
    database = Database(wire.url(database_url), statement_timeout_ms=500)
    try:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
            long_statements(session, 30)
            session.execute(text("SELECT pg_sleep(1.5)"))  # more than a statement may take otherwise, and what is spare
        wire.half_open()
        began = time.monotonic()
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
        assert time.monotonic() - began < 5
        with pytest.raises(Unavailable), database.transaction() as session:
            session.execute(text("SELECT 1"))
            wire.half_open()
            session.execute(text("SELECT 1"))
        assert time.monotonic() - began < 15
    finally:
        database.dispose()


def test_postgres_stands_still(system: System, services: Services) -> None:
    """SIGSTOP of every process of it. The API says so within ten seconds and keeps no thread; all goes on after."""
    system.settle(system.submit(8))
    with Front(system, {"TAGMILL_STATEMENT_TIMEOUT_MS": "2000"}, threads=8) as front:
        assert front.ask("GET", "/readyz").status == 200
        job = system.submit(60)
        orders = [system.pictures.more(2) for _ in range(10)]
        stopped = frozen(services)
        before = pids(system)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            ready = front.ask("GET", "/readyz")
            assert (ready.status, ready.seconds < 12) == (503, True), ready
            with ThreadPoolExecutor(10) as clients:
                replies = list(clients.map(front.submit, orders))
            assert {(reply.status, reply.headers["retry-after"]) for reply in replies} == {(503, "5")}
            assert max(reply.seconds for reply in replies) < 40
            alive = front.ask("GET", "/healthz")
            assert (alive.status, alive.seconds < 5) == (200, True)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        until(lambda: front.ask("GET", "/readyz").status == 200, 30, "the API to be ready again")
        accepted = [front.job(front.submit(order)) for order in orders[:4]]
        system.settle(job, *accepted, timeout=90)
        assert pids(system) == before


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGQUIT], ids=["killed", "immediate"])
def test_postgres_stops_in_the_middle_of_a_copy(
    services: Services, database_url: str, owner_db: Database, account: TestAccount, tmp_path: Path, stop: int
) -> None:
    """The job is absent, and the client's retry with the same key makes it, whole."""
    number = 150_000
    body = b"".join(b'{"url": "http://shop.example/%d.jpg"}\n' % n for n in range(number))
    headers = {"Authorization": f"Bearer {account.secret}", "Content-Type": "application/x-ndjson"}
    headers["Idempotency-Key"] = "once"
    with gunicorn(database_url, tmp_path, max_items_per_job=number) as server, ThreadPoolExecutor(1) as client:

        def submit() -> tuple[int, dict[str, object]]:
            connection = HTTPConnection(server.address, timeout=120)
            connection.request("POST", "/v1/jobs", body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        first = client.submit(submit)
        with psycopg.connect(database_url, autocommit=True) as looking:
            copied = "SELECT coalesce(max(tuples_processed), 0) FROM pg_stat_progress_copy"
            until(lambda: looking.execute(copied).fetchone()[0] > 1000, 60, "the COPY")  # type: ignore[index]
            assert services.postgres.pid is not None
            os.kill(services.postgres.pid, stop)
        services.postgres.kill()
        assert first.result(60)[0] == 503
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
