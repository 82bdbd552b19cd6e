"""What earlier jobs of an account left that a crawler need not do again: the same bytes are fetched and decoded once.

at the claim:    validators of the chunk's URLs ─► the fetch asks whether the bytes changed ─► 304: the known image
after a fetch:   the bytes' SHA-256, with those of other fetches ─► known: the known image, and no sandbox

An image is used again only if this normaliser made it in these settings, if it has the facts that are wanted, and if
its working copy is there. A retry uses nothing again: what is wrong with a picture may be its working copy.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeVar

from db import images, validators
from db.blob_store import Blobs
from db.chunks import Chunk, ChunkItem
from db.errors import Unavailable
from db.images import ImageRecord
from db.session import Database, Session
from db.validators import Remembered
from worker.settings import WorkerSettings
from worker.together import Together

T = TypeVar("T")

# What makes working copies and facts out of bytes. If one of these changes, nothing made before is used again.
MAKERS: Final = (
    "ml.colours",
    "ml.facts",
    "ml.images",
    "ml.jpeg_steps",
    "ml.magic",
    "ml.pixels",
    "worker.sandbox_child",
)
# One question costs half a millisecond of CPU time, whatever it asks for: pictures that are in no hurry share it.
GATHER_S: Final = 0.1
MOST: Final = 32


class Reuse:
    """For one event loop and its crawler."""

    def __init__(self, settings: WorkerSettings, database: Database, blobs: Blobs) -> None:
        self.made_by = made_by(settings)
        self._database = database
        self._blobs = blobs
        self._thread = ThreadPoolExecutor(1, "reuse")
        # Those who wait here hold fetched bytes: where few may, there is nobody to wait for.
        most = max(1, min(MOST, settings.ingest_in_hand // 4))
        self._known = Together(self._find, self._in_thread, gather_s=GATHER_S, most=most)
        self._there = Together(self._present, self._in_thread, gather_s=GATHER_S, most=MOST)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def remembered(
        self, session: Session, chunk: Chunk, items: Sequence[ChunkItem], facts: Collection[str]
    ) -> dict[str, Remembered]:
        """What the URLs of a chunk gave the last time, as far as it may be used again."""
        urls = [item.url for item in items if item.url]
        if not urls or not may_reuse(chunk):
            return {}
        found = validators.known(session, chunk.account_id, urls, self.made_by)
        return {url: each for url, each in found.items() if has(each.image, facts)}

    async def there(self, image: ImageRecord, *, urgent: bool = False) -> bool:
        """Whether its working copy is."""
        return bool(await self._there.ask(image.work_key, urgent=urgent))

    async def known(
        self, account_id: int, sha256: bytes, facts: Collection[str], *, urgent: bool = False
    ) -> ImageRecord | None:
        """The image of these bytes with these facts, working copy and all."""
        try:
            found = await self._known.ask((account_id, sha256), urgent=urgent)
        except Unavailable:
            return None  # then it is made anew, which harms nobody
        return found if found is not None and has(found, facts) else None

    def _find(self, keys: Collection[tuple[int, bytes]]) -> Mapping[tuple[int, bytes], ImageRecord]:
        found: dict[tuple[int, bytes], ImageRecord] = {}
        with self._database.transaction() as session:
            for account in {account for account, _ in keys}:
                shas = [sha256 for owner, sha256 in keys if owner == account]
                for sha256, image in images.known(session, account, shas, self.made_by).items():
                    found[account, sha256] = image
        there = self._blobs.present({image.work_key for image in found.values()})
        return {key: image for key, image in found.items() if image.work_key in there}

    def _present(self, keys: Collection[str]) -> Mapping[str, bool]:
        return dict.fromkeys(self._blobs.present(keys), True)

    def _in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call)


def may_reuse(chunk: Chunk) -> bool:
    """Whether what is known may be used in this chunk."""
    return chunk.round == 0 and chunk.options.get("refetch") != "always"


def has(image: ImageRecord, facts: Collection[str]) -> bool:
    """Whether it has these content facts."""
    return all(getattr(image, fact) is not None for fact in facts)


def made_by(settings: WorkerSettings) -> int:
    """The fingerprint of the normaliser: its code, its decoder, its limits and settings."""
    said = [
        _code(),
        version("pillow"),
        settings.max_picture_bytes,
        settings.max_pixels,
        settings.max_side,
        settings.work_short_side,
        settings.work_quality,
    ]
    return int.from_bytes(blake2b(json.dumps(said).encode(), digest_size=8).digest(), "big", signed=True)


@cache
def _code() -> str:
    digest = blake2b(digest_size=16)
    for name in MAKERS:
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        digest.update(Path(found.origin).read_bytes())
    return digest.hexdigest()
