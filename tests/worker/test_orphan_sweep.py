"""Blobs that nothing names go, and no other: not the young, the named, those stored again at this moment, nor those of
another database."""

import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from db import erasure_fence, jobs, orphan_blobs
from db.blobs import LocalBlobs, raw_key, work_key
from db.images import ImageRecord, record_images
from db.jobs import JobSpec, NewItem
from db.session import Database
from ml.manifest import Entry, Group, Manifest
from tests.conftest import TestAccount
from tests.db.test_erasure_races import blocked
from tests.worker.line import rows, run_sql, settings
from tests.worker.test_erasing import files, uploaded
from worker import manifests, orphan_sweep
from worker.orphan_sweep import OrphanSweep

DAY_S = 86400.0


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def sweep(db: Database, database_url: str, blobs: LocalBlobs, tmp_path: Path) -> OrphanSweep:
    return OrphanSweep(settings(tmp_path, database_url), db, lambda: blobs, threading.Event())


def aged(blobs: LocalBlobs, hours: float = 25.0) -> None:
    """Everything in the store was written so long ago."""
    then = time.time() - hours * 3600
    for path in blobs.root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def due(owner_db: Database) -> None:
    """A day goes by."""
    run_sql(owner_db, "UPDATE retention_clocks SET at = at - interval '25 hours', moved_at = 'epoch'")


def orphans(blobs: LocalBlobs, account: TestAccount, number: int = 1) -> list[str]:
    """What an API leaves that was killed before its transaction, and a crawler that was before its chunk's end."""
    made = []
    for n in range(number):
        data = b"orphan %d" % n
        digest = hashlib.sha256(data).digest()
        for key in (raw_key(account.id, digest), work_key(account.id, digest)):
            blobs.put(key, data)
            made.append(key)
    return made


def test_what_nothing_names_goes_when_it_is_old(
    db: Database, owner_db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount
) -> None:
    uploaded(db, blobs, account)
    named = files(blobs)
    lost = orphans(blobs, account)
    assert sweep.run_once() == 0, "young"
    due(owner_db)
    aged(blobs)
    assert sweep.run_once() == 2
    assert files(blobs) == named
    assert not [key for key in lost if blobs.exists(key)]
    assert [tuple(row) for row in rows(owner_db, "SELECT kind, place, dropped FROM retention_clocks")] == [
        ("orphans", "", 2)
    ]


def test_a_round_a_day_and_one_process_at_a_time(
    db: Database, owner_db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount
) -> None:
    uploaded(db, blobs, account)
    assert sweep.run_once() == 0
    orphans(blobs, account)
    aged(blobs)
    run_sql(owner_db, "UPDATE retention_clocks SET moved_at = 'epoch'")
    assert sweep.run_once() == 0, "the day is not over"
    due(owner_db)
    with db.transaction() as session:
        assert orphan_blobs.begin(session) == ""
    assert sweep.run_once() == 0, "another one is at it"
    run_sql(owner_db, "UPDATE retention_clocks SET moved_at = moved_at - interval '61 s'")
    assert sweep.run_once() == 2, "it died: the round goes on"


