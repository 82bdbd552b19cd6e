"""The blob store: immutable bytes under content-addressed keys, in a local folder (also a network file system).

A blob appears whole or not at all: temporary file, fsync, rename. Keys are made by `raw_key`, `work_key` and
`manifest_key`.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from db.errors import BadBlobKey, BlobMissing, BlobTooLarge

_KEY: Final = re.compile(
    r"(raw|work)/[0-9]{1,19}/[0-9a-f]{2}/[0-9a-f]{64}(\.jpg)?|manifests/[0-9a-f]{2}/[0-9a-f]{64}\.json"
)


def raw_key(account_id: int, sha256: bytes) -> str:
    """Where the bytes of an upload are, unread until the sandbox gets them."""
    return f"raw/{account_id}/{sha256.hex()[:2]}/{sha256.hex()}"


def work_key(account_id: int, sha256: bytes) -> str:
    """Where the working copy of the picture with these original bytes is."""
    return f"work/{account_id}/{sha256.hex()[:2]}/{sha256.hex()}.jpg"


def manifest_key(sha256: str) -> str:
    """Where the manifest of a dataset with this hash of its content is."""
    return f"manifests/{sha256[:2]}/{sha256}.json"


@dataclass(frozen=True)
class Staged:
    """Bytes on the store's disk that have no key yet; nobody else knows them."""

    path: Path
    key: str
    sha256: bytes
    size: int


class LocalBlobs:
    """Blobs as files below `root`. Safe for many processes: writers of the same key write the same bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, data: bytes) -> None:
        """Store `data`; it is on the disk before this returns."""
        target = self._path(key)
        handle, name = tempfile.mkstemp(dir=self._temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._publish(Path(name), target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def put_raw(self, account_id: int, chunks: Iterable[bytes], max_bytes: int) -> tuple[str, bytes, int]:
        """Store an upload as it streams in: (key, SHA-256, bytes). BlobTooLarge beyond `max_bytes`."""
        staged = self.stage_raw(account_id, chunks, max_bytes)
        self.place([staged])
        return staged.key, staged.sha256, staged.size

    def stage_raw(self, account_id: int, chunks: Iterable[bytes], max_bytes: int) -> Staged:
        """Keep an upload aside as it streams in, until `place` or `discard`. BlobTooLarge beyond `max_bytes`."""
        digest = hashlib.sha256()
        size = 0
        handle, name = tempfile.mkstemp(dir=self._temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size > max_bytes:
                        raise BlobTooLarge(f"more than {max_bytes} bytes")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Staged(Path(name), raw_key(account_id, digest.digest()), digest.digest(), size)

    def place(self, staged: Iterable[Staged]) -> None:
        """Put what was kept aside under its keys, for good."""
        folders = set()
        for each in staged:
            target = self._path(each.key)
            self._publish(each.path, target)
            folders.add(target.parent)
        for folder in folders:
            _flush_folder(folder)

    def discard(self, staged: Iterable[Staged]) -> None:
        """Remove what was kept aside and not placed."""
        for each in staged:
            each.path.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        """The bytes; BlobMissing."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(key) from None

    def open(self, key: str) -> BinaryIO:
        """The bytes as a file; BlobMissing."""
        try:
            return self._path(key).open("rb")
        except FileNotFoundError:
            raise BlobMissing(key) from None

    def exists(self, key: str) -> bool:
        """Whether the blob is there."""
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove the blob; it is no error when it is gone already."""
        self._path(key).unlink(missing_ok=True)

    def temporary_file(self) -> BinaryIO:
        """A nameless scratch file on the store's disk, gone when closed (also by a crash)."""
        return tempfile.TemporaryFile(dir=self._temporary)

    def usage(self, ended: Callable[[], bool] = lambda: False) -> dict[str, int] | None:
        """Bytes of the blobs of each kind; None once `ended` says so. Looks at every file: minutes, where there are
        many millions."""
        found = {"raw": 0, "work": 0, "manifests": 0}
        for kind in found:
            folders = [self.root / kind]
            while folders:
                if ended():
                    return None
                with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(Path(entry.path))
                        else:
                            with suppress(FileNotFoundError):
                                found[kind] += entry.stat(follow_symlinks=False).st_size
        return found

    def sweep(self, older_than_s: float, now: float) -> int:
        """Remove temporary files that a crash left behind; returns how many. `now` in Unix seconds."""
        swept = 0
        for path in self._temporary.iterdir():
            with suppress(FileNotFoundError):  # its writer is through with it
                if now - path.stat().st_mtime > older_than_s:
                    path.unlink()
                    swept += 1
        return swept

    def _path(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise BadBlobKey("not a blob key")
        return self.root / key

    @staticmethod
    def _publish(temporary: Path, target: Path) -> None:
        try:
            temporary.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)


def _flush_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut: an upload is accepted only after that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
