"""The life of a job in Postgres, without a worker: submit, claim, record, defer, retry, cancel, rescue, finish."""

import hashlib
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text

from db import chunks, endings, items, jobs, progress, rescue, retries, workers
from db.blobs import work_key
from db.chunks import Chunk
from db.errors import Conflict, EmptyJob, LeaseLost, NotFound, TooManyItems
from db.ids import uuid7
from db.images import ImageRecord
from db.jobs import JobSpec, NewItem
from db.recording import Deferred, InferOutcome, IngestOutcome, finish_infer, finish_ingest
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount, make_account

OWNER = UUID(int=1)
OTHER = UUID(int=2)


def submit(db: Database, account: TestAccount, urls: list[str], **spec: object) -> Job:
    with db.transaction(account.id) as session:
        new = [NewItem(url=url, client_id=f"c{n}") for n, url in enumerate(urls)]
        return jobs.submit(session, account.id, JobSpec(**spec), new, max_items=10_000)  # type: ignore[arg-type]


def urls(count: int) -> list[str]:
    return [f"http://pictures.test/{n}.jpg" for n in range(count)]


def claim(db: Database, stage: str, owner: UUID = OWNER, limit: int = 1, lease_s: float = 60) -> list[Chunk]:
    with db.transaction() as session:
        return chunks.claim(session, stage, owner, lease_s, limit)


def image(account: TestAccount, content: str) -> ImageRecord:
    sha = hashlib.sha256(content.encode()).digest()
    return ImageRecord(sha, work_key(account.id, sha), 100, 40, 30, "JPEG", sha, sha, 90, [], 1.5)


def ingest_all(db: Database, account: TestAccount, fail: dict[int, str] | None = None) -> list[int]:
    """End every ready ingest chunk; items in `fail` fail with that code. Returns the items that were members."""
    seen = []
    while claimed := claim(db, "ingest"):
        (chunk,) = claimed
        with db.transaction() as session:
            members = chunks.items(session, chunk)
            seen += [item.seq for item in members]
            finish_ingest(
                session,
                chunk,
                [
                    IngestOutcome(m.seq, code=fail[m.seq])
                    if fail and m.seq in fail
                    else IngestOutcome(m.seq, image(account, str(m.url)))
                    for m in members
                ],
            )
    return seen


def infer_all(db: Database) -> int:
    count = 0
    while claimed := claim(db, "infer"):
        (chunk,) = claimed
        with db.transaction() as session:
            members = chunks.images_of(session, chunk)
            count += len(members)
            tag = {"label": "shirt", "group": "category", "score": 0.9, "model": "m@1"}
            finish_infer(session, chunk, [InferOutcome(m.seq, m.sha256, [tag]) for m in members])
    return count


def finish(db: Database, job: Job) -> bool:
    with db.transaction() as session:
        return endings.finish(session, job.id)


def read(db: Database, account: TestAccount, job: Job) -> list[items.ItemView]:
    with db.transaction(account.id) as session:
        return items.page(session, account.id, job, limit=1000)


def counts(db: Database, job: Job) -> progress.Progress:
    with db.transaction() as session:
        return progress.progress(session, job.id)


def events(db: Database, job: Job) -> list[tuple[str, int]]:
    with db.transaction() as session:
        rows = session.execute(text("SELECT type, round FROM outbox WHERE subject = :id"), {"id": str(job.id)})
        return [tuple(row) for row in rows]


def test_a_job_goes_from_accepted_to_finished(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(40))
    assert job.state == "accepted"
    assert job.total == 40
    assert not finish(db, job)
    ingest_all(db, account, fail={3: "http_404", 20: "not_an_image"})
    assert infer_all(db) == 38
    with db.transaction() as session:
        assert endings.finishable(session) == [job.id]
    assert finish(db, job)
    assert not finish(db, job)
    now = counts(db, job)
    assert now.outcomes == {"done": 38, "failed": 2, "cancelled": 0}
    assert now.codes == {"http_404": 1, "not_an_image": 1}
    assert events(db, job) == [("job.finished", 0)]
    views = read(db, account, job)
    assert [v.outcome for v in views].count("done") == 38
    assert views[3].code == "http_404"
    assert views[0].row()["tags"][0]["label"] == "shirt"
    assert views[0].row()["facts"]["width"] == 40


