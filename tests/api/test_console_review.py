"""The review pages without a script: take, look, decide, take back; who may what; strangers' text is inert."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import text

from db.blobs import work_key
from db.session import Database
from tests.api.browsers import Browser, Page
from tests.api.conftest import Make
from tests.conftest import TestAccount, make_account
from tests.db.reviewing import sha_of, tasks, verdict, work_off

Browse = Callable[..., Browser]
NASTY = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7777*7777}}"


def in_doubt(db: Database, account: TestAccount, *which: str, **how: Any) -> None:
    work_off(db, account, {name: verdict("review", score=0.9 - n / 100) for n, name in enumerate(which)}, **how)


def take(browser: Browser, view: str = "one", **filters: str) -> Page:
    answer = browser.post("/console/review/claim", {"view": view, **filters})
    assert answer.status_code == 303, answer.text
    return browser.page(str(answer.headers["Location"]))


def shown(page: Page) -> str:
    """The review that the page is about."""
    form = next(f for f in page.all("form") if str(f.attributes.get("action", "")).endswith("/decide"))
    return str(form.attributes["action"]).split("/")[3]


def move(browser: Browser, page: Page, what: str = "decide", **fields: Any) -> Page:
    answer = browser.post(
        f"/console/review/{shown(page)}/{what}", {"version": page.hidden("version"), "view": "one", **fields}
    )
    assert answer.status_code == 303, answer.text
    return browser.page(str(answer.headers["Location"]))


def notices(page: Page) -> list[str]:
    return [p.text.strip() for p in page.all("p") if "notice" in str(p.attributes.get("class"))]


def decided(owner_db: Database) -> dict[bytes, str | None]:
    return {bytes(task["sha256"]): task["verdict"] for task in tasks(owner_db)}


def test_one_by_one(browse: Browse, db: Database, owner_db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a", "b", "c", context="avatar", category="Hat")
    browser = browse("reviewer")
    start = browser.page("/console/review")
    assert "porn review" in start.text
    page = take(browser)
    assert "Hat" in page.text
    offered = {str(i.attributes["value"]) for i in page.all("input", name="code")}
    assert ("porn_reject" in offered, "porn_review" in offered) == (True, False), "reasons to reject, not to ask people"
    page = move(browser, page, verdict="approve")
    assert notices(page) == ["Approved."]
    page = move(browser, page, verdict="reject")
    assert notices(page) == ["Choose a reason to reject it for."]
    page = move(browser, page, verdict="reject", code="porn_reject", text="No nudity.", comment="clear case")
    page = move(browser, page, verdict="reject", own_code="blurred")
    assert notices(page) == ["Rejected."]
    assert "Nothing waits" in page.text
    assert list(decided(owner_db).values()) == ["approve", "reject", "reject"]
    with owner_db.transaction() as session:
        rows = session.execute(text("SELECT code, text, actor FROM decisions ORDER BY id")).all()
    assert [row[0] for row in rows] == [None, "porn_reject", "blurred"]
    assert rows[1][1] == "No nudity."
    assert {row[2] for row in rows} == {browser.person.actor if browser.person else ""}


def test_pictures_are_veiled_whatever_their_verdict(browse: Browse, db: Database, account: TestAccount) -> None:
    work_off(db, account, {"a": verdict("approve")}, audit_share=1.0)
    page = take(browse("reviewer"))
    sources = [
        str(image.attributes["src"]) for image in page.all("img") if "/pictures/" in str(image.attributes["src"])
    ]
    assert sources
    assert all("veil=true" in source for source in sources)
    assert "spot check" in page.text
    assert "nsfw" not in page.text
    assert not re.search(r"https?://pictures\.test", str([e.attributes for e in page.elements]))


def test_who_sees_a_picture_clear_is_counted_up_to_a_limit(
    make_app: Make, db: Database, owner_db: Database, account: TestAccount
) -> None:
    from tests.api.browsers import signed_in, somebody

    app = make_app(review_exposure_limit=1)
    out = io.BytesIO()
    Image.new("RGB", (400, 300), "red").save(out, "JPEG")
    in_doubt(db, account, "a", "b")
    for name in "ab":
        app.extensions["tagmill"].blobs.put(work_key(account.id, sha_of(name)), out.getvalue())
    browser = signed_in(app, owner_db, somebody(owner_db, account, "ann", "reviewer"))
    page = take(browser, "grid")
    one, two = (str(i.attributes["data-item"]) for i in page.all("img") if "data-item" in i.attributes)
    answer = browser.post("/console/pictures/clear", {"items": one, "size": "480"}, json=True)
    picture = browser.get(answer.get_json()["pictures"][one])
    red, green, _ = Image.open(io.BytesIO(picture.data)).convert("RGB").getpixel((10, 10))  # type: ignore[misc]
    assert red > 200 > green
    refused = browser.post("/console/pictures/clear", {"items": two, "size": "480"}, json=True)
    assert (refused.status_code, refused.get_json()["code"]) == (429, "exposure_limit")
    again = browser.post("/console/pictures/clear", {"items": one, "size": "480"}, json=True)
    assert again.status_code == 200, "seen today already"
    with owner_db.transaction() as session:
        assert session.execute(text("SELECT actor, shown FROM review_exposures")).all() == [
            (browser.person.actor if browser.person else "", 2)
        ]


def test_skip_escalate_comment_release_and_undo(
    browse: Browse, db: Database, owner_db: Database, account: TestAccount
) -> None:
    in_doubt(db, account, "a", "b", "c")
    browser = browse("reviewer")
    page = take(browser)
    page = move(browser, page, "comment", comment="what is it?")
    assert notices(page) == ["Noted."]
    assert "what is it?" in page.text
    page = move(browser, page, "escalate", comment="help")
    assert notices(page) == ["The curators have it."]
    page = move(browser, page, "skip")
    first = shown(page)
    page = move(browser, page, verdict="approve")
    assert "Nothing" in page.text or page.all("button")
    answer = browser.post("/console/review/undo", {"view": "one"})
    page = browser.page(str(answer.headers["Location"]))
    assert notices(page) == ["Taken back."]
    assert shown(page) == first
    browser.post("/console/review/release", {"view": "one"})
    assert {task["lease_owner"] for task in tasks(owner_db)} == {None}
    curator = browse("curator")
    page = take(curator)
    assert "help" in page.text
    assert "escalated" in page.text


def test_the_grid_decides_a_selection(browse: Browse, db: Database, owner_db: Database, account: TestAccount) -> None:
    in_doubt(db, account, *(f"p{n:02d}" for n in range(30)))
    browser = browse("reviewer")
    page = take(browser, "grid")
    picks = [str(box.attributes["value"]) for box in page.all("input", name="chosen")]
    assert len(picks) == 24
    nothing = browser.post("/console/review/many", {"view": "grid", "action": "approve"})
    assert notices(browser.page(str(nothing.headers["Location"]))) == ["Choose pictures first."]
    stale = picks[0].replace(":2", ":1")
    fields = {"view": "grid", "action": "reject", "code": "porn_reject", "chosen": [stale, *picks[1:4], "nonsense"]}
    page = browser.page(str(browser.post("/console/review/many", fields).headers["Location"]))
    assert notices(page) == ["3 rejected. 1 had moved on."]
    assert len(page.all("input", name="chosen")) == 21
    rest = [str(box.attributes["value"]) for box in page.all("input", name="chosen")]
    answer = browser.post("/console/review/many", {"view": "grid", "action": "approve", "chosen": rest})
    page = browser.page(str(answer.headers["Location"]))
    assert notices(page) == ["21 approved."]
    assert len(page.all("input", name="chosen")) == 6, "the next page"
    answer = browser.post("/console/review/undo", {"view": "grid"})
    assert notices(browser.page(str(answer.headers["Location"]))) == ["21 decisions taken back."]
    assert sum(task["verdict"] == "reject" for task in tasks(owner_db)) == 3
    assert sum(task["verdict"] == "approve" for task in tasks(owner_db)) == 0


def test_near_duplicates_are_decided_with_it(
    browse: Browse, db: Database, owner_db: Database, account: TestAccount
) -> None:
    base = bytes(range(32))
    in_doubt(db, account, "a", "b", "c", pdq={"a": base, "b": base, "c": bytes(32)})
    browser = browse("reviewer")
    page = take(browser)
    (near,) = (str(box.attributes["value"]) for box in page.all("input", name="near"))
    page = move(browser, page, verdict="approve", near=near)
    assert notices(page) == ["Approved, with a near-duplicate."]
    assert sorted(str(each) for each in decided(owner_db).values()) == ["None", "approve", "approve"]


def test_an_outdated_page_is_told_so(browse: Browse, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    browser = browse("reviewer")
    page = take(browser)
    move(browser, page, verdict="approve")
    late = browser.post(
        f"/console/review/{shown(page)}/decide", {"version": page.hidden("version"), "verdict": "approve"}
    )
    assert late.status_code == 409
    assert "moved on" in late.text


@pytest.mark.parametrize("what", ["decide", "skip", "escalate", "comment"])
def test_another_accounts_review_is_not_there(
    app: Flask, browse: Browse, db: Database, owner_db: Database, account: TestAccount, what: str
) -> None:
    from tests.api.browsers import signed_in, somebody

    in_doubt(db, account, "a")
    page = take(browse("reviewer"))
    other = make_account(owner_db, "globex")
    stranger = signed_in(app, owner_db, somebody(owner_db, other, "eve", "admin"))
    fields = {"version": page.hidden("version"), "verdict": "approve", "comment": "x"}
    assert stranger.post(f"/console/review/{shown(page)}/{what}", fields).status_code == 404
    assert "Nothing waits" in stranger.page("/console/review").text
    images = [str(i.attributes["src"]) for i in page.all("img") if "data-item" in i.attributes]
    assert stranger.get(images[0]).status_code == 404


def test_roles_and_tokens(browse: Browse, db: Database, account: TestAccount) -> None:
    in_doubt(db, account, "a")
    viewer, reviewer = browse("viewer"), browse("reviewer")
    assert viewer.get("/console/review").status_code == 403
    assert reviewer.get("/console/review/quality").status_code == 403
    page = take(reviewer)
    path, version = f"/console/review/{shown(page)}/decide", page.hidden("version")
    fields = {"version": version, "verdict": "approve"}
    assert reviewer.client.post(path, data=fields, headers=reviewer.headers).status_code == 403
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    token = {**fields, "csrf": reviewer.csrf}
    assert reviewer.client.post(path, data=token, headers=foreign).status_code == 403
    assert reviewer.post(path, fields).status_code == 303


def test_strangers_text_is_inert(browse: Browse, db: Database, owner_db: Database, account: TestAccount) -> None:
    nasty = {**verdict("review", NASTY), "scores": {NASTY: 0.9}, "policy": NASTY}
    nasty["reasons"][0] |= {"text": NASTY, "class": NASTY}
    work_off(db, account, {"a": nasty}, category=NASTY)
    with owner_db.transaction() as session:
        session.execute(text("ALTER TABLE review_tasks DISABLE ROW LEVEL SECURITY"))
        session.execute(text("UPDATE results SET tags = CAST(:tags AS jsonb)"),
                        {"tags": '[{"label": "<script>", "group": "g", "score": 0.5, "model": "m@1"}]'})  # fmt: skip
    browser = browse("curator")
    landing = browser.page("/console/review")
    one = take(browser)
    commented = move(browser, one, "comment", comment=NASTY)
    grid = browser.page("/console/review?view=grid")
    for page in (landing, one, commented, grid):
        assert "alert(1)" in page.text
        assert not [e for e in page.elements if e.tag == "script" and "src" not in e.attributes]
        assert not [e for e in page.elements if "onerror" in e.attributes or "style" in e.attributes]
        assert "60481729" not in page.text.replace("\u202f", "")


def test_quality(browse: Browse, db: Database, account: TestAccount) -> None:
    job = work_off(db, account, {f"p{n}": verdict("approve") for n in range(3)}, audit_share=1.0)
    curator = browse("curator")
    assert "Nobody has decided" in curator.page("/console/review/quality").text
    page = take(curator)
    move(curator, page, verdict="reject", own_code="nudity")
    browser_page = curator.page("/console/review/quality?days=7&policy=default")
    assert "100.0" in browser_page.text
    kept = curator.post("/console/review/quality/gold", {"item_id": f"{job.id.hex}-0", "verdict": "approve"})
    page = curator.page(str(kept.headers["Location"]))
    assert page.all("img", alt="Known picture 1, veiled")
    remove = next(str(f.attributes["action"]) for f in page.all("form") if "remove" in str(f.attributes["action"]))
    assert curator.post(remove).status_code == 303
    assert curator.post(remove).status_code == 404
    assert curator.post("/console/review/quality/gold", {"item_id": "x", "verdict": "approve"}).status_code == 404
