"""What a claim and a page read does not grow with their job: of a new job Postgres has no statistics, and guesses."""

from typing import Any

from sqlalchemy import text

from db import chunks, items, jobs
from db.codes import CODES
from db.session import Database
from db.tables import Job
from tests.conftest import TestAccount
from tests.db.test_line import claim, finish, infer_all, ingest_all, submit, urls


def _removed(plan: dict[str, Any]) -> int:
    """Rows that joins of this plan looked at in vain, in all its loops."""
    here = plan.get("Rows Removed by Join Filter", 0) * plan.get("Actual Loops", 1)
    return int(here) + sum(_removed(part) for part in plan.get("Plans", ()))


def _explained(db: Database, account: TestAccount, query: Any, parameters: dict[str, Any]) -> int:
    with db.transaction(account.id) as session:
        found = session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {query.text}"), parameters).scalar_one()
    assert found[0]["Plan"]["Actual Rows"] > 0
    return _removed(found[0]["Plan"])


def _new_beside_an_analysed_one(owner_db: Database, db: Database, account: TestAccount) -> Job:
    submit(db, account, urls(400))
    ingest_all(db, account)
    infer_all(db)
    with owner_db.transaction() as session:
        session.execute(text("ANALYZE"))
    job = submit(db, account, [f"{url}?new" for url in urls(600)])
    ingest_all(db, account, fail={7: "http_404", 500: "timeout"})
    return job


def test_a_claim_of_a_new_job_joins_no_picture_with_all_items(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    _new_beside_an_analysed_one(owner_db, db, account)
    chunk = claim(db, "infer")[0]
    parameters = {**chunks._member_parameters(chunk), "account_id": account.id}
    assert _explained(db, account, chunks._IMAGES, parameters) == 0


def test_a_page_of_a_new_job_joins_no_item_with_all_results(
    owner_db: Database, db: Database, account: TestAccount
) -> None:
    job = _new_beside_an_analysed_one(owner_db, db, account)
    infer_all(db)
    parameters = {
        "account_id": account.id, "bucket": job.bucket, "job_id": job.id, "context": "", "after": 100, "limit": 50
    }  # fmt: skip
    asked = dict.fromkeys(("outcome", "code", "verdict", "label"))
    assert _explained(db, account, items._PAGE, {**parameters, **asked}) == 0
    assert _explained(db, account, items._SETTLED, parameters) == 0
    assert _explained(db, account, items._PAGE_BY_CODES, {**parameters, "codes": list(CODES)}) == 0


def test_pages_of_failures_are_in_order_whatever_their_codes(db: Database, account: TestAccount) -> None:
    job = submit(db, account, urls(60))
    ingest_all(db, account, fail={50: "http_404", 5: "timeout", 20: "http_404", 41: "timeout"})

    def seqs(**asked: Any) -> list[int]:
        with db.transaction(account.id) as session:
            return [
                item.seq for item in items.page(session, account.id, jobs.get(session, account.id, job.id), **asked)
            ]

    assert seqs(outcome="failed") == [5, 20, 41, 50]
    assert seqs(outcome="failed", limit=2) == [5, 20]
    assert seqs(outcome="failed", after_seq=20, limit=2) == [41, 50]
    assert seqs(code="http_404") == [20, 50]
    assert seqs(outcome="failed", code="timeout") == [5, 41]
    assert (
        seqs(outcome="cancelled") == seqs(outcome="done", code="timeout") == seqs(outcome="open", code="timeout") == []
    )
    assert len(seqs(outcome="open", limit=100)) == 56
    infer_all(db)
    assert finish(db, job)
    assert seqs(outcome="open") == []
    assert len(seqs(outcome="done", limit=100)) == 56
