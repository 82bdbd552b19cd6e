"""People's decisions as every reader sees them: over the machine's verdict, by bytes and context, in every rerun."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from db import decisions, endings, items, products, publishing, reruns
from db.decisions import Decision, overlaid
from db.ids import item_id
from db.reruns import Selection
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount, make_account
from tests.db.judged import judge, moderation, sha_of
from tests.db.reviewing import tasks
from tests.db.test_reruns import infer, install, run


def decide(
    db: Database, account: TestAccount, job: Job, verdict: str | None, *, seq: int = 0, context: str = "", **more: Any
) -> UUID:
    about = {"job_id": job.id, "seq": seq, "sha256": sha_of(db, job.id, seq), "context": context}
    given = {"kind": "review", "actor": "key:someone", **about, **more}
    with db.transaction(account.id) as session:
        (made,) = decisions.append(session, account.id, [Decision(verdict=verdict, **given)])
        return made


def shown(db: Database, account: TestAccount, job: Job, seq: int = 0) -> dict[str, Any]:
    """The item's moderation, which is the same on a page, in an export's batch and by itself."""
    with db.transaction(account.id) as session:
        one = items.get(session, account.id, item_id(job.id, seq)).moderation
        page = items.page(session, account.id, job)[seq].moderation
        batch = items.settled_batch(session, account.id, job)[seq].moderation
    assert one == page == batch
    assert one is not None
    return one


def test_a_persons_verdict_stands_over_the_machines(api_db: Database, db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["review", "approve"])
    before = shown(api_db, account, job)
    assert (before["verdict"], before["automatic"], before["decision"]) == ("review", "review", None)
    made = decide(db, account, job, "reject", code="nudity", text="Not here.")
    after = shown(api_db, account, job)
    assert (after["verdict"], after["automatic"]) == ("reject", "review")
    said = {key: after["decision"][key] for key in ("id", "verdict", "kind", "code", "text")}
    assert said == {"id": str(made), "verdict": "reject", "kind": "review", "code": "nudity", "text": "Not here."}
    assert "actor" not in after["decision"], "who it was is not for readers"
    assert after["scores"] == before["scores"]
    assert shown(api_db, account, job, 1)["verdict"] == "approve"


def test_the_newest_counts_and_taking_back_leaves_the_machines(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["review"])
    decide(db, account, job, "reject")
    second = decide(db, account, job, "approve", kind="appeal")
    assert (shown(db, account, job)["verdict"], shown(db, account, job)["decision"]["kind"]) == ("approve", "appeal")
    decide(db, account, job, None, takes_back=second)
    assert (shown(db, account, job)["verdict"], shown(db, account, job)["decision"]) == ("review", None)


def test_it_holds_for_the_same_bytes_in_the_same_context_of_the_same_account(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    rival = make_account(owner_db, "rival")
    first, again = judge(db, account, ["approve"], "avatar"), judge(db, account, ["approve"], "avatar")
    elsewhere, theirs = judge(db, account, ["approve"], "listing"), judge(db, rival, ["approve"], "avatar")
    decide(db, account, first, "reject", context="avatar")
    assert [shown(db, account, job)["verdict"] for job in (first, again, elsewhere)] == ["reject", "reject", "approve"]
    assert shown(db, rival, theirs)["verdict"] == "approve"


def test_products_and_the_catalogs_view_show_it(db: Database, api_db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve", "approve"], "avatar", product="p1")
    decide(db, account, job, "reject", seq=1, context="avatar")
    with api_db.transaction(account.id) as session:
        view = products.view(session, account.id, "p1")
        seen = session.execute(text("SELECT seq, verdict FROM catalog_tags ORDER BY seq")).all()
    assert view.verdict == "reject"
    verdicts = {p["item_id"]: (p["verdict"], p["automatic"], bool(p["decision"])) for p in view.pictures}
    assert verdicts[item_id(job.id, 1)] == ("reject", "approve", True)
    assert verdicts[item_id(job.id, 0)] == ("approve", "approve", False)
    assert [tuple(row) for row in seen] == [(0, "approve"), (1, "reject")]


def test_a_published_rerun_changes_what_the_machine_says_and_not_what_counts(
    db: Database, account: TestAccount
) -> None:
    install(db, "j@1", "moderation")
    job = judge(db, account, ["approve", "approve"])
    decide(db, account, job, "approve")
    install(db, "j@2", "moderation")
    with db.transaction(account.id) as session:
        rerun = reruns.start(session, account.id, "j@2", Selection(all=True))
    infer(db, lambda seq: [("reject", 0.9)])
    with db.transaction() as session:
        assert endings.finish(session, rerun.job_id)
    assert run(db, publishing.publish, account, rerun) == 2
    assert [(m["verdict"], m["automatic"]) for m in (shown(db, account, job, n) for n in (0, 1))] == [
        ("approve", "reject"),
        ("reject", "reject"),
    ]
    told = "SELECT kind, verdict, before ->> 'verdict', after ->> 'verdict' FROM decisions WHERE kind = 'rerun'"
    with db.transaction() as session:
        assert [tuple(row) for row in session.execute(text(told))] == [("rerun", "reject", "approve", "reject")] * 2
    assert run(db, publishing.roll_back, account, rerun) == 2
    assert [shown(db, account, job, n)["automatic"] for n in (0, 1)] == ["approve", "approve"]


def test_what_a_published_rerun_puts_in_doubt_goes_to_people_and_back(
    db: Database, owner_db: Database, account: TestAccount
) -> None:
    install(db, "j@1", "moderation")
    judge(db, account, ["approve", "approve"])
    install(db, "j@2", "moderation")
    with db.transaction(account.id) as session:
        rerun = reruns.start(session, account.id, "j@2", Selection(all=True))
    infer(db, lambda seq: [("review" if seq else "approve", 0.5)])
    with db.transaction() as session:
        assert endings.finish(session, rerun.job_id)
    assert tasks(owner_db) == [], "nobody looks at what is only staged"
    run(db, publishing.publish, account, rerun)
    (task,) = tasks(owner_db)
    assert (task["seq"], task["state"]) == (1, "open")
    run(db, publishing.roll_back, account, rerun)
    assert [task["state"] for task in tasks(owner_db)] == ["closed"]


def test_a_persons_decision_keeps_what_the_machine_had_said(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["review"])
    made = decide(db, account, job, "approve")
    with db.transaction() as session:
        kept = session.execute(text("SELECT before FROM decisions WHERE id = :id"), {"id": made}).scalar_one()
    assert kept == moderation("review")


def test_ids_rise_with_the_order_and_each_batch_has_its_digest(db: Database, account: TestAccount) -> None:
    job = judge(db, account, ["approve"])
    sha = sha_of(db, job.id)
    many = [
        Decision(job.id, 0, sha, "", "review", "approve", "key:a", comment=str(n)) for n in range(decisions.BATCH + 1)
    ]
    with db.transaction(account.id) as session:
        ids = decisions.append(session, account.id, many)
    assert ids == sorted(ids)
    with db.transaction() as session:
        comments = list(session.scalars(text("SELECT comment FROM decisions ORDER BY id")))
        digests = "SELECT (detail ->> 'decisions')::int FROM audit_log WHERE action = 'decisions.record' ORDER BY id"
        assert list(session.scalars(text(digests))) == [decisions.BATCH, 1]
    assert comments == [str(n) for n in range(decisions.BATCH + 1)]


def test_a_decision_cannot_be_changed_or_removed_by_the_roles(
    db: Database, api_db: Database, account: TestAccount
) -> None:
    decide(db, account, judge(db, account, ["approve"]), "reject")
    change, remove = "UPDATE decisions SET verdict = 'approve'", "DELETE FROM decisions"
    for role, sql in ((db, change), (api_db, change), (api_db, remove)):
        with pytest.raises(ProgrammingError, match="permission denied"), role.transaction(account.id) as session:
            session.execute(text(sql))
    with db.transaction() as session:  # only what a tombstone names, or what is old
        assert session.execute(text(remove + " RETURNING 1")).all() == []


def test_a_persons_word_stands_where_no_machine_was_asked() -> None:
    decision = {"id": "1", "verdict": "reject"}
    assert overlaid(None, None) is None
    alone = overlaid(None, decision)
    assert alone is not None
    assert (alone["verdict"], alone["automatic"], alone["scores"]) == ("reject", None, None)
