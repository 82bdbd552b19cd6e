"""Claims, leases, decisions and their way back: what a reviewer does and what becomes of it."""

import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from db import (
    decisions,
    items,
    labels,
    moderations,
    policies,
    policy_text,
    review_gold,
    review_leases,
    review_queue,
    review_undo,
    review_verdicts,
)
from db.errors import Conflict, NotFound
from db.jobs import NewItem
from db.review_leases import Filter, StaleReview
from db.review_queue import Candidate
from db.review_tables import ReviewTask
from db.review_verdicts import Answer, Decided
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.reviewing import record, sha_of, tasks, verdict, work_off

ANN, BOB, CAT = "user:ann", "user:bob", "user:cat"


def claim(db: Database, account: TestAccount, actor: str, count: int = 1, **how: Any) -> list[ReviewTask]:
    with db.transaction(account.id) as session:
        return review_leases.claim(session, account.id, actor, count=count, **how)


def decide(
    db: Database, account: TestAccount, actor: str, task: ReviewTask, said: str = "approve", **more: Any
) -> Decided:
    second = more.pop("second_share", 0.0)
    code = "nudity" if said == "reject" else None
    answer = Answer(task.id, more.pop("version", task.version), said, **{"code": code, **more})
    with db.transaction(account.id) as session:
        return review_verdicts.decide(session, account.id, actor, answer, second_share=second)


def undo(db: Database, account: TestAccount, actor: str, *ids: UUID, within_s: float = 900) -> list[ReviewTask]:
    with db.transaction(account.id) as session:
        return review_undo.undo(session, account.id, actor, ids, within_s=within_s, lease_s=600)


def human(db: Database, account: TestAccount, name: str, context: str = "") -> str | None:
    with db.transaction(account.id) as session:
        found = decisions.human(session, account.id, [sha_of(name)], context)
        return found[sha_of(name)].verdict if found else None


def labelled(db: Database, account: TestAccount, name: str) -> list[str] | None:
    with db.transaction(account.id) as session:
        rows = labels.current(session, account.id, sha_of(name))
    return next((row["labels"] for row in rows if row["group"] == "verdict"), None)


def events(db: Database, account: TestAccount) -> list[tuple[str, str | None]]:
    with db.transaction(account.id) as session:
        rows = session.execute(
            text("SELECT subject, payload ->> 'verdict' FROM outbox WHERE type = 'review.decided' ORDER BY id")
        )
        return [(row[0], row[1]) for row in rows]


def names(found: list[ReviewTask]) -> list[bytes]:
    return [bytes(task.sha256) for task in found]


def in_doubt(db: Database, account: TestAccount, *which: str, **how: Any) -> None:
    """Tasks in this order: the first has the highest risk."""
    pictures = {name: verdict("review", score=0.9 - n / 100) for n, name in enumerate(which)}
    work_off(db, account, pictures, **how)


def test_tasks_come_in_order_and_no_two_reviewers_get_the_same(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, *"abcd")
    first = claim(api_db, account, ANN, 2)
    second = claim(api_db, account, BOB, 5)
    assert names(first) == [sha_of("a"), sha_of("b")]
    assert names(second) == [sha_of("c"), sha_of("d")]
    assert {task.version for task in first + second} == {2}
    assert claim(api_db, account, CAT) == []
    with api_db.transaction(account.id) as session:
        assert names(review_leases.held(session, account.id, ANN)) == names(first)


def test_two_who_claim_at_once_share(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, *(f"p{n}" for n in range(60)))
    found: dict[str, list[UUID]] = {}

    def take(actor: str) -> None:
        found[actor] = [task.id for _ in range(10) for task in claim(api_db, account, actor, 3)]

    threads = [threading.Thread(target=take, args=(actor,)) for actor in (ANN, BOB)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found[ANN]) == len(found[BOB]) == 30
    assert len({*found[ANN], *found[BOB]}) == 60


