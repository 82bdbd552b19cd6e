"""The blob store: immutable bytes under content-addressed keys, in a local folder (also a network file system).

A blob appears whole or not at all: temporary file, flush, rename, flush (db/flushing.py). Keys are made by `raw_key`,
`work_key`, `manifest_key` and `journal_key`.
"""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from db.blob_keys import checked, is_key, place_of
from db.errors import BlobMissing, BlobTooLarge
from db.flushing import Flushing


def raw_key(account_id: int, sha256: bytes) -> str:
    """Where the bytes of an upload are, unread until the sandbox gets them."""
    return f"raw/{account_id}/{sha256.hex()[:2]}/{sha256.hex()}"


def work_key(account_id: int, sha256: bytes) -> str:
    """Where the working copy of the picture with these original bytes is."""
    return f"work/{account_id}/{sha256.hex()[:2]}/{sha256.hex()}.jpg"


def manifest_key(sha256: str) -> str:
    """Where the manifest of a dataset with this hash of its content is."""
    return f"manifests/{sha256[:2]}/{sha256}.json"


def journal_key(erasure_id: UUID) -> str:
    """Where it is kept what an erasure erased, for a database that was restored from before it."""
    return f"erasures/{erasure_id}.json"


@dataclass(frozen=True)
class Staged:
    """Bytes on a local disk that have no key yet; nobody else knows them."""

    path: Path
    key: str
    sha256: bytes
    size: int


class LocalBlobs:
    """Blobs as files below `root`. Safe for many processes: writers of the same key write the same bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)
        self._temporary = root / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._flushing = Flushing(self._temporary)
        self._mark = secrets.token_hex(8)
        self._count = count()

    def put(self, key: str, data: bytes) -> None:
        """Store `data`; it is on the disk, and its name too, before this returns."""
        self.put_many([(key, data)])

    def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Store all of them, at hardly more cost than one; they are on the disk, and their names too, before this
        returns. After an error any of them may be there."""
        named = [(str(self._path(key)), data) for key, data in blobs]
        temporary: list[str] = []
        whole = self._flushing.open()
        try:
            with ExitStack() as files:
                handles = [self._written(data, temporary, files) for _, data in named]
                # Before they get their names: a blob that a row has named may be replaced by the same bytes.
                self._flushing.flush(whole, handles)
            changed = {
                folder
                for name, (target, _) in zip(temporary, named, strict=True)
                for folder in self._publish(name, target)
            }
            with ExitStack() as folders:
                self._flushing.flush(whole, [_opened(folder, folders) for folder in changed])
        except BaseException:
            for name in temporary:
                with suppress(FileNotFoundError):
                    os.unlink(name)
            raise
        finally:
            os.close(whole)

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
        changed = {folder for each in staged for folder in self._publish(str(each.path), str(self._path(each.key)))}
        with ExitStack() as folders:
            for folder in changed:
                os.fsync(_opened(folder, folders))

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

    def size(self, key: str) -> int:
        """How many bytes they are; BlobMissing."""
        try:
            return self._path(key).stat().st_size
        except FileNotFoundError:
            raise BlobMissing(key) from None

    def present(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that have a blob."""
        return {key for key in keys if self._path(key).is_file()}

    @contextmanager
    def folder_of(self, keys: Collection[str]) -> Iterator[Path]:
        """A folder to read from, in which the blobs with these keys lie under their keys."""
        yield self.root

    def exists(self, key: str) -> bool:
        """Whether the blob is there."""
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove the blob; it is no error when it is gone already."""
        self._path(key).unlink(missing_ok=True)

    def delete_older(self, key: str, than: float) -> bool:
        """Remove the blob unless it was stored after this time (Unix seconds); False for one that was, if only between
        the look and the removal."""
        path = self._path(key)
        aside = Path(self._scratch())
        with suppress(FileNotFoundError):
            if path.stat().st_mtime > than:
                return False
            os.rename(path, aside)
            if aside.stat().st_mtime > than:  # not what was looked at: somebody has just stored it
                self.place([Staged(aside, key, b"", 0)])
                return False
            aside.unlink()
        return True

    def folders(self, after: str = "") -> Iterator[str]:
        """The folders of uploads and working copies behind `after`, always in the same order."""
        begin = place_of(after)
        for kind in ("raw", "work"):
            for account in sorted(filter(str.isdecimal, _names(self.root / kind)), key=int):
                if (kind, int(account)) >= begin[:2]:
                    named = (f"{kind}/{account}/{shard}" for shard in sorted(_names(self.root / kind / account)))
                    yield from (folder for folder in named if place_of(folder) > begin)

    def older(self, folder: str, than: float) -> Iterator[str]:
        """The keys of the blobs in a folder that were stored before this time (Unix seconds)."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / folder) as entries:
            for entry in entries:
                key = f"{folder}/{entry.name}"
                with suppress(FileNotFoundError):
                    if is_key(key) and entry.stat(follow_symlinks=False).st_mtime < than:
                        yield key

    def delete_each_older(self, old: Sequence[tuple[str, float]]) -> list[bool]:
        """`delete_older` for each of them."""
        return [self.delete_older(key, than) for key, than in old]

    def journals(self) -> list[UUID]:
        """The erasures whose journals are here, oldest first."""
        with suppress(FileNotFoundError):
            keys = sorted(f"erasures/{name}" for name in os.listdir(self.root / "erasures"))
            return [UUID(Path(key).stem) for key in keys if is_key(key)]
        return []

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
        return self.root / checked(key)

    def _scratch(self) -> str:
        """A name unlike any of another process, of another machine, or of one that this was forked from."""
        return f"{self._temporary}/{self._mark}-{os.getpid()}-{next(self._count)}"

    def _written(self, data: bytes, names: list[str], files: ExitStack) -> int:
        """The open temporary file with `data`; its name is added to `names`, its end left to `files`."""
        name = self._scratch()
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        files.callback(os.close, handle)
        names.append(name)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        return handle

    def _publish(self, temporary: str, target: str) -> list[str]:
        """Give it its name; the folders to flush, so that the name survives a power cut."""
        folder = os.path.dirname(target)
        try:
            os.replace(temporary, target)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            os.replace(temporary, target)
            inner = Path(folder).relative_to(self.root)
            return [folder, *(str(self.root / outer) for outer in inner.parents)]
        return [folder]


def _opened(folder: str, until: ExitStack) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    until.callback(os.close, handle)
    return handle


def _names(folder: Path) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(folder)
    return []
