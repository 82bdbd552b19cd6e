"""Who sees clear pixels in the console: on every page with pictures, what is not approved or waits for people is veiled
until somebody asks for it, and asking counts."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import text

from db.blobs import work_key
from db.decisions import Decision, append
from db.ids import item_id
from db.jobs import NewItem
from db.review_queue import Audit, Candidate, enqueue
from db.session import Database
from tests.api.browsers import Browser
from tests.api.rows import settle
from tests.api.test_console_jobs import SHA, colours, picture, submitted
from tests.api.test_console_replays import finished
from tests.architecture.source import ROOT
from tests.conftest import TestAccount
from tests.db.bank_line import infer, ingest, sha, submit
from tests.db.test_banks import H, ban, make_bank, work_off

Browse = Callable[..., Browser]
PAGES = ("gallery", "item", "catalog", "product", "replay")
WAITING = ("appeal", "banned_after_approval", "escalated", "porn_review")


@dataclass
class Goods:
    """One approved picture of a product, and the pages that show it."""

    database: Database
    account: TestAccount
    job: UUID

    @property
    def item(self) -> str:
        return item_id(self.job, 0)

    def addresses(self) -> dict[str, str]:
        flip: dict[str, Any] = {"before": "approve", "after": "review", "count": 1, "samples": [self.item], "rules": []}
        return {
            "gallery": f"/console/jobs/{self.job}/pictures",
            "item": f"/console/items/{self.item}",
            "catalog": "/console/catalog",
            "product": "/console/catalog/product?id=coat",
            "replay": f"/console/replays/{finished(self.database, self.account, flips=[flip])}",
        }

    def sql(self, statement: str, **values: Any) -> None:
        with self.database.transaction() as session:
            session.execute(text(statement), values)

    def machine_says(self, verdict: str) -> None:
        self.sql(
            "UPDATE results SET moderation = jsonb_set(moderation, '{verdict}', to_jsonb(CAST(:v AS text)))", v=verdict
        )

    def person_says(self, verdict: str | None) -> None:
        code = "nudity" if verdict == "reject" else None
        with self.database.transaction() as session:
            append(session, self.account.id, [Decision(self.job, 0, SHA, "", "review", verdict, "user:x", code=code)])

    def waits_for(self, reason: str) -> None:
        audit = Audit("approve", 0.5) if reason == "audit" else None
        with self.database.transaction() as session:
            assert enqueue(session, self.account.id, [Candidate(self.job, 0, SHA, "", reason, audit=audit)]) == 1

    def nobody_waits(self) -> None:
        self.sql("DELETE FROM review_tasks")


@pytest.fixture
def goods(owner_db: Database, account: TestAccount, app: Flask) -> Goods:
    job = submitted(owner_db, account, [NewItem(url="https://shop.example/a.jpg", product_id="coat")])
    settle(owner_db, str(job), {0: None})
    picture(app, account)
    return Goods(owner_db, account, job)


def shown(browser: Browser, address: str) -> Iterator[bool]:
    """Of each picture on the page: whether it is veiled. Nothing on it comes from elsewhere."""
    page = browser.page(address)
    sources = [str(image.attributes["src"]) for image in page.all("img")]
    assert all(source.startswith("/console/") for source in sources), "no page loads a seller's URL"
    for source in sources:
        if "/pictures/" in source:
            yield colours(browser.get(source).data)[1]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_approved_is_veiled_on_every_page(browse: Browse, goods: Goods, page: str) -> None:
    address = goods.addresses()[page]
    viewer, reviewer = browse("viewer"), browse("reviewer")

    def veiled() -> set[bool]:
        found = [*shown(viewer, address), *shown(reviewer, address)]
        assert len(found) == 2, "no picture to look at"
        return set(found)

    assert veiled() == {False}, "approved"
    for verdict in ("review", "reject"):
        goods.machine_says(verdict)
        assert veiled() == {True}, verdict
    goods.person_says("approve")
    assert veiled() == {False}, "a person's word is the one that counts"
    goods.machine_says("approve")
    goods.person_says("reject")
    assert veiled() == {True}, "here too"
    goods.person_says(None)
    goods.sql("UPDATE results SET moderation = NULL")
    assert veiled() == {True}, "nobody has looked at it"


@pytest.mark.parametrize("page", PAGES)
def test_what_waits_for_people_is_veiled_on_every_page_but_an_audit_is_not(
    browse: Browse, goods: Goods, page: str
) -> None:
    address = goods.addresses()[page]
    browser = browse("viewer")
    for reason in WAITING:
        goods.waits_for(reason)
        assert list(shown(browser, address)) == [True], reason
        goods.nobody_waits()
    goods.waits_for("audit")
    assert list(shown(browser, address)) == [False], "a veil would tell which pictures were drawn"
    goods.sql("UPDATE review_tasks SET reason = 'appeal', state = 'closed'")
    assert list(shown(browser, address)) == [False], "it is over"


def test_another_contexts_review_does_not_veil(browse: Browse, goods: Goods) -> None:
    """A picture may be right in a listing and wrong as a face: what is said of it belongs to a context."""
    with goods.database.transaction() as session:
        enqueue(session, goods.account.id, [Candidate(goods.job, 0, SHA, "avatar", "appeal")])
    assert list(shown(browse("viewer"), f"/console/items/{goods.item}")) == [False]


@pytest.mark.parametrize("source", ["approve", "reject"])
def test_what_a_rerun_has_staged_opens_nothing(browse: Browse, goods: Goods, source: str) -> None:
    """A rerun's item has a verdict of its own before anybody has published it."""
    goods.machine_says(source)
    staged = submitted(goods.database, goods.account, [NewItem(url="https://shop.example/a.jpg")])
    settle(goods.database, str(staged), {0: None})
    goods.sql(
        "INSERT INTO reruns (id, account_id, job_id, task, model, selection, total)"
        " VALUES (:job, :account, :job, 'moderation', 'nsfwjs@2', '{}', 1)",
        job=staged, account=goods.account.id,
    )  # fmt: skip
    goods.sql(
        "INSERT INTO rerun_items (rerun_id, seq, account_id, bucket, job_id, source_seq)"
        " SELECT :rerun, 0, account_id, bucket, id, 0 FROM jobs WHERE id = :job",
        rerun=staged, job=goods.job,
    )  # fmt: skip
    browser = browse("viewer")
    wanted = source != "approve"
    assert list(shown(browser, f"/console/items/{item_id(staged, 0)}")) == [wanted]
    goods.person_says("approve")
    assert list(shown(browser, f"/console/items/{item_id(staged, 0)}")) == [False]


