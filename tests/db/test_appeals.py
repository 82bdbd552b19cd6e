"""Appeals: against what, how often, to whom they go, and what the answer does."""

from typing import Any

import pytest
from sqlalchemy import text

from db import appeals, items, review_leases, review_undo, review_verdicts, statements
from db.appeals import Grounds
from db.errors import AppealOpen, Conflict, NotAppealable, NotFound
from db.evidence_tables import AppealRow
from db.ids import item_id
from db.review_tables import ReviewTask
from db.review_verdicts import Answer
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount, make_account
from tests.db.judged import judge
from tests.db.test_audit_chain import redecided
from tests.db.test_decisions import decide, shown
from tests.db.test_line import submit

FIRST, SECOND = "key:first", "key:second"


def appeal(db: Database, account: TestAccount, job: Job, seq: int = 0) -> AppealRow:
    with db.transaction(account.id) as session:
        item = items.get(session, account.id, item_id(job.id, seq))
        return appeals.start(session, account.id, item, Grounds("It is a drawing.", "me@shop.test"), actor="key:owner")


def claim(db: Database, account: TestAccount, actor: str) -> list[ReviewTask]:
    with db.transaction(account.id) as session:
        return review_leases.claim(session, account.id, actor)


def answer(db: Database, account: TestAccount, actor: str, verdict: str, code: str | None = None) -> ReviewTask:
    (task,) = claim(db, account, actor)
    with db.transaction(account.id) as session:
        given = Answer(task.id, task.version, verdict, code, "A person has looked.")
        (decided,) = review_verdicts.decide(session, account.id, actor, given).tasks
        return decided


def state(db: Database, account: TestAccount, row: AppealRow) -> str:
    with db.transaction(account.id) as session:
        return appeals.get(session, account.id, row.id).state


def events(owner_db: Database) -> list[dict[str, Any]]:
    with owner_db.transaction() as session:
        told = "SELECT payload FROM outbox WHERE type = 'appeal.decided' ORDER BY round"
        return list(session.scalars(text(told)))


