"""The blob store in an object store: S3, and what speaks its protocol (MinIO, Ceph, R2). Same keys as in the folder.

Nothing is kept on local disks but what is under way: an upload until it is placed, and files for the length of a
`folder_of`. Every request ends by a limit: a store that is slow, hangs, fails, throttles or refuses our credentials is
asked again a few times, and then it is BlobsAway. Only a key that the bucket does not have is BlobMissing.

Not to be used before a fork: its threads would be missing in the child, which then hangs. Our processes are spawned.
"""

import re
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar
from uuid import UUID

from db import fetched
from db.blob_keys import checked, is_key, place_of
from db.blobs import LocalBlobs, Staged
from db.errors import BlobMissing, BlobsAway, ExtraMissing
from db.settings import BlobSettings

try:
    import obstore
    from obstore.exceptions import BaseError, NotFoundError
    from obstore.store import S3Store
except ImportError:
    obstore = None  # type: ignore[assignment]
if TYPE_CHECKING:
    from obstore.store import S3Config, S3Store

A = TypeVar("A")
B = TypeVar("B")
AT_ONCE: Final = 16
"""Requests of one process that go side by side."""
CONNECT_S: Final = 5.0
SMALL_S: Final = 5.0
"""For requests that carry no blob, so that nobody waits longer in a transaction of the database."""
TRIES: Final = 4
_LISTED: Final = 1000
# What a store says of an error; the rest of its answer repeats what was asked, the name of the key pair too.
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")


