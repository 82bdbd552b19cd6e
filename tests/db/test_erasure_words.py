"""What people say and decide of a picture just when it is erased: it goes with it or is refused, and nothing of it
comes back. Whoever is first, the audit log is whole."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.orm import Session

from db import (
    appeals,
    erasure_fence,
    erasures,
    items,
    labels,
    redecide,
    review_exposure,
    review_gold,
    review_leases,
    review_undo,
    review_verdicts,
)
from db.appeals import Grounds
from db.errors import DbError
from db.ids import item_id
from db.labels import Said
from db.redecide import Change
from db.review_verdicts import Answer
from db.session import WORKER_ROLE, Database
from db.tables import Job
from tests.conftest import TestAccount
from tests.db.erasing import erase, traces, worked_off
from tests.db.judged import judge, sha_of
from tests.db.test_audit_chain import findings, sealed
from tests.worker.line import rows

ANN = "user:ann"
Say = Callable[[Session], Any]
Make = Callable[[Database, TestAccount, Job], Say]


@pytest.fixture
def pooled(database_url: str) -> Database:
    return Database(database_url, role=WORKER_ROLE, pool_size=8)


def held_up(owner_db: Database, work: "Future[Any]") -> None:
    """Until it waits for another transaction, or has ended without."""
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    for _ in range(600):
        if work.done() or rows(owner_db, waits):
            return
        time.sleep(0.05)
    raise AssertionError("it neither waits nor ends")


def task_of(db: Database, account: TestAccount) -> Any:
    with db.transaction(account.id) as session:
        (task,) = review_leases.claim(session, account.id, ANN)
        return task


def labelling(db: Database, account: TestAccount, job: Job) -> Say:
    def say(session: Session) -> None:
        erasure_fence.share_lock(session, account.id)  # as the API does, see tests/api/test_erasures.py
        about = labels.subject(session, account.id, item_id(job.id, 0))
        labels.record(session, about, [Said("category", "exclusive", ("shoe",))], source="correction", actor=ANN)

    return say


def deciding(db: Database, account: TestAccount, job: Job) -> Say:
    task = task_of(db, account)
    answer = Answer(task.id, task.version, "approve", comment="seen")
    return lambda session: review_verdicts.decide(session, account.id, ANN, answer, second_share=1.0)


def deciding_many(db: Database, account: TestAccount, job: Job) -> Say:
    task = task_of(db, account)

    def say(session: Session) -> None:
        found = review_verdicts.decide_many(session, account.id, ANN, [Answer(task.id, task.version, "approve")])
        for error in found.refused.values():
            raise error

    return say


def undoing(db: Database, account: TestAccount, job: Job) -> Say:
    task = task_of(db, account)
    with db.transaction(account.id) as session:
        review_verdicts.decide(session, account.id, ANN, Answer(task.id, task.version, "approve"))
    return lambda session: review_undo.undo(session, account.id, ANN, [task.id], lease_s=60)


def knowing(db: Database, account: TestAccount, job: Job) -> Say:
    return lambda session: review_gold.add(session, account.id, ANN, item_id(job.id, 0), "reject")


def seeing(db: Database, account: TestAccount, job: Job) -> Say:
    with db.transaction(account.id) as session:
        shown = review_exposure.shown([items.get(session, account.id, item_id(job.id, 0))])
    return lambda session: review_exposure.count(session, account.id, ANN, shown)


def appealing(db: Database, account: TestAccount, job: Job) -> Say:
    with db.transaction(account.id) as session:
        item = items.get(session, account.id, item_id(job.id, 0))
    grounds = Grounds("It is a drawing.", "me@shop.test")
    return lambda session: appeals.start(session, account.id, item, grounds, actor="key:owner")


def withdrawing(db: Database, account: TestAccount, job: Job) -> Say:
    """The machine is in doubt of the same picture elsewhere, so its task comes back."""
    start = appealing(db, account, job)
    with db.transaction(account.id) as session:
        appeal = start(session).id
    judge(db, account, ["review"])
    return lambda session: appeals.withdraw(session, account.id, appeal, actor="key:owner")


WRITERS = (labelling, deciding, deciding_many, undoing, knowing, seeing, appealing, withdrawing)


def judged(db: Database, account: TestAccount, make: Make) -> Job:
    return judge(db, account, ["reject" if make in (appealing, withdrawing) else "review"])


def whole(db: Database) -> bool:
    sealed(db)
    return findings(db) == []


@pytest.mark.parametrize("make", WRITERS)
def test_what_was_said_and_is_not_committed_yet_goes_too(
    pooled: Database, owner_db: Database, account: TestAccount, make: Make
) -> None:
    job = judged(pooled, account, make)
    sha = sha_of(pooled, job.id).hex()
    say = make(pooled, account, job)
    with ThreadPoolExecutor(1) as pool:
        with pooled.transaction(account.id) as session:
            say(session)
            erasing = pool.submit(erase, pooled, account.id, "picture", sha)
            held_up(owner_db, erasing)
        erasing.result(30)
    assert traces(owner_db, sha) == []
    assert whole(pooled)


@pytest.mark.parametrize("make", WRITERS)
def test_what_is_said_while_it_is_erased_is_refused(
    pooled: Database, owner_db: Database, account: TestAccount, make: Make
) -> None:
    job = judged(pooled, account, make)
    sha = sha_of(pooled, job.id).hex()
    say = make(pooled, account, job)

    def saying() -> None:
        with pooled.transaction(account.id) as session:
            say(session)

    with ThreadPoolExecutor(1) as pool:
        with pooled.transaction() as session:
            asked = erasures.ask(session, account.id, "picture", sha, actor="test")
            assert erasures.step(session, asked.id)
            said = pool.submit(saying)
            held_up(owner_db, said)
        error = said.exception(30)
    worked_off(pooled, asked.id)
    assert traces(owner_db, sha) == []
    assert isinstance(error, DbError) or make is seeing, error
    assert whole(pooled)


def test_a_verdict_that_is_decided_again_at_this_moment(
    pooled: Database, owner_db: Database, account: TestAccount
) -> None:
    """Its decision goes, and the audit log says so: it is not taken for a change that somebody made."""
    job = judge(pooled, account, ["review", "approve"])
    sha = sha_of(pooled, job.id)
    (row,) = rows(owner_db, "SELECT bucket, moderation FROM results WHERE job_id = :j AND seq = 0", j=job.id)
    was = (row.moderation["verdict"], row.moderation["rule"], row.moderation["policy"])
    patch = {"verdict": "approve", "reasons": [], "rule": None, "policy": "default@2", "hits": []}
    change = Change(row.bucket, job.id, 0, sha, job.context, was, patch)
    with ThreadPoolExecutor(1) as pool:
        with pooled.transaction() as session:
            assert redecide.apply(session, account.id, [change], kind="policy", actor="cli") == [change]
            erasing = pool.submit(erase, pooled, account.id, "picture", sha.hex())
            held_up(owner_db, erasing)
        erasing.result(30)
    assert traces(owner_db, sha.hex()) == []
    assert whole(pooled)


def test_deciders_do_not_wait_for_each_other(pooled: Database, account: TestAccount) -> None:
    """Nor for a crawler or a worker that records."""
    judge(pooled, account, ["review", "review"])
    first, second = (deciding(pooled, account, None) for _ in range(2))  # type: ignore[arg-type]

    def saying() -> None:
        with pooled.transaction(account.id) as session:
            second(session)

    with ThreadPoolExecutor(1) as pool, pooled.transaction(account.id) as session:
        erasure_fence.share_lock(session, account.id)
        first(session)
        pool.submit(saying).result(30)
