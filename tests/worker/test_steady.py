"""Loops that must never end go on after whatever the database raises, and do their work again when it is well."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from db import chunks, hosts, jobs
from db.chunks import Chunk
from db.ids import uuid7
from db.jobs import JobSpec, NewItem
from db.session import Database
from tests.conftest import TestAccount
from tests.hostile import HostileServer
from tests.misbehaviour import png
from tests.worker.line import rows
from tests.worker.test_ingest import Line
from worker.crawl_loop import Crawler
from worker.heartbeat import Heartbeat
from worker.leases import LeaseKeeper, Leases
from worker.log import get
from worker.pauses import Pauses
from worker.politeness import HostGate
from worker.steady import Steady

Trouble = Callable[[str], AbstractContextManager[None]]


@contextmanager
def no_table(url: str, table: str) -> Iterator[None]:
    """The table is not there: an error that no loop expects."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(SQL("ALTER TABLE {} RENAME TO away").format(Identifier(table)))
        try:
            yield
        finally:
            owner.execute(SQL("ALTER TABLE away RENAME TO {}").format(Identifier(table)))


@contextmanager
def read_only(url: str, _: str) -> Iterator[None]:
    """A database that only reads, like a standby taken for the primary, or a disk that is all but full."""
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as owner:
        name = Identifier(owner.info.dbname)
        hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
        own = (owner.info.dbname, owner.info.backend_pid)
        owner.execute(SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        owner.execute(hang_up, own)
        try:
            yield
        finally:
            owner.execute(SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
            owner.execute(hang_up, own)


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within 20 seconds."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(Exception):  # connections that were cut
            if true():
                return True
        time.sleep(0.05)
    return False


troubles = pytest.mark.parametrize("trouble", [no_table, read_only])


@troubles
def test_a_heartbeat_goes_on(db: Database, owner_db: Database, database_url: str, trouble: Trouble) -> None:
    with Heartbeat(db, "test", every_s=0.05, stats=dict) as beat:
        with trouble(database_url, "workers"):
            time.sleep(0.5)
        seen = "SELECT 1 FROM workers WHERE id = :id AND last_seen_at > CAST(:then AS timestamptz)"
        then = rows(owner_db, "SELECT clock_timestamp()::text AS now")[0].now
        assert eventually(lambda: bool(rows(owner_db, seen, id=beat.id, then=then)))


@troubles
def test_leases_are_kept_on(
    db: Database, owner_db: Database, database_url: str, account: TestAccount, trouble: Trouble
) -> None:
    chunk = leased(owner_db, account.id)
    leases = Leases(db, 1.0, step_s=600)
    leases.add(chunk)
    with LeaseKeeper(leases, 60):
        with trouble(database_url, "chunks"):
            time.sleep(0.5)
        assert eventually(lambda: kept(owner_db, chunk))


def test_a_crawler_keeps_its_leases_and_pauses_on(
    db: Database, owner_db: Database, database_url: str, account: TestAccount, tmp_path: Path
) -> None:
    chunk = leased(owner_db, account.id)

    async def run() -> None:
        gate = HostGate()
        gate.restore({"slow.example": 600.0})
        crawler = Crawler.__new__(Crawler)
        crawler._leases = Leases(db, 0.3, step_s=600)
        crawler._leases.add(chunk)
        crawler._running = {}
        crawler._log = get("crawler")
        crawler._threads = None  # type: ignore[assignment] # asyncio's own
        pauses = Pauses(db, gate, crawler._in_thread)
        loops = [asyncio.create_task(crawler._keep_leases()), asyncio.create_task(pauses.keep())]
        with no_table(database_url, "chunks"):
            await asyncio.sleep(0.4)
        with no_table(database_url, "hosts"):
            await asyncio.sleep(0.8)
        assert await asyncio.to_thread(eventually, lambda: kept(owner_db, chunk))
        assert await asyncio.to_thread(eventually, lambda: "slow.example" in paused(owner_db))
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    asyncio.run(run())


def test_a_crawler_claims_on(db: Database, database_url: str, account: TestAccount, tmp_path: Path) -> None:
    owner = Database(database_url)
    with HostileServer(files={"1.png": png(20, 10)}, addresses=("127.0.0.1",)) as server:
        line = Line(owner, database_url, tmp_path, server, account.id)
        job = line.submit(["1.png"])
        in_trouble = threading.Event()

        def trouble() -> None:
            with no_table(database_url, "hosts"):
                in_trouble.set()
                time.sleep(1.5)

        meanwhile = threading.Thread(target=trouble)
        meanwhile.start()
        in_trouble.wait(10)
        try:
            line.crawl()
        finally:
            meanwhile.join()
        assert line.outcomes(job) == [None]
    owner.dispose()


def test_one_turn_is_lost_and_told_once() -> None:
    steady = Steady(get("test"), "test")
    for _ in range(3):
        with steady:
            raise ValueError("this turn")
    assert steady._throttle.held == 2
    with pytest.raises(KeyboardInterrupt), steady:
        raise KeyboardInterrupt


def leased(database: Database, account_id: int) -> Chunk:
    """A chunk of a new job, leased for a moment."""
    with database.transaction() as session:
        jobs.submit(session, account_id, JobSpec(), [NewItem(url="http://a.example/")], max_items=1, chunk_size=1)
        return chunks.claim(session, "ingest", uuid7(), 0.1)[0]


def kept(database: Database, chunk: Chunk) -> bool:
    """Whether the lease, short as it is, reaches beyond now."""
    return bool(rows(database, "SELECT 1 FROM chunks WHERE id = :id AND lease_until > now()", id=chunk.id))


def paused(database: Database) -> dict[str, float]:
    with database.transaction() as session:
        return hosts.blocked_until(session)
