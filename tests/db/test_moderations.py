"""Uploads for moderation: what is said of them follows results and people, and every change is one event."""

import threading
import time
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import chunks, decisions, endings, jobs, moderations, recording, redecide, retries
from db.decisions import Decision
from db.errors import NotFound
from db.ids import uuid7
from db.images import ImageRecord
from db.jobs import JobSpec, NewItem
from db.moderations import Asked, Wanted
from db.recording import InferOutcome, IngestOutcome
from db.redecide import Change
from db.session import Database, Session
from tests.conftest import TestAccount, make_account
from tests.worker.line import rows

PLAIN = Asked()
SHA = bytes(range(32))
SCORED = {"scores": {"Porn": 0.5}, "reasons": [], "policy": "default@1", "model": "m@1", "rule": None}


def upload(database: Database, account_id: int, asked: Asked = PLAIN, url: str = "https://a.example/1.jpg") -> UUID:
    with database.transaction() as session:
        return moderations.submit(session, account_id, asked, NewItem(url=url, client_id="mine")).id


def ingest(database: Database, code: str | None = None, sha: bytes = SHA) -> None:
    """Everything that is ready to be fetched has this picture, or fails with the code."""
    owner = uuid7()
    with database.transaction() as session:
        for chunk in chunks.claim(session, "ingest", owner, 60, 100):
            image = ImageRecord(sha, "work/1", 10, 4, 3, "JPEG")
            outcome = [
                IngestOutcome(seq, image=None if code else image, code=code, detail="so it is") for seq in chunk.members
            ]
            recording.finish_ingest(session, chunk, outcome)


def judge(database: Database, verdict: str, sha: bytes = SHA) -> None:
    """Everything that is ready to be scored gets this verdict."""
    owner = uuid7()
    reasons = [] if verdict == "approve" else [{"code": f"porn_{verdict}", "verdict": verdict}]
    with database.transaction() as session:
        for chunk in chunks.claim(session, "infer", owner, 60, 100):
            said = {**SCORED, "verdict": verdict, "reasons": reasons}
            recording.finish_infer(session, chunk, [InferOutcome(s, sha, moderation=said) for s in chunk.members])


def seen(database: Database, account_id: int, moderation_id: UUID) -> tuple[str, str | None]:
    with database.transaction() as session:
        row, _ = moderations.get(session, account_id, moderation_id)
        return row.state, row.verdict


def events(database: Database, moderation_id: UUID) -> list[tuple[int, str, str]]:
    sql = "SELECT round, payload FROM outbox WHERE type = 'moderation.decided' AND subject = :id ORDER BY round"
    return [(r.round, r.payload["state"], r.payload["verdict"]) for r in rows(database, sql, id=str(moderation_id))]


def person(database: Database, account_id: int, verdict: str | None, context: str = "", sha: bytes = SHA) -> None:
    job = rows(database, "SELECT job_id FROM moderations LIMIT 1")[0].job_id
    with database.transaction() as session:
        said = Decision(job, 0, sha, context, "review", verdict, "user:1", code="looked", takes_back=None)
        decisions.append(session, account_id, [said])


@pytest.mark.parametrize(("verdict", "state"), [("approve", "decided"), ("reject", "decided"), ("review", "in_review")])
def test_an_upload_is_pending_until_its_verdict(
    owner_db: Database, account: TestAccount, verdict: str, state: str
) -> None:
    made = upload(owner_db, account.id)
    assert seen(owner_db, account.id, made) == ("pending", None)
    ingest(owner_db)
    assert seen(owner_db, account.id, made) == ("pending", None)
    assert events(owner_db, made) == []
    judge(owner_db, verdict)
    assert seen(owner_db, account.id, made) == (state, verdict)
    assert events(owner_db, made) == [(0, state, verdict)]


