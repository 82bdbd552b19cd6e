"""What the product catalog sees: the combined view, and the SQL view behind the account's wall."""

from typing import Any
from uuid import UUID

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
            InferOutcome(i.seq, i.sha256, tags, {"verdict": "review" if tags else "approve"})
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


def row(seq: int, url: str, **values: Any) -> dict[str, Any]:
    fields = ("client_id", "filename", "raw_key", "outcome", "code", "sha256", "tags", "moderation", "labels")
    empty = dict.fromkeys(fields)
    return {"job_id": UUID(int=9), "seq": seq, "url": url, **empty, **values}


DONE = {"outcome": "done", "sha256": b"1" * 32}


def test_a_later_job_for_tags_only_takes_no_verdict_away() -> None:
    newest_first = [
        row(1, "http://a/1", **DONE, tags=[tag("shirt", 0.8)]),
        row(0, "http://a/1", **DONE, moderation={"verdict": "reject"}, tags=[tag("dress", 0.7)]),
    ]
    (picture,) = products.distinct(newest_first)
    assert (picture["verdict"], picture["tags"][0]["label"]) == ("reject", "shirt")
    (picture,) = products.distinct(newest_first[::-1])
    assert (picture["verdict"], picture["tags"][0]["label"]) == ("reject", "dress")


def test_a_failure_counts_only_where_the_source_never_succeeded() -> None:
    done = row(0, "http://a/1#x", **DONE, moderation={"verdict": "approve"})
    failed = row(1, "http://a/1", outcome="failed", code="http_404")
    assert [p["outcome"] for p in products.distinct([failed, done])] == ["done"]
    assert [p["outcome"] for p in products.distinct([done, failed])] == ["done"]
    other = row(2, "http://a/2", outcome="failed", code="http_404")
    pictures = products.distinct([other, done])
    assert [p["outcome"] for p in pictures] == ["failed", "done"]
    assert products.worst_verdict(pictures) == "review"


def test_a_source_shows_the_bytes_it_showed_last() -> None:
    new = row(1, "http://a/1", outcome="done", sha256=b"2" * 32, moderation={"verdict": "approve"})
    old = row(0, "http://a/1", **DONE, moderation={"verdict": "reject"})
    assert products.worst_verdict(products.distinct([new, old])) == "approve"


def test_no_verdict_at_all_is_none() -> None:
    assert products.worst_verdict(products.distinct([row(0, "http://a/1", **DONE, tags=[])])) is None


def test_another_accounts_product_is_not_there(
    db: Database, api_db: Database, owner_db: Database, account: TestAccount
) -> None:
    other = make_account(owner_db, "other")
    analyse(db, account, {"http://pictures.test/front.jpg": [tag("shirt", 0.7)]})
    with api_db.transaction(other.id) as session:
        with pytest.raises(NotFound):
            products.view(session, other.id, "p1")
        assert session.scalar(text("SELECT count(*) FROM catalog_tags")) == 0
