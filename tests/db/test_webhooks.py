"""Endpoints, secrets and deliveries in the database: nothing lost, nothing twice, bounded, walled."""

import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import standardwebhooks
from sqlalchemy import text

from db import deliveries, delivery_queue, outbox, registry, stats, webhook_secrets, webhooks
from db.codes import CODES
from db.delivery_queue import Bounds, Claimed, Tried
from db.errors import Conflict, LeaseLost, NotFound
from db.ids import uuid7
from db.session import Database
from db.webhook_secrets import BadSignature, Keys, NoKey
from tests.conftest import TestAccount, make_account

KEY = "k" * 40
KEYS = Keys([KEY])
FAILED = Tried("http_5xx", 500, 0.1, again_s=5)


def endpoint(
    database: Database, account: TestAccount, types: list[str] | None = None, url: str = "https://hooks.example/in"
) -> UUID:
    with database.transaction(account.id) as session:
        return webhooks.create(session, account.id, url, types, None, keys=KEYS, actor="test")[0].id


def emit(database: Database, account: TestAccount, number: int = 1, type_: str = "job.finished") -> None:
    with database.transaction() as session:
        for _ in range(number):
            outbox.emit(session, account.id, type_, str(uuid7()), {"n": 1})


def fan_out(database: Database) -> int:
    with database.transaction() as session:
        return delivery_queue.fan_out(session)


def claim(database: Database, limit: int = 100, bounds: Bounds = Bounds(), lease_s: float = 60) -> list[Claimed]:  # noqa: B008
    with database.transaction() as session:
        return delivery_queue.claim(session, uuid7(), lease_s, limit, bounds)


def record(database: Database, claimed: Claimed, tried: Tried) -> str | None:
    with database.transaction() as session:
        return delivery_queue.record(session, claimed, tried, disable_days=5)


def rows(database: Database, sql: str, **parameters: Any) -> list[Any]:
    with database.transaction() as session:
        return list(session.execute(text(sql), parameters).all())


def run_sql(database: Database, sql: str, **parameters: Any) -> None:
    with database.transaction() as session:
        session.execute(text(sql), parameters)


def due(database: Database) -> None:
    """Hours later."""
    run_sql(database, "UPDATE deliveries SET not_before = now() - interval '1 s' WHERE state = 'pending'")
    run_sql(database, "UPDATE webhooks SET paused_until = NULL")


# --- from the outbox -------------------------------------------------------------------------------------------------


def test_an_event_committed_late_is_not_passed_over(db: Database, owner_db: Database, account: TestAccount) -> None:
    """Its id is older than one that was fanned out before its commit: a cursor over ids would lose it."""
    endpoint(owner_db, account)
    with db.transaction() as late:
        outbox.emit(late, account.id, "job.finished", "late", {})
        late.flush()
        emit(db, account)
        assert fan_out(db) == 1
    ids = rows(db, "SELECT subject FROM outbox ORDER BY id")
    assert ids[0].subject == "late", "the late one has the older id"
    assert fan_out(db) == 1
    assert len(rows(db, "SELECT 1 FROM deliveries")) == 2
    assert fan_out(db) == 0


