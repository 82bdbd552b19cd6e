"""A long export beside running work: its reader may take all day, and no transaction waits for it."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from db import endings, jobs
from db.jobs import JobSpec, NewItem
from tests.faults.front import Front
from tests.faults.system import System, until
from tests.oracle import Expected

pytestmark = pytest.mark.faults
ROWS = 12_000
HORIZON_S = 60.0  # the promise: nobody's snapshot is older, so that vacuum can do its work
OPEN = "FROM pg_stat_activity WHERE application_name = 'tagmill-api' AND xact_start IS NOT NULL"


@pytest.fixture
def large(system: System) -> Iterator[UUID]:
    """A job of many rows with long URLs, that has ended: no export of it fits into what lies between server and client.
    No crawler sees it; its rows are gone afterwards."""
    items = [NewItem(url=f"http://shop.example/{n}/{'x' * 1000}") for n in range(ROWS)]
    with system.owner.transaction() as session:
        job = jobs.submit(session, system.account_id, JobSpec(), items, max_items=ROWS).id
        for sql in (
            "UPDATE chunks SET state = 'done', finished_at = now(), failed = hi - lo,"
            " codes = jsonb_build_object('http_404', hi - lo) WHERE job_id = :job",
            "INSERT INTO results (bucket, job_id, seq, account_id, outcome, code)"
            " SELECT bucket, job_id, seq, account_id, 'failed', 'http_404' FROM items WHERE job_id = :job",
        ):
            session.execute(text(sql), {"job": job})
        assert endings.finish(session, job)
    system.accepted[job] = [Expected(code="http_404")] * ROWS
    yield job
    del system.accepted[job]
    with system.owner.transaction() as session:
        for table in ("results", "items"):
            session.execute(text(f"DELETE FROM {table} WHERE job_id = :job"), {"job": job})


class Reader:
    """A client that reads a little now and then, until it is told to hurry."""

    def __init__(self, front: Front, path: str) -> None:
        self.hurry = threading.Event()
        self.said = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(120)
        self._socket.connect(("127.0.0.1", front.port))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {front.authorization}\r\n\r\n"
        self._socket.sendall(head.encode())

    def read(self) -> list[dict[str, object]]:
        """The rows."""
        told = bytearray()
        with self._socket:
            while piece := self._socket.recv(2048):
                told += piece
                self.said = len(told)
                if self.hurry.wait(0.1):
                    break
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            while piece := self._socket.recv(65_536):
                told += piece
        head, _, body = bytes(told).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        if b"chunked" in head.lower():
            body = b"".join(chunks_of(body))
        return [json.loads(line) for line in body.splitlines()]


def chunks_of(body: bytes) -> Iterator[bytes]:
    """The pieces of a body in chunked transfer coding, to its proper end."""
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        assert end >= 0, "the export was cut off"
        size = int(body[at:end], 16)
        if size == 0:
            return
        yield body[end + 2 : end + 2 + size]
        at = end + 4 + size


def dead_that_stay(url: str, table: str) -> int:
    """Dead rows that a vacuum may not remove, because somebody's snapshot is older than their death."""
    said: list[str] = []
    with psycopg.connect(url, autocommit=True) as owner:
        owner.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        owner.execute(f"VACUUM (VERBOSE) {table}")
    found = re.search(r"(\d+) are dead but not yet removable", "\n".join(said))
    assert found is not None, said
    return int(found[1])


def test_a_slow_reader_of_an_export_is_in_nobodys_way(system: System, large: UUID) -> None:
    """Work goes on, dead rows can be removed, no transaction of the API is old; and the export is whole."""
    ages: list[float] = []
    oldest = text(f"SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0) {OPEN}")

    def settled(job: UUID) -> bool:
        with system.owner.transaction() as session:
            ages.append(float(session.execute(oldest).scalar_one()))
        return system.ended(job)

    with Front(system, {"TAGMILL_SEND_IDLE_S": "300"}) as front, ThreadPoolExecutor(1) as pool:
        reader = Reader(front, f"/v1/jobs/{large}/results?format=ndjson")
        reading = pool.submit(reader.read)
        try:
            until(lambda: reader.said > 1000, 60, "the export to begin")
            for number in (120, 80):
                # The reader is in the middle of it, and no transaction of the API waits for it.
                until(lambda: system.count(f"SELECT count(*) {OPEN}") == 0, 15, "the API to leave Postgres alone")
                job = system.submit(number)
                until(lambda job=job: settled(job), 150, "work beside the export")  # type: ignore[misc]
                system.settle(job)
                until(lambda: dead_that_stay(system.database_url, "chunks") == 0, 60, "dead rows to be removable")
                time.sleep(0.5)
            assert not reading.done(), "the export was over before the work was"
        finally:
            reader.hurry.set()
        rows = reading.result(240)
    assert [row["item_id"] for row in rows] == [f"{large.hex}-{n}" for n in range(ROWS)]
    assert {row["code"] for row in rows} == {"http_404"}
    print(f"oldest transaction of the API beside the export: {max(ages):.2f} s in {len(ages)} looks")
    assert max(ages) < HORIZON_S