class ObjectBlobs:
    """Blobs as objects of a bucket. `settings.blob_root`: where temporary files are."""

    def __init__(self, settings: BlobSettings) -> None:
        if obstore is None:
            raise ExtraMissing("an object store needs the extra s3: pip install 'tagmill[s3]'")
        self.name = settings.blob_store
        bucket, self._prefix = settings.bucket()
        self._aside = LocalBlobs(settings.blob_root)
        self._fetched = settings.blob_root / "fetched"
        self._store = _client(settings, bucket, settings.s3_timeout_s)
        self._quick = _client(settings, bucket, min(SMALL_S, settings.s3_timeout_s))

    def put(self, key: str, data: bytes) -> None:
        """Store `data`."""
        path = self._path(key)
        with _asked(key, storing=True):
            # One request: in parts, a crash would leave some, and they are paid for.
            obstore.put(self._store, path, data, use_multipart=False)

    def put_many(self, blobs: Iterable[tuple[str, bytes]]) -> None:
        """Store all of them, side by side."""
        named = [(checked(key), data) for key, data in blobs]
        self._each(lambda blob: self.put(*blob), named)

    def put_raw(self, account_id: int, chunks: Iterable[bytes], max_bytes: int) -> tuple[str, bytes, int]:
        """Store an upload as it streams in."""
        staged = self.stage_raw(account_id, chunks, max_bytes)
        try:
            self.place([staged])
        finally:
            self.discard([staged])
        return staged.key, staged.sha256, staged.size

    def stage_raw(self, account_id: int, chunks: Iterable[bytes], max_bytes: int) -> Staged:
        """Keep an upload aside in the folder for temporary files."""
        return self._aside.stage_raw(account_id, chunks, max_bytes)

    def place(self, staged: Collection[Staged]) -> None:
        """Store what was kept aside, side by side; then it is no longer kept."""
        self._each(lambda each: self.put(each.key, each.path.read_bytes()), staged)
        self.discard(staged)

    def discard(self, staged: Iterable[Staged]) -> None:
        """Remove what was kept aside."""
        self._aside.discard(staged)

    def get(self, key: str) -> bytes:
        """The bytes."""
        path = self._path(key)
        with _asked(key):
            return bytes(obstore.get(self._store, path).bytes())

    def size(self, key: str) -> int:
        """How many bytes they are."""
        return int(self._head(key)["size"])

    def exists(self, key: str) -> bool:
        """Whether it is there."""
        return bool(self._if_there(key))

    def present(self, keys: Collection[str]) -> set[str]:
        """Those that are there, asked for side by side."""
        return {key for key in self._each(self._if_there, keys) if key}

    @contextmanager
    def folder_of(self, keys: Collection[str]) -> Iterator[Path]:
        """A folder with copies, removed at the end of the block."""
        with fetched.folder(self._fetched) as folder:

            def fetch(key: str) -> None:
                try:
                    data = self.get(key)
                except BlobMissing:
                    return
                (folder / key).parent.mkdir(parents=True, exist_ok=True)
                (folder / key).write_bytes(data)

            self._each(fetch, keys)
            yield folder

    def delete(self, key: str) -> None:
        """Remove the blob."""
        path = self._path(key)
        try:
            with _asked(key):
                obstore.delete(self._quick, path)
        except BlobMissing:
            return

    def delete_older(self, key: str, than: float) -> bool:
        """Remove the blob unless it is younger. What is stored anew between the look and the removal, for as long as
        one request takes, goes too: the protocol has no removal under a condition on the time."""
        try:
            if _stored(self._head(key)) > than:
                return False
        except BlobMissing:
            return True
        self.delete(key)
        return True

    def delete_each_older(self, old: Sequence[tuple[str, float]]) -> list[bool]:
        """The same for each of them, side by side."""
        return self._each(lambda each: self.delete_older(*each), old)

    def folders(self, after: str = "") -> Iterator[str]:
        """The folders behind `after`, in order."""
        begin = place_of(after)
        for kind in ("raw", "work"):
            for account in sorted(filter(str.isdecimal, self._names(kind)), key=int):
                if (kind, int(account)) >= begin[:2]:
                    named = (f"{kind}/{account}/{shard}" for shard in sorted(self._names(f"{kind}/{account}")))
                    yield from (folder for folder in named if place_of(folder) > begin)

    def older(self, folder: str, than: float) -> Iterator[str]:
        """The keys of the older ones."""
        for key, meta in self._listed(folder):
            if is_key(key) and _stored(meta) < than:
                yield key

    def journals(self) -> list[UUID]:
        """The erasures whose journals are here, oldest first."""
        return [UUID(Path(key).stem) for key in sorted(key for key, _ in self._listed("erasures")) if is_key(key)]

    def temporary_file(self) -> BinaryIO:
        """A nameless scratch file on the local disk."""
        return self._aside.temporary_file()

    def usage(self, ended: Callable[[], bool] = lambda: False) -> dict[str, int] | None:
        """Bytes of the blobs of each kind; a request for every thousand blobs."""
        found = {"raw": 0, "work": 0, "manifests": 0}
        for kind in found:
            for number, (_, meta) in enumerate(self._listed(kind)):
                if number % _LISTED == 0 and ended():
                    return None
                found[kind] += meta["size"]
        return found

    def sweep(self, older_than_s: float, now: float) -> int:
        """Remove what crashes left on this machine."""
        return self._aside.sweep(older_than_s, now) + fetched.sweep(self._fetched)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(AT_ONCE, "objects")

    def _each(self, call: Callable[[A], B], things: Collection[A]) -> list[B]:
        """Side by side, in order. After an error nothing more begins, and what has begun is waited for: nothing is
        stored or removed behind the back of a caller who has given up, and its locks with it."""
        if len(things) == 1:
            return [call(each) for each in things]
        failed = threading.Event()

        def one(thing: A) -> B:
            if failed.is_set():
                raise BlobsAway("given up, for another one failed")
            try:
                return call(thing)
            except BaseException:
                failed.set()
                raise

        asked = [self._pool.submit(one, each) for each in things]
        try:
            return [each.result() for each in asked]
        finally:
            for each in asked:
                each.cancel()
            wait(asked)

    def _path(self, key: str) -> str:
        return self._prefix + checked(key)

    def _head(self, key: str) -> Mapping[str, Any]:
        path = self._path(key)
        with _asked(key):
            return obstore.head(self._quick, path)

    def _if_there(self, key: str) -> str:
        try:
            self._head(key)
        except BlobMissing:
            return ""
        return key

    def _names(self, folder: str) -> list[str]:
        """What is directly below a folder."""
        with _asked(folder, storing=True):
            found = obstore.list_with_delimiter(self._quick, self._prefix + folder)
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    def _listed(self, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with _asked(folder, storing=True):
            for batch in obstore.list(self._quick, self._prefix + folder, chunk_size=_LISTED):
                for meta in batch:
                    yield meta["path"].removeprefix(self._prefix), meta


def _client(settings: BlobSettings, bucket: str, timeout_s: float) -> "S3Store":
    """Given up at the latest `timeout_s` after the last try began, and tries begin for as long."""
    limit = timedelta(seconds=timeout_s)
    plain = settings.s3_endpoint.startswith("http://")
    config: S3Config = {"region": settings.s3_region}
    if settings.s3_endpoint:
        config["endpoint"] = settings.s3_endpoint
    return S3Store(
        bucket,
        config=config,
        client_options={
            "timeout": limit,
            "connect_timeout": timedelta(seconds=min(CONNECT_S, timeout_s)),
            "allow_http": plain,
        },
        retry_config={
            "max_retries": TRIES - 1,
            "retry_timeout": limit,
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        },
    )


@contextmanager
def _asked(key: str, *, storing: bool = False) -> Iterator[None]:
    """Errors of the store in our words. `storing`: nothing can be missing but the bucket."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        if storing or "NoSuchBucket" in str(error):
            raise BlobsAway("the object store has no such bucket") from None
        raise BlobMissing(key) from None
    except BaseError as error:
        raise BlobsAway(_said(error)) from None


def _said(error: Exception) -> str:
    """What the store said, without what it repeats of the request."""
    text = " ".join(str(error).split())
    code = _CODE.search(text)
    words = text.partition("Debug source")[0].partition("<")[0]
    return f"the object store says {code[1]}" if code else f"the object store: {words.strip()[:300]}"


def _stored(meta: Mapping[str, Any]) -> float:
    """When it was stored at the latest: stores tell whole seconds."""
    return float(meta["last_modified"].timestamp()) + 1
