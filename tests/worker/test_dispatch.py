"""Hints: few, small, repeated, and no trouble to anybody when the broker is away."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from db.blobs import LocalBlobs
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.line import ingested, jpeg, rows, run_sql, settings
from worker.app import KEY_PREFIX, QUEUE
from worker.dispatch import Dispatcher, Turns

QUEUED = KEY_PREFIX + QUEUE


@pytest.fixture
def ready(owner_db: Database, account: TestAccount, tmp_path: Path) -> int:
    """Ten ready infer chunks."""
    ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("red", n) for n in range(40)], chunk_size=4)
    return 10


@pytest.fixture
def broker(broker_url: str) -> "Iterator[redis.Redis]":
    with redis.Redis.from_url(broker_url) as client:
        yield client


def bodies(broker: "redis.Redis") -> list[bytes]:
    messages = broker.lrange(QUEUED, 0, -1)
    return [base64.b64decode(json.loads(message)["body"]) for message in messages]


@pytest.mark.usefixtures("ready")
def test_hints_up_to_the_window(
    db: Database, database_url: str, broker_url: str, broker: "redis.Redis", tmp_path: Path
) -> None:
    dispatcher = Dispatcher(settings(tmp_path, database_url, broker_url, hint_window=4), db)
    assert [dispatcher.run_once() for _ in range(3)] == [4, 0, 0]
    assert broker.llen(QUEUED) == 4
    broker.lpop(QUEUED, 3)
    assert dispatcher.run_once() == 3
    dispatcher.close()


@pytest.mark.usefixtures("ready")
def test_a_hint_is_small_json(
    db: Database, database_url: str, broker_url: str, broker: "redis.Redis", tmp_path: Path
) -> None:
    dispatcher = Dispatcher(settings(tmp_path, database_url, broker_url), db)
    dispatcher.run_once()
    dispatcher.close()
    ids = {row.id for row in rows(db, "SELECT id FROM chunks WHERE stage = 'infer'")}
    hints = [json.loads(body)[1] for body in bodies(broker)]
    assert {hint["chunk_id"] for hint in hints} == ids
    assert {hint["v"] for hint in hints} == {1}
    assert max(map(len, bodies(broker))) <= 200
    assert max(map(len, broker.lrange(QUEUED, 0, -1))) <= 1200


@pytest.mark.usefixtures("ready")
def test_a_flushed_hint_is_sent_again(
    db: Database, owner_db: Database, database_url: str, broker_url: str, broker: "redis.Redis", tmp_path: Path
) -> None:
    dispatcher = Dispatcher(settings(tmp_path, database_url, broker_url, resend_s=30), db)
    assert dispatcher.run_once() == 10
    broker.flushdb()
    assert dispatcher.run_once() == 0, "not before resend_s"
    run_sql(owner_db, "UPDATE chunks SET hinted_at = hinted_at - interval '31 s'")
    assert dispatcher.run_once() == 10
    dispatcher.close()


@pytest.mark.usefixtures("ready")
def test_a_broker_that_is_away(db: Database, database_url: str, tmp_path: Path) -> None:
    """One line, no exception, and nothing in Postgres changes."""
    dispatcher = Dispatcher(settings(tmp_path, database_url, "redis://127.0.0.1:9/0"), db)
    with capture_logs() as lines:
        assert [dispatcher.run_once() for _ in range(3)] == [0, 0, 0]
        dispatcher.canary()
    assert [line["event"] for line in lines] == ["broker away, will keep trying"]
    assert rows(db, "SELECT 1 FROM chunks WHERE hinted_at IS NOT NULL") == []


def test_between_its_turns_only_what_is_urgent_is_hinted(
    db: Database,
    owner_db: Database,
    account: TestAccount,
    database_url: str,
    broker_url: str,
    broker: "redis.Redis",
    tmp_path: Path,
) -> None:
    with_settings = settings(
        tmp_path, database_url, broker_url, urgent_poll_s=0.1, dispatch_every_s=0.5, canary_every_s=5
    )
    dispatcher = Dispatcher(with_settings, db)
    turns = Turns(dispatcher, with_settings)
    assert turns() == 0
    assert broker.llen(QUEUED) == 1, "the canary of the first turn"
    assert turns.pause_s() == pytest.approx(0.5), "all is quiet: only whole turns"
    ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("red")])
    assert turns() == 1
    assert turns.pause_s() == pytest.approx(0.1)
    ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("red", 1)])
    assert [turns() for _ in range(4)] == [0, 0, 0, 0]
    assert turns() == 1, "the fifth is a whole turn"
    ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("blue")], lane="interactive")
    assert [turns() for _ in range(3)] == [1, 0, 0]
    dispatcher.close()


def test_after_a_quiet_time_it_looks_as_seldom_as_for_other_work(
    db: Database,
    owner_db: Database,
    account: TestAccount,
    database_url: str,
    broker_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_settings = settings(tmp_path, database_url, broker_url, dispatch_every_s=0.5, urgent_poll_s=0.1)
    dispatcher = Dispatcher(with_settings, db)
    turns = Turns(dispatcher, with_settings)
    looks = 0

    def looked() -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(dispatcher, "urgent", looked)
    assert [turns() for _ in range(10)] == [0] * 10
    assert looks == 0
    ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("blue")], lane="interactive")
    assert [turns() for _ in range(5)] == [1, 0, 0, 0, 0]
    assert looks == 4
    dispatcher.close()
