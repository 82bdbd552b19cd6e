"""An erasure against work in hand, with real connections: whatever comes first, nothing of what was erased is left."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import text

from db import blob_removals, chunks, erasure_fence, erasures, images, jobs, rescue
from db.erasure_fence import Refused
from db.errors import LeaseLost
from db.ids import item_id, uuid7
from db.jobs import JobSpec, NewItem
from db.recording import Deferred, InferOutcome, IngestOutcome, finish_infer, finish_ingest
from db.session import WORKER_ROLE, Database
from db.tables import Job
from tests.conftest import TestAccount
from tests.db.erasing import erase, traces, worked_off
from tests.db.test_erasure import DONE, GONE, run, sha
from tests.db.test_line import claim, finish, image, infer_all, ingest_all, submit, urls
from tests.oracle import Expected, check
from tests.worker.line import rows

TAG = {"label": "shirt", "group": "category", "score": 0.9, "model": "m@1"}


@pytest.fixture
def pooled(database_url: str) -> Database:
    return Database(database_url, role=WORKER_ROLE, pool_size=12)


def fetched(database: Database, account: TestAccount, chunk: chunks.Chunk, pictures: list[str]) -> None:
    """A crawler that has had all in memory since its claim records it."""
    outcomes = [IngestOutcome(seq, image(account, pictures[seq])) for seq in chunk.members]
    with database.transaction() as session:
        finish_ingest(session, chunk, outcomes)


def scored(database: Database, chunk: chunks.Chunk, known: list[chunks.ChunkImage]) -> None:
    """A worker that has had all in memory since its claim records it, scores too."""
    with database.transaction() as session:
        erasure_fence.share_lock(session, chunk.account_id)
        images.record_analyses(session, chunk.account_id, "m@1", {i.sha256: {"tags": [TAG]} for i in known})
        finish_infer(session, chunk, [InferOutcome(i.seq, i.sha256, [TAG]) for i in known])


def leased_infer(db: Database) -> tuple[chunks.Chunk, list[chunks.ChunkImage]]:
    (chunk,) = claim(db, "infer")
    with db.transaction() as session:
        return chunk, chunks.images_of(session, chunk)


def test_an_item_erased_while_it_is_fetched(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(8))
    (chunk,) = claim(db, "ingest")
    erase(db, account.id, "item", item_id(job.id, 3))
    fetched(db, account, chunk, urls(8))
    infer_all(db)
    assert finish(db, job)
    check(owner_db, {job.id: [GONE if n == 3 else DONE for n in range(8)]})
    assert traces(owner_db, urls(8)[3], sha(urls(8)[3])) == []
    assert rows(owner_db, "SELECT 1 FROM blob_removals WHERE key = :k", k=image(account, urls(8)[3]).work_key)


def test_a_picture_erased_while_unknown_work_is_about_to_store_it(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    old, young = run(db, account, urls(4)), submit(db, account, urls(4))
    (chunk,) = claim(db, "ingest")
    erase(db, account.id, "picture", sha(urls(4)[1]))
    fetched(db, account, chunk, urls(4))
    infer_all(db)
    assert finish(db, young)
    expected = [DONE, GONE, DONE, DONE]
    check(owner_db, {old.id: expected, young.id: expected})
    assert traces(owner_db, urls(4)[1], sha(urls(4)[1])) == []


def test_an_item_erased_while_it_is_scored(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(8))
    ingest_all(db, account)
    chunk, known = leased_infer(db)
    erase(db, account.id, "item", item_id(job.id, 3))
    scored(db, chunk, known)
    assert finish(db, job)
    check(owner_db, {job.id: [GONE if n == 3 else DONE for n in range(8)]})
    assert traces(owner_db, urls(8)[3], sha(urls(8)[3])) == []


def test_a_whole_job_erased_while_it_is_put_off(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(8))
    (chunk,) = claim(db, "ingest")
    erase(db, account.id, "job", str(job.id))
    with db.transaction() as session:
        finish_ingest(session, chunk, [IngestOutcome(0, image(account, urls(8)[0]))], [Deferred(range(1, 8), 60.0)])
    assert finish(db, job), "nothing is left to be put off"
    check(owner_db, {job.id: [GONE] * 8})
    assert traces(owner_db, "pictures.test") == []


def test_a_whole_job_erased_while_it_is_scored(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(8))
    ingest_all(db, account)
    chunk, known = leased_infer(db)
    erase(db, account.id, "job", str(job.id))
    scored(db, chunk, known)
    assert finish(db, job)
    check(owner_db, {job.id: [GONE] * 8})
    assert traces(owner_db, "pictures.test", *(sha(url) for url in urls(8))) == []


@pytest.mark.parametrize("stage", ["ingest", "infer"])
def test_a_job_cancelled_or_poisoned_beside_it_adds_up(
    db: Database, owner_db: Database, account: TestAccount, stage: str
) -> None:
    cancelled, poisoned = submit(db, account, urls(8)), submit(db, account, [urls(9)[8]])
    if stage == "infer":
        ingest_all(db, account)
    claimed = claim(db, stage, limit=2)
    with db.transaction() as session:
        jobs.cancel(session, account.id, cancelled.id)
    for job in (cancelled, poisoned):
        erase(db, account.id, "item", item_id(job.id, 0))
    with owner_db.transaction() as session:
        session.execute(
            text("UPDATE chunks SET attempts = 3, lease_until = now() - interval '1 s' WHERE state = 'leased'")
        )
    assert len(claimed) == 2
    with db.transaction() as session:
        assert rescue.reap(session).poisoned == 1
    assert finish(db, cancelled)
    assert finish(db, poisoned)
    check(owner_db, {cancelled.id: [GONE, *[Expected(code="cancelled")] * 7], poisoned.id: [GONE]})


def test_what_is_submitted_afterwards_is_wanted(db: Database, owner_db: Database, account: TestAccount) -> None:
    old = run(db, account, urls(2))
    erase(db, account.id, "picture", sha(urls(2)[0]))
    again = run(db, account, urls(2))
    check(owner_db, {old.id: [GONE, DONE], again.id: [DONE, DONE]})


def test_what_was_to_be_used_again_is_fetched_anew(db: Database, owner_db: Database, account: TestAccount) -> None:
    old = run(db, account, urls(2))
    erasure = erase(db, account.id, "picture", sha(urls(2)[0]))
    young = submit(db, account, [*urls(2), urls(2)[0]])
    (chunk,) = claim(db, "ingest")
    with db.transaction() as session:  # it looked before the erasure, and found the image there
        known = [IngestOutcome(n, image(account, urls(2)[n]), reused="known_bytes") for n in range(2)]
        finish_ingest(session, chunk, known)
    (again,) = claim(db, "ingest")
    assert list(again.members) == [0]
    fetched(db, account, again, [*urls(2), urls(2)[0]])
    infer_all(db)
    assert finish(db, young)
    check(owner_db, {old.id: [GONE, DONE], young.id: [DONE] * 3})
    assert worked_off(db, erasure.id).counts == erasure.counts, "looking once more leaves what is wanted"


def stored_again(db: Database, account: TestAccount) -> tuple[Job, Job, chunks.Chunk, str]:
    """A picture submitted again while it is to be erased: a crawler has fetched it and stored its copy, then came the
    erasure's step. Both jobs, the crawler's chunk, and the copy's key."""
    old = run(db, account, urls(2))
    with db.transaction() as session:
        asked = erasures.ask(session, account.id, "picture", sha(urls(2)[0]), actor="test")
    young = submit(db, account, urls(2))
    (chunk,) = claim(db, "ingest")
    worked_off(db, asked.id)
    return old, young, chunk, image(account, urls(2)[0]).work_key