def test_an_empty_job_and_one_too_many_leave_nothing(db: Database, account: TestAccount) -> None:
    with pytest.raises(EmptyJob), db.transaction(account.id) as session:
        jobs.submit(session, account.id, JobSpec(), [], max_items=10)
    with pytest.raises(TooManyItems), db.transaction(account.id) as session:
        jobs.submit(session, account.id, JobSpec(), [NewItem(url=u) for u in urls(11)], max_items=10)
    with db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0
        assert session.scalar(text("SELECT count(*) FROM items")) == 0


def test_the_same_url_is_ingested_once_and_answers_for_all(db: Database, account: TestAccount) -> None:
    pictures = urls(30)
    job = submit(db, account, [*pictures, pictures[0], pictures[7] + "#zoom", pictures[7]])
    assert job.followers == 3
    assert sorted(ingest_all(db, account, fail={7: "http_410"})) == list(range(30))
    assert infer_all(db) == 30  # 29 pictures and the one follower of a success
    assert finish(db, job)
    views = read(db, account, job)
    assert views[30].outcome == "done"
    assert [views[n].code for n in (7, 31, 32)] == ["http_410"] * 3
    assert counts(db, job).outcomes == {"done": 30, "failed": 3, "cancelled": 0}


def test_a_zombie_writes_nothing(db: Database, account: TestAccount) -> None:
    submit(db, account, urls(4))
    (old,) = claim(db, "ingest", lease_s=-1)
    with db.transaction() as session:
        assert rescue.reap(session).released == 1
    (new,) = claim(db, "ingest", OTHER)
    assert (new.id, new.fence) == (old.id, old.fence + 1)
    with pytest.raises(LeaseLost), db.transaction() as session:
        finish_ingest(session, old, [IngestOutcome(0, code="http_404")])
    with db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM results")) == 0
        assert not chunks.extend(session, old, 1, 60)
        assert not chunks.release(session, old)
        assert chunks.extend(session, new, 1, 60)


def test_a_dead_owner_loses_its_lease_early(db: Database, account: TestAccount) -> None:
    submit(db, account, urls(4))
    with db.transaction() as session:
        workers.beat(session, OWNER, "crawler", "here", 1, {})
    claim(db, "ingest", lease_s=600)
    with db.transaction() as session:
        assert rescue.reap(session).released == 0
        workers.gone(session, OWNER)
        assert rescue.reap(session).released == 1


