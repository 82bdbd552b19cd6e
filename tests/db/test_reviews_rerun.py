"""A person's decision outlives reruns, re-decisions and their taking back; and the queue follows what they change."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from db import items, publishing, review_leases, review_verdicts
from db.review_verdicts import Answer
from db.session import Database
from tests.conftest import TestAccount
from tests.db.reviewing import tasks
from tests.db.test_reruns import catalog, end, infer, install, run, start

ANN = "user:ann"


def moderation(db: Database, account: TestAccount, job: UUID, seq: int) -> dict[str, Any]:
    with db.transaction(account.id) as session:
        found = items.get(session, account.id, f"{job.hex}-{seq}").moderation
    assert found is not None
    return found


def stored(db: Database, job: UUID) -> list[str]:
    with db.transaction() as session:
        rows = session.execute(
            text("SELECT moderation ->> 'verdict' FROM results WHERE job_id = :job ORDER BY seq"), {"job": job}
        )
        return [row[0] for row in rows]


def test_a_persons_decision_outlives_a_published_rerun(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    install(db, "j@1", "moderation")
    job = catalog(db, account, lambda seq: [("review" if seq < 4 else "approve", 0.5)], count=8, task="moderation")
    with api_db.transaction(account.id) as session:
        held = review_leases.claim(session, account.id, ANN, count=2)
        for task in held:
            answer = Answer(task.id, task.version, "approve")
            review_verdicts.decide(session, account.id, ANN, answer)
    approved = sorted(task.seq for task in held)
    install(db, "j@2", "moderation")
    rerun = start(db, account, "j@2")
    infer(db, lambda seq: [("reject" if seq < 5 else "review", 0.9)])
    end(db, rerun)
    assert len(tasks(owner_db)) == 4, "a staged rerun asks nobody"
    assert run(db, publishing.publish, account, rerun) == 8
    assert stored(db, job) == ["reject"] * 5 + ["review"] * 3
    for seq in approved:
        seen = moderation(api_db, account, job, seq)
        assert (seen["verdict"], seen["automatic"], seen["decision"]["verdict"]) == ("approve", "reject", "approve")
    state = {task["seq"]: task["state"] for task in tasks(owner_db) if task["job_id"] == job}
    assert {state[seq] for seq in approved} == {"decided"}
    assert {state[seq] for seq in range(4) if seq not in approved} == {"closed"}, "the rerun is sure of these"
    assert {state[seq] for seq in (5, 6, 7)} == {"open"}
    assert len(state) == 7

    run(db, publishing.roll_back, account, rerun)
    assert stored(db, job) == ["review"] * 4 + ["approve"] * 4
    assert moderation(api_db, account, job, approved[0])["verdict"] == "approve"
    state = {task["seq"]: task["state"] for task in tasks(owner_db) if task["state"] != "closed"}
    assert state == {0: state[0], 1: state[1], 2: state[2], 3: state[3]}, "what is in doubt again is asked again"
    assert sorted(state.values()) == ["decided", "decided", "open", "open"]