def test_a_turn_goes_on_behind_the_last(
    db: Database, owner_db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    uploaded(db, blobs, account)
    named = files(blobs)
    lost = orphans(blobs, account, 20)
    aged(blobs)
    monkeypatch.setattr(orphan_sweep, "BUDGET_S", -1.0)
    # A turn of one folder sees more that is lost than what is named.
    monkeypatch.setattr(orphan_sweep, "doubtful", lambda unnamed, named: False)
    folders = list(blobs.folders())
    assert len(folders) > 20
    seen = []
    for _ in range(len(folders) + 1):
        sweep.run_once()
        seen.append(rows(owner_db, "SELECT place FROM retention_clocks")[0].place)
        run_sql(owner_db, "UPDATE retention_clocks SET moved_at = 'epoch'")
    assert seen == [*folders, ""]
    assert files(blobs) == named
    assert rows(owner_db, "SELECT dropped FROM retention_clocks")[0].dropped == len(lost)


def test_folders_are_in_order_whatever_the_accounts_are(blobs: LocalBlobs) -> None:
    for account in (2, 10, 1):
        for key in (raw_key(account, b"a" * 32), work_key(account, b"b" * 32)):
            blobs.put(key, b"x")
    blobs.put("manifests/aa/" + "a" * 64 + ".json", b"x")
    (blobs.root / "raw" / "readme").write_text("not ours")
    every = ["raw/1/61", "raw/2/61", "raw/10/61", "work/1/62", "work/2/62", "work/10/62"]
    assert list(blobs.folders()) == every
    for place in range(len(every)):
        assert list(blobs.folders(every[place])) == every[place + 1 :]


def test_what_a_dataset_names_stays(
    db: Database, owner_db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount
) -> None:
    uploaded(db, blobs, account)
    raw, work = orphans(blobs, account)
    entry = Entry(work, "0" * 64, {"category": "shirt"}, "train", {})
    manifest = Manifest("goods", "1", {"category": Group("exclusive", ("shirt",))}, (entry,))
    made = manifests.store(db, blobs, manifest, manifests.IN_STORE, {})
    aged(blobs)
    blobs.put(made.manifest_key, b"{}")
    assert sweep.run_once() == 0, "what datasets name is not known, so nothing goes"
    due(owner_db)
    manifests.put(blobs, manifest)
    assert sweep.run_once() == 1
    assert (blobs.exists(raw), blobs.exists(work), blobs.exists(made.manifest_key)) == (False, True, True)


def test_the_store_of_another_database_is_left_alone(
    db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount
) -> None:
    uploaded(db, blobs, account)
    orphans(blobs, account, 4)
    aged(blobs)
    before = files(blobs)
    with capture_logs() as logs:
        assert sweep.run_once() == 0
    assert files(blobs) == before
    (line,) = (line for line in logs if "another database" in line["event"])
    assert (line["log_level"], line["unnamed"], line["named"]) == ("warning", 8, 6)


def test_it_can_be_switched_off(
    db: Database, blobs: LocalBlobs, account: TestAccount, database_url: str, tmp_path: Path
) -> None:
    uploaded(db, blobs, account)
    orphans(blobs, account)
    aged(blobs, 4000)
    never = settings(tmp_path, database_url, orphan_hours=0)
    assert OrphanSweep(never, db, lambda: blobs, threading.Event()).run_once() == 0
    with pytest.raises(ValueError, match="TAGMILL_ORPHAN_HOURS"):
        settings(tmp_path, database_url, orphan_hours=1)


def put_before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, nth: int, put: Any) -> None:
    """Do something just before the nth call of a function."""
    real, calls = getattr(module, name), iter(range(1, 1000))

    def first(*given: Any, **more: Any) -> Any:
        if next(calls) == nth:
            put()
        return real(*given, **more)

    monkeypatch.setattr(module, name, first)


@pytest.mark.parametrize("moment", ["before it is asked for", "before it is asked for again", "before the removal"])
def test_the_same_bytes_stored_at_this_very_moment_stay(
    db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount, monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:  # fmt: skip
    uploaded(db, blobs, account)
    raw, work = orphans(blobs, account)
    aged(blobs)

    def submit() -> None:  # its transaction comes later
        blobs.put_raw(account.id, [b"orphan 0"], 100)

    if moment == "before the removal":
        put_before(monkeypatch, os, "rename", 1, submit)
    else:
        put_before(monkeypatch, orphan_blobs, "unnamed", 1 if moment == "before it is asked for" else 2, submit)
    assert sweep.run_once() == 1
    assert (blobs.get(raw), blobs.exists(work)) == (b"orphan 0", False)
    assert list((blobs.root / "tmp").iterdir()) == []


def test_a_recording_that_is_not_committed_yet_is_waited_for(
    db: Database, owner_db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount
) -> None:
    uploaded(db, blobs, account)
    raw, work = orphans(blobs, account)
    aged(blobs)
    image = ImageRecord(hashlib.sha256(b"its original").digest(), work, 8, 16, 16, "JPEG", work_sha256=b"w" * 32)
    with ThreadPoolExecutor(1) as pool:
        with owner_db.transaction() as session:
            erasure_fence.share_lock(session, account.id)
            record_images(session, account.id, [image])
            sweeping = pool.submit(sweep.run_once)
            blocked(owner_db)
        assert sweeping.result(30) == 1
    assert (blobs.exists(raw), blobs.exists(work)) == (False, True)


def test_submits_of_the_same_bytes_while_it_runs(
    db: Database, owner_db: Database, sweep: OrphanSweep, blobs: LocalBlobs, account: TestAccount
) -> None:
    """Every upload that is accepted has its bytes, however often they were lost before and are about to be removed."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    uploaded(db, blobs, account)
    aged(blobs)
    ended = threading.Event()
    accepted: list[tuple[str, bytes]] = []

    def submits() -> None:
        try:
            for n in range(60):
                data = b"again %d" % n
                path = blobs.root / blobs.put_raw(account.id, [data], 100)[0]
                os.utime(path, (time.time() - 2 * DAY_S,) * 2)
                time.sleep(chance.random() / 100)
                key = blobs.put_raw(account.id, [data], 100)[0]
                time.sleep(chance.random() / 200)
                with db.transaction(account.id) as session:
                    jobs.submit(session, account.id, JobSpec(), [NewItem(filename="a", raw_key=key)], max_items=10)
                accepted.append((key, data))
        finally:
            ended.set()

    removed = 0
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(submits)
        while not ended.is_set():
            removed += sweep.run_once()
            run_sql(owner_db, "UPDATE retention_clocks SET at = 'epoch', moved_at = 'epoch'")
        submitting.result(30)
    assert len(accepted) == 60
    assert [key for key, data in accepted if not blobs.exists(key) or blobs.get(key) != data] == []
    print(f"{removed} were removed between their two uploads")
