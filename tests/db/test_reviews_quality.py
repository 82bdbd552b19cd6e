"""Figures of quality: counted from real decisions, and true to a population that is known."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from db import review_agreement, review_exposure, review_gold, review_quality, review_queue
from db.review_exposure import ExposureLimit, Shown
from db.review_quality import Automation, Group
from db.review_queue import Audit, Candidate
from db.review_statistics import clopper_pearson
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.reviewing import sha_of, verdict, work_off
from tests.db.test_reviews_decide import ANN, BOB, CAT, claim, decide, in_doubt, undo

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)


def automation(db: Database, account: TestAccount, **which: str) -> Automation:
    with db.transaction(account.id) as session:
        return review_quality.automation(session, account.id, BEGIN, **which)


def audited(db: Database, account: TestAccount, job_id: UUID, said: dict[str, str], share: float) -> None:
    """Tasks that audit these automatic verdicts."""
    made = [
        Candidate(job_id, 0, sha_of(name), "", "audit", "p@1", audit=Audit(each, share)) for name, each in said.items()
    ]
    with db.transaction(account.id) as session:
        review_queue.enqueue(session, account.id, made)


def test_audits_and_reviews_give_precision_misses_and_recall(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    job = work_off(db, account, {"x": verdict("approve")})
    wrong = {"a0", "r0", "r1", "v0", "v1", "v2"}  # what people reject
    audited(db, account, job.id, {f"a{n}": "approve" for n in range(20)}, 0.05)
    audited(db, account, job.id, {f"r{n}": "reject" for n in range(4)}, 0.5)
    in_doubt(db, account, *(f"v{n}" for n in range(6)))
    reject = {sha_of(name) for name in wrong}
    for task in claim(api_db, account, ANN, 40):
        decide(api_db, account, ANN, task, "reject" if bytes(task.sha256) in reject else "approve")
    found = automation(api_db, account)
    by = {stratum.verdict: stratum for stratum in found.strata}
    assert (by["approve"].pictures, by["approve"].drawn, by["approve"].answered) == (400, 20, 20)
    assert (by["reject"].pictures, by["reject"].drawn) == (8, 4)
    assert (by["review"].pictures, by["review"].drawn) == (6, 6)
    assert found.missed.value == pytest.approx(1 / 20)
    assert (found.missed.low, found.missed.high) == pytest.approx(clopper_pearson(1, 20))
    assert found.precision.value == pytest.approx(0.5)
    # 20 pictures missed (1 / 0.05), 4 rejected rightly (2 / 0.5), 3 found by people
    assert found.recall.value == pytest.approx((4 + 3) / (4 + 3 + 20))
    assert found.recall.low is not None
    assert found.recall.high is not None
    assert 0 < found.recall.low < found.recall.value < found.recall.high < 1
    assert found.recall.n == 30


def test_an_audit_that_nobody_answered_tells_nothing(api_db: Database, db: Database, account: TestAccount) -> None:
    assert automation(api_db, account).recall.value is None
    job = work_off(db, account, {"x": verdict("approve")})
    audited(db, account, job.id, {"a": "approve", "b": "approve"}, 0.1)
    found = automation(api_db, account)
    assert (found.strata[0].pictures, found.strata[0].answered, found.missed.value) == (20, 0, None)
    (task,) = claim(api_db, account, ANN)
    decide(api_db, account, ANN, task)
    found = automation(api_db, account)
    assert (found.strata[0].answered, found.missed.value) == (1, 0.0)
    assert found.missed.high == pytest.approx(0.975), "one answer says next to nothing"
    assert automation(api_db, account, policy="p").strata[0].drawn == 2
    assert automation(api_db, account, policy="q").strata[0].drawn == 0
    assert automation(api_db, account, context="avatar").strata[0].drawn == 0


def test_figures_are_the_accounts_own(api_db: Database, db: Database, owner_db: Database, account: TestAccount) -> None:
    other = make_account(owner_db, "globex")
    job = work_off(db, account, {"x": verdict("approve")})
    audited(db, account, job.id, {"a": "approve"}, 0.1)
    assert automation(db, other).strata[0].drawn == 0


def test_the_bounds_of_recall_hold_for_a_known_population() -> None:
    """20,000 approvals with 60 misses, 300 rejections of which 40 are wrong, 500 in doubt of which people reject 100;
    drawn again and again: the true recall lies between the bounds at least as often as promised."""
    truth = (260 + 100) / (260 + 100 + 60)
    draw = random.Random(3)

    def drawn(total: int, bad: int, share: float) -> Group:
        hit = sum(draw.random() < share for _ in range(bad))
        return Group(share, hit + sum(draw.random() < share for _ in range(total - bad)), 0, hit)

    def answered(group: Group) -> Group:
        return Group(group.share, group.drawn, group.drawn, group.rejected)

    covered = 0
    for _ in range(60):
        groups = {
            "approve": [answered(drawn(20_000, 60, 0.1))],
            "reject": [answered(drawn(300, 260, 0.3))],
            "review": [Group(1.0, 500, 500, 100)],
        }
        recall = review_quality._recall(groups, 0.95)
        assert recall.low is not None
        assert recall.high is not None
        covered += recall.low <= truth <= recall.high
    assert covered >= 57


def test_open_reviews_widen_the_bounds() -> None:
    of = review_quality._of_all
    assert of([Group(1.0, 10, 10, 4)], 0.95) == (4, 4, 4)
    value, low, high = of([Group(1.0, 10, 5, 2)], 0.95)
    assert (value, low) == (4, 2)
    assert 4 < high <= 7
    assert of([Group(1.0, 10, 0, 0)], 0.95) == (0, 0, 10)


def test_reviewers_are_measured_by_gold_by_the_end_and_by_each_other(
    api_db: Database, db: Database, account: TestAccount
) -> None:
    job = work_off(db, account, {f"g{n}": verdict("approve") for n in range(4)})
    with api_db.transaction(account.id) as session:
        for n in range(4):
            review_gold.add(session, account.id, CAT, f"{job.id.hex}-{n}", "reject" if n < 3 else "approve")
    in_doubt(db, account, *(f"p{n}" for n in range(10)))
    for task in claim(api_db, account, ANN, 4, gold_share=1.0):
        decide(api_db, account, ANN, task, "reject")  # three of four are right
    for task in claim(api_db, account, ANN, 10):
        decide(api_db, account, ANN, task, "approve", second_share=1.0)
    other = {sha_of("p0"), sha_of("p1")}
    for task in claim(api_db, account, BOB, 10):
        decide(api_db, account, BOB, task, "reject" if bytes(task.sha256) in other else "approve")
    settled = {sha_of("p0"): "approve", sha_of("p1"): "reject"}
    for task in claim(api_db, account, CAT, 10, curator=True):
        decide(api_db, account, CAT, task, settled[bytes(task.sha256)])
    with api_db.transaction(account.id) as session:
        found = review_agreement.reviewing(session, account.id, BEGIN)
    whole = {reviewer.actor: reviewer for reviewer in found.reviewers if reviewer.week is None}
    ann, bob = whole[ANN], whole[BOB]
    assert (ann.answers, ann.rejections, ann.gold.value, ann.gold.n) == (10, 0, 0.75, 4)
    assert (ann.final.value, ann.final.n) == (0.9, 10)
    assert (bob.final.value, bob.final.n) == (0.9, 10)
    assert (bob.precision.value, bob.precision.n) == (0.5, 2)
    assert (ann.precision.value, ann.precision.n) == (0.75, 4), "of his rejections, those of known pictures"
    assert (found.agreement[0].pairs, found.agreement[0].agreed) == (10, 8)
    assert found.agreement[0].kappa.value == pytest.approx(0.0), "one who always says yes agrees by chance"
    assert [reviewer.week is None for reviewer in found.reviewers if reviewer.actor == ANN] == [True, False]
    assert found.agreement[1].pairs == 10


def test_what_was_taken_back_does_not_count(api_db: Database, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    (task,) = claim(api_db, account, ANN)
    decide(api_db, account, ANN, task, "reject")
    undo(api_db, account, ANN, task.id)
    with api_db.transaction(account.id) as session:
        assert review_agreement.reviewing(session, account.id, BEGIN).reviewers == ()


def test_exposure_counts_pictures_and_stops_at_the_limit(
    api_db: Database, db: Database, owner_db: Database, account: TestAccount
) -> None:
    work_off(db, account, {name: verdict("approve") for name in "abc"})
    one, two, three = (Shown(sha_of(name), verdict("review", score=0.8)) for name in ("a", "b", "c"))
    with api_db.transaction(account.id) as session:
        assert review_exposure.count(session, account.id, ANN, [one, one], limit=2) == 1
        assert review_exposure.count(session, account.id, ANN, [one, two], limit=2) == 2
        assert review_exposure.count(session, account.id, BOB, [Shown(sha_of("a"), None)]) == 1
    with pytest.raises(ExposureLimit), api_db.transaction(account.id) as session:
        review_exposure.count(session, account.id, ANN, [two, three], limit=2)
    with api_db.transaction(account.id) as session:
        assert review_exposure.count(session, account.id, ANN, [two], limit=2) == 2, "seen already: no new picture"
        seen = review_exposure.by_day(session, account.id, datetime.now(UTC).date() - timedelta(days=1))
    assert [(each.actor, each.verdict, each.class_, each.pictures, each.shown) for each in seen] == [
        (ANN, "review", "Porn", 2, 4),
        (BOB, "none", "none", 1, 1),
    ]
    with owner_db.transaction() as session:
        session.execute(text("UPDATE review_exposures SET day = day - 1"))
    with api_db.transaction(account.id) as session:
        assert review_exposure.count(session, account.id, ANN, [three], limit=1) == 1, "a new day"