def test_poison_costs_one_item_and_at_most_twelve_claims(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    with db.transaction(account.id) as session:
        new = [NewItem(url=u) for u in urls(512)]
        job = jobs.submit(session, account.id, JobSpec(), new, max_items=1000, chunk_size=512)
    with owner_db.transaction() as session:
        session.execute(text("DELETE FROM chunks"))
        session.execute(
            text(
                "INSERT INTO chunks (account_id, job_id, bucket, stage, lo, hi)"
                " SELECT account_id, id, bucket, 'ingest', 0, 512 FROM jobs"
            )
        )
    claims_with_poison = 0
    for _ in range(200):
        with db.transaction() as session:
            claimed = chunks.claim(session, "ingest", OWNER, -1)
            if not claimed:
                break
            members = [item.seq for item in chunks.items(session, claimed[0])]
        if 137 in members:
            claims_with_poison += 1
            with db.transaction() as session:
                rescue.reap(session)
        else:
            with db.transaction() as session:
                finish_ingest(session, claimed[0], [IngestOutcome(s, image(account, str(s))) for s in members])
    infer_all(db)
    assert finish(db, job)
    assert claims_with_poison <= 12
    assert counts(db, job).outcomes == {"done": 511, "failed": 1, "cancelled": 0}
    assert [v.seq for v in read(db, account, job) if v.code == "poison"] == [137]


def test_a_poisoned_inference_gets_its_outcome(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(1))
    ingest_all(db, account)
    for _ in range(3):
        assert len(claim(db, "infer", lease_s=-1)) == 1
        with db.transaction() as session:
            rescue.reap(session)
    assert claim(db, "infer") == []
    assert finish(db, job)
    assert [v.code for v in read(db, account, job)] == ["poison"]


def test_deferred_items_come_back_in_a_chunk_of_their_own(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(5))
    (chunk,) = claim(db, "ingest")
    with db.transaction() as session:
        outcomes = [IngestOutcome(n, image(account, str(n))) for n in (0, 1, 3)]
        finish_ingest(session, chunk, outcomes, [Deferred([2, 4], 3600)])
    assert claim(db, "ingest") == []
    assert infer_all(db) == 3
    assert not finish(db, job)
    with db.transaction() as session:
        session.execute(text("UPDATE chunks SET not_before = now() WHERE state = 'ready'"))
    (again,) = claim(db, "ingest")
    assert (list(again.members), again.deferrals) == ([2, 4], 1)
    with db.transaction() as session:
        finish_ingest(session, again, [IngestOutcome(n, image(account, str(n))) for n in (2, 4)])
    infer_all(db)
    assert finish(db, job)
    assert counts(db, job).outcomes["done"] == 5


def test_cancel_gives_every_open_item_an_outcome(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(40))
    (running,) = claim(db, "ingest")
    with db.transaction(account.id) as session:
        assert jobs.cancel(session, account.id, job.id).state == "cancelled"
        assert jobs.cancel(session, account.id, job.id).state == "cancelled"
    assert claim(db, "ingest") == []
    assert not finish(db, job)  # one chunk is still leased
    with db.transaction() as session:
        members = chunks.items(session, running)
        finish_ingest(session, running, [IngestOutcome(m.seq, code="http_404") for m in members])
    assert finish(db, job)
    now = counts(db, job)
    assert now.outcomes == {"done": 0, "failed": len(members), "cancelled": 40 - len(members)}
    assert events(db, job) == [("job.cancelled", 0)]
    assert {v.outcome for v in read(db, account, job)} == {"failed", "cancelled"}


def test_a_large_cancelled_job_is_closed_in_small_steps(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(50))
    ingest_one = claim(db, "ingest")[0]
    with db.transaction() as session:
        finish_ingest(session, ingest_one, [IngestOutcome(n, code="http_404") for n in ingest_one.members])
    with db.transaction(account.id) as session:
        jobs.cancel(session, account.id, job.id)
    after: int | None = -1
    steps = []
    while after is not None:
        with db.transaction() as session:
            after = endings.cancel_rest(session, job.id, after, limit=20)
        steps.append(after)
    assert steps == [35, 49, None]
    assert finish(db, job)
    assert counts(db, job).outcomes == {"done": 0, "failed": 16, "cancelled": 34}


def test_a_picture_whose_copy_was_lost_starts_over(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(1))
    ingest_all(db, account)
    (chunk,) = claim(db, "infer")
    with db.transaction() as session:
        finish_infer(session, chunk, [InferOutcome(0, code="blob_missing")])
    assert finish(db, job)
    with db.transaction(account.id) as session:
        assert retries.retry(session, account.id, job.id) == 1
    (again,) = claim(db, "ingest")
    remade = replace(image(account, urls(1)[0]), work_key=work_key(account.id, b"n" * 32), work_sha256=b"n" * 32)
    with db.transaction() as session:
        finish_ingest(session, again, [IngestOutcome(0, remade)])
    (chunk,) = claim(db, "infer")
    with db.transaction() as session:
        assert [i.work_key for i in chunks.images_of(session, chunk)] == [remade.work_key]


def test_retry_repeats_only_what_failed_and_ends_again(db: Database, account: TestAccount) -> None:
    pictures = urls(20)
    job = submit(db, account, [*pictures, pictures[2]])
    ingest_all(db, account, fail={2: "http_5xx", 5: "http_404", 9: "timeout"})
    infer_all(db)
    with pytest.raises(Conflict), db.transaction(account.id) as session:
        retries.retry(session, account.id, job.id)
    finish(db, job)
    with db.transaction(account.id) as session:
        assert retries.retry(session, account.id, job.id, ["decode_timeout"]) == 0
        assert retries.retry(session, account.id, job.id, ["http_5xx", "timeout"]) == 3
    middle = counts(db, job)
    assert middle.outcomes == {"done": 17, "failed": 1, "cancelled": 0}
    assert middle.codes == {"http_404": 1}
    assert ingest_all(db, account) == [2, 9]
    assert infer_all(db) == 3
    assert finish(db, job)
    assert counts(db, job).outcomes == {"done": 20, "failed": 1, "cancelled": 0}
    assert sorted(events(db, job)) == [("job.finished", 0), ("job.finished", 1)]


def test_retry_after_cancel_takes_up_where_it_stopped(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(6))
    ingest_all(db, account)
    with db.transaction(account.id) as session:
        jobs.cancel(session, account.id, job.id)
    assert finish(db, job)
    with db.transaction(account.id) as session:
        assert retries.retry(session, account.id, job.id, ["cancelled"]) == 6
    assert claim(db, "ingest") == []
    assert infer_all(db) == 6
    assert finish(db, job)
    assert counts(db, job).outcomes == {"done": 6, "failed": 0, "cancelled": 0}


def test_accounts_take_turns_by_weight(db: Database, owner_db: Database, account: TestAccount) -> None:
    small = make_account(owner_db, "small")
    big_job = submit(db, account, urls(200))
    small_job = submit(db, small, urls(40))
    order = [claim(db, "ingest", uuid7())[0].job_id for _ in range(4)]
    assert set(order[:2]) == set(order[2:]) == {big_job.id, small_job.id}
    with owner_db.transaction() as session:
        session.execute(text("UPDATE accounts SET weight = 3 WHERE id = :id"), {"id": account.id})
    assert [claim(db, "ingest", uuid7())[0].job_id for _ in range(3)] == [big_job.id] * 3


def test_without_leases_in_the_way_the_account_not_served_for_longest_is_next(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    small = make_account(owner_db, "small")
    for owner in (account, small):
        submit(db, owner, urls(160))
    served = []
    for _ in range(6):
        (chunk,) = claim(db, "ingest")
        served.append(chunk.account_id)
        with db.transaction() as session:
            finish_ingest(session, chunk, [IngestOutcome(i.seq, code="http_404") for i in chunks.items(session, chunk)])
    assert served == served[:2] * 3
    assert set(served) == {account.id, small.id}


def test_within_an_account_interactive_goes_first_and_jobs_take_turns(db: Database, account: TestAccount) -> None:
    first = submit(db, account, urls(80))
    for _ in range(3):
        claim(db, "ingest")
    second = submit(db, account, urls(80))
    order = [claim(db, "ingest")[0].job_id for _ in range(4)]
    assert order == [first.id, second.id, first.id, second.id]
    urgent = submit(db, account, urls(1), lane="interactive")
    assert claim(db, "ingest")[0].job_id == urgent.id


def test_calling_everything_interactive_gains_nothing_over_others(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    pushy = make_account(owner_db, "pushy")
    for _ in range(4):
        submit(db, pushy, urls(1), lane="interactive")
    patient = submit(db, account, urls(64))
    jobs_served = [claim(db, "ingest", uuid7())[0].job_id for _ in range(4)]
    assert jobs_served.count(patient.id) == 2


def test_a_released_chunk_keeps_its_attempts(db: Database, account: TestAccount) -> None:
    submit(db, account, urls(3))
    for _ in range(5):
        (chunk,) = claim(db, "ingest")
        assert chunk.attempts == 1
        with db.transaction() as session:
            assert chunks.release(session, chunk)


def test_hints_name_ready_chunks_once_until_resent(db: Database, account: TestAccount) -> None:
    submit(db, account, urls(40))
    ingest_all(db, account)
    with db.transaction() as session:
        first = chunks.hints(session, 2)
        assert len(first) == 2
        assert set(chunks.hints(session, 10)).isdisjoint(first)
        assert chunks.hints(session, 10) == []
        assert len(chunks.hints(session, 10, resend_s=-1)) == 3
    with db.transaction() as session:
        (chunk,) = chunks.claim(session, "infer", OWNER, 60, hint=first[1])
        assert chunk.id == first[1]


def test_another_accounts_rows_are_walled_by_the_query_and_by_the_database(
    api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "other")
    job = submit(api_db, account, urls(3))
    with api_db.transaction(other.id) as session:
        with pytest.raises(NotFound):
            jobs.get(session, other.id, job.id)
        for table in ("jobs", "chunks", "items", "results", "ingests", "images", "accounts"):
            expected = 1 if table == "accounts" else 0
            assert session.scalar(text(f"SELECT count(*) FROM {table}")) == expected, table
    with api_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0
    with api_db.transaction(account.id) as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 1
