"""What the doctor says of webhooks: keys that do not fit, endpoints that we disabled, deliveries that nobody sends."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from db import delivery_queue, outbox, review_load, webhooks, workers
from db.ids import uuid7
from db.session import Database
from db.webhook_secrets import Keys, key_id
from tests.conftest import TestAccount
from tests.worker.line import run_sql, settings
from worker import doctor_webhooks, roles
from worker.findings import Finding
from worker.heartbeat import Counters
from worker.local import Place
from worker.reporting import Report

KEY, OTHER = "k" * 40, "o" * 40


@pytest.fixture
def where(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.delenv("TAGMILL_WEBHOOK_KEYS", raising=False)
    return Place(database_url, "", tmp_path / "blobs", tmp_path / "models", "configured", runs=True)


@pytest.fixture
def hook(owner_db: Database, account: TestAccount) -> UUID:
    with owner_db.transaction() as session:
        made, _ = webhooks.create(
            session, account.id, "https://hooks.example/in?token=t0ken", None, None, keys=Keys([KEY]), actor="test"
        )
        return made.id


def maintenance(database: Database, *keys: str) -> None:
    """A process of maintenance that has these keys, and said so a moment ago."""
    with database.transaction() as session:
        workers.beat(session, uuid7(), "maintenance", "box", 7, {"webhook_keys": [key_id(key) for key in keys]})


def found(where: Place) -> dict[str, Finding]:
    all_ = list(doctor_webhooks.webhooks(where))
    assert all(bool(finding.remedy) == (finding.state != "good") for finding in all_), all_
    assert not any("t0ken" in finding.found for finding in all_), "a URL may hold a secret"
    names = {finding.name: finding for finding in all_}
    assert len(names) == len(all_), all_
    return names


def waiting(database: Database, account: TestAccount, number: int = 1) -> None:
    with database.transaction() as session:
        for _ in range(number):
            outbox.emit(session, account.id, "job.finished", str(uuid7()), {})
        delivery_queue.fan_out(session)


def test_nothing_is_said_where_there_are_no_webhooks(where: Place, owner_db: Database) -> None:
    assert found(where) == {}
    maintenance(owner_db)
    assert found(where) == {}


def test_all_is_well(where: Place, owner_db: Database, account: TestAccount, hook: UUID) -> None:
    maintenance(owner_db, OTHER, KEY)
    waiting(owner_db, account)
    assert {name: each.state for name, each in found(where).items()} == {"webhook key": "good", "webhooks": "good"}
    assert "1 delivery waiting" in found(where)["webhooks"].found


@pytest.mark.parametrize(("keys", "words"), [((), "has no key"), ((OTHER,), "lacks the key of 1 of 1 endpoint")])
def test_maintenance_without_the_key_of_a_secret(
    where: Place, owner_db: Database, account: TestAccount, hook: UUID, keys: tuple[str, ...], words: str
) -> None:
    maintenance(owner_db, *keys)
    waiting(owner_db, account, 2)
    run_sql(owner_db, "UPDATE deliveries SET code = 'no_signing_key'")
    key = found(where)["webhook key"]
    assert (key.state, words in key.found) == ("broken", True), key
    assert "on box" in key.found
    assert "2 deliveries could not be signed" in key.found
    assert "TAGMILL_WEBHOOK_KEYS" in key.remedy
    assert "webhooks rotate" in key.remedy
    run_sql(owner_db, "UPDATE webhooks SET state = 'disabled', reason = 'owner', disabled_at = now()")
    assert found(where) == {}, "who gets nothing needs no key"


def test_a_key_that_only_one_of_two_senders_has(where: Place, owner_db: Database, hook: UUID) -> None:
    maintenance(owner_db, KEY)
    maintenance(owner_db, KEY, OTHER)
    assert "different keys" in found(where)["webhook key"].found
    maintenance(owner_db, OTHER)
    assert found(where)["webhook key"].state == "broken"
    run_sql(owner_db, "UPDATE workers SET last_seen_at = now() - interval '1 hour'")
    maintenance(owner_db, KEY)
    assert found(where)["webhook key"].state == "good", "the silent ones send nothing"


def test_the_keys_of_the_environment(
    where: Place, owner_db: Database, hook: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor runs where one role does: with the API's keys it can say that maintenance has others."""
    monkeypatch.setenv("TAGMILL_WEBHOOK_KEYS", f"{OTHER}, {KEY}")
    maintenance(owner_db, KEY)
    assert "first key of TAGMILL_WEBHOOK_KEYS here" in found(where)["webhook key"].found
    run_sql(owner_db, "DELETE FROM workers")
    assert "webhook key" not in found(where)
    monkeypatch.setenv("TAGMILL_WEBHOOK_KEYS", OTHER)
    key = found(where)["webhook key"]
    assert (key.state, "this environment lacks" in key.found) == ("warning", True)
    monkeypatch.setenv("TAGMILL_WEBHOOK_KEYS", f"{KEY},tooshortAKEY")
    key = found(where)["webhook key"]
    assert (key.state, "less than 32" in key.found, "tooshort" in key.found) == ("broken", True, False)
    assert "token_hex" in key.remedy


