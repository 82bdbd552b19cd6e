"""What the doctor says of erasures: those that do not get on, blobs that stay, journals that are missing."""

import os
import threading
from pathlib import Path
from uuid import UUID

import pytest

from db import blob_removals, erasures
from db.blobs import LocalBlobs, journal_key, raw_key
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.line import run_sql
from tests.worker.test_erasing import uploaded
from worker import doctor, doctor_erasures
from worker.erasing import Eraser
from worker.findings import Finding
from worker.local import Place

SECRET = "user-4711"


@pytest.fixture
def where(database_url: str, tmp_path: Path) -> Place:
    return Place(database_url, "", tmp_path / "blobs", tmp_path / "models", "configured", runs=True)


@pytest.fixture
def blobs(where: Place) -> LocalBlobs:
    return LocalBlobs(where.blob_root)


@pytest.fixture
def asked(db: Database, account: TestAccount) -> UUID:
    """An erasure that nobody has begun with."""
    with db.transaction() as session:
        return erasures.ask(session, account.id, "subject", SECRET, actor="test").id


def found(where: Place) -> list[Finding]:
    all_ = list(doctor_erasures.erasures(where))
    assert all(bool(finding.remedy) == (finding.state != "good") for finding in all_), all_
    assert not any(SECRET in finding.found for finding in all_), "what was to be forgotten is not repeated"
    return all_


def one(where: Place) -> Finding:
    (finding,) = found(where)
    return finding


def test_nothing_is_said_where_nothing_was_to_be_forgotten(where: Place) -> None:
    assert found(where) == []
    assert not where.blob_root.exists(), "it only looks"


def test_all_is_well(db: Database, where: Place, blobs: LocalBlobs, account: TestAccount, asked: UUID) -> None:
    assert one(where).found == "0 finished, 1 open"
    assert Eraser(db, lambda: blobs, threading.Event()).run_once() == 1
    assert (one(where).state, one(where).found) == ("good", "1 finished, 0 open")


STUCK = {
    "not begun": ("created_at = now() - interval '11 minutes'", "maintenance must run"),
    "still at its rows": ("state = 'running', started_at = now() - interval '11 minutes'", "erase show"),
    "without its journal written": (
        "state = 'running', started_at = now(), rows_at = now() - interval '11 minutes'", "write to erasures/",
    ),
    "not looked for once more": (
        "state = 'finished', started_at = now(), finished_at = now() - interval '41 minutes'", "maintenance must run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", STUCK)
def test_one_that_does_not_get_on(where: Place, owner_db: Database, blobs: LocalBlobs, asked: UUID, words: str) -> None:
    change, remedy = STUCK[words]
    blobs.put(journal_key(asked), b"{}")
    run_sql(owner_db, f"UPDATE erasures SET {change.replace('11', '9').replace('41', '39')}")
    assert one(where).state == "good"
    run_sql(owner_db, f"UPDATE erasures SET {change}")
    finding = one(where)
    assert (finding.state, words in finding.found, remedy in finding.remedy) == ("warning", True, True), finding
    assert f"{asked} (subject, {'4' if 'once more' in words else '1'}1 min 0" in finding.found


def test_blobs_that_are_not_removed(
    where: Place, db: Database, owner_db: Database, account: TestAccount, blobs: LocalBlobs, asked: UUID
) -> None:
    key = raw_key(account.id, b"a" * 32)
    blobs.put(key, b"x")
    with db.transaction() as session:
        blob_removals.ask(session, account.id, [key, raw_key(account.id, b"b" * 32)], erasure_id=asked)
    run_sql(owner_db, "UPDATE erasures SET state = 'running', started_at = now(), rows_at = now()")
    assert one(where).state == "good"
    run_sql(owner_db, "UPDATE erasures SET rows_at = now() - interval '2 hours'")
    run_sql(owner_db, "UPDATE blob_removals SET asked_at = now() - interval '2 hours'")
    erasure, removals = found(where)
    assert f"{asked} (subject, 2 h 00 min, 2 blobs)" in erasure.found
    assert "without its blobs removed" in erasure.found
    assert removals.found == "2 blobs to be removed, the first for 2 h 00 min"
    assert "remove files" in erasure.remedy
    assert "remove files" in removals.remedy
    if os.geteuid() != 0:  # root may write anywhere
        folder = (blobs.root / key).parent
        folder.chmod(0o500)
        try:
            assert f"{folder} cannot be written" in found(where)[1].found
        finally:
            folder.chmod(0o700)


def test_journals_that_are_missing_or_cannot_be_written(
    where: Place, db: Database, account: TestAccount, blobs: LocalBlobs, asked: UUID
) -> None:
    uploaded(db, blobs, account)
    eraser = Eraser(db, lambda: blobs, threading.Event())
    assert eraser.run_once() == 1
    blobs.delete(journal_key(asked))
    lost = one(where)
    assert (lost.state, str(asked) in lost.found, "erase replay --all" in lost.remedy) == ("warning", True, True)
    folder = blobs.root / "erasures"
    folder.rmdir()
    folder.write_text("in its place")
    blocked = one(where)
    assert (blocked.state, "cannot be written" in blocked.found) == ("broken", True)


def test_many_are_named_by_the_first_few(where: Place, db: Database, owner_db: Database, account: TestAccount) -> None:
    with db.transaction() as session:
        for _ in range(5):
            erasures.ask(session, account.id, "subject", SECRET, actor="test")
    run_sql(owner_db, "UPDATE erasures SET created_at = now() - interval '1 day'")
    assert one(where).found.startswith("5 erasures not begun: ")
    assert one(where).found.endswith(" and 2 more")


def test_it_is_one_of_the_checks() -> None:
    assert doctor_erasures.erasures in [check.run for check in doctor.CHECKS]