def test_what_a_bank_hit_is_veiled_on_its_pages(
    browse: Browse, db: Database, owner_db: Database, account: TestAccount, app: Flask
) -> None:
    job = submit(db, account, ["same"])
    ingest(db, {"same": H})
    infer(db)
    app.extensions["tagmill"].blobs.put(work_key(account.id, sha("same")), picture(app, account))
    browser = browse("viewer")
    assert list(shown(browser, f"/console/items/{item_id(job, 0)}")) == [False]
    bank = make_bank(db, account.id)
    entry = ban(db, account.id, bank, reason="stolen")
    work_off(db)
    for address in (f"/console/banks/{bank}", f"/console/banks/{bank}/entries/{entry}"):
        assert list(shown(browser, address)) == [True], address


@pytest.mark.parametrize("page", ["gallery", "item"])
def test_to_see_a_page_clear_is_counted(browse: Browse, goods: Goods, page: str) -> None:
    goods.machine_says("reject")
    address = goods.addresses()[page]
    browser = browse("reviewer")
    fields = {"items": [goods.item], "size": "240", "back": address}
    form = browser.page(address).all("form", action="/console/pictures/clear")
    assert form, "there is a way to ask"
    assert not browse("viewer").page(address).all("form", action="/console/pictures/clear")
    for _ in range(2):
        clear = browser.post("/console/pictures/clear", fields, json=True).get_json()["pictures"][goods.item]
        assert not colours(browser.get(clear).data)[1]
    assert list(shown(browser, address)) == [True], "only what was asked for"
    goods.machine_says("approve")
    goods.waits_for("appeal")
    assert browser.page(address).all("form", action="/console/pictures/clear"), "approved, and veiled again"
    with goods.database.transaction() as session:
        rows = session.execute(text("SELECT actor, verdict, class, shown FROM review_exposures")).all()
    assert browser.person is not None
    assert [tuple(row) for row in rows] == [(browser.person.actor, "reject", "Neutral", 2)]


def test_no_template_shows_a_picture_by_another_way() -> None:
    """Every picture goes through the one route that veils, or is one of our own drawings."""
    ways = ("/console/pictures/", "{{ picture(", "{{ asset(", "{{ address }}")
    found = [
        source
        for template in sorted((ROOT / "api" / "console" / "templates").glob("*.html"))
        for source in re.findall(
            r"<(?:img|source|video|iframe|object|embed)\b[^>]*?\bsrc(?:set)?=\"([^\"]*)", template.read_text()
        )
    ]
    assert len(found) > 10
    assert not [source for source in found if not source.startswith(ways)]
