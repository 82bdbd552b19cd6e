"""Races on the queue, with real connections: two last chunks at once, reaper against owner, many claimers."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID

import pytest
from sqlalchemy import text

from db import chunks, endings, rescue
from db.errors import LeaseLost
from db.ids import uuid7
from db.recording import InferOutcome, IngestOutcome, finish_infer, finish_ingest
from db.session import WORKER_ROLE, Database
from tests.conftest import TestAccount
from tests.db.test_line import claim, events, finish, ingest_all, submit, urls


@pytest.fixture
def pooled(database_url: str) -> Database:
    return Database(database_url, role=WORKER_ROLE, pool_size=12)


def test_two_last_chunks_at_once_end_the_job_once(pooled: Database, account: TestAccount) -> None:
    for _ in range(25):
        job = submit(pooled, account, urls(32))
        ingest_all(pooled, account)
        leased = [claim(pooled, "infer", uuid7())[0] for _ in range(2)]
        barrier = Barrier(2)

        def end(chunk: chunks.Chunk, barrier: Barrier = barrier, job_id: UUID = job.id) -> None:
            with pooled.transaction() as session:
                outcomes = [InferOutcome(i.seq, i.sha256, []) for i in chunks.images_of(session, chunk)]
                barrier.wait(20)
                finish_infer(session, chunk, outcomes)
            with pooled.transaction() as session:
                endings.finish(session, job_id)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(end, leased))
        assert events(pooled, job) == [("job.finished", 0)]


def test_reaper_and_owner_never_both_end_a_chunk(pooled: Database, account: TestAccount) -> None:
    for _ in range(25):
        job = submit(pooled, account, urls(4))
        (chunk,) = claim(pooled, "ingest", lease_s=-1)
        barrier = Barrier(2)

        def end(chunk: chunks.Chunk = chunk, barrier: Barrier = barrier) -> bool:
            barrier.wait(20)
            try:
                with pooled.transaction() as session:
                    finish_ingest(session, chunk, [IngestOutcome(n, code="http_404") for n in range(4)])
            except LeaseLost:
                return False
            return True

        def take(barrier: Barrier = barrier) -> int:
            barrier.wait(20)
            with pooled.transaction() as session:
                return rescue.reap(session).released

        with ThreadPoolExecutor(2) as pool:
            ended, taken = pool.submit(end), pool.submit(take)
            assert ended.result() != bool(taken.result())
        if not ended.result():
            (again,) = claim(pooled, "ingest")
            with pooled.transaction() as session:
                finish_ingest(session, again, [IngestOutcome(n, code="http_404") for n in range(4)])
        assert finish(pooled, job)


def test_many_claimers_never_share_a_chunk(pooled: Database, account: TestAccount) -> None:
    submit(pooled, account, urls(512))

    def drain(_: int) -> list[int]:
        mine: list[int] = []
        while claimed := claim(pooled, "ingest", uuid7(), limit=2):
            mine += [chunk.id for chunk in claimed]
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [chunk for mine in pool.map(drain, range(8)) for chunk in mine]
    assert len(taken) == len(set(taken)) == 32


def test_an_outcome_that_exists_already_is_never_rewritten(
    pooled: Database, owner_db: Database, account: TestAccount
) -> None:
    job = submit(pooled, account, urls(3))
    with owner_db.transaction() as session:
        session.execute(
            text(
                "INSERT INTO results (bucket, job_id, seq, account_id, outcome, code)"
                " SELECT bucket, id, 1, account_id, 'failed', 'http_410' FROM jobs"
            )
        )
    (chunk,) = claim(pooled, "ingest")
    with pooled.transaction() as session:
        finish_ingest(session, chunk, [IngestOutcome(n, code="http_404") for n in range(3)])
    with pooled.transaction() as session:
        codes = list(session.scalars(text("SELECT code FROM results WHERE job_id = :id ORDER BY seq"), {"id": job.id}))
    assert codes == ["http_404", "http_410", "http_404"]
