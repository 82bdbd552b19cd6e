"""The retention clocks as maintenance turns them, down to the blobs."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from db.blobs import LocalBlobs
from db.session import Database
from ml.manifest import Entry, Group, Manifest
from tests.conftest import TestAccount
from tests.db.test_retention import age
from tests.oracle import check
from tests.worker.line import rows, settings
from tests.worker.test_erasing import DONE, files, uploaded
from worker import manifests, retaining
from worker.erasing import Eraser


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


def turn(folder: Path, url: str, db: Database, blobs: LocalBlobs, **days: Any) -> int:
    """One turn of the clocks, and of what removes blobs."""
    dropped = retaining.run_once(settings(folder, url, **days), db, lambda: blobs)
    Eraser(db, lambda: blobs, Event()).remove_blobs()
    return dropped


def test_nothing_goes_before_somebody_says_so(
    db: Database, owner_db: Database, database_url: str, account: TestAccount, blobs: LocalBlobs, tmp_path: Path
) -> None:
    job = uploaded(db, blobs, account)
    before = files(blobs)
    age(owner_db, job, 4000)
    assert turn(tmp_path, database_url, db, blobs) == 0
    assert turn(tmp_path, database_url, db, blobs, retain_uploads_days="") == 0
    assert files(blobs) == before


def test_uploads_then_copies_then_results(
    db: Database, owner_db: Database, database_url: str, account: TestAccount, blobs: LocalBlobs, tmp_path: Path
) -> None:
    job = uploaded(db, blobs, account)
    keys = [row.work_key for row in rows(owner_db, "SELECT work_key FROM images ORDER BY work_key")]
    entry = Entry(keys[0], "0" * 64, {"category": "shirt"}, "train", {})
    manifest = Manifest("goods", "1", {"category": Group("exclusive", ("shirt",))}, (entry,))
    named = manifests.store(db, blobs, manifest, manifests.IN_STORE, {}).manifest_key
    age(owner_db, job, 40)
    assert turn(tmp_path, database_url, db, blobs, retain_uploads_days=30) == 3
    assert files(blobs) == sorted([*keys, named])
    assert turn(tmp_path, database_url, db, blobs, retain_copies_days=30) == 2
    assert files(blobs) == sorted([keys[0], named]), "a dataset names it"
    check(owner_db, {job: [DONE] * 3})
    assert turn(tmp_path, database_url, db, blobs, retain_results_days=30) == 4
    assert not rows(owner_db, "SELECT 1 FROM items")
    assert {row.kind: row.dropped for row in rows(owner_db, "SELECT kind, dropped FROM retention_clocks")} == {
        "uploads": 3, "copies": 2, "results": 4
    }  # fmt: skip


def test_days_below_the_least_are_refused(tmp_path: Path, database_url: str) -> None:
    with pytest.raises(ValueError, match="retain_audit_days"):
        settings(tmp_path, database_url, retain_audit_days=30)
