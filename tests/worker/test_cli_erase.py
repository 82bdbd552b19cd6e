"""`tagmill erase` as an operator runs it."""

import json
import signal
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest

from db.blobs import LocalBlobs
from db.ids import item_id
from db.session import Database
from tests.conftest import TestAccount
from tests.oracle import check
from tests.worker.line import rows, run_sql, settings
from tests.worker.test_cli import Cli
from tests.worker.test_erasing import DONE, GONE, files, uploaded
from worker import maintenance
from worker.looking import Look


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def operator(database_url: str, blobs: LocalBlobs, tmp_path: Path) -> Cli:
    return Cli(tmp_path / "none", TAGMILL_DATABASE_URL=database_url, TAGMILL_BLOB_ROOT=str(blobs.root))


@pytest.fixture
def job(db: Database, blobs: LocalBlobs, account: TestAccount) -> UUID:
    return uploaded(db, blobs, account)


def test_a_dry_run_changes_nothing(operator: Cli, owner_db: Database, blobs: LocalBlobs, job: UUID) -> None:
    before = files(blobs)
    said = operator("erase", "job", str(job), "--account", "acme", "--dry-run").stdout
    assert "3 items" in said
    assert "3 pictures" in said
    counts = json.loads(operator("erase", "job", str(job), "--account", "acme", "--dry-run", "--json").stdout)
    assert (counts["counts"]["items"], counts["at_least"]) == (3, False)
    assert "Aborted" in operator("erase", "job", str(job), "--account", "acme", code=1).stderr
    check(owner_db, {job: [DONE] * 3})
    assert files(blobs) == before
    assert not rows(owner_db, "SELECT 1 FROM erasures")


def test_an_erasure_prints_its_receipt(operator: Cli, owner_db: Database, blobs: LocalBlobs, job: UUID) -> None:
    words = ("erase", "item", item_id(job, 1), "--account", "acme", "--reference", "DSR-7", "--yes")
    receipt = json.loads(operator(*words, "--json").stdout)
    assert (receipt["state"], receipt["reference"], receipt["counts"]["copies"]) == ("finished", "DSR-7", 1)
    check(owner_db, {job: [DONE, GONE, DONE]})
    assert len(files(blobs)) == 4
    shown = operator("erase", "show", receipt["id"]).stdout
    assert "DSR-7" in shown
    assert receipt["id"] in operator("erase", "list", "--account", "acme").stdout


def test_a_picture_everywhere_and_an_account(operator: Cli, owner_db: Database, blobs: LocalBlobs, job: UUID) -> None:
    sha = bytes(rows(owner_db, "SELECT sha256 FROM results WHERE seq = 2")[0].sha256).hex()
    operator("erase", "picture", sha, "--everywhere", "--yes")
    check(owner_db, {job: [DONE, DONE, GONE]})
    assert "not_found" in operator("erase", "account", "nobody", "--yes", code=1).stderr
    operator("erase", "account", "acme", "--end", "--yes")
    assert files(blobs) == []
    assert rows(owner_db, "SELECT name FROM accounts")[0].name.startswith("erased-")


def test_journals_from_elsewhere_are_taken_in(
    operator: Cli, owner_db: Database, blobs: LocalBlobs, job: UUID, tmp_path: Path
) -> None:
    receipt = json.loads(operator("erase", "item", item_id(job, 1), "--account", "acme", "--yes", "--json").stdout)
    kept = tmp_path / "kept"
    (blobs.root / "erasures").rename(kept)
    for table in ("erasures", "erased_items", "erased_pictures", "blob_removals"):
        run_sql(owner_db, f"DELETE FROM {table}")
    run_sql(owner_db, "UPDATE items SET url = 'http://back.test/' WHERE seq = 1")
    assert "1 erasures were unknown" in operator("erase", "replay", str(kept)).stdout
    assert not rows(owner_db, "SELECT 1 FROM items WHERE url IS NOT NULL")
    assert (blobs.root / "erasures" / f"{receipt['id']}.json").is_file()
    operator("erase", "replay", "--all")
    check(owner_db, {job: [DONE, GONE, DONE]})


def test_a_command_that_is_killed_in_a_step_is_followed_by_maintenance(
    database_url: str, db: Database, owner_db: Database, blobs: LocalBlobs, job: UUID, tmp_path: Path
) -> None:
    marker = tmp_path / "killed"
    variables = {"TAGMILL_DATABASE_URL": database_url, "TAGMILL_BLOB_ROOT": str(blobs.root)}
    dying = Cli(
        tmp_path / "none", TAGMILL_TEST_BUILD="1", TAGMILL_FAILPOINTS=f"before_erasure_commit={marker}", **variables
    )
    dying("erase", "job", str(job), "--account", "acme", "--yes", code=-signal.SIGKILL)
    assert marker.exists()
    check(owner_db, {job: [DONE] * 3})
    assert [row.state for row in rows(owner_db, "SELECT state FROM erasures")] == ["asked"]
    erase, *_ = maintenance.forgetting(settings(tmp_path, database_url), db, Look(db), Event())
    assert erase.run() > 0
    check(owner_db, {job: [GONE] * 3})
    assert files(blobs) == []
    assert [row.state for row in rows(owner_db, "SELECT state FROM erasures")] == ["finished"]
