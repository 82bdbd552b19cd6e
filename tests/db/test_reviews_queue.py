"""What comes into the review queue, in which order, and what leaves it without a person."""

import threading
from uuid import UUID

import pytest
from sqlalchemy import text

from db import decisions, policies, policy_text, review_leases, review_queue, review_sources, review_views
from db.decisions import Decision
from db.review_queue import Audit, Candidate
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.reviewing import sha_of, tasks, verdict, work_off


def decide(db: Database, account: TestAccount, job_id: UUID, name: str, said: str | None, context: str = "") -> None:
    with db.transaction(account.id) as session:
        made = Decision(job_id, 0, sha_of(name), context, "review", said, "key:x")
        decisions.append(session, account.id, [made])


def test_only_pictures_in_doubt_become_tasks(db: Database, owner_db: Database, account: TestAccount) -> None:
    pictures = {"a": verdict("approve"), "b": verdict("review", score=0.7), "c": verdict("reject", "porn_reject")}
    job = work_off(db, account, pictures, context="avatar", category="Dress")
    (task,) = tasks(owner_db)
    assert (task["job_id"], task["seq"], bytes(task["sha256"])) == (job.id, 1, sha_of("b"))
    assert (task["context"], task["reason"], task["policy"]) == ("avatar", "porn_review", "default@1")
    assert (task["category"], task["kind"], task["state"]) == ("Dress", "first", "open")
    assert task["risk"] == pytest.approx(0.7)
    assert task["pdq"] is not None


def test_the_reasons_to_choose_from_are_of_the_policy_that_decided(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    """That need not be the one that the job began with: results are decided again by others."""
    with owner_db.transaction() as session:
        written = policy_text.read(
            "name: other\nrules: [{id: ours, when: {score: Porn, at_least: 0.1}, then: reject},"
            " {id: doubt, when: {score: Porn, at_least: 0.05}, then: review}]\n"
            "reject_reasons: [{code: nudity, text: It shows nudity.}]"
        )
        policies.add(session, account.id, written, actor="key:x")
    work_off(db, account, {"a": verdict("review"), "b": {**verdict("review"), "policy": "other@1"}})
    with db.transaction(account.id) as session:
        claimed = review_leases.claim(session, account.id, "key:x", count=2)
        found = {
            each.policy: [code["code"] for code in each.codes]
            for each in review_views.views(session, account.id, claimed)
        }
    assert found["other@1"] == ["nudity", "ours"], "people's first, and none that only asks for people"
    assert "ours" not in found["default@1"]


def test_a_picture_is_open_once_however_often_it_comes(db: Database, owner_db: Database, account: TestAccount) -> None:
    first = work_off(db, account, {"a": verdict("review", score=0.4)})
    second = work_off(db, account, {"x": verdict("approve"), "a": verdict("review", score=0.9)})
    work_off(db, account, {"a": verdict("review")}, context="listing")
    here, listing = tasks(owner_db)
    assert (here["job_id"], here["items"], here["exposure"]) == (first.id, 2, 2)
    assert here["also"] == [f"{second.id.hex}-1"]
    assert here["risk"] == pytest.approx(0.9)
    assert (listing["context"], listing["items"]) == ("listing", 1)


def test_equal_pictures_of_a_chunk_are_one_task(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"a": verdict("review", score=0.4)})
    with db.transaction(account.id) as session:
        alike = [Candidate(job.id, n, sha_of("b"), "", "porn_review", risk=n / 10) for n in range(3)]
        assert review_queue.enqueue(session, account.id, alike) == 1
    task = tasks(owner_db)[1]
    assert (task["items"], task["exposure"], task["seq"], sorted(task["also"])) == (
        3,
        3,
        2,
        [f"{job.id.hex}-0", f"{job.id.hex}-1"],
    )


def test_what_a_person_decided_does_not_come_back(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"other": verdict("approve")})
    decide(db, account, job.id, "a", "approve")
    work_off(db, account, {"a": verdict("review")})
    assert tasks(owner_db) == []
    work_off(db, account, {"a": verdict("review")}, context="listing")
    assert [task["context"] for task in tasks(owner_db)] == ["listing"]
    decide(db, account, job.id, "a", None)
    work_off(db, account, {"a": verdict("review")})
    assert [task["context"] for task in tasks(owner_db)] == ["listing", ""]


@pytest.mark.parametrize("reason", review_queue.OUTRANKING)
def test_some_reasons_outrank_a_decision(db: Database, owner_db: Database, account: TestAccount, reason: str) -> None:
    job = work_off(db, account, {"a": verdict("approve")})
    decide(db, account, job.id, "a", "approve")
    asked = Candidate(job.id, 0, sha_of("a"), "", reason, not_for=("key:x",))
    with db.transaction(account.id) as session:
        assert review_queue.enqueue(session, account.id, [asked]) == 1
    (task,) = tasks(owner_db)
    assert (task["reason"], task["not_for"], task["version"]) == (reason, ["key:x"], 1)


def test_an_appeal_changes_an_open_task(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"a": verdict("review")})
    with db.transaction(account.id) as session:
        review_queue.enqueue(
            session, account.id, [Candidate(job.id, 0, sha_of("a"), "", "appeal", not_for=("user:1",))]
        )
        review_queue.enqueue(session, account.id, [Candidate(job.id, 0, sha_of("a"), "", "porn_review")])
    (task,) = tasks(owner_db)
    assert (task["reason"], task["not_for"], task["version"], task["items"]) == ("appeal", ["user:1"], 2, 3)


