"""Retention clocks: what is old enough goes step by step, what is needed stays, and all goes on to verify."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from db import audit, audit_chain, retention
from db.audit_chain import Head, Verifier
from db.blobs import LocalBlobs
from db.retention import Dropped
from db.session import Database
from tests.conftest import TestAccount
from tests.db.erasing import traces
from tests.db.judged import judge
from tests.db.test_erasure import DONE, findings, run, sha
from tests.db.test_line import urls
from tests.oracle import check
from tests.worker.line import rows, run_sql
from tests.worker.test_erasing import COPIES, uploaded


def turn(db: Database, clock: Callable[..., Dropped], days: float, **more: Any) -> int:
    """Every step of one clock, each in a transaction of its own."""
    dropped = 0
    for _ in range(50):
        with db.transaction() as session:
            made = clock(session, days, **more)
        dropped += made.count
        if not made.more:
            return dropped
    raise AssertionError("the clock does not come to its end")


def age(owner_db: Database, job: UUID, days: int) -> None:
    """As if the job had run so long ago."""
    for sql in (
        "UPDATE jobs SET created_at = created_at - make_interval(days => :d),"
        " settled_at = settled_at - make_interval(days => :d) WHERE id = :j",
        "UPDATE results SET created_at = created_at - make_interval(days => :d) WHERE job_id = :j",
        "UPDATE images i SET created_at = i.created_at - make_interval(days => :d) FROM results r"
        " WHERE r.job_id = :j AND r.sha256 = i.sha256",
    ):
        run_sql(owner_db, sql, j=job, d=days)


def noted(owner_db: Database) -> set[str]:
    return {row.key.partition("/")[0] for row in rows(owner_db, "SELECT key FROM blob_removals WHERE aged")}


def test_uploads_go_after_their_days(db: Database, owner_db: Database, account: TestAccount, tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    jobs = [uploaded(db, blobs, account) for _ in range(3)]
    for job in jobs[:2]:
        age(owner_db, job, 8)
    assert turn(db, retention.uploads, 7, limit=2) == 0, "the third job has the same uploads, and is young"
    run_sql(owner_db, "DELETE FROM retention_clocks")
    age(owner_db, jobs[2], 8)
    assert turn(db, retention.uploads, 7, limit=2) == 9
    assert (noted(owner_db), len(rows(owner_db, "SELECT key FROM blob_removals"))) == ({"raw"}, len(COPIES))
    assert turn(db, retention.uploads, 7, limit=2) == 0
    check(owner_db, {job: [DONE] * 3 for job in jobs})


def test_working_copies_go_unless_something_needs_them(
    db: Database, owner_db: Database, account: TestAccount, tmp_path: Path
) -> None:
    blobs = LocalBlobs(tmp_path)
    job = uploaded(db, blobs, account)
    assert turn(db, retention.copies, 7) == 0
    age(owner_db, job, 8)
    keys = {row.work_key for row in rows(owner_db, "SELECT work_key FROM images")}
    kept = min(keys)
    assert turn(db, retention.copies, 7, but_not=[kept], limit=2) == 2
    assert {row.key for row in rows(owner_db, "SELECT key FROM blob_removals")} == keys - {kept}
    assert turn(db, retention.copies, 7, limit=2) == 1
    assert turn(db, retention.copies, 7, limit=2) == 0
    check(owner_db, {job: [DONE] * 3})


def test_a_job_goes_with_what_only_it_shows(db: Database, owner_db: Database, account: TestAccount) -> None:
    old, young = run(db, account, urls(20)), run(db, account, urls(10))
    age(owner_db, old.id, 40)
    assert turn(db, retention.results, 30, limit=7) == 21
    for table, column in (("jobs", "id"), ("chunks", "job_id"), ("items", "job_id"), ("results", "job_id")):
        assert not rows(owner_db, f"SELECT 1 FROM {table} WHERE {column} = :j", j=old.id), table
    check(owner_db, {young.id: [DONE] * 10})
    assert traces(owner_db, sha(urls(20)[15])) == []
    assert rows(owner_db, "SELECT 1 FROM images WHERE sha256 = :s", s=bytes.fromhex(sha(urls(20)[5])))
    assert turn(db, retention.results, 30) == 0


def test_verdicts_that_went_do_not_break_the_audit_log(db: Database, owner_db: Database, account: TestAccount) -> None:
    old, young = judge(db, account, ["reject", "review"]), judge(db, account, ["approve", "reject"])
    assert findings(db) == []
    age(owner_db, old.id, 40)
    assert turn(db, retention.results, 30) == 3
    assert findings(db) == []
    check_verdicts = 'UPDATE results SET moderation = moderation || \'{"verdict": "review"}\' WHERE job_id = :j'
    run_sql(owner_db, check_verdicts, j=young.id)
    assert len(findings(db)) == 1


def test_evidence_stays_while_its_picture_is_shown(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["reject"])
    picture = hashlib.sha256(b"http://pictures.test/0.jpg").digest()
    run_sql(
        owner_db,
        "INSERT INTO decisions (id, account_id, sha256, job_id, seq, kind, verdict, actor, batch, created_at)"
        " VALUES (gen_random_uuid(), :a, :s, :j, 0, 'review', 'approve', 'user:x', gen_random_uuid(),"
        " now() - interval '50 days')",
        a=account.id, s=picture, j=job.id,
    )  # fmt: skip
    assert turn(db, retention.evidence, 40) == 0
    age(owner_db, job.id, 60)
    turn(db, retention.results, 50)
    assert rows(owner_db, "SELECT count(*) AS n FROM decisions")[0].n == 1, "results go by a clock of their own"
    assert turn(db, retention.evidence, 40) == 1


def test_the_oldest_part_of_the_audit_log_goes_and_the_rest_verifies(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    with db.transaction() as session:
        for number in range(6):
            audit.record(session, account.id, "cli", "test.act", str(number))
    run_sql(owner_db, "UPDATE audit_log SET created_at = now() - interval '200 days' WHERE id <= 4")
    assert findings(db) == []
    before = Head(1, bytes(rows(owner_db, "SELECT hash FROM audit_seals WHERE seq = 1")[0].hash))
    with pytest.raises(DBAPIError), db.transaction() as session:
        retention.audit(session, 179)
    assert turn(db, retention.audit, 190, limit=3) == 4
    assert rows(owner_db, "SELECT min(id) AS id FROM audit_log")[0].id == 5
    assert findings(db) == []
    verifier = Verifier(expected=before)
    with db.transaction() as session:
        verifier.begin(session, 1)
        verifier.step(session)
    assert ["dropped for its age" in each.detail for each in verifier.findings] == [True]
    run_sql(owner_db, "UPDATE audit_log SET actor = 'me' WHERE id = 6")
    assert len(findings(db)) == 1


def test_the_chain_s_head_goes_on_after_all_of_it_was_dropped(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    with db.transaction() as session:
        audit.record(session, account.id, "cli", "test.act", "1")
        audit_chain.seal(session)
    run_sql(owner_db, "UPDATE audit_log SET created_at = now() - interval '200 days'")
    assert turn(db, retention.audit, 190) == 1
    assert findings(db) == []
    assert [row.seq for row in rows(owner_db, "SELECT seq FROM audit_seals")] == [2]