def removed(db: Database) -> list[str]:
    """What `worker.erasing` does, without a store; which working copies it removed."""
    with db.transaction() as session:
        due = blob_removals.due(session)
        gone = [each.key for each in due if not each.wanted]
        blob_removals.end(session, gone, [each.key for each in due if each.wanted])
    return [key for key in gone if key.startswith("work/")]


def test_a_copy_that_is_to_be_removed_and_is_named_again_stays(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    old, young, chunk, _ = stored_again(db, account)
    fetched(db, account, chunk, urls(2))
    assert removed(db) == []
    infer_all(db)
    assert finish(db, young)
    check(owner_db, {old.id: [GONE, DONE], young.id: [DONE] * 2})


def test_a_copy_that_was_removed_before_it_was_named_is_fetched_anew(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    old, young, chunk, key = stored_again(db, account)
    assert removed(db) == [key]
    fetched(db, account, chunk, urls(2))
    (again,) = claim(db, "ingest")
    assert list(again.members) == [0]
    fetched(db, account, again, urls(2))
    assert claim(db, "ingest") == [], "once is enough"
    infer_all(db)
    assert finish(db, young)
    check(owner_db, {old.id: [GONE, DONE], young.id: [DONE] * 2})


def test_a_removal_in_progress_is_waited_for(pooled: Database, owner_db: Database, account: TestAccount) -> None:
    _, young, chunk, key = stored_again(pooled, account)
    with ThreadPoolExecutor(1) as pool:
        with pooled.transaction() as session:
            assert key in [each.key for each in blob_removals.due(session) if not each.wanted]
            recording = pool.submit(fetched, pooled, account, chunk, urls(2))
            blocked(owner_db, "transactionid")
            blob_removals.end(session, [key], [])
        recording.result(30)
    (again,) = claim(pooled, "ingest")
    fetched(pooled, account, again, urls(2))
    while claimed := claim(pooled, "ingest"):  # a chunk that began before the removal ended, once more
        fetched(pooled, account, claimed[0], urls(2))
    infer_all(pooled)
    assert finish(pooled, young)


def test_a_recording_in_progress_is_not_waited_for(pooled: Database, owner_db: Database, account: TestAccount) -> None:
    """And the copy that it is about to name is nobody's to remove."""
    _, young, chunk, _ = stored_again(pooled, account)
    with pooled.transaction() as session:
        finish_ingest(session, chunk, [IngestOutcome(seq, image(account, urls(2)[seq])) for seq in range(2)])
        assert removed(pooled) == []
    assert removed(pooled) == []
    infer_all(pooled)
    assert finish(pooled, young)


@pytest.mark.parametrize("stage", ["ingest", "infer"])
def test_without_the_fence_it_would_be_there_again(
    db: Database, owner_db: Database, account: TestAccount, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(db, account, urls(8))
    monkeypatch.setattr(erasure_fence, "refused", lambda *given: Refused())
    if stage == "ingest":
        (chunk,) = claim(db, "ingest")
        erase(db, account.id, "item", item_id(job.id, 3))
        fetched(db, account, chunk, urls(8))
        assert traces(owner_db, sha(urls(8)[3])) != []
    else:
        ingest_all(db, account)
        chunk, known = leased_infer(db)
        erase(db, account.id, "item", item_id(job.id, 3))
        scored(db, chunk, known)
        finish(db, job)
        with pytest.raises(AssertionError):
            check(owner_db, {job.id: [GONE if n == 3 else DONE for n in range(8)]})


def blocked(owner_db: Database, kind: str = "advisory") -> None:
    """Wait until somebody waits for a lock of this kind."""
    for _ in range(200):
        if rows(owner_db, "SELECT 1 FROM pg_locks WHERE locktype = :kind AND NOT granted", kind=kind):
            return
        time.sleep(0.05)
    raise AssertionError("nobody waits")


def test_a_recording_that_is_not_committed_yet_is_waited_for(
    pooled: Database, owner_db: Database, account: TestAccount
) -> None:
    job = submit(pooled, account, urls(8))
    (chunk,) = claim(pooled, "ingest")
    with ThreadPoolExecutor(1) as pool:
        with pooled.transaction() as session:
            finish_ingest(session, chunk, [IngestOutcome(n, image(account, urls(8)[n])) for n in range(8)])
            erasing = pool.submit(erase, pooled, account.id, "picture", sha(urls(8)[3]))
            blocked(owner_db)
        erasing.result(30)
    infer_all(pooled)
    assert finish(pooled, job)
    check(owner_db, {job.id: [GONE if n == 3 else DONE for n in range(8)]})
    assert traces(owner_db, urls(8)[3], sha(urls(8)[3])) == []


def test_a_step_that_is_not_committed_yet_is_waited_for(
    pooled: Database, owner_db: Database, account: TestAccount
) -> None:
    job = submit(pooled, account, urls(8))
    ingest_all(pooled, account)
    chunk, known = leased_infer(pooled)
    with ThreadPoolExecutor(1) as pool:
        with pooled.transaction() as session:
            asked = erasures.ask(session, account.id, "item", item_id(job.id, 3), actor="test")
            assert erasures.step(session, asked.id)
            recording = pool.submit(scored, pooled, chunk, known)
            blocked(owner_db)
        recording.result(30)
    worked_off(pooled, asked.id)
    assert finish(pooled, job)
    check(owner_db, {job.id: [GONE if n == 3 else DONE for n in range(8)]})
    assert traces(owner_db, urls(8)[3], sha(urls(8)[3])) == []


def test_erasures_at_any_moment_of_a_running_line(pooled: Database, owner_db: Database, account: TestAccount) -> None:
    """Four processes work on jobs of the same pictures while items, a picture and a product are erased."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    made: list[Job] = []
    for _ in range(3):
        with pooled.transaction(account.id) as session:
            new = [NewItem(url=url, product_id="p" if n % 10 == 5 else None) for n, url in enumerate(urls(96))]
            made.append(jobs.submit(session, account.id, JobSpec(), new, max_items=1000))
    ended = threading.Event()

    def drain(stage: str) -> None:
        owner = uuid7()
        while not ended.is_set():
            claimed = claim(pooled, stage, owner)
            if not claimed:
                time.sleep(0.002)
            elif stage == "ingest":
                time.sleep(chance.random() / 50)
                fetched(pooled, account, replace(claimed[0]), urls(96))
            else:
                with pooled.transaction() as session:
                    known = chunks.images_of(session, claimed[0])
                time.sleep(chance.random() / 50)
                scored(pooled, claimed[0], known)

    targets = [("picture", sha(urls(96)[7])), ("product", "p"), *(("item", item_id(j.id, 2)) for j in made)]
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(drain, stage) for stage in ("ingest", "ingest", "infer", "infer")]
        chance.shuffle(targets)
        for kind, target in targets:
            time.sleep(chance.random() / 20)
            erase(pooled, account.id, kind, target)
        until = time.monotonic() + 60
        while rows(owner_db, "SELECT 1 FROM chunks WHERE state <> 'done'") and time.monotonic() < until:
            time.sleep(0.05)
        ended.set()
        for each in work:
            each.result(30)
    for job in made:
        assert finish(pooled, job)
    gone = {2, 7, *range(5, 96, 10)}
    check(owner_db, {job.id: [GONE if n in gone else DONE for n in range(96)] for job in made})
    assert traces(owner_db, *(sha(urls(96)[n]) for n in gone), *(f"/{n}.jpg" for n in gone)) == []


def test_a_chunk_lost_to_another_writes_nothing_of_it(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(4))
    (zombie,) = claim(db, "ingest", lease_s=-1)
    erase(db, account.id, "item", item_id(job.id, 1))
    with owner_db.transaction() as session:
        session.execute(text("UPDATE chunks SET fence = fence + 1"))
    with pytest.raises(LeaseLost):
        fetched(db, account, zombie, urls(4))
    assert traces(owner_db, sha(urls(4)[1])) == []
