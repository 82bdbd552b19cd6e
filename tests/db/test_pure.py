"""The parts of db/ without a database: ids, URLs, the blob store."""

import time
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db import ids, urls
from db.blobs import LocalBlobs, raw_key, work_key
from db.errors import BadBlobKey, BlobMissing, BlobTooLarge


def test_uuid7_is_ordered_by_time_and_has_its_version() -> None:
    first = ids.uuid7()
    time.sleep(0.002)
    second = ids.uuid7()
    assert first.version == second.version == 7
    assert first < second


@given(st.uuids(), st.integers(0, 999_999_999))
def test_item_ids_come_back(job: UUID, seq: int) -> None:
    assert ids.parse_item_id(ids.item_id(job, seq)) == (job, seq)


@pytest.mark.parametrize("bad", ["", "x-1", "0" * 32, "0" * 32 + "-01", "0" * 32 + "--1", "0" * 32 + "-1\n", "../x"])
def test_other_texts_are_no_item_ids(bad: str) -> None:
    with pytest.raises(ValueError, match="not an item id"):
        ids.parse_item_id(bad)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.test/a.jpg", None),
        ("https://example.test:8443/a?b=c#d", None),
        ("http://[::1]/", None),
        ("", "invalid_url"),
        ("example.test/a.jpg", "invalid_url"),
        ("http://", "invalid_url"),
        ("http://a b/", "invalid_url"),
        ("http://a/\r\nX: y", "invalid_url"),
        ("http://a\\@b/", "invalid_url"),
        ("http://a:99999/", "invalid_url"),
        ("http://a:0/", "invalid_url"),
        ("http://[::1/", "invalid_url"),
        ("http://a/" + "x" * 2048, "invalid_url"),
        ("file:///etc/passwd", "blocked_scheme"),
        ("ftp://a/b", "blocked_scheme"),
        ("data:image/png;base64,AA", "blocked_scheme"),
        ("http://user:secret@a/", "blocked_userinfo"),
    ],
)
def test_urls_are_checked(url: str, code: str | None) -> None:
    assert urls.check(url) == code


SHA = bytes(range(32))


def test_blobs_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    key = work_key(7, SHA)
    with pytest.raises(BlobMissing):
        blobs.get(key)
    blobs.put(key, b"one")
    assert blobs.get(key) == b"one"
    assert blobs.get(key) == b"one"
    blobs.delete(key)
    blobs.delete(key)
    assert not blobs.exists(key)

    def broken() -> object:
        yield b"half"
        raise OSError("the client is gone")

    with pytest.raises(OSError, match="gone"):
        blobs.put_raw(7, broken(), 100)  # type: ignore[arg-type]
    with pytest.raises(BlobTooLarge):
        blobs.put_raw(7, [b"x" * 60, b"x" * 60], 100)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    key, sha, size = blobs.put_raw(7, [b"ab", b"c"], 100)
    assert (key, size) == (raw_key(7, sha), 3)
    assert blobs.get(key) == b"abc"


@pytest.mark.parametrize("key", ["../x", "work/7/00/x", "/etc/passwd", "work/../raw", raw_key(7, SHA) + "/..", "tmp/a"])
def test_only_its_own_keys_open_the_blob_store(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadBlobKey):
        LocalBlobs(tmp_path).get(key)


def test_crashed_writes_are_swept(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    (tmp_path / "tmp" / "left").write_bytes(b"half")
    assert blobs.sweep(3600, time.time()) == 0
    assert blobs.sweep(3600, time.time() + 7200) == 1