def test_an_event_says_enough_to_act_on(owner_db: Database, account: TestAccount) -> None:
    made = upload(owner_db, account.id, Asked(user="u-1", product="shirt-42", context="listing"))
    ingest(owner_db)
    judge(owner_db, "reject")
    payload: dict[str, Any] = rows(owner_db, "SELECT payload FROM outbox WHERE subject = :id", id=str(made))[0].payload
    assert payload.pop("item").endswith("-0")
    with owner_db.transaction() as session:
        changed_at = moderations.get(session, account.id, made)[0].changed_at
        assert changed_at is not None
    assert datetime.fromisoformat(payload.pop("changed_at")) == changed_at
    assert payload == {
        "moderation": str(made), "client_id": "mine", "subject": {"user": "u-1", "product": "shirt-42"},
        "context": "listing", "state": "decided", "verdict": "reject", "automatic": "reject", "policy": "default@1",
        "rule": None, "codes": ["porn_reject"], "decision": None,
    }  # fmt: skip


def test_a_person_closes_the_review_of_every_upload_of_the_picture(owner_db: Database, account: TestAccount) -> None:
    here = [upload(owner_db, account.id, Asked(context="avatar"), f"https://a.example/{n}.jpg") for n in range(3)]
    elsewhere = upload(owner_db, account.id, Asked(context="listing"))
    ingest(owner_db)
    judge(owner_db, "review")
    person(owner_db, account.id, "approve", "avatar")
    assert [seen(owner_db, account.id, each) for each in here] == [("decided", "approve")] * 3
    assert seen(owner_db, account.id, elsewhere) == ("in_review", "review")
    assert events(owner_db, here[0]) == [(0, "in_review", "review"), (1, "decided", "approve")]
    person(owner_db, account.id, None, "avatar")
    assert seen(owner_db, account.id, here[0]) == ("in_review", "review")
    assert events(owner_db, here[0])[2:] == [(2, "in_review", "review")]


def test_a_picture_that_a_person_decided_on_is_decided_when_it_comes_again(
    owner_db: Database, account: TestAccount
) -> None:
    upload(owner_db, account.id)
    ingest(owner_db)
    judge(owner_db, "review")
    person(owner_db, account.id, "reject")
    again = upload(owner_db, account.id, url="https://b.example/other.jpg")
    ingest(owner_db)
    judge(owner_db, "approve")
    assert seen(owner_db, account.id, again) == ("decided", "reject")
    assert events(owner_db, again) == [(0, "decided", "reject")]


def test_a_redecision_is_a_new_round_and_the_same_verdict_again_is_none(
    owner_db: Database, account: TestAccount
) -> None:
    made = upload(owner_db, account.id)
    ingest(owner_db)
    judge(owner_db, "approve")
    item = rows(owner_db, "SELECT bucket, job_id, seq FROM results")[0]
    for verdict, was in (("reject", "approve"), ("reject", "reject")):
        patch = {"verdict": verdict, "reasons": [{"code": "banned", "verdict": verdict}], "rule": None}
        change = Change(item.bucket, item.job_id, item.seq, SHA, "", (was, None, "default@1"), patch)
        with owner_db.transaction() as session:
            assert redecide.apply(session, account.id, [change], kind="bank", actor="system")
    assert events(owner_db, made) == [(0, "decided", "approve"), (1, "decided", "reject")]
    with owner_db.transaction() as session:
        assert moderations.page(session, account.id, Wanted(verdict="reject"))[0].id == made


def test_a_failed_upload_says_its_code_and_can_be_tried_again(owner_db: Database, account: TestAccount) -> None:
    made = upload(owner_db, account.id)
    ingest(owner_db, "http_404")
    assert seen(owner_db, account.id, made) == ("failed", None)
    with owner_db.transaction() as session:
        row, item = moderations.get(session, account.id, made)
        assert (row.code, item.code, item.detail) == ("http_404", "http_404", "so it is")
        job_id = row.job_id
        assert endings.finish(session, job_id)
    with owner_db.transaction() as session:
        assert retries.retry(session, account.id, job_id) == 1
    assert seen(owner_db, account.id, made) == ("pending", None)
    ingest(owner_db)
    judge(owner_db, "approve")
    assert seen(owner_db, account.id, made) == ("decided", "approve")
    assert events(owner_db, made) == [(0, "decided", "approve")]


