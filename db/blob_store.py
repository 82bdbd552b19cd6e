"""The blob store that is configured: what every store promises, and which one it is.

Two keep the promise: a folder (`db.blobs.LocalBlobs`) and an object store (`db.object_blobs.ObjectBlobs`). Blobs are
immutable: whoever stores under a key stores the same bytes under it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import UUID

from db.blobs import LocalBlobs, Staged
from db.settings import BlobSettings


class Blobs(Protocol):
    """A blob is there as a whole or not at all, and for every process as soon as its `put` or `place` has ended. Safe
    for many threads and processes. Every method raises BadBlobKey for what is no key, OSError where the disk refuses,
    and BlobsAway where the store cannot be asked now: no blob is at fault then."""

    @property
    def name(self) -> str:
        """Where it is, for people."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Store `data`; it survives a power cut once this has returned."""
        ...

    def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Store all of them, quicker than one by one. After an error any of them may be there."""
        ...

    def put_raw(self, account_id: int, chunks: Iterable[bytes], max_bytes: int) -> tuple[str, bytes, int]:
        """Store an upload as it streams in: (key, SHA-256, bytes). BlobTooLarge beyond `max_bytes`."""
        ...

    def stage_raw(self, account_id: int, chunks: Iterable[bytes], max_bytes: int) -> Staged:
        """Keep an upload aside on a local disk, until `place` or `discard`. BlobTooLarge beyond `max_bytes`."""
        ...

    def place(self, staged: Collection[Staged]) -> None:
        """Store what was kept aside under its keys. After an error any of it may be there."""
        ...

    def discard(self, staged: Iterable[Staged]) -> None:
        """Remove what was kept aside."""
        ...

    def get(self, key: str) -> bytes:
        """The bytes, as they are: whoever knows their hash compares it. BlobMissing."""
        ...

    def size(self, key: str) -> int:
        """How many bytes `get` would give. BlobMissing."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the blob is there."""
        ...

    def present(self, keys: Collection[str]) -> set[str]:
        """Those of the keys that have a blob."""
        ...

    def folder_of(self, keys: Collection[str]) -> AbstractContextManager[Path]:
        """A folder to read from, in which the blobs with these keys lie under their keys, as far as there are any; for
        the length of the block."""
        ...

    def delete(self, key: str) -> None:
        """Remove the blob; it is no error when it is gone already."""
        ...

    def delete_older(self, key: str, than: float) -> bool:
        """Remove the blob unless it was stored after this time (Unix seconds); False for one that was."""
        ...

    def delete_each_older(self, old: Sequence[tuple[str, float]]) -> list[bool]:
        """`delete_older` for each of them, quicker than one by one."""
        ...

    def folders(self, after: str = "") -> Iterator[str]:
        """The folders of uploads and working copies behind `after`, always in the same order."""
        ...

    def older(self, folder: str, than: float) -> Iterator[str]:
        """The keys of the blobs in a folder that were stored before this time (Unix seconds)."""
        ...

    def journals(self) -> list[UUID]:
        """The erasures whose journals are here, oldest first."""
        ...

    def temporary_file(self) -> BinaryIO:
        """A nameless scratch file on a local disk, gone when closed (also by a crash)."""
        ...

    def usage(self, ended: Callable[[], bool] = ...) -> dict[str, int] | None:
        """Bytes of the blobs of each kind; None once `ended` says so. Looks at every blob: minutes, where there are
        many millions."""
        ...

    def sweep(self, older_than_s: float, now: float) -> int:
        """Remove temporary files of this machine that a crash left behind; how many. `now` in Unix seconds."""
        ...


def open_blobs(settings: BlobSettings) -> Blobs:
    """The configured store; asks nobody yet. Raises OSError for a folder that cannot be used, ExtraMissing."""
    if not settings.blob_store:
        return LocalBlobs(settings.blob_root)
    from db.object_blobs import ObjectBlobs

    return ObjectBlobs(settings)
