"""What every blob store promises, asked of both; and what an object store says when it is ill."""

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import ValidationError

from db import fetched
from db.blob_store import Blobs, open_blobs
from db.blobs import LocalBlobs, journal_key, manifest_key, raw_key, work_key
from db.errors import BadBlobKey, BlobMissing, BlobsAway, BlobTooLarge
from db.settings import BlobSettings
from tests import object_server
from tests.object_server import CREDENTIALS, STORE, StoreFront

KEYS = [work_key(7, bytes([number]) * 32) for number in range(40)]
BLOBS = [(key, bytes([65 + at]) * (1000 + at)) for at, key in enumerate(KEYS)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with object_server.moto(tmp_path_factory.mktemp("moto") / "log") as port:
        yield port


@pytest.fixture(params=["folder", "objects"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """Each of the two, empty."""
    if request.param == "folder":
        return open_blobs(BlobSettings(blob_root=tmp_path))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    port = request.getfixturevalue("port")
    return open_blobs(object_server.settings(tmp_path, port, store=f"{STORE}/{uuid4().hex}"))


@pytest.fixture
def front(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreFront]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with StoreFront(port) as front:
        yield front


def left(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_stored_is_there_until_it_is_removed(blobs: Blobs) -> None:
    key = KEYS[0]
    with pytest.raises(BlobMissing):
        blobs.get(key)
    with pytest.raises(BlobMissing):
        blobs.size(key)
    assert not blobs.exists(key)
    blobs.put(key, b"one")
    blobs.put(key, b"one")
    assert (blobs.get(key), blobs.size(key), blobs.exists(key)) == (b"one", 3, True)
    blobs.delete(key)
    blobs.delete(key)
    assert not blobs.exists(key)
    blobs.put(key, b"")
    assert (blobs.get(key), blobs.size(key)) == (b"", 0)


def test_many_go_together(blobs: Blobs) -> None:
    blobs.put_many(BLOBS)
    blobs.put_many([])
    assert {key: blobs.get(key) for key in KEYS} == dict(BLOBS)
    missing = work_key(8, b"x" * 32)
    assert blobs.present([*KEYS, missing]) == set(KEYS)
    assert blobs.present([]) == set()


def test_a_wrong_key_stores_none(blobs: Blobs) -> None:
    for wrong in ("work/7/../x", "/etc/passwd", ""):
        with pytest.raises(BadBlobKey):
            blobs.put_many([*BLOBS, (wrong, b"x")])
        with pytest.raises(BadBlobKey):
            blobs.get(wrong)
    assert blobs.present(KEYS) == set()


def test_uploads_are_kept_aside_until_they_are_placed(blobs: Blobs, tmp_path: Path) -> None:
    staged = [blobs.stage_raw(7, [b"some ", str(number).encode()], 100) for number in range(3)]
    assert [each.size for each in staged] == [6] * 3
    assert not blobs.present([each.key for each in staged])
    blobs.place(staged[:2])
    blobs.discard(staged)
    assert blobs.present([each.key for each in staged]) == {staged[0].key, staged[1].key}
    assert blobs.get(staged[1].key) == b"some 1"
    assert list((tmp_path / "tmp").iterdir()) == []
    with pytest.raises(BlobTooLarge):
        blobs.put_raw(7, [b"x" * 60, b"x" * 60], 100)
    key, digest, size = blobs.put_raw(7, [b"an upload"], 100)
    assert (key, size, blobs.get(key)) == (raw_key(7, digest), 9, b"an upload")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_only_what_is_old_goes(blobs: Blobs) -> None:
    blobs.put_many(BLOBS[:3])
    now = time.time()
    missing = work_key(8, b"x" * 32)
    assert not blobs.delete_older(KEYS[0], now - 60)
    assert blobs.delete_each_older([(KEYS[0], now - 60), (KEYS[1], now + 60), (missing, now)]) == [False, True, True]
    assert blobs.present(KEYS[:3]) == {KEYS[0], KEYS[2]}


def test_folders_and_what_is_old_in_them(blobs: Blobs) -> None:
    uploads = [raw_key(account, bytes([number]) * 32) for account in (2, 10) for number in (3, 200)]
    blobs.put_many([(key, b"x") for key in [*uploads, *KEYS[:2]]])
    every = ["raw/2/03", "raw/2/c8", "raw/10/03", "raw/10/c8", "work/7/00", "work/7/01"]
    assert list(blobs.folders()) == every
    for at, folder in enumerate(every):
        assert list(blobs.folders(folder)) == every[at + 1 :]
    now = time.time()
    assert list(blobs.older("raw/10/c8", now + 60)) == [uploads[3]]
    assert list(blobs.older("raw/10/c8", now - 60)) == []
    assert list(blobs.older("raw/11/c8", now)) == []


def test_journals_and_sizes(blobs: Blobs) -> None:
    assert blobs.journals() == []
    known = sorted(uuid4() for _ in range(3))
    for each in known:
        blobs.put(journal_key(each), b"{}")
    assert blobs.journals() == known
    blobs.put_many(BLOBS[:3])
    blobs.put(manifest_key("ab" * 32), b"{...}")
    blobs.put_raw(7, [b"12345678"], 100)
    assert blobs.usage() == {"raw": 8, "work": 3003, "manifests": 5}
    assert blobs.usage(lambda: True) is None


def test_a_folder_of_files_to_read(blobs: Blobs, tmp_path: Path) -> None:
    blobs.put_many(BLOBS)
    missing = work_key(8, b"x" * 32)
    with blobs.folder_of([*KEYS, missing]) as folder:
        assert [(folder / key).read_bytes() for key in KEYS] == [data for _, data in BLOBS]
        assert not (folder / missing).exists()
    if not isinstance(blobs, LocalBlobs):
        assert left(tmp_path) == [], "nothing of a picture stays on this disk"


def test_temporary_files_are_local(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.temporary_file() as file:
        file.write(b"x")
    (tmp_path / "tmp" / "left").write_bytes(b"x")
    assert blobs.sweep(3600, time.time()) == 0
    assert blobs.sweep(3600, time.time() + 4000) == 1
    assert left(tmp_path) == []


def test_what_the_dead_fetched_is_removed_and_what_the_living_fetched_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "_YOUNG_S", -1.0)
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "picture").write_bytes(b"x")
    with fetched.folder(tmp_path) as living:
        assert list(tmp_path.iterdir()) == [living]
        assert fetched.sweep(tmp_path) == 0
        assert living.is_dir()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ill", ["500", "503", "403", "reset", "hang"])
def test_an_ill_store_is_away_and_nothing_is_missing(front: StoreFront, tmp_path: Path, ill: str) -> None:
    blobs = open_blobs(object_server.settings(tmp_path, front.port, timeout_s=0.2, store=f"{STORE}/{ill}"))
    blobs.put(KEYS[0], b"one")
    staged = [blobs.stage_raw(7, [b"some"], 100)]
    front.ill = ill
    began = time.monotonic()
    with pytest.raises(BlobsAway) as away:
        blobs.get(KEYS[0])
    assert "test-key" not in str(away.value)
    assert "hunter2" not in str(away.value)
    with pytest.raises(BlobsAway):
        blobs.put_many(BLOBS[:20])
    with pytest.raises(BlobsAway):
        blobs.place(staged)
    with pytest.raises(BlobsAway):
        blobs.delete_older(KEYS[0], time.time() + 60)
    with pytest.raises(BlobsAway):
        blobs.journals()
    assert time.monotonic() - began < 60, "nobody waits for ever"
    front.well()
    blobs.place(staged)
    assert (blobs.get(KEYS[0]), blobs.get(staged[0].key)) == (b"one", b"some")


def test_a_hiccup_is_not_noticed(front: StoreFront, tmp_path: Path) -> None:
    """One SlowDown is asked again; a store that is only slow is waited for."""
    blobs = open_blobs(object_server.settings(tmp_path, front.port, store=f"{STORE}/hiccup"))
    serve = front.serve
    front.ill = "503"

    def once(request: object) -> None:
        serve(request)  # type: ignore[arg-type]
        front.ill = "slow"

    front.serve = once  # type: ignore[method-assign, assignment]
    blobs.put(KEYS[0], b"one")
    assert blobs.get(KEYS[0]) == b"one"
    assert front.asked["503"] == 1


def test_no_server_and_no_bucket_are_outages(front: StoreFront, tmp_path: Path) -> None:
    nowhere = open_blobs(object_server.settings(tmp_path, 9, timeout_s=0.3))
    no_bucket = open_blobs(object_server.settings(tmp_path, front.port, store="s3://other-pictures"))
    for blobs in (nowhere, no_bucket):
        for call in (lambda: blobs.get(KEYS[0]), lambda: blobs.put(KEYS[0], b"x"), lambda: list(blobs.folders())):  # noqa: B023
            with pytest.raises(BlobsAway):
                call()


@pytest.mark.parametrize(
    "wrong",
    [
        {"blob_store": "pictures"},
        {"blob_store": "s3://Pictures"},
        {"blob_store": "s3://pictures/../x"},
        {"blob_store": "s3://key:secret@pictures"},
        {"blob_store": STORE, "s3_endpoint": "http://10.0.0.7:9000"},
        {"blob_store": STORE, "s3_endpoint": "https://key:secret@minio.example"},
        {"blob_store": STORE, "s3_endpoint": "https://minio.example/pictures"},
        {"blob_store": STORE, "s3_endpoint": "ftp://minio.example"},
    ],
)
def test_settings_that_cannot_be_meant(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        BlobSettings(blob_root=tmp_path, **wrong)  # type: ignore[arg-type]
    assert "secret@" not in str(refused.value)


def test_settings_that_can(tmp_path: Path) -> None:
    for endpoint, plain in (
        ("http://127.0.0.1:9000", False),
        ("http://10.0.0.7:9000", True),
        ("https://x.example", False),
    ):
        settings = BlobSettings(blob_root=tmp_path, blob_store=STORE, s3_endpoint=endpoint, s3_http=plain)
        assert settings.bucket() == ("pictures", "tagmill/")
    assert BlobSettings(blob_root=tmp_path, blob_store="s3://pictures/").bucket() == ("pictures", "")


def test_nothing_goes_on_behind_the_back_of_who_has_given_up(front: StoreFront, tmp_path: Path) -> None:
    """A caller's locks are gone by then: what it asked to remove must not be removed later."""
    blobs = open_blobs(object_server.settings(tmp_path, front.port, timeout_s=0.5, store=f"{STORE}/given-up"))
    blobs.put_many(BLOBS)
    serve, seen = front.serve, 0

    def first_fails(request: object) -> None:
        nonlocal seen
        seen += 1
        front.ill = "403" if seen == 1 else "slow"
        serve(request)  # type: ignore[arg-type]

    front.serve = first_fails  # type: ignore[method-assign, assignment]
    front.pause_s = 0.2
    with pytest.raises(BlobsAway):
        blobs.delete_each_older([(key, time.time() + 60) for key in KEYS])
    front.serve = serve  # type: ignore[method-assign]
    front.well()
    left = blobs.present(KEYS)
    time.sleep(0.6)
    assert left
    assert blobs.present(KEYS) == left