@pytest.mark.parametrize("owner", ["user:1", "user:2"])
def test_an_appeal_is_taken_from_the_hands_of_who_may_not_decide_it(
    db: Database, owner_db: Database, account: TestAccount, owner: str
) -> None:
    job = work_off(db, account, {"a": verdict("review")})
    with db.transaction(account.id) as session:
        (task,) = review_leases.claim(session, account.id, owner)
    with db.transaction(account.id) as session:
        asked = Candidate(job.id, 0, sha_of("a"), "", "appeal", not_for=("user:1",))
        review_queue.enqueue(session, account.id, [asked])
    (row,) = tasks(owner_db)
    assert (row["lease_owner"], row["version"]) == (None if owner == "user:1" else owner, task.version + 1)


def test_the_same_pictures_of_two_accounts_are_two_tasks(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "globex")
    work_off(db, account, {"a": verdict("review")})
    work_off(db, other, {"a": verdict("review")})
    assert {task["account_id"] for task in tasks(owner_db)} == {account.id, other.id}


def test_tasks_close_when_nothing_asks_for_people_any_more(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    first = work_off(db, account, {"a": verdict("review"), "b": verdict("review")})
    second = work_off(db, account, {"a": verdict("review")})
    sha = sha_of("a")

    def settle(job_id: UUID) -> int:
        with db.transaction() as session:
            session.execute(
                text(
                    "UPDATE results SET moderation = moderation || jsonb_build_object('verdict', 'approve')"
                    " WHERE job_id = :job AND sha256 = :sha"
                ),
                {"job": job_id, "sha": sha},
            )
            return review_queue.close_resolved(session, account.id, [(sha, ""), (sha_of("b"), "")])

    assert settle(first.id) == 0, "the other job still asks for people"
    assert settle(second.id) == 1
    assert {bytes(task["sha256"]): task["state"] for task in tasks(owner_db)} == {sha: "closed", sha_of("b"): "open"}


def test_a_share_of_verdicts_is_audited_and_the_policy_says_which(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    pictures = {f"p{n}": verdict("approve" if n % 2 else "reject", "porn_reject") for n in range(400)}
    work_off(db, account, pictures, audit_share=0.1)
    expected = {name for name in pictures if review_sources.drawn(account.id, sha_of(name), "") < 0.1}
    found = tasks(owner_db)
    assert {bytes(task["sha256"]) for task in found} == {sha_of(name) for name in expected}
    assert 15 <= len(expected) <= 70
    assert {task["reason"] for task in found} == {"audit"}
    lead = {round(task["created_at"].timestamp() - task["rank"], 3) for task in found}
    assert len(lead) == 1, "the order tells nothing of the verdict"
    drawn = {bytes(task["sha256"]): (task["audit_verdict"], round(task["audit_share"], 6)) for task in found}
    assert drawn == {sha_of(name): (pictures[name]["verdict"], 0.1) for name in expected}
    work_off(db, account, pictures, audit_share=0.1)
    assert len(tasks(owner_db)) == len(found), "a picture is drawn once or never"


def test_the_audit_share_of_the_policy_outranks_the_setting(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    with owner_db.transaction() as session:
        session.execute(
            text("UPDATE policies SET document = document || '{\"audit_share\": 1}' WHERE state = 'active'")
        )
    work_off(db, account, {"a": verdict("approve"), "b": verdict("review")}, audit_share=0.0)
    assert sorted(task["reason"] for task in tasks(owner_db)) == ["audit", "porn_review"]


def test_the_order_is_risk_times_exposure_times_age(db: Database, owner_db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"x": verdict("approve")})
    with db.transaction(account.id) as session:
        made = [
            Candidate(job.id, 0, sha_of("low"), "", "c", risk=0.1),
            Candidate(job.id, 0, sha_of("high"), "", "c", risk=0.9),
            Candidate(job.id, 0, sha_of("often"), "", "c", risk=0.4, exposure=10),
            Candidate(job.id, 0, sha_of("drawn"), "", "audit", risk=0.1, audit=Audit("reject", 0.5)),
        ]
        review_queue.enqueue(session, account.id, made)
    by_sha = {bytes(task["sha256"]): task for task in tasks(owner_db)}

    def priority(name: str, age_s: float) -> float:
        task = by_sha[sha_of(name)]
        return float((0.05 + task["risk"]) * task["exposure"] ** 0.5 * 2 ** (age_s / 14400))

    at = {name: by_sha[sha_of(name)]["rank"] for name in ("low", "high", "often")}
    assert at["often"] < at["high"] < at["low"]
    assert priority("often", 0) > priority("high", 0) > priority("low", 0)
    # `low` overtakes `high` after exactly the wait at which the formula says so.
    wait = at["low"] - at["high"]
    assert priority("low", wait) == pytest.approx(priority("high", 0), rel=1e-6)
    assert at["low"] == pytest.approx(by_sha[sha_of("drawn")]["rank"])


def test_two_that_bring_the_same_pictures_wait_and_do_not_deadlock(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    job = work_off(db, account, {"x": verdict("approve")})
    made = [Candidate(job.id, n, sha_of(f"p{n}"), "", "porn_review") for n in range(40)]
    ends: list[int] = []

    def bring(order: int) -> None:
        for _ in range(15):
            with db.transaction(account.id) as session:
                ends.append(review_queue.enqueue(session, account.id, made[::order]))

    threads = [threading.Thread(target=bring, args=(order,)) for order in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [40] * 30
    found = tasks(owner_db)
    assert len(found) == 40
    assert {task["items"] for task in found} == {30}
    assert {len(task["also"]) for task in found} == {29}
