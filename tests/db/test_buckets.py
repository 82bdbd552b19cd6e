"""Buckets whose jobs are all gone are dropped, in a moment and beside a line that goes on; others stay."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from db import buckets, retention
from db.session import API_ROLE, WORKER_ROLE, Database
from tests.conftest import TestAccount
from tests.db.test_erasure import DONE, run
from tests.db.test_line import finish, infer_all, ingest_all, read, submit, urls
from tests.db.test_retention import age, turn
from tests.oracle import check
from tests.worker.line import rows, run_sql


def drop(db: Database) -> int | None:
    with db.transaction() as session:
        return buckets.drop_empty(session)


def leaves(owner_db: Database) -> set[str]:
    found = rows(owner_db, "SELECT relname FROM pg_class WHERE relname ~ '^(items|ingests|results)_b[0-9]+$'")
    return {row.relname for row in found}


def of(*numbers: int) -> set[str]:
    return {f"{parent}_b{number}" for parent in ("items", "ingests", "results") for number in numbers}


def next_bucket(db: Database) -> None:
    with db.transaction() as session:
        assert buckets.open_when_full(session, 1) is not None


def emptied(db: Database, owner_db: Database, account: TestAccount) -> UUID:
    """Bucket 1 is closed since two days, and its only job was dropped; the job of bucket 2 is there."""
    old = run(db, account, urls(20))
    next_bucket(db)
    young = run(db, account, urls(20))
    age(owner_db, old.id, 40)
    assert turn(db, retention.results, 30) == 21
    run_sql(owner_db, "UPDATE buckets SET closed_at = now() - interval '2 days' WHERE id = 1")
    return young.id


def test_an_emptied_bucket_goes_with_its_tables(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = emptied(db, owner_db, account)
    assert leaves(owner_db) == of(1, 2)
    assert drop(db) == 1
    assert leaves(owner_db) == of(2)
    assert [row.id for row in rows(owner_db, "SELECT id FROM buckets")] == [2]
    assert drop(db) is None
    check(owner_db, {job: [DONE] * 20})
    next_bucket(db)
    assert leaves(owner_db) == of(2, 3), "no number is given twice"
    check(owner_db, {job: [DONE] * 20, run(db, account, urls(5)).id: [DONE] * 5})


@pytest.mark.parametrize(
    "but",
    [
        "UPDATE buckets SET closed_at = now() - interval '23 hours' WHERE id = 1",
        "UPDATE buckets SET closed_at = NULL WHERE id = 1",
        "UPDATE jobs SET bucket = 1",
        "INSERT INTO ingests (bucket, job_id, seq, account_id, outcome, code)"
        " SELECT 1, id, 0, account_id, 'failed', 'timeout' FROM jobs",
    ],
)
def test_one_that_something_is_in_or_may_be_stays(
    db: Database, owner_db: Database, account: TestAccount, but: str
) -> None:
    emptied(db, owner_db, account)
    run_sql(owner_db, but)
    assert drop(db) is None
    assert leaves(owner_db) == of(1, 2)


def test_who_works_with_the_tables_is_not_waited_for(db: Database, owner_db: Database, account: TestAccount) -> None:
    emptied(db, owner_db, account)
    ended = threading.Event()

    def reads() -> int:
        """Others get what they ask for while the first one still reads: none of them waits for three seconds."""
        done = 0
        while not ended.is_set():
            with owner_db.transaction() as session:
                session.execute(text("SET LOCAL lock_timeout = '3s'"))
                assert session.execute(text("SELECT count(*) FROM results")).scalar_one() == 20
            done += 1
        return done

    with ThreadPoolExecutor(2) as pool:
        with owner_db.transaction() as reader:
            reader.execute(text("SELECT count(*) FROM results"))
            reading = pool.submit(reads)
            try:
                for _ in range(3):
                    assert pool.submit(drop, db).result(60) is None
            finally:
                ended.set()
            assert reading.result(60) > 0
        assert drop(db) == 1


def test_only_workers_may(db: Database, database_url: str) -> None:
    database = Database(database_url, role=API_ROLE)
    with pytest.raises(Exception, match="permission denied"), database.transaction() as session:
        buckets.drop_empty(session)
    database.dispose()


def test_beside_a_line_that_goes_on(owner_db: Database, database_url: str, account: TestAccount) -> None:
    """Nothing that submits, fetches, scores, ends or reads fails or waits for long while it is tried and done."""
    db = Database(database_url, role=WORKER_ROLE, pool_size=8)
    try:
        job = emptied(db, owner_db, account)
        expected = {job: [DONE] * 20}
        ended = threading.Event()
        dropped: list[int] = []

        def line() -> None:
            try:
                for _ in range(12):
                    made = submit(db, account, urls(40))
                    ingest_all(db, account)
                    infer_all(db)
                    assert finish(db, made)
                    assert len(read(db, account, made)) == 40
                    expected[made.id] = [DONE] * 40
            finally:
                ended.set()

        def drops() -> None:
            until = time.monotonic() + 120
            while not dropped and time.monotonic() < until:
                if (found := drop(db)) is not None:
                    dropped.append(found)

        with ThreadPoolExecutor(2) as pool:
            work = [pool.submit(line), pool.submit(drops)]
            for each in work:
                each.result(180)
        assert dropped == [1]
        assert ended.is_set()
        check(owner_db, expected)
        assert leaves(owner_db) == of(2)
    finally:
        db.dispose()
