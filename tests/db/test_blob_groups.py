"""Blobs that are stored together: whole, named only when they are on the disk, and none left over after an error."""

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from db import flushing
from db.blobs import LocalBlobs, work_key
from db.errors import BadBlobKey
from db.flushing import Flushing

KEYS = [work_key(7, bytes([number]) * 32) for number in range(6)]
BLOBS = [(key, bytes([65 + at]) * (1000 + at)) for at, key in enumerate(KEYS)]


class Disk:
    """What was brought to the disk and what was renamed, in that order: `flushed` are paths, `named` are targets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.said: list[tuple[str, str]] = []
        replace, fsync, flush = os.replace, os.fsync, Flushing.flush

        def replaced(old: str, new: str) -> None:
            replace(old, new)
            self.said.append(("named", new))

        def synced(handle: int) -> None:
            self.said.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
            fsync(handle)

        def flushed(own: Flushing, whole: int, files: Any) -> None:
            flush(own, whole, files)
            self.said.append(("flushed", str(len(files))))

        patch.setattr(os, "replace", replaced)
        patch.setattr(os, "fsync", synced)
        patch.setattr(Flushing, "flush", flushed)

    def what(self) -> list[str]:
        return [what for what, _ in self.said]


def left(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("whole", [True, False])
def test_bytes_are_on_the_disk_before_they_are_named_and_names_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    if whole and not flushing.can_sync(tmp_path):
        pytest.skip("this file system is flushed file by file")
    monkeypatch.setattr(flushing, "can_sync", lambda folder: whole)
    blobs = LocalBlobs(tmp_path)
    blobs.put_many(BLOBS)
    disk = Disk(monkeypatch)
    blobs.put_many(BLOBS)
    assert {key: blobs.get(key) for key in KEYS} == dict(BLOBS)
    assert len(left(tmp_path)) == len(KEYS)
    of_files = [] if whole else ["fsync"] * 6
    assert disk.what() == [*of_files, "flushed", *["named"] * 6, *of_files, "flushed"]
    assert [path for what, path in disk.said if what == "named"] == [str(tmp_path / key) for key in KEYS]
    if not whole:
        folders = [path for what, path in disk.said if what == "fsync"][6:]
        assert sorted(folders) == sorted({str((tmp_path / key).parent) for key in KEYS})


def test_a_single_blob_and_the_folders_made_for_it_are_flushed_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flushing, "can_sync", lambda folder: False)
    blobs = LocalBlobs(tmp_path)
    disk = Disk(monkeypatch)
    blobs.put(KEYS[1], b"one")
    paths = [Path(path) for what, path in disk.said if what == "fsync"]
    assert paths[0].parent == tmp_path / "tmp"
    assert set(paths[1:]) >= {tmp_path / "work" / "7" / "01", tmp_path / "work" / "7", tmp_path / "work"}


def test_what_the_disk_refuses_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def syncfs(handle: int) -> int:
            ctypes.set_errno(5)
            return -1

    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(flushing, "_LIBC", Libc)
    monkeypatch.setattr(os, "fsync", refuse)
    for whole in (True, False):
        monkeypatch.setattr(flushing, "can_sync", lambda folder, whole=whole: whole)
        with pytest.raises(OSError, match="Input/output"):
            LocalBlobs(tmp_path).put_many(BLOBS)
        assert left(tmp_path) == []


def test_a_full_disk_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = LocalBlobs(tmp_path)
    write, open_handles = os.write, len(os.listdir("/proc/self/fd"))

    def full(handle: int, data: bytes) -> int:
        if len(data) == len(BLOBS[3][1]):
            raise OSError(28, "No space left on device")
        return write(handle, data[:100])  # the rest follows

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put_many(BLOBS)
    assert left(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == open_handles
    blobs.put_many(BLOBS[:3])
    assert blobs.get(KEYS[2]) == BLOBS[2][1]


def test_one_wrong_key_stores_none(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    with pytest.raises(BadBlobKey):
        blobs.put_many([*BLOBS, ("work/7/../x", b"x")])
    assert left(tmp_path) == []
    blobs.put_many([])


def test_old_kernels_and_unknown_file_systems_are_flushed_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not flushing.can_sync(tmp_path):
        pytest.skip("this one is, too")
    assert not flushing.can_sync(Path("/proc"))
    for release, known in (("5.4.0-100-generic", False), ("5.8.0", True), ("5.10.1", True), ("4.19", False)):
        monkeypatch.setattr(flushing.platform, "release", lambda release=release: release)
        assert flushing.can_sync(tmp_path) == known, release
