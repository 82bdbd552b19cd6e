"""Postgres at its limits: no space, no connections, old snapshots; other clocks, another schema, and from a backup."""

import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from db import accounts, chunks, jobs, migrate, stats
from db.ids import uuid7
from db.jobs import JobSpec, NewItem
from db.recording import IngestOutcome, finish_ingest
from db.session import WORKER_ROLE, Database
from tests.conftest import Services, TestAccount
from tests.db import test_races
from tests.faults.front import Front
from tests.faults.system import MODULES, PATIENT, System, until
from tests.faults.test_processes import working_child
from worker.embedded import EmbeddedPostgres, postgres_binaries

pytestmark = pytest.mark.faults
MIB = 1 << 20
FETCHED = "SELECT count(*) FROM ingests WHERE job_id = :job"
TRIES = "SELECT max(attempts) FROM chunks WHERE job_id = :job"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_the_disk_of_postgres_is_full(small_disk: Path, tmp_path: Path) -> None:
    """503 while it is, the row or nothing, and no harm done: with space again the same request makes the job."""
    from tests.api.conftest import gunicorn
    from tests.api.rows import count

    settings = {"shared_buffers": "16MB", "max_wal_size": "32MB", "min_wal_size": "32MB", "fsync": "off"}
    with EmbeddedPostgres(small_disk / "postgres", settings=settings) as postgres:
        migrate.upgrade(postgres.url)
        owner = Database(postgres.url)
        with owner.transaction() as session:
            account = accounts.create(session, "acme")
            _, secret = accounts.create_key(session, account.id, "test", accounts.SCOPES)
        with gunicorn(postgres.url, tmp_path, max_items_per_job=500_000) as server:
            front = _Requests(server.address, secret)
            assert front.submit(1000, "small") == 202
            ballast = small_disk / "ballast"
            _fill(ballast, leave=4 * MIB)
            assert front.submit(300_000, "large") == 503
            assert {front.submit(10, "tiny") for _ in range(5)} <= {202, 503}
            assert front.status("/healthz") == 200
            ballast.unlink()

            def ready() -> bool:
                if not postgres.running:  # no space for its log: it ends, now or a little later, and recovers
                    postgres.kill()
                    postgres.start()
                return front.status("/readyz") == 200

            until(ready, 120, "the API to be ready again")
            assert front.submit(300_000, "large") == 202
            assert front.submit(300_000, "large") == 202
            assert front.submit(10, "tiny") == 202
        assert [count(owner, "jobs"), count(owner, "items")] == [3, 301_010]
        owner.dispose()
        if (postgres_binaries() / "pg_amcheck").exists():
            where = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGUSER": "tagmill"}
            checked = subprocess.run(
                [postgres_binaries() / "pg_amcheck", "--install-missing", "tagmill"],
                env=os.environ | where | {"PGPASSWORD": postgres.password},
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert checked.returncode == 0, checked.stdout[-2000:] + checked.stderr[-2000:]


class _Requests:
    """Large jobs whose pictures nobody fetches."""

    def __init__(self, address: str, secret: str) -> None:
        self._address = address
        self._secret = secret

    def submit(self, number: int, key: str) -> int:
        body = b"".join(b'{"url": "http://shop.example/%s/%d.jpg"}\n' % (key.encode(), n) for n in range(number))
        return self.status("/v1/jobs", body, key)

    def status(self, path: str, body: bytes | None = None, key: str = "") -> int:
        from http.client import HTTPConnection

        connection = HTTPConnection(self._address, timeout=300)
        headers = {"Authorization": f"Bearer {self._secret}", "Content-Type": "application/x-ndjson"}
        if body is not None:
            headers["Idempotency-Key"] = key
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status


def _fill(path: Path, leave: int) -> None:
    """A file as large as the file system lets it be but for `leave` bytes."""
    free = os.statvfs(path.parent)
    with path.open("wb") as file:
        for _ in range(max(0, (free.f_bavail * free.f_frsize - leave) // MIB)):
            file.write(b"\0" * MIB)


def test_too_few_connections(system: System) -> None:
    """Fewer than the roles want: they wait and try again, the API says 503 and when to come back; nobody ends."""
    url = system.database_url
    as_worker = url.replace("tagmill:" + url.split(":")[2].split("@")[0], "tagmill_worker:worker")
    as_api = as_worker.replace("tagmill_worker:worker", "tagmill_api:api")
    system.restart(*MODULES, TAGMILL_DATABASE_URL=as_worker)
    system.settle(system.submit(8))
    before = system.pids()
    with psycopg.connect(url, autocommit=True) as owner:
        try:
            with Front(system, {"TAGMILL_DATABASE_URL": as_api, "TAGMILL_DATABASE_POOL": "4"}) as front:
                owner.execute("ALTER ROLE tagmill_worker CONNECTION LIMIT 3")
                owner.execute("ALTER ROLE tagmill_api CONNECTION LIMIT 1")
                cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'tagmill_%'"
                held = [row[0] for row in owner.execute(cut.replace("SELECT", "SELECT pid,")).fetchall()]
                # Each counts until it has ended: the one that is allowed would be none.
                there = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
                until(lambda: owner.execute(there, [held]).fetchone() == (0,), 60, "the connections to end")
                orders = [system.pictures.more(2) for _ in range(40)]
                with ThreadPoolExecutor(20) as clients:
                    replies = list(clients.map(front.submit, orders))
                assert {reply.status for reply in replies} <= {202, 503}
                assert all(int(r.headers["retry-after"]) > 0 for r in replies if r.status == 503)
                accepted = [front.job(reply) for reply in replies if reply.status == 202]
                assert accepted, "one connection is enough for one at a time"
                time.sleep(2)
        finally:
            owner.execute("ALTER ROLE tagmill_worker CONNECTION LIMIT -1")
            owner.execute("ALTER ROLE tagmill_api CONNECTION LIMIT -1")
    system.settle(*accepted)
    assert system.pids() == before


def test_all_connections_of_the_api_are_taken(system: System) -> None:
    """By requests that wait for a lock: the others hear 503 and when to come back, and workers are not in their way."""
    with Front(system, {"TAGMILL_DATABASE_POOL": "2"}, threads=30) as front, ThreadPoolExecutor(30) as clients:
        with system.owner.transaction() as session:
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            session.execute(text("LOCK TABLE idempotency IN ACCESS EXCLUSIVE MODE"))
            orders = [system.pictures.more(1) for _ in range(30)]
            waiting = [clients.submit(front.submit, order, f"k{n}") for n, order in enumerate(orders)]
            until(lambda: any(each.done() for each in waiting), 60, "an answer")
            system.settle(system.submit(16))
        replies = [each.result(120) for each in waiting]
        assert {reply.status for reply in replies} <= {202, 503}
        refused = [reply for reply in replies if reply.status == 503]
        assert refused
        assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)
        system.settle(*(front.job(reply) for reply in replies if reply.status == 202))
        again = next(n for n, reply in enumerate(replies) if reply.status == 503)
        system.settle(front.job(front.submit(orders[again], f"k{again}")))


@pytest.mark.parametrize(
    "hours", [pytest.param(1, id="ahead"), pytest.param(-1, id="behind", marks=pytest.mark.nemesis)]
)
def test_the_clocks_of_all_roles_are_wrong(system: System, hours: int) -> None:
    """Leases, hints and what waits go by the database's clock alone."""
    found = find_spec("libfaketime")
    if found is None or found.origin is None:
        pytest.skip("libfaketime is not installed")
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        pytest.skip(f"libfaketime does not load here: {error}")
    shifted = {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{hours * 3600 + hours * 60:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        **PATIENT,
    }
    system.restart("crawler", "worker", **shifted)
    system.restart("maintenance", **PATIENT)
    one = system.submit(24)
    system.settle(one)
    system.restart("crawler", "worker", **PATIENT)
    system.restart("maintenance", **shifted)
    other = system.submit(24)
    system.settle(other)
    assert [system.count(TRIES, job=job) for job in (one, other)] == [1, 1], "a lease was lost"


def test_the_schema_goes_back_and_forth_under_running_workers(system: System) -> None:
    """The newest migrations are taken back and made again, twice, with data, while everything runs: what was in hand
    is recorded when the schema is there again, and counts as tried once."""
    system.restart(*MODULES, **PATIENT)
    before = system.pids()
    submitted: list[UUID] = []
    met = 0  # under load: a migration may wait for roles for as long as a job takes
    while met < 2:
        assert len(submitted) < 6, "it was never under load"
        submitted.append(system.submit(400))
        until(lambda: system.count(FETCHED, job=submitted[-1]) > 0, 120, "the first pictures")
        migrate.downgrade(system.database_url, "0017")  # without `validators`, which crawlers write
        time.sleep(1)
        met += system.outcomes(submitted[-1]) < 400
        migrate.upgrade(system.database_url)
    system.settle(*submitted)
    assert system.pids() == before
    assert {system.count(TRIES, job=job) for job in submitted} == {1}


def test_a_backup_from_the_middle_of_the_work(system: System, services: Services, tmp_path: Path) -> None:
    """Restored into an empty database, what was accepted before it is done to the end, once."""
    binaries = postgres_binaries()
    if not (binaries / "pg_dump").exists():
        pytest.skip("no pg_dump beside this Postgres")
    child = working_child(system, system.role("worker"))
    job = system.submit(300)
    until(lambda: system.outcomes(job) > 0, 120, "the first outcomes")
    dump = tmp_path / "dump"
    # Of all jobs: by the time the worker is caught, this one may be done and another have taken its place.
    outcomes, undone = "SELECT count(*) FROM results", "SELECT count(*) FROM chunks WHERE state <> 'done'"
    with system.caught([child], "infer"):
        had = system.count(outcomes)
        subprocess.run([binaries / "pg_dump", "-Fc", "-f", dump, system.database_url], check=True, timeout=240)
    until(lambda: system.count(outcomes) > had, 120, "outcomes that the backup does not have")
    for role in list(system.roles):
        system.end(role)
    system.owner.dispose()
    name = system.database_url.rsplit("/", 1)[1]
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    restore = [binaries / "pg_restore", "--exit-on-error", "-d", system.database_url, dump]
    subprocess.run(restore, check=True, timeout=240)
    assert system.count(outcomes) == had
    assert system.count(undone), "the backup is not of the middle of the work"
    system.mend()
    system.settle(job)


@pytest.mark.nemesis
def test_races_two_hundred_times(database_url: str, account: TestAccount, request: pytest.FixtureRequest) -> None:
    """Two last chunks at once, and the reaper against the owner: 25 rounds in tests/db, eight times as many here."""
    pooled = Database(database_url, role=WORKER_ROLE, pool_size=12)
    for _ in range(8):
        test_races.test_two_last_chunks_at_once_end_the_job_once(pooled, account)
        test_races.test_reaper_and_owner_never_both_end_a_chunk(pooled, account)
    pooled.dispose()


@pytest.mark.nemesis
def test_claims_stay_fast_beside_an_old_snapshot(database_url: str, owner_db: Database, account: TestAccount) -> None:
    """A transaction that sees the past keeps every dead row; for a minute of claims and ends, 99 of 100 claims take
    less than 200 ms, and the metrics show the dead rows."""
    worker = Database(database_url, role=WORKER_ROLE, pool_size=4)
    with psycopg.connect(database_url) as old:
        old.execute("SET idle_in_transaction_session_timeout = 0")
        old.commit()
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM chunks")
        took: list[float] = []
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            _job(owner_db, account.id, 2048)
            while (seconds := _claim_and_end(worker)) is not None:
                took.append(seconds)

        def dead() -> float:
            with worker.transaction() as session:
                return max(s.value for s in stats.samples(session) if s.name == "dead_rows")

        until(lambda: dead() > len(took), 60, "the metrics to show the dead rows")
    worker.dispose()
    assert len(took) > 200
    assert statistics.quantiles(took, n=100)[98] < 0.2


def _job(database: Database, account_id: int, number: int) -> UUID:
    items = [NewItem(url=f"http://shop.example/{uuid7()}.jpg") for _ in range(number)]
    with database.transaction() as session:
        return jobs.submit(session, account_id, JobSpec(), items, max_items=10_000, chunk_size=16).id


def _claim_and_end(database: Database) -> float | None:
    """Seconds that one claim took; None when nothing was ready."""
    began = time.perf_counter()
    with database.transaction() as session:
        claimed = chunks.claim(session, "ingest", uuid7(), 60)
    seconds = time.perf_counter() - began
    for chunk in claimed:
        with database.transaction() as session:
            finish_ingest(session, chunk, [IngestOutcome(seq, code="http_404") for seq in chunk.members])
    return seconds if claimed else None