def test_an_event_goes_to_the_endpoints_that_ask_for_it(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    every = endpoint(api_db, account)
    finished = endpoint(api_db, account, ["job.finished"])
    endpoint(api_db, account, ["job.cancelled"])
    endpoint(api_db, rival)
    disabled = endpoint(api_db, account)
    with api_db.transaction(account.id) as session:
        webhooks.update(session, account.id, disabled, enabled=False, actor="test")
    emit(db, account)
    assert fan_out(db) == 1
    assert {row.webhook_id for row in rows(db, "SELECT webhook_id FROM deliveries")} == {every, finished}


def test_fanning_out_side_by_side_makes_each_delivery_once(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    endpoint(owner_db, account)
    emit(db, account, 200)
    done: list[int] = []

    def some() -> None:
        while True:
            with db.transaction() as session:
                if not (number := delivery_queue.fan_out(session, 7)):
                    return
                done.append(number)

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(done) == 200
    assert len(rows(db, "SELECT 1 FROM deliveries")) == 200


def test_the_same_event_twice_is_one(db: Database, owner_db: Database, account: TestAccount) -> None:
    rival = make_account(owner_db, "rival")
    with db.transaction() as session:
        said = [outbox.emit(session, who.id, "job.finished", "x", {}) for who in (account, account, rival)]
    assert said == [True, False, True]
    with pytest.raises(ValueError, match="no such event"), db.transaction() as session:
        outbox.emit(session, account.id, "job.finish", "x", {})


def test_a_payload_that_is_too_large_keeps_what_fits() -> None:
    small = {"job": "x", "scores": {"a": 1}}
    assert outbox.thin(small) == small
    large = {"job": "x", "reasons": ["r" * 1000] * 30, "notes": "n" * 5000, "verdict": "reject"}
    kept = outbox.thin(large)
    assert kept == {"job": "x", "notes": "n" * 5000, "verdict": "reject", "omitted": ["reasons"]}
    assert len(json.dumps(outbox.thin({str(n): "x" * 500 for n in range(200)}))) <= outbox.MAX_PAYLOAD


def test_failed_items_are_told_in_groups_and_only_to_who_asks(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    from db import chunks, jobs, recording
    from db.jobs import JobSpec, NewItem
    from db.recording import IngestOutcome

    def fail_all() -> str:
        items = [NewItem(url=f"http://x.example/{n}.jpg") for n in range(230)]
        with db.transaction() as session:
            job = jobs.submit(session, account.id, JobSpec(), items, max_items=1000, chunk_size=512)
            while claimed := chunks.claim(session, "ingest", uuid7(), 60, limit=100):
                for chunk in claimed:
                    outcomes = [IngestOutcome(n, code="http_404") for n in chunk.members]
                    recording.finish_ingest(session, chunk, outcomes)
            return str(job.id)

    fail_all()
    assert rows(db, "SELECT 1 FROM outbox") == []
    endpoint(owner_db, account, ["item.failed"])
    job = fail_all()
    events = [row.payload for row in rows(db, "SELECT payload FROM outbox")]
    assert {event["job"] for event in events} == {job}
    told = [(item["item"], item["code"]) for event in events for item in event["items"]]
    assert sorted(told) == sorted((f"{job.replace('-', '')}-{n}", "http_404") for n in range(230))


def test_a_group_of_failed_items_fits_into_an_event(db: Database, owner_db: Database, account: TestAccount) -> None:
    from db import chunks, jobs
    from db.jobs import JobSpec, NewItem

    endpoint(owner_db, account)
    with db.transaction() as session:
        jobs.submit(session, account.id, JobSpec(), [NewItem(url="http://x.example/")], max_items=9, chunk_size=512)
        (chunk,) = chunks.claim(session, "ingest", uuid7(), 60)
        longest = max(CODES, key=len)
        assert outbox.failures(session, chunk, [(10**6 + n, longest) for n in range(230)]) == 3
    events = [row.payload for row in rows(db, "SELECT payload FROM outbox ORDER BY round")]
    assert [len(event["items"]) for event in events] == [100, 100, 30]
    assert not any("omitted" in event for event in events)


def test_an_activated_model_is_told_to_every_account_that_asks(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    rival, deaf = make_account(owner_db, "rival"), make_account(owner_db, "deaf")
    endpoint(api_db, account, ["model.activated"])
    endpoint(api_db, rival)
    endpoint(api_db, deaf, ["job.finished"])
    with db.transaction() as session:
        for version in ("1", "2"):
            card = {"name": "tagger", "version": version, "task": "tags"}
            registry.install_model(session, card, version * 64)
            registry.activate(session, "tagger", version)
        registry.rollback(session, "tags")
    told = rows(db, "SELECT account_id, subject, round, payload FROM outbox ORDER BY account_id, created_at, id")
    expected = [("tagger@1", 0, None), ("tagger@2", 0, "tagger@1"), ("tagger@1", 1, "tagger@2")]
    for who in (account, rival):
        own = {(row.subject, row.round, row.payload["replaced"]) for row in told if row.account_id == who.id}
        assert own == set(expected)
    assert {row.account_id for row in told} == {account.id, rival.id}
    with api_db.transaction(account.id) as session:
        assert outbox.activated(session, "tags", "tagger@3", None) == 2, "also by a role that sees one account"


# --- the queue -------------------------------------------------------------------------------------------------------


def test_no_endpoint_and_no_account_gets_more_than_its_share(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    busy = [endpoint(owner_db, account) for _ in range(3)]
    other = endpoint(owner_db, rival)
    emit(db, account, 10)
    emit(db, rival, 10)
    fan_out(db)
    bounds = Bounds(endpoint=4, account=6)
    held = claim(db, bounds=bounds)
    by_endpoint = Counter(each.webhook_id for each in held)
    assert [by_endpoint[each] for each in busy] == [2, 2, 2], "endpoints take turns within their account"
    assert by_endpoint[other] == 4
    assert claim(db, bounds=bounds) == [], "what is in work counts, whoever has it"
    done = next(each for each in held if each.webhook_id == other)
    record(db, done, Tried(None, 200, 0.1))
    assert [each.webhook_id for each in claim(db, bounds=bounds)] == [other]
    assert len(claim(db, limit=0)) == 0


def test_one_claim_at_a_time_so_that_the_bounds_hold_for_all_senders(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    endpoint(owner_db, account)
    emit(db, account)
    fan_out(db)
    with db.transaction() as first:
        assert len(delivery_queue.claim(first, uuid7(), 60, 9, Bounds())) == 1
        first.flush()
        emit(db, account)
        fan_out(db)
        assert claim(db) == []
    assert len(claim(db)) == 1


def test_an_endpoint_that_fails_is_probed_with_one_try_at_a_time(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    hook = endpoint(owner_db, account)
    emit(db, account, 10)
    fan_out(db)
    for each in claim(db)[:3]:
        record(db, each, FAILED)
    run_sql(db, "UPDATE deliveries SET owner = NULL, lease_until = NULL")
    assert claim(db) == [], "left alone for a moment"
    (pause,) = rows(db, "SELECT extract(epoch FROM paused_until - now()) AS s FROM webhooks")
    assert 0 < pause.s <= 5
    due(db)
    (probe,) = claim(db)
    record(db, probe, Tried(None, 204, 0.1))
    assert len(claim(db)) == 4
    with db.transaction() as session:
        assert webhooks.get(session, account.id, hook).failing_since is None


def test_who_lost_the_lease_writes_nothing(db: Database, owner_db: Database, account: TestAccount) -> None:
    endpoint(owner_db, account)
    emit(db, account)
    fan_out(db)
    (zombie,) = claim(db, lease_s=0)
    time.sleep(0.01)
    (owner,) = claim(db)
    assert (owner.event_id, owner.fence) == (zombie.event_id, zombie.fence + 1)
    with pytest.raises(LeaseLost):
        record(db, zombie, FAILED)
    assert rows(db, "SELECT 1 FROM delivery_attempts") == []
    record(db, owner, Tried(None, 200, 0.25))
    (row,) = rows(db, "SELECT n, code, status, seconds FROM delivery_attempts")
    assert tuple(row) == (1, None, 200, 0.25)
    with pytest.raises(LeaseLost):
        record(db, owner, FAILED)


def test_410_ends_an_endpoint_and_gives_up_what_waits(db: Database, owner_db: Database, account: TestAccount) -> None:
    hook = endpoint(owner_db, account)
    emit(db, account, 3)
    fan_out(db)
    first, second, _ = claim(db)
    assert record(db, first, Tried("http_410", 410, 0.1, again_s=None)) == "gone"
    with pytest.raises(LeaseLost):
        record(db, second, Tried(None, 200, 0.1))
    with db.transaction() as session:
        ended = webhooks.get(session, account.id, hook)
        assert (ended.state, ended.reason) == ("disabled", "gone")
        found = deliveries.page(session, account.id, hook, state="failed")
    assert Counter(each.code for each in found) == {"http_410": 1, "endpoint_disabled": 2}
    (entry,) = rows(db, "SELECT actor, detail FROM audit_log WHERE action = 'webhook.disable'")
    assert (entry.actor, entry.detail) == ("system", {"reason": "gone", "code": "http_410"})
    emit(db, account)
    fan_out(db)
    assert claim(db) == []


def test_days_of_nothing_but_failures_disable_an_endpoint(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    hook = endpoint(owner_db, account)
    emit(db, account, 2)
    fan_out(db)
    assert record(db, claim(db)[0], FAILED) is None
    run_sql(db, "UPDATE webhooks SET failing_since = now() - interval '4.9 days'")
    due(db)
    run_sql(db, "UPDATE deliveries SET owner = NULL, lease_until = NULL")
    assert record(db, claim(db)[0], FAILED) is None
    run_sql(db, "UPDATE webhooks SET failing_since = now() - interval '5.1 days'")
    due(db)
    run_sql(db, "UPDATE deliveries SET owner = NULL, lease_until = NULL")
    assert record(db, claim(db)[0], Tried("no_signing_key", None, 0, again_s=5, ours=True)) is None, "our own fault"
    due(db)
    run_sql(db, "UPDATE deliveries SET owner = NULL, lease_until = NULL")
    assert record(db, claim(db)[0], FAILED) == "failing"
    with db.transaction() as session:
        assert webhooks.get(session, account.id, hook).reason == "failing"
        again = webhooks.update(session, account.id, hook, enabled=True, actor="test")
        assert (again.state, again.failures, again.failing_since) == ("enabled", 0, None)


def test_what_was_missed_is_sent_again_and_what_arrived_is_not(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    hook = endpoint(owner_db, account, ["job.finished"])
    began = datetime.now(UTC) - timedelta(seconds=1)
    emit(db, account)
    emit(db, account, type_="job.cancelled")
    fan_out(db)
    (arrived,) = claim(db)
    record(db, arrived, Tried(None, 200, 0.1))
    emit(db, account)
    fan_out(db)
    with db.transaction() as session:
        webhooks.update(session, account.id, hook, enabled=False, actor="test")
        with pytest.raises(Conflict):
            deliveries.redeliver_since(session, account.id, hook, began, actor="test")
        with pytest.raises(Conflict):
            deliveries.redeliver(session, account.id, hook, arrived.event_id, actor="test")
        with pytest.raises(Conflict):
            webhooks.ping(session, account.id, hook)
    emit(db, account)
    fan_out(db)
    with db.transaction() as session:
        webhooks.update(session, account.id, hook, enabled=True, actor="test")
        assert deliveries.redeliver_since(session, account.id, hook, datetime.now(UTC), actor="test") == 0
        assert deliveries.redeliver_since(session, account.id, hook, began, actor="test") == 2
        assert deliveries.redeliver_since(session, account.id, hook, began, actor="test") == 0, "they wait already"
    again = claim(db)
    assert len(again) == 2
    assert arrived.event_id not in {each.event_id for each in again}
    with db.transaction() as session:
        once_more = deliveries.redeliver(session, account.id, hook, arrived.event_id, actor="test")
    assert (once_more.state, once_more.step, once_more.attempts) == ("pending", 0, 1)
    (last,) = claim(db, bounds=Bounds(9, 9))
    assert last.event_id == arrived.event_id, "under the same id"


def test_old_events_are_forgotten_with_their_log_and_what_waits_is_not(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    endpoint(owner_db, account)
    emit(db, account, 2)
    fan_out(db)
    record(db, claim(db, limit=1)[0], Tried(None, 200, 0.1))
    emit(db, account)
    run_sql(owner_db, "UPDATE outbox SET created_at = now() - interval '31 days'")
    with db.transaction() as session:
        assert delivery_queue.forget(session, 32) == 0
        assert delivery_queue.forget(session, 30) == 1, "neither what waits nor what is not fanned out"
    assert rows(db, "SELECT 1 FROM delivery_attempts") == []
    assert len(rows(db, "SELECT 1 FROM outbox")) == 2


def test_the_numbers_for_operators(db: Database, owner_db: Database, account: TestAccount) -> None:
    endpoint(owner_db, account)
    emit(db, account, 3)
    fan_out(db)
    first, second, _ = claim(db)
    record(db, first, Tried(None, 200, 0.1))
    record(db, second, Tried("http_410", 410, 0.1))
    emit(db, account)
    run_sql(owner_db, "UPDATE deliveries SET created_at = now() - interval '1 hour'")
    with db.transaction() as session:
        found = {(each.name, *sorted(each.labels.values())): each.value for each in stats.samples(session)}
    assert found["webhooks", "disabled", "gone"] == 1
    assert found["webhook_attempts_last_hour", "delivered"] == found["webhook_attempts_last_hour", "http_410"] == 1
    assert found["webhook_given_up_last_day", "endpoint_disabled"] == 1
    assert found["webhook_pending",] == found["webhook_oldest_pending_seconds",] == 0
    assert found["outbox_waiting",] == 1


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_signatures_are_those_of_the_standard() -> None:
    salt, key = KEYS.new()
    secret = KEYS.secret(salt, key)
    now = int(time.time())
    body = '{"type":"job.finished","data":{"name":"größe"}}'.encode()
    given = webhook_secrets.headers([secret], "event-1", now, body)
    shown = webhook_secrets.shown(secret)
    assert shown.startswith("whsec_")
    assert webhook_secrets.read(shown) == secret
    assert 24 <= len(secret) <= 64
    receiver = standardwebhooks.Webhook(shown)
    assert receiver.verify(body, given)["type"] == "job.finished"
    webhook_secrets.verify(secret, given, body, now)
    old = webhook_secrets.headers([secret], "event-1", now - 301, body)
    for headers, sent in ((given, body + b" "), (old, body), ({**given, "webhook-id": "event-2"}, body)):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            receiver.verify(sent, headers)
        with pytest.raises(BadSignature):
            webhook_secrets.verify(secret, headers, sent, now)


def test_a_secret_needs_its_salt_and_its_key() -> None:
    salt, key = KEYS.new()
    assert KEYS.secret(salt, key) != KEYS.secret(KEYS.new()[0], key)
    later = Keys(["n" * 40, KEY])
    assert later.secret(salt, key) == KEYS.secret(salt, key), "an old key finds its secrets"
    assert later.new()[1] != key, "the first key makes new ones"
    with pytest.raises(NoKey):
        Keys(["n" * 40]).secret(salt, key)
    with pytest.raises(NoKey):
        Keys([]).new()
    assert KEY not in key


def test_after_a_rotation_two_secrets_sign_and_never_three(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    hook = endpoint(owner_db, account)

    def salts() -> int:
        run_sql(db, "DELETE FROM deliveries")
        emit(db, account)
        fan_out(db)
        return len(claim(db)[0].salts)

    assert salts() == 1
    with owner_db.transaction() as session:
        webhooks.rotate(session, account.id, hook, keys=KEYS, actor="test")
    assert salts() == 2
    with owner_db.transaction() as session:
        _, newest = webhooks.rotate(session, account.id, hook, keys=KEYS, actor="test")
        until = webhooks.rotating(session, account.id, [hook])[hook]
    assert timedelta(hours=23.9) < until - datetime.now(UTC) <= timedelta(hours=24)
    run_sql(db, "DELETE FROM deliveries")
    emit(db, account)
    fan_out(db)
    (claimed,) = claim(db)
    assert len(claimed.salts) == 2
    assert webhook_secrets.shown(KEYS.secret(*claimed.salts[0])) == newest, "the newest signs first"


def test_the_api_cannot_read_back_what_a_secret_is_made_of(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    with api_db.transaction(account.id) as session:
        hook, secret = webhooks.create(session, account.id, "https://a.example/", None, None, keys=KEYS, actor="t")
    for column in ("salt", "key_id", "*"):
        with pytest.raises(Exception, match="permission denied"), api_db.transaction(account.id) as session:
            session.execute(text(f"SELECT {column} FROM webhook_secrets"))
    assert rows(db, "SELECT webhook_id FROM webhook_secrets") == [(hook.id,)]
    with owner_db.transaction() as session:
        stored = "\n".join(
            str(row)
            for table in ("webhooks", "webhook_secrets", "audit_log")
            for row in session.execute(text(f"SELECT * FROM {table}"))
        )
    raw = webhook_secrets.read(secret)
    assert secret not in stored
    assert raw.hex() not in stored
    assert repr(raw)[2:-1] not in stored
    assert "a.example" not in str(rows(owner_db, "SELECT * FROM audit_log")), "a URL may hold a token"


def test_another_accounts_rows_are_not_there(
    api_db: Database, owner_db: Database, db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    hook = endpoint(api_db, account)
    emit(db, account)
    fan_out(db)
    (claimed,) = claim(db)
    record(db, claimed, FAILED)
    with api_db.transaction(rival.id) as session:
        for table in ("webhooks", "deliveries", "delivery_attempts"):
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == 0
        assert session.scalar(text("SELECT count(id) FROM webhook_secrets")) == 0
        for call in (
            lambda: webhooks.get(session, rival.id, hook),
            lambda: webhooks.delete(session, rival.id, hook, actor="x"),
            lambda: webhooks.rotate(session, rival.id, hook, keys=KEYS, actor="x"),
            lambda: webhooks.ping(session, rival.id, hook),
            lambda: deliveries.get(session, rival.id, hook, claimed.event_id),
            lambda: deliveries.payload(session, rival.id, claimed.event_id),
        ):
            with pytest.raises(NotFound):
                call()
    with owner_db.transaction() as session, pytest.raises(NotFound):
        webhooks.get(session, rival.id, hook)