def test_an_upload_fails_although_a_person_decided_on_its_bytes(owner_db: Database, account: TestAccount) -> None:
    first = upload(owner_db, account.id)
    ingest(owner_db)
    judge(owner_db, "review")
    person(owner_db, account.id, "reject")
    again = upload(owner_db, account.id, url="https://a.example/2.jpg")
    ingest(owner_db)
    with owner_db.transaction() as session:
        for chunk in chunks.claim(session, "infer", uuid7(), 60, 100):
            failed = [InferOutcome(seq, SHA, code="inference_failed") for seq in chunk.members]
            recording.finish_infer(session, chunk, failed)
    assert seen(owner_db, account.id, again) == ("failed", None)
    person(owner_db, account.id, "approve")  # nor does it stop the next decision on the same bytes
    assert seen(owner_db, account.id, first) == ("decided", "approve")
    assert seen(owner_db, account.id, again) == ("failed", None)


def test_a_cancelled_upload_does_not_wait_for_ever(owner_db: Database, account: TestAccount) -> None:
    made = upload(owner_db, account.id)
    with owner_db.transaction() as session:
        row, _ = moderations.get(session, account.id, made)
        jobs.cancel(session, account.id, row.job_id)
    with owner_db.transaction() as session:
        assert endings.finish(session, row.job_id)
    with owner_db.transaction() as session:
        row, _ = moderations.get(session, account.id, made)
        assert (row.state, row.code) == ("failed", "cancelled")
    assert events(owner_db, made) == []


def test_a_decision_and_a_redecision_at_once_leave_what_both_came_to(owner_db: Database, account: TestAccount) -> None:
    """Whichever commits first: the second one to write reads what the first one wrote."""
    made = upload(owner_db, account.id)
    ingest(owner_db)
    judge(owner_db, "review")
    item = rows(owner_db, "SELECT bucket, job_id, seq FROM results")[0]
    patch = {"verdict": "reject", "reasons": [], "rule": None}
    change = Change(item.bucket, item.job_id, item.seq, SHA, "", ("review", None, "default@1"), patch)
    began = threading.Event()

    def redecided() -> None:
        with owner_db.transaction() as session:
            began.set()
            redecide.apply(session, account.id, [change], kind="policy", actor="system")

    with owner_db.transaction() as session:
        said = Decision(item.job_id, 0, SHA, "", "review", "approve", "user:1")
        decisions.append(session, account.id, [said])
        other = threading.Thread(target=redecided)
        other.start()
        assert began.wait(10)
        other.join(0.5)  # it gets as far as the upload's row, which we hold
    other.join(10)
    row = rows(owner_db, "SELECT automatic, human, verdict, state FROM moderations WHERE id = :id", id=made)[0]
    assert tuple(row) == ("reject", "approve", "approve", "decided")


@pytest.mark.parametrize("first", ["line", "person"])
def test_a_decision_just_when_the_bytes_come_again_is_not_missed(
    owner_db: Database, account: TestAccount, first: str
) -> None:
    upload(owner_db, account.id)
    ingest(owner_db)
    judge(owner_db, "review")
    again = upload(owner_db, account.id, url="https://a.example/2.jpg")
    ingest(owner_db)
    job = rows(owner_db, "SELECT job_id FROM moderations ORDER BY id LIMIT 1")[0].job_id
    said = Decision(job, 0, SHA, "", "review", "reject", "user:1", code="looked")

    def line(session: Session) -> None:
        for chunk in chunks.claim(session, "infer", uuid7(), 60, 100):
            approved = {**SCORED, "verdict": "approve", "reasons": []}
            recording.finish_infer(session, chunk, [InferOutcome(s, SHA, moderation=approved) for s in chunk.members])

    def decide(session: Session) -> None:
        decisions.append(session, account.id, [said])

    one, other = (line, decide) if first == "line" else (decide, line)

    def second() -> None:
        with owner_db.transaction() as session:
            other(session)

    thread = threading.Thread(target=second)
    with owner_db.transaction() as session:
        one(session)
        thread.start()
        thread.join(0.5)
    thread.join(20)
    assert seen(owner_db, account.id, again) == ("decided", "reject")
    assert events(owner_db, again)[-1][2] == "reject"


