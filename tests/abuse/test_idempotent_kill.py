"""Fifty equal posts at once, and the API is killed in the middle: one job in the end, and the same answer for all."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.session import Database
from tests.api.conftest import Server, gunicorn
from tests.api.rows import count
from tests.conftest import TestAccount

MANY = 50
PATIENCE_S = 240.0  # servers that start again and again, on a machine with other work
BODY = {"items": [{"url": f"http://shop.example/{n}.jpg"} for n in range(2000)]}
Answer = tuple[int, dict[str, Any], dict[str, str]]


class Clients:
    """Fifty of them; each posts the same with the same key until it has an answer that is one, wherever the API is."""

    def __init__(self, account: TestAccount, key: str) -> None:
        self.key, self.secret = key, account.secret
        self.server: Server | None = None
        self.failed = 0
        self.answered = 0

    def post(self, body: dict[str, Any]) -> Answer | None:
        """One try; None where the connection ended without an answer."""
        server = self.server
        if server is None:
            time.sleep(0.05)
            return None
        headers = {
            "Authorization": f"Bearer {self.secret}", "Content-Type": "application/json", "Idempotency-Key": self.key,
        }  # fmt: skip
        connection = HTTPConnection(server.address, timeout=120)
        try:
            connection.request("POST", "/v1/jobs", json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), dict(answer.getheaders())
        except (OSError, HTTPException, ValueError):
            self.failed += 1
            return None
        finally:
            connection.close()

    def persist(self, _: int) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            answer = self.post(BODY)
            if answer is not None and answer[0] == 202:
                self.answered += 1
                return answer
            assert answer is None or answer[0] in (409, 503), answer
            time.sleep(0.05)
        raise AssertionError(f"no answer in {PATIENCE_S:.0f} s")


@contextmanager
def held(owner_db: Database, table: str) -> Iterator[None]:
    """Nobody writes into the table meanwhile: what is in flight stays in flight."""
    with owner_db.engine.connect() as connection, connection.begin():
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
        yield


def waiting(owner_db: Database) -> int:
    with owner_db.transaction() as session:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return int(session.scalar(text(sql)) or 0)


def until(condition: Any, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("table", ["chunks", "idempotency"])
def test_a_kill_in_the_middle_of_fifty_equal_posts(
    database_url: str, owner_db: Database, account: TestAccount, tmp_path: Path, table: str
) -> None:
    """The middle: the first of them is in its transaction, before or after it wrote the job."""
    clients = Clients(account, f"order-{table}")
    settings = {"database_role": "tagmill_api", "database_pool": 8}
    with ThreadPoolExecutor(MANY) as pool:
        with gunicorn(database_url, tmp_path, **settings) as server:
            with held(owner_db, table):
                clients.server = server
                answers = [pool.submit(clients.persist, n) for n in range(MANY)]
                until(lambda: waiting(owner_db) >= 1)
                clients.server = None
                os.killpg(server.pid, signal.SIGKILL)
            until(lambda: waiting(owner_db) == 0 and clients.failed > 0)
        assert clients.answered == 0
        assert count(owner_db, "jobs") == 0, "nothing of what was in flight is there"
        with gunicorn(database_url, tmp_path, **settings) as server:
            clients.server = server
            told = [each.result(PATIENCE_S + 30) for each in answers]
            other = clients.post({"items": [{"url": "http://shop.example/other.jpg"}]})
    assert count(owner_db, "jobs") == 1
    assert count(owner_db, "items") == len(BODY["items"])
    assert len({json.dumps(body, sort_keys=True) for _, body, _ in told}) == 1
    replayed = [headers.get("Idempotent-Replayed") for *_, headers in told]
    assert (replayed.count(None), replayed.count("true")) == (1, MANY - 1)
    assert other is not None
    assert (other[0], other[1]["code"]) == (422, "idempotency_key_reused")


def test_kills_at_any_moment(database_url: str, owner_db: Database, account: TestAccount, tmp_path: Path) -> None:
    """Three times, while they all post; sooner or later it stays up."""
    clients = Clients(account, "order-again")
    lives = [0.05, 0.15, 0.3]
    with ThreadPoolExecutor(MANY) as pool:
        answers = [pool.submit(clients.persist, n) for n in range(MANY)]
        for life in lives:
            with gunicorn(database_url, tmp_path, database_role="tagmill_api") as server:
                clients.server = server
                threading.Event().wait(life)
                clients.server = None
                os.killpg(server.pid, signal.SIGKILL)
        with gunicorn(database_url, tmp_path, database_role="tagmill_api") as server:
            clients.server = server
            told = [each.result(PATIENCE_S + 30) for each in answers]
    assert count(owner_db, "jobs") == 1
    assert len({body["id"] for _, body, _ in told}) == 1