def test_a_vanished_reviewers_tasks_come_back_and_his_answer_is_late(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, "a")
    (lost,) = claim(api_db, account, ANN, lease_s=-1)
    with pytest.raises(StaleReview, match="run out"):
        decide(api_db, account, ANN, lost)
    (task,) = claim(api_db, account, BOB)
    assert (task.id, task.version) == (lost.id, lost.version + 1)
    with pytest.raises(StaleReview, match="version 3"):
        decide(api_db, account, ANN, lost)
    with pytest.raises(StaleReview, match="Somebody else holds it"):
        decide(api_db, account, ANN, task)  # the version alone is not enough: it is Bob's
    assert human(api_db, account, "a") is None
    decide(api_db, account, BOB, task)
    with pytest.raises(StaleReview, match="ended"):
        decide(api_db, account, BOB, task)


def test_a_task_that_nobody_holds_is_claimed_first(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    (task,) = claim(api_db, account, BOB)
    with api_db.transaction(account.id) as session:
        given_back = review_leases.release(session, account.id, BOB, task.id, task.version)
    with pytest.raises(StaleReview, match="do not hold it; claim"):
        decide(api_db, account, ANN, given_back)
    (stale,) = claim(api_db, account, BOB, lease_s=-1)
    with pytest.raises(StaleReview, match="do not hold it; claim"):
        decide(api_db, account, ANN, stale)  # whose lease has run out is not hers to know


def test_the_policys_words_for_a_reason_go_to_the_person_concerned(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    with owner_db.transaction() as session:
        written = policy_text.read(
            """
            name: wordy
            rules:
              - {id: mild, when: {score: Porn, at_least: 0.1}, then: review, text: Somebody will look at it.}
              - {id: banned, when: {bank_kind: block}, then: reject, text: It was banned.}
            reject_reasons: [{code: nudity, text: It shows nudity.}]
            """
        )
        policies.add(session, account.id, written, actor="key:x")
    work_off(db, account, {name: {**verdict("review"), "policy": "wordy@1"} for name in "abcde"})
    for code, words in (("nudity", None), ("banned", None), ("nudity", "Mine."), ("mild", None), ("other", None)):
        (task,) = claim(api_db, account, ANN)
        decide(api_db, account, ANN, task, "reject", code=code, text=words)
    with owner_db.transaction() as session:
        told = session.execute(text("SELECT code, text FROM decisions WHERE kind = 'review' ORDER BY id")).all()
        sent = session.execute(
            text("SELECT payload ->> 'code', payload ->> 'text' FROM outbox WHERE type = 'review.decided' ORDER BY id")
        ).all()
    expected = [
        ("nudity", "It shows nudity."),
        ("banned", "It was banned."),
        ("nudity", "Mine."),
        ("mild", None),
        ("other", None),
    ]
    assert [tuple(row) for row in told] == [tuple(row) for row in sent] == expected


def test_two_who_decide_at_once_make_one_decision(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    (task,) = claim(api_db, account, ANN)
    together = threading.Barrier(2)
    ends: list[str] = []

    def answer(said: str) -> None:
        together.wait()
        try:
            decide(api_db, account, ANN, task, said)
            ends.append("decided")
        except StaleReview:
            ends.append("stale")

    threads = [threading.Thread(target=answer, args=(said,)) for said in ("approve", "reject")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["decided", "stale"]
    with api_db.transaction(account.id) as session:
        assert session.scalar(text("SELECT count(*) FROM decisions")) == 1


def test_another_accounts_tasks_are_not_there(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "globex")
    in_doubt(db, account, "a")
    assert claim(api_db, other, ANN) == []
    (task,) = claim(api_db, account, ANN)
    for database in (api_db, db):  # by row-level security, and by the query where there is none
        with pytest.raises(NotFound):
            decide(database, other, ANN, task)


def test_filters_choose_the_tasks(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a", context="avatar", category="Hat")
    work_off(db, account, {"b": verdict("review", "hentai_review")}, context="listing", category="Shoe")

    def which(**wanted: str) -> list[bytes]:
        found = claim(api_db, account, ANN, 9, which=Filter(**wanted))
        with api_db.transaction(account.id) as session:
            for task in found:
                review_leases.release(session, account.id, ANN, task.id, task.version)
        return names(found)

    assert which(context="avatar") == which(category="Hat") == which(reason="porn_review") == [sha_of("a")]
    assert which(context="listing") == which(category="Shoe") == which(reason="hentai_review") == [sha_of("b")]
    assert len(which(policy="default")) == len(which(policy="default@1")) == 2
    assert which(policy="default@2") == which(policy="def") == which(context="") == []


def test_a_decision_is_a_record_a_label_and_an_event(api_db: Database, db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"a": verdict("review")}, context="avatar")
    (task,) = claim(api_db, account, ANN)
    made = decide(api_db, account, ANN, task, "reject", text="Not here, please.", comment="clearly")
    (ended,) = made.tasks
    assert (ended.state, ended.verdict, ended.decided_by, ended.version) == ("decided", "reject", ANN, 3)
    with api_db.transaction(account.id) as session:
        row = session.execute(text("SELECT * FROM decisions")).mappings().one()
        opinion = session.execute(text("SELECT * FROM review_opinions")).mappings().one()
        payload = session.execute(text("SELECT payload FROM outbox WHERE type = 'review.decided'")).scalar_one()
        comments = session.execute(text("SELECT actor, text FROM review_comments")).all()
    assert (row["kind"], row["verdict"], row["code"], row["text"]) == (
        "review",
        "reject",
        "nudity",
        "Not here, please.",
    )
    assert (row["actor"], row["context"], row["job_id"], row["seq"]) == (ANN, "avatar", job.id, 0)
    assert row["id"] == ended.decision_id == opinion["decision_id"]
    assert (opinion["kind"], opinion["actor"], opinion["verdict"]) == ("first", ANN, "reject")
    assert payload["item"] == f"{job.id.hex}-0"
    assert (payload["verdict"], payload["code"], payload["decision"]) == ("reject", "nudity", str(row["id"]))
    assert ANN not in str(payload), "who decided is not for webhooks"
    assert [tuple(each) for each in comments] == [(ANN, "clearly")]
    assert labelled(api_db, account, "a") == ["reject"]


def test_skip_goes_to_others_and_escalate_to_curators(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a", "b")
    one, two = claim(api_db, account, ANN, 2)
    with api_db.transaction(account.id) as session:
        review_leases.skip(session, account.id, ANN, one.id, one.version)
        review_leases.escalate(session, account.id, ANN, two.id, two.version, "what is this?")
    assert claim(api_db, account, ANN, 9) == []
    assert claim(api_db, account, ANN, 9, curator=True) == [], "not what he escalated himself"
    assert names(claim(api_db, account, BOB, 9)) == [sha_of("a")]
    (task,) = claim(api_db, account, CAT, 9, curator=True)
    assert (bytes(task.sha256), task.level) == (sha_of("b"), "curator")
    with pytest.raises(Conflict, match="curators already"), api_db.transaction(account.id) as session:
        review_leases.escalate(session, account.id, CAT, task.id, task.version)
    with db.transaction() as session:
        session.execute(text("UPDATE review_tasks SET skips = jsonb_set(skips, '{user:ann}', '\"2020-01-01\"'),"
                             " lease_owner = NULL, lease_until = NULL"))  # fmt: skip
    assert names(claim(api_db, account, ANN, 9)) == [sha_of("a")]


def test_near_duplicates_are_decided_together(api_db: Database, db: Database, account: TestAccount) -> None:
    base = bytes(range(32))
    near = bytes([base[0] ^ 0xFF, base[1] ^ 0xFF, base[2] ^ 0xFF, base[3] ^ 0x7F, *base[4:]])  # 31 bits
    far = bytes([base[0] ^ 0xFF, base[1] ^ 0xFF, base[2] ^ 0xFF, base[3] ^ 0xFF, *base[4:]])  # 32 bits
    pdq = {"a": base, "near": near, "far": far, "taken": base}
    in_doubt(db, account, "a", "taken", "near", "far", pdq=pdq)
    in_doubt(db, account, "elsewhere", context="avatar", pdq={"elsewhere": base})
    (task,) = claim(api_db, account, ANN, which=Filter(context=""))
    claim(api_db, account, BOB, which=Filter(context=""))  # "taken"
    every = {bytes(row["sha256"]): row["id"] for row in tasks(db)}
    wanted = tuple(every[sha_of(name)] for name in ("near", "far", "taken", "elsewhere"))
    made = decide(api_db, account, ANN, task, "reject", near=wanted)
    assert names(list(made.tasks)) == [sha_of("a"), sha_of("near")]
    assert set(made.left) == set(wanted[1:])
    assert human(api_db, account, "near") == "reject"
    assert [human(api_db, account, name) for name in ("far", "taken")] == [None, None]


def test_many_are_decided_at_once_and_the_stale_ones_are_named(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, *"abc")
    found = claim(api_db, account, ANN, 3)
    answers = [Answer(task.id, task.version - (n == 1), "approve") for n, task in enumerate(found)]
    with api_db.transaction(account.id) as session:
        taken = review_verdicts.decide_many(session, account.id, ANN, answers)
    assert len(taken.decided) == 2
    assert {key: error.code for key, error in taken.refused.items()} == {found[1].id: "stale_review"}
    assert [human(api_db, account, name) for name in "abc"] == ["approve", None, "approve"]
    with api_db.transaction(account.id) as session:
        last = review_undo.last(session, account.id, ANN, 900)
    assert set(last) == {found[0].id, found[2].id}, "what was decided together is taken back together"
    undo(api_db, account, ANN, *last)
    assert [human(api_db, account, name) for name in "abc"] == [None, None, None]


def test_of_many_each_gets_its_own_answer_also_as_a_near_duplicate_of_another(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    alike = bytes([15] * 32)
    work_off(db, account, {"a": verdict("review"), "b": verdict("review")}, pdq={"a": alike, "b": alike})
    one, other = sorted(claim(api_db, account, ANN, 2), key=lambda task: task.id)
    answers = [
        Answer(one.id, one.version, "reject", "nudity", near=(other.id,)),
        Answer(other.id, other.version, "approve"),
    ]
    with api_db.transaction(account.id) as session:
        made = review_verdicts.decide_many(session, account.id, ANN, answers)
    assert [len(each.tasks) for each in made.decided] == [1, 1]
    said = {bytes(task.sha256): task.verdict for each in made.decided for task in each.tasks}
    assert said == {bytes(one.sha256): "reject", bytes(other.sha256): "approve"}


def test_undo_takes_back_everything_and_the_task_is_mine_again(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, "a")
    (task,) = claim(api_db, account, ANN)
    decide(api_db, account, ANN, task, "reject")
    with pytest.raises(NotFound):
        undo(api_db, account, BOB, task.id)
    (again,) = undo(api_db, account, ANN, task.id)
    assert (again.state, again.lease_owner, again.verdict) == ("open", ANN, None)
    assert human(api_db, account, "a") is None
    assert labelled(api_db, account, "a") is None
    with pytest.raises(NotFound):
        undo(api_db, account, ANN, task.id)
    decide(api_db, account, ANN, again, "approve")
    assert human(api_db, account, "a") == "approve"
    assert events(api_db, account) == [(str(task.id), "reject"), (str(task.id), None), (str(task.id), "approve")]
    with api_db.transaction(account.id) as session:
        said = session.execute(text("SELECT verdict, takes_back IS NOT NULL FROM review_opinions ORDER BY created_at"))
        assert [tuple(row) for row in said] == [("reject", False), (None, True), ("approve", False)]


def test_undo_is_for_a_time_and_not_over_others_words(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a", "b")
    one, two = claim(api_db, account, ANN, 2)
    decide(api_db, account, ANN, one)
    decide(api_db, account, ANN, two, second_share=1.0)
    with pytest.raises(Conflict, match="too old"):
        undo(api_db, account, ANN, one.id, within_s=0)
    (second,) = claim(api_db, account, BOB)
    with pytest.raises(Conflict, match="Another person"):
        undo(api_db, account, ANN, two.id)
    decide(api_db, account, BOB, second)
    with pytest.raises(Conflict, match="Another person"):
        undo(api_db, account, ANN, two.id)
    undo(api_db, account, ANN, one.id)


def test_undo_puts_back_what_a_person_had_said_before(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    (task,) = claim(api_db, account, ANN)
    decide(api_db, account, ANN, task, "reject")
    with api_db.transaction(account.id) as session:
        appeal = Candidate(task.job_id, 0, sha_of("a"), "", "appeal", not_for=(ANN,))
        review_queue.enqueue(session, account.id, [appeal])
    assert claim(api_db, account, ANN) == []
    (again,) = claim(api_db, account, BOB)
    decide(api_db, account, BOB, again, "approve")
    assert (human(api_db, account, "a"), labelled(api_db, account, "a")) == ("approve", ["approve"])
    with pytest.raises(Conflict, match="again since"):
        undo(api_db, account, ANN, task.id)
    undo(api_db, account, BOB, again.id)
    assert (human(api_db, account, "a"), labelled(api_db, account, "a")) == ("reject", ["reject"])


def test_a_second_opinion_compares_and_a_curator_settles(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, "same", "other")
    for task in claim(api_db, account, ANN, 2):
        decide(api_db, account, ANN, task, "approve", second_share=1.0)
    assert claim(api_db, account, ANN, 9) == []
    same, other = claim(api_db, account, BOB, 9)
    assert same.kind == "second"
    assert same.reason == "porn_review", "nothing tells that somebody has seen it"
    decide(api_db, account, BOB, same, "approve", second_share=1.0)
    decide(api_db, account, BOB, other, "reject", second_share=1.0)
    assert human(api_db, account, "other") == "approve", "a second opinion alone changes nothing"
    assert len(events(api_db, account)) == 2
    assert claim(api_db, account, CAT, 9) == []
    assert claim(api_db, account, ANN, 9, curator=True) == claim(api_db, account, BOB, 9, curator=True) == []
    (escalated,) = claim(api_db, account, CAT, 9, curator=True)
    assert (bytes(escalated.sha256), escalated.reason, escalated.kind) == (sha_of("other"), "escalated", "first")
    decide(api_db, account, CAT, escalated, "reject", second_share=1.0)
    assert human(api_db, account, "other") == "reject"
    assert [row["state"] for row in tasks(owner_db)] == ["decided"] * 5


def test_undo_of_a_disagreement_calls_the_curator_off(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, "a")
    (task,) = claim(api_db, account, ANN)
    decide(api_db, account, ANN, task, "approve", second_share=1.0)
    (second,) = claim(api_db, account, BOB)
    decide(api_db, account, BOB, second, "reject")
    undo(api_db, account, BOB, second.id)
    assert [row["state"] for row in tasks(owner_db) if row["reason"] == "escalated"] == ["closed"]
    assert human(api_db, account, "a") == "approve"


def test_known_pictures_come_unmarked_and_decide_nothing(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    job = work_off(db, account, {"gold": verdict("reject", "porn_reject"), "a": verdict("review")})
    with api_db.transaction(account.id) as session:
        review_gold.add(session, account.id, CAT, f"{job.id.hex}-0", "reject")
    (known,) = claim(api_db, account, ANN, gold_share=1.0)
    assert (bytes(known.sha256), known.reason, known.kind) == (sha_of("gold"), "audit", "gold")
    for actor in (BOB, CAT):
        with pytest.raises(NotFound), api_db.transaction(account.id) as session:
            review_leases.get(session, account.id, known.id, actor)
    decide(api_db, account, ANN, known, "approve", second_share=1.0)
    assert human(api_db, account, "gold") is None
    assert labelled(api_db, account, "gold") is None
    assert events(api_db, account) == []
    with api_db.transaction(account.id) as session:
        said = session.execute(text("SELECT kind, verdict, expected FROM review_opinions")).all()
    assert [tuple(row) for row in said] == [("gold", "approve", "reject")]
    assert names(claim(api_db, account, ANN, gold_share=1.0)) == [sha_of("a")], "nobody is asked twice"
    assert claim(api_db, account, BOB, gold_share=1.0) == [], "a known picture alone would be seen through"
    undo(api_db, account, ANN, known.id)


def test_a_known_picture_is_not_told_by_its_policy_its_wait_or_the_filter(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    job = work_off(db, account, {"gold": verdict("reject", "porn_reject"), "a": verdict("review")})
    work_off(db, account, {"b": verdict("review")}, context="avatar")
    with owner_db.transaction() as session:
        session.execute(text("UPDATE review_tasks SET created_at = now() - interval '10 days'"))
    with api_db.transaction(account.id) as session:
        review_gold.add(session, account.id, CAT, f"{job.id.hex}-0", "reject")
    for which in (Filter(context="avatar"), Filter(reason="porn_review"), Filter(policy="other"), Filter(category="x")):
        assert sha_of("gold") not in names(claim(api_db, account, ANN, which=which, gold_share=1.0))
    with owner_db.transaction() as session:
        session.execute(text("UPDATE review_tasks SET lease_owner = NULL, lease_until = NULL"))
    given = claim(api_db, account, ANN, which=Filter(policy="default"), count=2, gold_share=1.0)
    (known,) = [task for task in given if task.kind == "gold"]
    assert known.policy == "default@1"
    with owner_db.transaction() as session:
        assert session.execute(text("SELECT now() - :at > interval '1 second'"), {"at": known.created_at}).scalar()


def test_who_marked_a_picture_is_not_asked_about_it(api_db: Database, db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"gold": verdict("approve"), "a": verdict("review")})
    with api_db.transaction(account.id) as session:
        made = review_gold.add(session, account.id, CAT, f"{job.id.hex}-0", "approve")
        review_gold.add(session, account.id, CAT, f"{job.id.hex}-0", "reject")
        (only,) = review_gold.every(session, account.id)
        assert only.id != made.id
    assert names(claim(api_db, account, CAT, gold_share=1.0)) == [sha_of("a")]
    with api_db.transaction(account.id) as session:
        review_gold.remove(session, account.id, CAT, only.id)
        with pytest.raises(NotFound):
            review_gold.remove(session, account.id, CAT, only.id)
        with pytest.raises(NotFound):
            review_gold.add(session, account.id, CAT, "nothing", "reject")
        assert review_gold.every(session, account.id) == []


def test_a_reviewer_holds_a_hundred_at_most(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, *(f"p{n}" for n in range(120)))
    assert len(claim(api_db, account, ANN, 80)) == 80
    assert len(claim(api_db, account, ANN, 80)) == 20
    assert len(claim(api_db, account, BOB, 80)) == 20


def test_what_a_person_decided_is_what_readers_see(api_db: Database, db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {"a": verdict("review")})
    (task,) = claim(api_db, account, ANN)
    decide(api_db, account, ANN, task, "reject")
    with api_db.transaction(account.id) as session:
        seen = items.get(session, account.id, f"{job.id.hex}-0").moderation
    assert seen is not None
    assert (seen["verdict"], seen["automatic"], seen["decision"]["code"]) == ("reject", "review", "nudity")


def test_an_upload_for_moderation_is_decided_by_its_review(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    with api_db.transaction(account.id) as session:
        asked = moderations.Asked(user="u1", context="avatar")
        upload = moderations.submit(session, account.id, asked, NewItem(url="http://pictures.test/a"))
    record(db, account, [("a", verdict("review"))])

    def state() -> tuple[str, str | None]:
        with api_db.transaction(account.id) as session:
            row, _ = moderations.get(session, account.id, upload.id)
            return row.state, row.verdict

    assert state() == ("in_review", "review")
    (task,) = claim(api_db, account, ANN)
    assert task.context == "avatar"
    decide(api_db, account, ANN, task, "approve")
    assert state() == ("decided", "approve")
    undo(api_db, account, ANN, task.id)
    assert state() == ("in_review", "review")
