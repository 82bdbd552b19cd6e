"""What waits for people, in numbers: counted over all accounts by the worker's role, told to the API's, and bounded."""

import json
import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import review_load, stats, workers
from db.ids import uuid7
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.reviewing import verdict, work_off


def sql(database: Database, statement: str, **parameters: Any) -> None:
    with database.transaction() as session:
        session.execute(text(statement), parameters)


def maintenance(database: Database, id: UUID | None = None) -> None:
    """What a process of maintenance does: counts, and tells it with its next beat."""
    with database.transaction() as session:
        counted = json.loads(json.dumps(review_load.count(session)))
        workers.beat(session, id or uuid7(), "maintenance", "box", 1, {"reviews": counted})


def gauges(api: Database) -> dict[tuple[str, ...], float]:
    with api.transaction() as session:
        found = stats.samples(session)
    names = ("review_", "appeals_")
    return {(each.name, *each.labels.values()): each.value for each in found if each.name.startswith(names)}


def test_sums_over_all_accounts_as_the_api_tells_them(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "other")
    work_off(db, account, {"a": verdict("review"), "b": verdict("review"), "c": verdict("approve")}, audit_share=1.0)
    work_off(db, other, {"d": verdict("review"), "e": verdict("review", "knife")})
    assert gauges(api_db) == {}, "nobody has counted"
    sql(owner_db, "UPDATE review_tasks SET created_at = now() - interval '1 hour' WHERE reason = 'knife'")
    sql(
        owner_db,
        "UPDATE review_tasks SET lease_owner = 'x', lease_until = now() + interval '1 min',"
        " created_at = now() - interval '1 day' WHERE reason = 'audit'",
    )
    maintenance(db)
    found = gauges(api_db)
    assert found.pop(("review_oldest_waiting_seconds", "reviewer")) == pytest.approx(3600, abs=60)
    assert found == {
        ("review_open", "porn_review"): 3,
        ("review_open", "knife"): 1,
        ("review_open", "audit"): 1,
        ("review_leased",): 1,
        ("review_oldest_waiting_seconds", "curator"): 0,
        ("appeals_open",): 0,
        ("appeals_oldest_seconds",): 0,
    }
    sql(owner_db, "UPDATE review_tasks SET lease_until = now() - interval '1 s' WHERE lease_owner IS NOT NULL")
    sql(owner_db, "UPDATE review_tasks SET level = 'curator' WHERE reason = 'knife'")
    maintenance(db)
    found = gauges(api_db)
    assert found["review_leased",] == 0
    assert found["review_oldest_waiting_seconds", "reviewer"] == pytest.approx(86_400, abs=60), "its lease ran out"
    assert found["review_oldest_waiting_seconds", "curator"] == pytest.approx(3600, abs=60)
    sql(owner_db, "UPDATE review_tasks SET state = 'decided', decided_at = now()")
    maintenance(db)
    assert not any(name[0] == "review_open" for name in gauges(api_db))


def test_known_answers_are_no_work_that_waits(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    work_off(db, account, {"a": verdict("review"), "b": verdict("review")})
    sql(
        owner_db,
        "UPDATE review_tasks SET kind = 'gold', expected = 'approve' WHERE id = (SELECT min(id::text)::uuid"
        " FROM review_tasks)",
    )
    maintenance(db)
    assert gauges(api_db)["review_open", "porn_review"] == 1


def test_open_appeals(db: Database, api_db: Database, owner_db: Database, account: TestAccount) -> None:
    for n in range(3):
        sql(
            owner_db,
            "INSERT INTO appeals (id, account_id, sha256, job_id, seq, verdict, text, opened_by, created_at)"
            " VALUES (gen_random_uuid(), :account, :sha, gen_random_uuid(), 0, 'reject', 'no', 'test',"
            " now() - make_interval(hours => :n))",
            account=account.id,
            sha=bytes([n]) * 32,
            n=n,
        )
    sql(
        owner_db,
        "UPDATE appeals SET state = 'withdrawn', decided_at = now() WHERE created_at < now() - interval '119 minutes'",
    )
    maintenance(db)
    found = gauges(api_db)
    assert found["appeals_open",] == 2
    assert found["appeals_oldest_seconds",] == pytest.approx(3600, abs=60)


def test_the_newest_count_is_told_and_an_old_one_is_not(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    maintenance(db, earlier := uuid7())
    work_off(db, account, {"a": verdict("review")})
    maintenance(db)
    with db.transaction() as session:
        session.execute(
            text("UPDATE workers SET last_seen_at = now() + interval '1 s' WHERE id = :id"), {"id": earlier}
        )
    assert gauges(api_db)["review_open", "porn_review"] == 1, "who beat last need not have counted last"
    old = f"jsonb_set(stats, '{{reviews,counted}}', to_jsonb(extract(epoch FROM now()) - {review_load.FRESH_S + 1}))"
    sql(owner_db, f"UPDATE workers SET stats = {old}")
    assert gauges(api_db) == {}


def test_reasons_are_bounded_and_the_large_ones_told(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    """Accounts name reasons in their policies: a metric for each would grow without end."""
    _many(owner_db, account, 100, reasons=40)
    sql(owner_db, "UPDATE review_tasks SET reason = 'large' WHERE reason IN ('r7', 'r8')")
    maintenance(db)
    told = {name[1]: value for name, value in gauges(api_db).items() if name[0] == "review_open"}
    assert len(told) == review_load.REASONS + 1
    assert told["large"] == 6
    assert sum(told.values()) == 100


def test_counting_reads_the_open_tasks_only(db: Database, owner_db: Database, account: TestAccount) -> None:
    """Decided tasks stay for good: what the count costs must not grow with them."""
    _many(owner_db, account, 20_000, reasons=3)
    sql(owner_db, "UPDATE review_tasks SET state = 'decided', decided_at = now() WHERE seq % 100 <> 0")
    with owner_db.transaction() as session:
        session.execute(text("ANALYZE review_tasks"))
    with db.transaction() as session:
        plan = "\n".join(session.execute(text(f"EXPLAIN {review_load._TASKS.text}")).scalars())
    assert re.search(r"review_tasks_(queue|one_open)", plan), plan
    assert "Seq Scan" not in plan


def _many(owner_db: Database, account: TestAccount, number: int, *, reasons: int) -> None:
    sql(
        owner_db,
        "INSERT INTO review_tasks (id, account_id, sha256, reason, risk, rank, job_id, seq)"
        " SELECT gen_random_uuid(), :account, sha256(n::text::bytea), 'r' || n % :reasons, 0.5, n, gen_random_uuid(), n"
        " FROM generate_series(1, :number) AS n",
        account=account.id,
        number=number,
        reasons=reasons,
    )
