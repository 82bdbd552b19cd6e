"""What the product catalog sees: the combined view, and the SQL view behind the account's wall."""

import pytest
from sqlalchemy import text

from db import chunks, jobs, products
from db.errors import NotFound
from db.jobs import JobSpec, NewItem
from db.recording import InferOutcome, finish_infer
from db.session import Database
from tests.conftest import TestAccount, make_account
from tests.db.test_line import claim, ingest_all


def tag(label: str, score: float) -> dict[str, object]:
    return {"label": label, "group": "category", "score": score, "model": "m@1"}


def analyse(db: Database, account: TestAccount, pictures: dict[str, list[dict[str, object]]]) -> None:
    """Run one job over pictures of product p1, with the given tags by URL."""
    with db.transaction(account.id) as session:
        new = [NewItem(url=url, product_id="p1") for url in pictures]
        jobs.submit(session, account.id, JobSpec(), new, max_items=100)
    ingest_all(db, account)
    (chunk,) = claim(db, "infer")
    with db.transaction() as session:
        outcomes = [
            InferOutcome(i.seq, i.sha256, tags, {"verdict": "review" if tags else "approve"})  # type: ignore[arg-type]
            for i, tags in zip(chunks.images_of(session, chunk), pictures.values(), strict=True)
        ]
        finish_infer(session, chunk, outcomes)


def test_a_product_combines_its_pictures(db: Database, api_db: Database, account: TestAccount) -> None:
    front, back = "http://pictures.test/front.jpg", "http://pictures.test/back.jpg"
    analyse(db, account, {front: [tag("shirt", 0.7), tag("dress", 0.2)], back: [tag("shirt", 0.9)]})
    with api_db.transaction(account.id) as session:
        view = products.view(session, account.id, "p1")
        seen = session.execute(text("SELECT label, verdict FROM catalog_tags ORDER BY label, score")).all()
    assert [(t["label"], t["score"], t["pictures"]) for t in view.tags] == [("shirt", 0.9, 2), ("dress", 0.2, 1)]
    assert len({source["item_id"] for source in view.tags[0]["sources"]}) == 2
    assert view.verdict == "review"
    assert [tuple(row) for row in seen] == [("dress", "review"), ("shirt", "review"), ("shirt", "review")]


def test_the_newest_result_of_a_picture_speaks(db: Database, account: TestAccount) -> None:
    front = "http://pictures.test/front.jpg"
    analyse(db, account, {front: [tag("shirt", 0.7)]})
    analyse(db, account, {front: [tag("dress", 0.8)]})
    with db.transaction() as session:
        view = products.view(session, account.id, "p1")
    assert [t["label"] for t in view.tags] == ["dress"]
    assert len(view.pictures) == 1


def test_another_accounts_product_is_not_there(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "other")
    analyse(db, account, {"http://pictures.test/front.jpg": [tag("shirt", 0.7)]})
    with api_db.transaction(other.id) as session:
        with pytest.raises(NotFound):
            products.view(session, other.id, "p1")
        assert session.scalar(text("SELECT count(*) FROM catalog_tags")) == 0
