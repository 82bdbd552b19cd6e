"""The oracle must fail on planted faults, one of each kind; else all fault tests prove nothing."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from db.blobs import LocalBlobs
from db.ids import uuid7
from db.session import Database
from tests.conftest import TestAccount
from tests.oracle import Expected, check, problems
from tests.worker.line import ingested, install_models, jpeg, rows, run_sql, settings
from worker import finalise
from worker.infer import Inference
from worker.predictors import Predictors

EXPECTED = [
    Expected(tag="red", verdict="reject"),
    Expected(tag="blue", verdict="approve"),
    Expected(code="blob_missing"),
]


@pytest.fixture
def job(owner_db: Database, db: Database, database_url: str, account: TestAccount, tmp_path: Path) -> UUID:
    """A finished job of three pictures, the last of which lost its working copy."""
    install_models(owner_db, tmp_path / "models")
    blobs = LocalBlobs(tmp_path / "blobs")
    made = ingested(owner_db, blobs, account.id, [jpeg("red"), jpeg("blue"), jpeg("grey")])
    stored = rows(
        owner_db,
        "SELECT work_key FROM ingests g JOIN images i USING (sha256) WHERE job_id = :job AND seq = 2",
        job=made,
    )
    blobs.delete(stored[0].work_key)
    with_settings = settings(tmp_path, database_url)
    Inference(with_settings, db, blobs, Predictors(with_settings, db, "cpu"), uuid7()).run()
    assert finalise.run_once(db) == 1
    return made


def test_a_sound_job_passes(owner_db: Database, job: UUID) -> None:
    check(owner_db, {job: EXPECTED})


PLANTED = {
    "a lost outcome": ("DELETE FROM results WHERE seq = 1", "item 1 has no outcome"),
    "a wrong tag": (
        'UPDATE results SET tags = \'[{"label": "green"}]\' WHERE seq = 1',
        "best tag green, expected blue",
    ),
    "a wrong verdict": (
        "UPDATE results SET moderation = jsonb_set(moderation, '{verdict}', '\"approve\"') WHERE seq = 0",
        "verdict approve, expected reject",
    ),
    "a failure for a success": (
        "UPDATE results SET outcome = 'failed', code = 'poison' WHERE seq = 0",
        "code poison, expected None",
    ),
    "another failure": ("UPDATE results SET code = 'poison' WHERE seq = 2", "code poison, expected blob_missing"),
    "a result of other bytes": ("UPDATE results SET sha256 = sha256('x') WHERE seq = 0", "other bytes"),
    "an item nobody sent": (
        "INSERT INTO results SELECT bucket, job_id, 3, account_id, outcome, code, detail, sha256, tags, moderation,"
        " created_at FROM results WHERE seq = 0",
        "never accepted",
    ),
    "a job nobody sent": (
        "INSERT INTO results SELECT bucket, gen_random_uuid(), seq, account_id, outcome, code, detail, sha256, tags,"
        " moderation, created_at FROM results WHERE seq = 0",
        "nobody submitted",
    ),
    "a wrong total": ("UPDATE jobs SET total = 4", "total is 4"),
    "a chunk that counts too much": (
        "UPDATE chunks SET done = done + 1 WHERE stage = 'infer'",
        "chunks sum to",
    ),
    "a chunk that counts another code": (
        "UPDATE chunks SET codes = '{\"poison\": 1}' WHERE stage = 'infer'",
        "chunks say codes",
    ),
    "a chunk left open": (
        "UPDATE chunks SET state = 'ready', finished_at = NULL WHERE stage = 'infer'",
        "is still ready",
    ),
    "an event too many": (
        "INSERT INTO outbox SELECT gen_random_uuid(), account_id, type, subject || 'x', round, payload, created_at"
        " FROM outbox",
        "2 events of round 0",
    ),
    "an event too few": ("DELETE FROM outbox", "0 events of round 0"),
    "the wrong event": ("UPDATE outbox SET type = 'job.cancelled'", "the last event is job.cancelled"),
    "a job that never ended": ("UPDATE jobs SET state = 'running', settled_at = NULL", "is running, not ended"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(owner_db: Database, job: UUID, fault: str) -> None:
    sql, words = PLANTED[fault]
    run_sql(owner_db, sql)
    found = problems(owner_db, {job: EXPECTED})
    assert any(words in problem for problem in found), found
    with pytest.raises(AssertionError, match="inconsistencies"):
        check(owner_db, {job: EXPECTED})


def test_a_job_that_vanished_is_found(owner_db: Database, job: UUID) -> None:
    assert any("is gone" in problem for problem in problems(owner_db, {job: EXPECTED, uuid7(): []}))


def _naive_finaliser(database: Database) -> None:
    """Ends every job without looking at its chunks."""
    run_sql(database, "UPDATE jobs SET state = 'finished', settled_at = now()")


def _no_fence(database: Database) -> None:
    """A second end of the same chunk adds its counts again."""
    run_sql(database, "UPDATE chunks SET done = done * 2, failed = failed * 2 WHERE stage = 'infer'")


@pytest.mark.parametrize("bug", [_naive_finaliser, _no_fence])
def test_deliberate_bugs_are_found(
    owner_db: Database, job: UUID, account: TestAccount, tmp_path: Path, bug: Callable[[Database], None]
) -> None:
    second = ingested(owner_db, LocalBlobs(tmp_path / "blobs"), account.id, [jpeg("red", 7)])
    bug(owner_db)
    accepted = {job: EXPECTED, second: [Expected(tag="red", verdict="reject")]}
    assert problems(owner_db, accepted)