def test_an_appeal_against_the_machine_is_answered_by_a_person(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    job = judge(db, account, ["reject"], "avatar")
    row = appeal(db, account, job)
    assert (row.state, row.verdict, row.decision_id, row.code, row.context) == (
        "open",
        "reject",
        None,
        "nudity",
        "avatar",
    )
    assert events(owner_db) == []
    task = answer(db, account, FIRST, "approve")
    assert task.reason == "appeal"
    assert state(db, account, row) == "overturned"
    now = shown(db, account, job)
    assert (now["verdict"], now["automatic"], now["decision"]["kind"]) == ("approve", "reject", "appeal")
    (event,) = events(owner_db)
    assert event == {
        "appeal": str(row.id), "item": item_id(job.id, 0), "moderation": None, "context": "avatar",
        "state": "overturned", "verdict": "approve", "code": None, "text": "A person has looked.",
    }  # fmt: skip


def test_it_goes_to_somebody_who_has_not_decided_on_the_picture(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve"])
    rejection = decide(db, account, job, "reject", actor=FIRST, code="nudity")
    row = appeal(db, account, job)
    assert row.decision_id == rejection
    assert claim(db, account, FIRST) == []
    answer(db, account, SECOND, "reject", "nudity")
    assert state(db, account, row) == "upheld"
    with pytest.raises(NotAppealable, match="final"):
        appeal(db, account, job)


def test_one_open_appeal_a_verdict(db: Database, account: TestAccount) -> None:
    job, again = judge(db, account, ["reject"]), judge(db, account, ["reject"])
    appeal(db, account, job)
    with pytest.raises(AppealOpen):
        appeal(db, account, job)
    with pytest.raises(AppealOpen):
        appeal(db, account, again)
    assert appeal(db, account, judge(db, account, ["reject"], "listing")).state == "open"


@pytest.mark.parametrize("verdict", ["approve", "review"])
def test_only_a_rejection_can_be_appealed_against(db: Database, account: TestAccount, verdict: str) -> None:
    with pytest.raises(NotAppealable, match="Only a rejection"):
        appeal(db, account, judge(db, account, [verdict]))


def test_or_an_approval_that_was_removed(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["review", "approve"])
    approval = decide(db, account, job, "approve")
    decide(db, account, job, None, takes_back=approval)
    assert appeal(db, account, job).verdict == "review"
    redecided(db, account, job, "review", seq=1)
    assert appeal(db, account, job, 1).verdict == "review"


def test_without_a_verdict_there_is_none(db: Database, account: TestAccount) -> None:
    with pytest.raises(NotAppealable, match="no verdict"):
        appeal(db, account, submit(db, account, ["http://pictures.test/1.jpg"]))


def test_a_withdrawn_appeal_is_nobodys_work(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["reject"])
    row = appeal(db, account, job)
    for _ in range(2):
        with db.transaction(account.id) as session:
            assert appeals.withdraw(session, account.id, row.id, actor="key:owner").state == "withdrawn"
    assert claim(db, account, FIRST) == []
    assert events(owner_db) == []
    again = appeal(db, account, job)
    answer(db, account, FIRST, "approve")
    with pytest.raises(Conflict, match="overturned"), db.transaction(account.id) as session:
        appeals.withdraw(session, account.id, again.id, actor="key:owner")


def test_withdrawn_what_the_machine_is_unsure_of_waits_for_people_again(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve"])
    redecided(db, account, job, "review")
    row = appeal(db, account, job)
    with db.transaction(account.id) as session:
        appeals.withdraw(session, account.id, row.id, actor="key:owner")
    (task,) = claim(db, account, FIRST)
    assert task.reason == "c", "the code of the verdict, and no appeal"


def test_an_answer_that_is_taken_back_opens_it_again(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["reject"])
    row = appeal(db, account, job)
    task = answer(db, account, FIRST, "approve")
    with db.transaction(account.id) as session:
        (task,) = review_undo.undo(session, account.id, FIRST, [task.id], lease_s=60)
    assert state(db, account, row) == "open"
    assert shown(db, account, job)["verdict"] == "reject"
    with db.transaction(account.id) as session:
        review_verdicts.decide(session, account.id, FIRST, Answer(task.id, task.version, "reject", "nudity"))
    assert state(db, account, row) == "upheld"
    assert [event["state"] for event in events(owner_db)] == ["overturned", "upheld"]


def test_another_accounts_appeal_is_not_there(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    row = appeal(db, account, judge(db, account, ["reject"]))
    rival = make_account(owner_db, "rival")
    for database in (db, api_db):
        with database.transaction(rival.id) as session:
            with pytest.raises(NotFound):
                appeals.get(session, rival.id, row.id)
            with pytest.raises(NotFound):
                appeals.withdraw(session, rival.id, row.id, actor="key:rival")
            assert appeals.page(session, rival.id) == []
    with api_db.transaction(rival.id) as session:
        assert session.scalar(text("SELECT count(*) FROM appeals")) == 0


def stated(db: Database, account: TestAccount, job: Job) -> dict[str, Any]:
    with db.transaction(account.id) as session:
        return statements.statement(session, account.id, items.get(session, account.id, item_id(job.id, 0)))


def test_a_statement_of_the_machines_verdict(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["reject"], "avatar")
    found = stated(db, account, job)
    assert (found["verdict"], found["context"]) == ("reject", "avatar")
    assert (found["decision"]["decided_by"], found["decision"]["kind"]) == ("automation", "automatic")
    assert found["automation"] == {
        "detection": True, "decision": "fully", "automatic_verdict": "reject", "model": "nsfw@1",
    }  # fmt: skip
    ground = {"kind": "contractual", "policy": "default@1", "rule": "bare", "code": "nudity", "text": "<b>Bare</b>"}
    assert found["ground"] == ground
    assert set(found["facts"]["content"]) == {"sha256", "width", "height", "format", "bytes"}
    assert found["redress"] == {
        "appeal_possible": True, "refusal": None, "appeal_id": None, "appeal_state": None,
    }  # fmt: skip


def test_doubt_is_no_detection_and_review_no_decision(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["review"])
    means = stated(db, account, job)["automation"]
    assert (means["detection"], means["decision"]) == (True, "not")
    doubt = '{"rule": null, "reasons": [{"code": "no_moderation_model", "verdict": "review"}]}'
    with owner_db.transaction() as session:
        session.execute(text("UPDATE results SET moderation = moderation || CAST(:doubt AS jsonb)"), {"doubt": doubt})
    assert stated(db, account, job)["automation"]["detection"] is False


def test_a_statement_of_a_persons_verdict_says_not_who(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve"])
    made = decide(db, account, job, "reject", actor="user:secret", code="weapon", text="No weapons.")
    found = stated(db, account, job)
    assert (found["decision"]["decided_by"], found["decision"]["id"]) == ("person", str(made))
    assert (found["ground"]["code"], found["ground"]["text"]) == ("weapon", "No weapons.")
    assert found["automation"]["detection"] is False
    assert found["automation"]["decision"] == "not"
    assert "secret" not in repr(found)
    row = appeal(db, account, job)
    redress = stated(db, account, job)["redress"]
    assert (redress["appeal_possible"], redress["appeal_id"], redress["appeal_state"]) == (False, row.id, "open")


def test_a_statement_of_a_bank_hit_keeps_its_hash(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["reject"])
    hit = """{"hits": [{"bank": "known", "kind": "block", "entry": "e", "distance": 3}],
      "reasons": [{"code": "bank_block", "verdict": "reject", "entry": "e", "distance": 3, "bank_reason": "seen"}]}"""
    with owner_db.transaction() as session:
        session.execute(text("UPDATE results SET moderation = moderation || CAST(:hit AS jsonb)"), {"hit": hit})
    facts = stated(db, account, job)["facts"]
    assert facts["bank_hits"] == [{"bank": "known", "kind": "block", "distance": 3, "reason": "seen"}]
    assert facts["reasons"][0]["bank_reason"] == "seen"
    assert "pdq" not in repr(facts)
    assert "entry" not in repr(facts)


def test_a_verdict_that_was_decided_again_says_so(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve"])
    redecided(db, account, job, "reject")
    found = stated(db, account, job)
    assert (found["decision"]["kind"], found["ground"]["policy"]) == ("policy", "strict@0")
