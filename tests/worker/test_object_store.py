"""Duties and commands on an object store: erasures, the sweep of what nothing names, datasets, `tagmill doctor`."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from db import erasures, object_blobs
from db.blob_store import Blobs, open_blobs
from db.blobs import LocalBlobs, journal_key
from db.errors import BlobsAway, ExtraMissing
from db.ids import item_id
from db.session import Database
from db.settings import BlobSettings
from ml.manifest import Entry, Group, Manifest
from tests import object_server
from tests.conftest import TestAccount
from tests.object_server import CREDENTIALS, STORE, StoreFront
from tests.oracle import check
from tests.worker.line import settings
from tests.worker.test_erasing import DONE, GONE, ask, uploaded
from worker import doctor, local, manifests, orphan_sweep
from worker.erasing import Eraser
from worker.home import Home, Running
from worker.local import Place
from worker.orphan_sweep import OrphanSweep


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with object_server.moto(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture
def front(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreFront]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with StoreFront(port) as front:
        yield front


@pytest.fixture
def blobs(front: StoreFront, tmp_path: Path) -> Blobs:
    where = f"{STORE}/{uuid4().hex}"
    return open_blobs(object_server.settings(tmp_path / "blobs", front.port, timeout_s=2, store=where))


def keys(blobs: Blobs) -> set[str]:
    return {key for folder in blobs.folders() for key in blobs.older(folder, time.time() + 60)}


def test_an_erasure_waits_for_a_store_that_is_ill(
    db: Database, owner_db: Database, blobs: Blobs, front: StoreFront, account: TestAccount
) -> None:
    eraser = Eraser(db, lambda: blobs, threading.Event())
    job = uploaded(db, blobs, account)
    before = keys(blobs)
    asked = ask(db, account.id, "item", item_id(job, 1))
    front.ill = "503"
    with pytest.raises(BlobsAway):
        eraser.run_once()
    front.well()
    assert keys(blobs) == before
    assert eraser.run_once() > 0
    check(owner_db, {job: [DONE, GONE, DONE]})
    assert len(before - keys(blobs)) == 2
    with db.transaction() as session:
        assert erasures.get(session, account.id, asked).state == "finished"
    assert blobs.journals() == [asked]
    assert blobs.get(journal_key(asked)).startswith(b"{")


def test_what_nothing_names_goes_when_it_is_old(
    db: Database, database_url: str, blobs: Blobs, account: TestAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(db, blobs, account)
    named = keys(blobs)
    orphan, _, _ = blobs.put_raw(account.id, [b"orphan"], 100)
    sweep = OrphanSweep(settings(tmp_path, database_url), db, lambda: blobs, threading.Event())
    monkeypatch.setattr(
        orphan_sweep, "time", SimpleNamespace(time=lambda: time.time() + 25 * 3600, monotonic=time.monotonic)
    )
    assert sweep.run_once() == 1
    assert keys(blobs) == named
    assert not blobs.exists(orphan)


def test_pictures_of_a_dataset_are_there_for_as_long_as_they_are_needed(
    db: Database, owner_db: Database, blobs: Blobs, account: TestAccount, tmp_path: Path
) -> None:
    uploaded(db, blobs, account)
    work = sorted(key for key in keys(blobs) if key.startswith("work/"))
    entries = tuple(Entry(key, Path(key).stem, {"kind": "shirt"}, "train", {}) for key in work)
    made = Manifest("own", "1", {"kind": Group("exclusive", ("shirt", "shoe"))}, entries)
    dataset = manifests.store(owner_db, blobs, made, manifests.IN_STORE, {})
    loaded = manifests.load(blobs, dataset)
    with manifests.pictures(blobs, dataset, loaded) as root:
        assert {key: (root / key).read_bytes() for key in work} == {key: blobs.get(key) for key in work}
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_doctor_looks_at_the_store(front: StoreFront, tmp_path: Path) -> None:
    chosen = object_server.variables(front.port, 0.5)
    for name in CREDENTIALS:
        del chosen[name]
    where = Place("", "", tmp_path / "blobs", tmp_path, "configured", store=chosen)
    (good,) = doctor.blob_store(where)
    assert (good.state, STORE in good.found) == ("good", True)
    front.ill = "403"
    (refused,) = doctor.blob_store(where)
    assert (refused.state, "InvalidAccessKeyId" in refused.found, "AWS_" in refused.remedy) == ("broken", True, True)
    assert "test-key" not in refused.found
    nowhere = replace(where, store={**chosen, "TAGMILL_S3_ENDPOINT": "http://127.0.0.1:9"})
    (away,) = doctor.blob_store(nowhere)
    assert (away.state, "TAGMILL_S3_ENDPOINT" in away.remedy) == ("broken", True)


def test_commands_use_the_store_of_the_running_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = BlobSettings.model_fields.keys() - {"blob_root"}
    assert set(local.STORE) == {f"TAGMILL_{name.upper()}" for name in fields}
    for name in (*local.STORE, "TAGMILL_BLOB_ROOT", "TAGMILL_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    home = Home(tmp_path)
    home.take()
    home.announce(Running(1, "http://x", "postgresql://x/x", "redis://x", "/b", "/m", {"TAGMILL_BLOB_STORE": STORE}))
    try:
        with local.place(home) as where:
            assert where.store == {"TAGMILL_BLOB_STORE": STORE}
        monkeypatch.setenv("TAGMILL_BLOB_STORE", "s3://other")
        with local.place(home) as where:
            assert where.store == {"TAGMILL_BLOB_STORE": "s3://other"}
        monkeypatch.delenv("TAGMILL_BLOB_STORE")
        monkeypatch.setenv("TAGMILL_BLOB_ROOT", "/mine")
        with local.place(home) as where:
            assert (where.store, where.blob_root) == ({}, Path("/mine"))
    finally:
        home.leave()


def test_without_the_extra_it_is_said_which_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_blobs, "obstore", None)
    with pytest.raises(ExtraMissing, match=r"tagmill\[s3\]"):
        open_blobs(BlobSettings(blob_root=tmp_path, blob_store=STORE))
    assert isinstance(open_blobs(BlobSettings(blob_root=tmp_path)), LocalBlobs)
