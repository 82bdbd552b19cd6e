"""A line without crawlers and networks, for tests of hash banks: chosen hashes and scores go through it."""

import hashlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import banks, chunks, jobs, policy, recording
from db.blobs import work_key
from db.chunks import Chunk
from db.ids import item_id
from db.images import ImageRecord, record_analyses
from db.jobs import JobSpec, NewItem
from db.recording import IngestOutcome
from db.session import Database
from tests.conftest import TestAccount
from worker.infer_work import Work

OWNER = UUID(int=1)
MODEL = "judge@1"
GOOD = {"Neutral": 0.98, "Porn": 0.01, "Hentai": 0.0, "Sexy": 0.01, "Drawing": 0.0}
BAD = {"Neutral": 0.02, "Porn": 0.97, "Hentai": 0.0, "Sexy": 0.01, "Drawing": 0.0}


def sha(name: str) -> bytes:
    """The SHA-256 of the picture of that name."""
    return hashlib.sha256(name.encode()).digest()


def near(pdq: str, bits: int) -> str:
    """A hash that differs in so many bits, spread over all bands."""
    value = int(pdq, 16)
    for n in range(bits):
        value ^= 1 << (n * 17) % 256
    return f"{value:064x}"


def image(account_id: int, name: str, pdq: str | None, quality: int = 90) -> ImageRecord:
    return ImageRecord(
        sha(name),
        work_key(account_id, sha(name)),
        100,
        640,
        480,
        "JPEG",
        sha(name),
        None if pdq is None else bytes.fromhex(pdq),
        None if pdq is None else quality,
        [],
        9.0,
    )


def submit(db: Database, account: TestAccount, names: list[str], context: str = "") -> UUID:
    """A job with these pictures."""
    with db.transaction(account.id) as session:
        items = [NewItem(url=f"http://pictures.test/{name}.jpg", client_id=name) for name in names]
        spec = JobSpec(analyses=("moderation",), context=context)
        return jobs.submit(session, account.id, spec, items, max_items=10_000).id


def claimed(db: Database, stage: str) -> Chunk | None:
    with db.transaction() as session:
        found = chunks.claim(session, stage, OWNER, 60)
    return found[0] if found else None


def ingest(db: Database, pictures: Mapping[str, str | None], quality: int = 90) -> None:
    """End every ready ingest chunk; a picture of a name has this hash."""
    while chunk := claimed(db, "ingest"):
        with db.transaction() as session:
            outcomes = []
            for item in chunks.items(session, chunk):
                name = str(item.url).rpartition("/")[2].removesuffix(".jpg")
                made = image(chunk.account_id, name, pictures[name], quality)
                outcomes.append(IngestOutcome(item.seq, made))
            recording.finish_ingest(session, chunk, outcomes)


def prepared(db: Database, scores: Mapping[str, float] | None = GOOD) -> Work | None:
    """An infer chunk with everything that its verdicts need, decided on and not recorded yet."""
    chunk = claimed(db, "infer")
    if chunk is None:
        return None
    with db.transaction() as session:
        members = chunks.images_of(session, chunk)
        hits = banks.hits_of(session, chunk.account_id, [member.sha256 for member in members])
        known = {} if scores is None else {member.sha256: {MODEL: {"scores": dict(scores)}} for member in members}
        record_analyses(session, chunk.account_id, MODEL, {s: found[MODEL] for s, found in known.items()})
    pinned = {} if scores is None else {"moderation": MODEL}
    return Work(chunk, members, policy.validate(chunk.policy), pinned, known, hits)


def finish(db: Database, work: Work) -> None:
    """Record an infer chunk."""
    with db.transaction() as session:
        recording.finish_infer(session, work.chunk, work.outcomes(top_k=5, min_score=0.05))


def infer(db: Database, scores: Mapping[str, float] | None = GOOD) -> None:
    """End every ready infer chunk; all pictures have these scores."""
    while work := prepared(db, scores):
        finish(db, work)


def moderation(db: Database, job: UUID, seq: int = 0) -> dict[str, Any]:
    """The stored automatic verdict of an item."""
    with db.transaction() as session:
        found = session.execute(
            text("SELECT moderation FROM results WHERE job_id = :job AND seq = :seq"), {"job": job, "seq": seq}
        ).scalar_one()
    assert isinstance(found, dict)
    return found


def verdicts(db: Database, job: UUID) -> list[str]:
    """The automatic verdicts of a job's items, in order."""
    with db.transaction() as session:
        rows = session.scalars(
            text("SELECT moderation ->> 'verdict' FROM results WHERE job_id = :job ORDER BY seq"), {"job": job}
        )
        return list(rows)


def public(job: UUID, seq: int = 0) -> str:
    return item_id(job, seq)
