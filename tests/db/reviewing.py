"""Pictures with automatic verdicts, as the infer stage records them, for tests of the review queue."""

import hashlib
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import chunks, jobs
from db.blobs import work_key
from db.chunks import Chunk
from db.images import ImageRecord
from db.jobs import JobSpec, NewItem
from db.recording import InferOutcome, IngestOutcome, finish_infer, finish_ingest
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount

OWNER = UUID(int=7)


def sha_of(name: str) -> bytes:
    """The bytes' hash of the picture of that name."""
    return hashlib.sha256(name.encode()).digest()


def verdict(said: str, code: str = "porn_review", score: float = 0.5) -> dict[str, Any]:
    """A moderation object as results hold it."""
    reasons = [] if said == "approve" else [{"code": code, "class": "Porn", "score": score, "verdict": said}]
    return {"scores": {"Porn": score}, "verdict": said, "reasons": reasons, "policy": "default@1", "model": "nsfw@1"}


def work_off(
    db: Database,
    account: TestAccount,
    pictures: dict[str, dict[str, Any]],
    *,
    context: str = "",
    pdq: dict[str, bytes] | None = None,
    audit_share: float = 0.0,
    category: str | None = None,
) -> Job:
    """A job whose pictures (by name) were given these moderation objects."""
    new = [NewItem(url=f"http://pictures.test/{name}", category=category) for name in pictures]
    with db.transaction(account.id) as session:
        job = jobs.submit(session, account.id, JobSpec(context=context), new, max_items=10_000)
    record(db, account, list(pictures.items()), pdq=pdq or {}, audit_share=audit_share)
    return job


def record(
    db: Database,
    account: TestAccount,
    pictures: list[tuple[str, dict[str, Any]]],
    *,
    pdq: dict[str, bytes] | None = None,
    audit_share: float = 0.0,
) -> None:
    """Ingest and infer every ready chunk: item n of the job is picture n with its moderation object."""
    while chunk := _claim(db, "ingest"):
        with db.transaction() as session:
            outcomes = [
                IngestOutcome(m.seq, _image(account, pictures[m.seq][0], pdq or {}))
                for m in chunks.items(session, chunk)
            ]
            finish_ingest(session, chunk, outcomes)
    while chunk := _claim(db, "infer"):
        with db.transaction() as session:
            done = [InferOutcome(m.seq, m.sha256, [], pictures[m.seq][1]) for m in chunks.images_of(session, chunk)]
            finish_infer(session, chunk, done, audit_share=audit_share)


def tasks(owner_db: Database) -> list[dict[str, Any]]:
    """Every review task, oldest first, as its row."""
    with owner_db.transaction() as session:
        rows = session.execute(text("SELECT * FROM review_tasks ORDER BY created_at, seq, id")).mappings()
        return [dict(row) for row in rows]


def _claim(db: Database, stage: str) -> Chunk | None:
    with db.transaction() as session:
        return next(iter(chunks.claim(session, stage, OWNER, 60, 1)), None)


def _image(account: TestAccount, name: str, pdq: dict[str, bytes]) -> ImageRecord:
    sha = sha_of(name)
    return ImageRecord(sha, work_key(account.id, sha), 100, 40, 30, "JPEG", sha, pdq.get(name, sha), 90, [], 1.5)
