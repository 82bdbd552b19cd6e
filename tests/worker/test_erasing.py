"""Erasures to their end: blobs, datasets, the journal, the receipt; and a database restored from before one."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from db import blob_removals, datasets, endings, erasures, jobs
from db.blobs import LocalBlobs, journal_key
from db.ids import item_id
from db.jobs import JobSpec, NewItem
from db.session import WORKER_ROLE, Database
from ml.manifest import Entry, Group, Manifest
from tests.conftest import Services, TestAccount
from tests.db.erasing import traces
from tests.db.test_line import infer_all
from tests.oracle import Expected, check
from tests.worker.line import fetched, jpeg, rows, run_sql
from worker import manifests
from worker.erasing import Eraser

DONE = Expected(tag="shirt")
GONE = Expected(code="erased")
COPIES = [jpeg("red", 1), jpeg("green", 2), jpeg("blue", 3)]


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def eraser(db: Database, blobs: LocalBlobs) -> Eraser:
    return Eraser(db, lambda: blobs, threading.Event())


def uploaded(db: Database, blobs: LocalBlobs, account: TestAccount) -> UUID:
    """A finished job of three uploads, whose originals and working copies are in the store."""
    originals = [b"original" + copy for copy in COPIES]
    keys = [blobs.put_raw(account.id, [data], 10**6)[0] for data in originals]
    with db.transaction(account.id) as session:
        new = [NewItem(filename=f"{n}.jpg", raw_key=key) for n, key in enumerate(keys)]
        job = jobs.submit(session, account.id, JobSpec(), new, max_items=10)
    fetched(db, blobs, account.id, COPIES)
    infer_all(db)
    with db.transaction() as session:
        assert endings.finish(session, job.id)
    return job.id


def ask(db: Database, account_id: int | None, kind: str, target: str) -> UUID:
    with db.transaction() as session:
        return erasures.ask(session, account_id, kind, target, actor="test").id


def files(blobs: LocalBlobs) -> list[str]:
    """Every blob but the journals, by its key."""
    found = (str(path.relative_to(blobs.root)) for path in blobs.root.rglob("*") if path.is_file())
    return sorted(each for each in found if not each.startswith("erasures/"))


def test_an_erasure_ends_with_its_receipt(
    db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount
) -> None:
    job = uploaded(db, blobs, account)
    before = files(blobs)
    asked = ask(db, account.id, "item", item_id(job, 1))
    assert eraser.run_once() > 0
    gone = set(before) - set(files(blobs))
    sha = hashlib.sha256(b"original" + COPIES[1]).hexdigest()
    copy = hashlib.sha256(COPIES[1]).hexdigest()
    assert gone == {f"raw/{account.id}/{sha[:2]}/{sha}", f"work/{account.id}/{copy[:2]}/{copy}.jpg"}
    check(owner_db, {job: [DONE, GONE, DONE]})
    with db.transaction() as session:
        receipt = erasures.get(session, account.id, asked)
    assert (receipt.state, receipt.actor, receipt.counts["uploads"], receipt.counts["copies"]) == (
        "finished", "test", 1, 1
    )  # fmt: skip
    journal = blobs.get(journal_key(asked))
    assert receipt.journal_sha256 == hashlib.sha256(journal).digest()
    assert json.loads(journal)["items"] == {job.hex: "1"}
    (entry,) = rows(owner_db, "SELECT detail FROM audit_log WHERE action = 'erasure.finish'")
    assert entry.detail["counts"]["items"] == 1
    assert eraser.run_once() == 0


def test_it_is_looked_for_once_more_and_then_its_name_is_forgotten(
    db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount
) -> None:
    job = uploaded(db, blobs, account)
    run_sql(owner_db, "UPDATE items SET product_id = 'shoe' WHERE seq = 1")
    asked = ask(db, account.id, "product", "shoe")
    eraser.run_once()
    sha = hashlib.sha256(b"original" + COPIES[1]).digest()
    run_sql(
        owner_db,
        "INSERT INTO labels (account_id, sha256, \"group\", kind, present, source, actor)"
        " VALUES (:a, :s, 'category', 'exclusive', '{shirt}', 'correction', 'slow')",
        a=account.id, s=sha,
    )  # fmt: skip
    assert eraser.run_once() == 0, "not yet"
    run_sql(owner_db, "UPDATE erasures SET finished_at = now() - interval '31 minutes'")
    assert eraser.run_once() == 1
    assert traces(owner_db, sha.hex()) == []
    with db.transaction() as session:
        receipt = erasures.get(session, account.id, asked)
    assert (receipt.settled_at is not None, receipt.target, receipt.counts["labels"]) == (True, None, 1)
    check(owner_db, {job: [DONE, GONE, DONE]})


def test_a_blob_that_is_named_or_new_stays(
    db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount
) -> None:
    uploaded(db, blobs, account)
    before = files(blobs)
    with db.transaction() as session:
        blob_removals.ask(session, account.id, before)
    assert eraser.remove_blobs() == 0
    assert files(blobs) == before
    run_sql(owner_db, "UPDATE items SET raw_key = NULL")
    with db.transaction() as session:
        blob_removals.ask(session, account.id, before)
    run_sql(owner_db, "UPDATE blob_removals SET asked_at = now() - interval '2 minutes'")
    assert eraser.remove_blobs() == 0, "stored after it was asked for"
    with db.transaction() as session:
        blob_removals.ask(session, account.id, before)
    assert eraser.remove_blobs() == 3
    assert [key for key in before if key.startswith("work/")] == files(blobs)


def test_two_pictures_with_one_working_copy(
    db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount
) -> None:
    job = uploaded(db, blobs, account)
    run_sql(owner_db, "UPDATE images SET work_key = (SELECT min(work_key) FROM images)")
    shas = [bytes(row.sha256) for row in rows(owner_db, "SELECT sha256 FROM results ORDER BY seq")]
    shared = rows(owner_db, "SELECT min(work_key) AS key FROM images")[0].key
    for n in (0, 1):
        ask(db, account.id, "picture", shas[n].hex())
    eraser.run_once()
    assert blobs.exists(shared), "the third picture names it"
    ask(db, account.id, "picture", shas[2].hex())
    eraser.run_once()
    assert not blobs.exists(shared)
    check(owner_db, {job: [GONE] * 3})


def test_datasets_lose_the_picture(
    db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount
) -> None:
    job = uploaded(db, blobs, account)
    keys = [row.work_key for row in rows(owner_db, "SELECT work_key FROM images ORDER BY work_key")]
    entries = tuple(Entry(key, key[-68:-4], {"category": "shirt"}, "train", {}) for key in keys)
    made = manifests.store(
        db, blobs, Manifest("goods", "1", {"category": Group("exclusive", ("shirt",))}, entries), manifests.IN_STORE, {}
    )
    ask(db, account.id, "item", item_id(job, 1))
    eraser.run_once()
    copy = hashlib.sha256(COPIES[1]).hexdigest()
    with db.transaction() as session:
        (row,) = datasets.every(session)
    left = manifests.load(blobs, row)
    assert [entry.sha256 for entry in left.entries] == sorted(e.sha256 for e in entries if e.sha256 != copy)
    assert (row.entries, row.summary["erased"], row.summary["counts"]["category"]["shirt"]["train"]) == (2, 1, 2)
    assert not blobs.exists(made.manifest_key)


@pytest.fixture
def backup(services: Services, database_url: str) -> Iterator[str]:
    """A function's worth of a dump: a copy of the test's database as it is when its name is first used."""
    name = f"{database_url.rpartition('/')[2]}_backup"
    yield name
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.mark.parametrize("kind", ["item", "picture", "product", "account", "everywhere"])
def test_a_database_restored_from_before_it_forgets_again(
    services: Services, db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount,
    backup: str, database_url: str, kind: str,
) -> None:  # fmt: skip
    job = uploaded(db, blobs, account)
    run_sql(owner_db, "UPDATE items SET product_id = 'shoe' WHERE seq = 1")
    db.dispose()
    owner_db.dispose()
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {backup} TEMPLATE {database_url.rpartition('/')[2]}")
    sha = hashlib.sha256(b"original" + COPIES[1]).hexdigest()
    targets = {"item": item_id(job, 1), "picture": sha, "product": "shoe", "account": "acme", "everywhere": sha}
    if kind == "everywhere":
        ask(db, None, "picture", sha)
    else:
        ask(db, account.id, kind, targets[kind])
    eraser.run_once()
    assert traces(owner_db, sha) == []

    url = services.postgres.url_of(backup)
    restored, owner = Database(url, role=WORKER_ROLE), Database(url)
    try:
        assert traces(owner, sha) != []
        again = Eraser(restored, lambda: blobs, threading.Event())
        assert again.replay() == 1
        assert again.run_once() > 0
        assert traces(owner, sha, "shoe") == []
        assert again.replay() == 0
        (row,) = rows(owner, "SELECT state, replayed FROM erasures")
        assert (row.state, row.replayed) == ("finished", True)
        if kind != "account":
            check(owner, {job: [DONE, GONE, DONE]})
        else:
            assert rows(owner, "SELECT count(*) AS n FROM results WHERE code = 'erased'")[0].n == 3
    finally:
        restored.dispose()
        owner.dispose()


def test_a_process_that_dies_in_a_step_is_followed(
    db: Database, owner_db: Database, eraser: Eraser, blobs: LocalBlobs, account: TestAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    job = uploaded(db, blobs, account)
    ask(db, account.id, "job", str(job))

    class Died(Exception):
        pass

    def die(name: str) -> None:
        raise Died(name)

    monkeypatch.setattr("worker.failpoints.hit", die)
    with pytest.raises(Died):
        eraser.run_once()
    check(owner_db, {job: [DONE] * 3})
    monkeypatch.undo()
    eraser.run_once()
    check(owner_db, {job: [GONE] * 3})
    assert files(blobs) == []