def test_a_redecision_and_a_reviewer_do_not_wait_for_each_other(owner_db: Database, account: TestAccount) -> None:
    """Both need the picture's task and its upload: whoever has the task gets the upload too."""
    made = upload(owner_db, account.id)
    ingest(owner_db)
    judge(owner_db, "review")
    item = rows(owner_db, "SELECT bucket, job_id, seq FROM results")[0]
    patch = {"verdict": "review", "reasons": [{"code": "other", "verdict": "review"}], "rule": "other"}
    change = Change(item.bucket, item.job_id, item.seq, SHA, "", ("review", None, "default@1"), patch)

    def redecided() -> None:
        with owner_db.transaction() as session:
            redecide.apply(session, account.id, [change], kind="policy", actor="system")

    thread = threading.Thread(target=redecided)
    with owner_db.transaction() as session:
        assert session.execute(text("SELECT id FROM review_tasks FOR UPDATE")).one()
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        until = time.monotonic() + 20
        while not rows(owner_db, waits)[0].count and time.monotonic() < until:
            time.sleep(0.02)
        assert session.execute(text("SELECT id FROM moderations FOR UPDATE NOWAIT")).scalar() == made
    thread.join(20)
    assert rows(owner_db, "SELECT moderation ->> 'rule' AS rule FROM results")[0].rule == "other"


def test_lists_filter_and_turn_pages(owner_db: Database, account: TestAccount) -> None:
    other = make_account(owner_db, "globex")
    asked = [Asked(user=f"u{n % 2}", product=f"p{n % 3}", context="avatar" if n < 3 else "listing") for n in range(6)]
    made = [upload(owner_db, account.id, each, f"https://a.example/{n}.jpg") for n, each in enumerate(asked)]
    upload(owner_db, other.id, asked[0])
    with owner_db.transaction() as session:

        def found(**wanted: str) -> list[UUID]:
            return [row.id for row in moderations.page(session, account.id, Wanted(**wanted))]

        assert found() == made[::-1]
        assert found(user="u1") == [made[5], made[3], made[1]]
        assert found(product="p2", context="listing") == [made[5]]
        assert found(state="pending") == made[::-1]
        assert found(state="decided") == found(verdict="approve") == []
        first = moderations.page(session, account.id, Wanted(), limit=4)
        rest = moderations.page(session, account.id, Wanted(), after=first[-1].id, limit=4)
        assert [row.id for row in first + rest] == made[::-1]


def test_another_accounts_upload_is_not_there(owner_db: Database, api_db: Database, account: TestAccount) -> None:
    made = upload(owner_db, account.id)
    other = make_account(owner_db, "globex")
    with owner_db.transaction() as session, pytest.raises(NotFound):
        moderations.get(session, other.id, made)
    with api_db.transaction(other.id) as session:
        # Asked for in the owner's name: only row-level security stands between.
        assert moderations.page(session, account.id, Wanted()) == []


def test_uploads_are_listed_as_moderations_and_not_among_the_jobs(owner_db: Database, account: TestAccount) -> None:
    upload(owner_db, account.id)
    with owner_db.transaction() as session:
        bulk = jobs.submit(session, account.id, JobSpec(), [NewItem(url="https://a.example/2.jpg")], max_items=1)
        assert [job.id for job in jobs.page(session, account.id)] == [bulk.id]


def test_interactive_chunks_are_small(owner_db: Database, account: TestAccount) -> None:
    items = [NewItem(url=f"https://a.example/{n}.jpg") for n in range(5000)]
    for lane, size in (("interactive", chunks.URGENT_CHUNK), ("bulk", 157)):
        with owner_db.transaction() as session:
            job = jobs.submit(session, account.id, JobSpec(lane=lane), items, max_items=5000)
        largest = rows(owner_db, "SELECT max(hi - lo) AS n FROM chunks WHERE job_id = :id", id=job.id)[0].n
        assert largest == size
