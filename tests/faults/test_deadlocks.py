"""Transactions of ours that Postgres aborts to save others: each is done again, once, and costs nothing else."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest

from tests.faults.front import Front, Reply
from tests.faults.servers import PLACES, failing
from tests.faults.system import MODULES, PATIENT, System, until
from tests.oracle import check

pytestmark = pytest.mark.faults


def persistent(front: Front, number: int, key: str) -> tuple[UUID, list[Reply]]:
    """A job as a careful client orders it: again, with its key, until it is accepted. And all answers."""
    order, replies = front.system.pictures.more(number), list[Reply]()

    def accepted() -> bool:
        replies.append(front.submit(order, key))
        return replies[-1].status == 202

    until(accepted, 120, "the job to be accepted")
    return front.job(replies[-1]), replies


def test_half_of_all_transactions_are_aborted(system: System, endpoint: dict[str, str]) -> None:
    """By a deadlock or a serial order that there is not, at every place where rows are claimed or ended."""
    system.restart(*MODULES, **PATIENT, **endpoint)
    before = system.pids()
    until(lambda: system.undelivered() == 0, 120, "the events of earlier jobs to be looked at")
    with Front(system) as front:
        jobs_before = system.count("SELECT count(*) FROM jobs")
        with failing(system.database_url) as reached:
            job, replies = persistent(front, 100, "aborted")
            assert [reply.status for reply in replies] == [503, 503, 202]
            assert all(int(reply.headers["retry-after"]) > 0 for reply in replies[:2])
            system.settle(job)
            until(lambda: system.undelivered() == 0, 120, "the event to be told")
            assert {place: reached(place) for place in PLACES if reached(place) < 3} == {}
        assert system.count("SELECT count(*) FROM jobs") == jobs_before + 1
    check(system.owner, dict(system.accepted), told=True)
    assert system.count("SELECT max(attempts) FROM chunks WHERE job_id = :job", job=job) == 1, "it cost an attempt"
    assert {name: pid for name, pid in system.pids().items() if name in MODULES} == before


@dataclass(frozen=True)
class Circle:
    """A transaction of `ours`, `doing` this, wants what a session of the test took `first`, and has what that wants
    `then`."""

    ours: str
    doing: str
    first: str
    then: str


CIRCLES = {
    "submit": Circle(
        "tagmill-api", "INSERT INTO idempotency", "LOCK idempotency IN EXCLUSIVE MODE", "LOCK jobs IN SHARE MODE"
    ),
    "claim": Circle(
        "tagmill crawler",
        "UPDATE jobs SET state = 'running'",
        "SELECT FROM jobs WHERE id = %(job)s FOR UPDATE",
        "SELECT FROM chunks WHERE job_id = %(job)s FOR UPDATE",
    ),
    "chunk's end": Circle(
        "tagmill worker",
        "COPY .results_b",
        "LOCK results IN SHARE MODE",
        "SELECT FROM chunks WHERE job_id = %(job)s AND stage = 'infer' FOR UPDATE",
    ),
    "job's end": Circle(
        "tagmill maintenance",
        "INSERT INTO outbox",
        "LOCK outbox IN SHARE MODE",
        "SELECT FROM jobs WHERE id = %(job)s FOR UPDATE",
    ),
    "outbox": Circle(
        "tagmill webhooks", "INSERT INTO deliveries", "LOCK deliveries IN SHARE MODE", "LOCK outbox IN EXCLUSIVE MODE"
    ),
    "delivery's end": Circle(
        "tagmill webhooks",
        "INSERT INTO delivery_attempts",
        "LOCK delivery_attempts IN SHARE MODE",
        "SELECT FROM deliveries WHERE state = 'pending' FOR UPDATE",
    ),
}
NOTICED_S = 3


@pytest.fixture
def late_to_notice(system: System) -> Iterator[None]:
    """Postgres looks for a deadlock when a transaction has waited for so long: the circle must be closed by then, and
    the test's own session looks later still. So it is ours that are aborted."""
    name = system.database_url.rsplit("/", 1)[1]
    with psycopg.connect(system.database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '{NOTICED_S}s'")
        yield
        owner.execute(f"ALTER DATABASE {name} RESET deadlock_timeout")


class Rival:
    """A session of the test, which takes the locks of a circle in the other order."""

    def __init__(self, system: System, circle: Circle) -> None:
        self._system, self._circle = system, circle
        self._session = psycopg.connect(system.database_url)
        self._session.execute("SET LOCAL deadlock_timeout = '5min'")
        self._session.execute("SET LOCAL idle_in_transaction_session_timeout = 0")

    def take_first(self, job: UUID | None = None) -> None:
        self._session.execute(self._circle.first, {"job": job})

    def close(self, job: UUID | None = None) -> bool:
        """Want the rest, until one of ours was ended for it, and go away. Whether that was by a deadlock: where the
        circle was closed too late, ours has given up by itself."""
        count, before = self._system.count, self._deadlocks()
        waits = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = :ours AND query ~ :doing AND :me = ANY(pg_blocking_pids(pid))"
        )
        us = {"ours": self._circle.ours, "doing": self._circle.doing, "me": self._session.info.backend_pid}
        until(lambda: count(waits, **us) > 0, 120, f"{self._circle.ours} to wait")
        self._session.execute(self._circle.then, {"job": job})
        self._session.close()
        counted_until = time.monotonic() + 15  # who is idle counts every ten seconds
        while self._deadlocks() == before and time.monotonic() < counted_until:
            time.sleep(0.1)
        return self._deadlocks() > before

    def _deadlocks(self) -> int:
        return self._system.count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@pytest.mark.usefixtures("late_to_notice")
def test_deadlocks_with_somebody_else(system: System, endpoint: dict[str, str]) -> None:
    """Real ones, at each place in turn, with a session that takes the same locks in the other order."""
    system.restart(*MODULES, **PATIENT, **endpoint)
    before = system.pids()
    crawler = system.role("crawler")
    crawler.wait_for("crawler started")
    jobs: list[UUID] = []

    def submitted(rival: Rival) -> bool:
        rival.take_first()
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(rival.close)
            job, replies = persistent(front, 8, f"circle-{len(jobs)}")
            assert [reply.status for reply in replies] == [503, 202]
            jobs.append(job)
            return closed.result()

    def circle(place: str) -> bool:
        rival = Rival(system, CIRCLES[place])
        if place == "submit":
            return submitted(rival)
        if place == "claim":
            with system.still(crawler):  # what is to be locked is not there before
                jobs.append(system.submit(8))
                rival.take_first(jobs[-1])
        else:
            rival.take_first()
            jobs.append(system.submit(8))
        return rival.close(jobs[-1])

    with Front(system) as front:
        for place in CIRCLES:
            until(lambda place=place: circle(place), 120, f"a deadlock at a {place}")  # type: ignore[misc]
            system.settle(*jobs)
            until(lambda: system.undelivered() == 0, 120, f"everything to be told after a deadlock at a {place}")
    check(system.owner, dict(system.accepted), told=True)
    tries = "SELECT max(attempts) FROM chunks WHERE job_id = ANY(:jobs)"
    assert system.count(tries, jobs=jobs) == 1, "it cost an attempt"
    assert {name: pid for name, pid in system.pids().items() if name in MODULES} == before