@pytest.mark.parametrize("reason", ["failing", "gone", "owner"])
def test_endpoints_that_we_disabled(
    where: Place, owner_db: Database, account: TestAccount, hook: UUID, reason: str
) -> None:
    run_sql(owner_db, "UPDATE webhooks SET state = 'disabled', reason = :reason, disabled_at = now()", reason=reason)
    told = found(where)
    if reason == "owner":
        assert told == {}
        return
    said = told["webhooks"]
    assert said.state == "warning"
    assert str(hook) in said.found
    assert reason in said.found
    assert "webhooks enable" in said.remedy


def test_endpoints_that_only_fail(where: Place, owner_db: Database, hook: UUID) -> None:
    run_sql(owner_db, "UPDATE webhooks SET failures = 3, failing_since = now() - interval '59 minutes'")
    assert found(where)["webhooks"].state == "good", "a restart takes a while"
    run_sql(owner_db, "UPDATE webhooks SET failing_since = now() - interval '61 minutes'")
    said = found(where)["webhooks"]
    assert (said.state, "1 h 01 min" in said.found) == ("warning", True)


def test_deliveries_that_nobody_sends(where: Place, owner_db: Database, account: TestAccount, hook: UUID) -> None:
    waiting(owner_db, account, 2)
    run_sql(owner_db, "UPDATE deliveries SET not_before = now() - interval '299 s'")
    assert found(where)["webhooks"].state == "good"
    run_sql(owner_db, "UPDATE deliveries SET not_before = now() - interval '301 s'")
    said = found(where)["webhooks"]
    assert (said.state, "2 deliveries" in said.found, "maintenance" in said.remedy) == ("warning", True, True)
    assert found(replace(where, runs=False))["webhooks"].state == "good", "nothing runs that could have sent it"
    run_sql(owner_db, "UPDATE webhooks SET paused_until = now() + interval '1 minute'")
    assert found(where)["webhooks"].state == "good", "the receiver asked for patience"
    run_sql(owner_db, "UPDATE webhooks SET paused_until = NULL")
    run_sql(owner_db, "UPDATE deliveries SET owner = gen_random_uuid(), lease_until = now() + interval '1 minute'")
    assert found(where)["webhooks"].state == "good", "it is being sent"


def test_maintenance_tells_ids_of_its_keys_and_no_key(database_url: str, tmp_path: Path) -> None:
    counters = Counters()
    counters.add(seal=3)
    told = Report(settings(tmp_path, database_url, webhook_keys=[KEY, OTHER]), counters).stats()
    assert told == {"seal": 3, "webhook_keys": [key_id(KEY), key_id(OTHER)]}


def test_the_process_reports_them_and_what_waits_for_people(where: Place, owner_db: Database, hook: UUID) -> None:
    variables = {
        "TAGMILL_DATABASE_URL": where.database_url,
        "TAGMILL_DATABASE_ROLE": "tagmill_worker",
        "TAGMILL_BROKER_URL": "redis://127.0.0.1:1/0",
        "TAGMILL_BLOB_ROOT": str(where.blob_root),
        "TAGMILL_MODEL_ROOT": str(where.model_root),
        "TAGMILL_WEBHOOK_KEYS": OTHER,
        "TAGMILL_HEARTBEAT_S": "0.1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.maintenance"],
        env=roles.environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any("maintenance started" in line for line in process.stdout), "it has beaten before it says so"
        assert "lacks the key" in found(where)["webhook key"].found
        assert any(_told(owner_db) or time.sleep(0.05) for _ in range(1200)), "with one of the next beats"
    finally:
        process.kill()
        process.wait(10)


def _told(database: Database) -> bool:
    with database.transaction() as session:
        return bool(review_load.told(session))
