"""Parts of the line set up by hand, so that a stage can be tested without the ones before it."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from sqlalchemy import text

from db import chunks, jobs, recording, registry
from db.blobs import LocalBlobs, raw_key, work_key
from db.ids import uuid7
from db.images import ImageRecord
from db.jobs import JobSpec, NewItem
from db.recording import IngestOutcome
from db.session import Database
from ml.tiny import make_tiny
from worker.settings import WorkerSettings

COLOURS = {"red": (250, 10, 70), "green": (10, 250, 10), "blue": (10, 10, 250), "grey": (90, 90, 90)}


def settings(folder: Path, database_url: str, broker_url: str = "redis://127.0.0.1:1/0", **more: Any) -> WorkerSettings:
    """Settings of a test's own folder; short waits."""
    values = {
        "database_url": database_url,
        "broker_url": broker_url,
        "blob_root": folder / "blobs",
        "model_root": folder / "models",
        "backend": "reference",
        "decode_threads": 1,
        "ingest_poll_s": 0.05,
        "host_wait_s": 1,
        "sandbox_processes": 1,
        "allow_cidrs": ["127.0.0.0/8"],
    }
    return WorkerSettings(**{**values, **more})


def install_models(database: Database, root: Path, tasks: Sequence[str] = ("tags", "moderation")) -> None:
    """The tiny model of each task: on disk, registered, active."""
    for task in tasks:
        artifact = make_tiny(root / f"tiny-{task}" / "1", task)  # type: ignore[arg-type]
        with database.transaction() as session:
            registry.install_model(session, artifact.card.to_dict(), artifact.sha256)
            registry.activate(session, artifact.card.name, artifact.card.version)


def jpeg(colour: str, number: int = 0) -> bytes:
    """A working copy of one colour; `number` makes its bytes different."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16 + number), COLOURS[colour]).save(out, "JPEG", quality=90, subsampling=0)
    return out.getvalue()


def ingested(
    database: Database,
    blobs: LocalBlobs,
    account_id: int,
    copies: Sequence[bytes],
    *,
    chunk_size: int = 16,
    category: str | None = None,
    **spec_: Any,
) -> UUID:
    """A job whose pictures have these working copies: its infer chunks are ready. `spec_`: fields of its JobSpec."""
    items = [
        NewItem(filename=f"{n}.jpg", raw_key=raw_key(account_id, bytes([n]) * 32), category=category)
        for n in range(len(copies))
    ]
    with database.transaction() as session:
        spec = JobSpec(**spec_)
        job = jobs.submit(session, account_id, spec, items, max_items=1000, chunk_size=chunk_size)
    fetched(database, blobs, account_id, copies)
    return job.id


def fetched(database: Database, blobs: LocalBlobs, account_id: int, copies: Sequence[bytes]) -> None:
    """All that is ready to be fetched has these working copies, by their place in the job."""
    owner = uuid7()
    while True:
        with database.transaction() as session:
            claimed = chunks.claim(session, "ingest", owner, 60)
            if not claimed:
                return
            outcomes = [
                IngestOutcome(item.seq, image=_stored(blobs, account_id, copies[item.seq]))
                for item in chunks.items(session, claimed[0])
            ]
            recording.finish_ingest(session, claimed[0], outcomes)


def _stored(blobs: LocalBlobs, account_id: int, copy: bytes) -> ImageRecord:
    digest = hashlib.sha256(copy).digest()
    key = work_key(account_id, digest)
    blobs.put(key, copy)
    return ImageRecord(hashlib.sha256(b"original" + copy).digest(), key, len(copy), 16, 16, "JPEG", work_sha256=digest)


def rows(database: Database, sql: str, **parameters: Any) -> list[Any]:
    """What a query answers."""
    with database.transaction() as session:
        return list(session.execute(text(sql), parameters).all())


def run_sql(database: Database, sql: str, **parameters: Any) -> None:
    """Change something behind the code's back."""
    with database.transaction() as session:
        session.execute(text(sql), parameters)
