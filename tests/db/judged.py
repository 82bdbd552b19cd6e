"""Jobs whose pictures have automatic verdicts, recorded by the line itself."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import chunks, jobs
from db.jobs import JobSpec, NewItem
from db.recording import InferOutcome, finish_infer
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount
from tests.db.test_line import claim, finish, ingest_all

TAG = {"label": "shirt", "group": "category", "score": 0.9, "model": "m@1"}


def moderation(verdict: str, score: float = 0.3125) -> dict[str, Any]:
    """What the policy engine makes of scores; the text of the small one depends on who writes it."""
    rule = None if verdict == "approve" else "bare"
    reasons = [{"code": "nudity", "text": "<b>Bare</b>", "verdict": verdict, "rule": rule}] if rule else []
    scores = {"Porn": score, "Drawing": 1.25e-07}
    about = {"policy": "default@1", "rule": rule, "model": "nsfw@1", "hits": []}
    return {"scores": scores, "verdict": verdict, "reasons": reasons, **about}


def judge(
    db: Database, account: TestAccount, verdicts: Sequence[str], context: str = "", product: str | None = None
) -> Job:
    """A finished job of one picture a verdict. The n-th picture of every job has the same bytes."""
    new = [NewItem(url=f"http://pictures.test/{n}.jpg", product_id=product) for n in range(len(verdicts))]
    with db.transaction(account.id) as session:
        job = jobs.submit(session, account.id, JobSpec(context=context), new, max_items=100_000)
    ingest_all(db, account)
    while claimed := claim(db, "infer"):
        with db.transaction() as session:
            found = chunks.images_of(session, claimed[0])
            outcomes = [InferOutcome(i.seq, i.sha256, [TAG], moderation(verdicts[i.seq])) for i in found]
            finish_infer(session, claimed[0], outcomes)
    assert finish(db, job)
    return job


def sha_of(db: Database, job_id: UUID, seq: int = 0) -> bytes:
    """The bytes of an item's picture."""
    with db.transaction() as session:
        where = "WHERE job_id = :j AND seq = :s"
        return bytes(session.execute(text(f"SELECT sha256 FROM results {where}"), {"j": job_id, "s": seq}).scalar_one())
