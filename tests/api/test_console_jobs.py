"""The console's jobs: submit by URLs and files, follow, cancel, retry, look at pictures; strangers' text is inert."""

import io
import itertools
import json
from collections.abc import Callable
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import text

from db import jobs
from db.blobs import work_key
from db.decisions import Decision, append
from db.jobs import JobSpec, NewItem
from db.session import Database
from tests.api.browsers import OWN, Browser, Page
from tests.api.rows import count, settle
from tests.conftest import TestAccount

Browse = Callable[..., Browser]
SHA = bytes(range(32))
NASTY = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7777*7777}}"


def submitted(database: Database, account: TestAccount, items: list[NewItem], **spec: str) -> UUID:
    with database.transaction() as session:
        return jobs.submit(session, account.id, JobSpec(**spec), items, max_items=100).id


def urls(*names: str) -> list[NewItem]:
    return [NewItem(url=f"https://shop.example/{name}.jpg") for name in names]


def picture(app: Flask, account: TestAccount, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """The working copy of the picture SHA, as the crawler would have written it: half one colour, half white."""
    drawn = Image.new("RGB", (400, 300), (255, 255, 255))
    drawn.paste(colour, (0, 0, 200, 300))
    out = io.BytesIO()
    drawn.save(out, "JPEG", quality=90)
    app.extensions["tagmill"].blobs.put(work_key(account.id, SHA), out.getvalue())
    return out.getvalue()


def test_the_list_pages_and_filters(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    for n in range(27):
        submitted(owner_db, account, urls("a"), name=f"job-{n:02d}")
    browser = browse("viewer")
    page = browser.page("/console/jobs")
    assert "job-26" in page.text
    assert "job-01" not in page.text
    following = browser.page(str(page.all("a", rel="next")[0].attributes["href"]))
    assert "job-01" in following.text
    assert "job-26" not in following.text
    assert "job-26" not in browser.page("/console/jobs?state=finished").text
    assert browser.get("/console/jobs?state=nonsense").status_code == 400
    assert browser.get("/console/jobs?cursor=AAAA").status_code == 400


def test_pasted_urls_become_a_job(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    browser = browse("reviewer")
    lines = "https://shop.example/1.jpg\r\n\r\n  http://shop.example/2.jpg  \r\n"
    fields = {"urls": lines, "name": "spring", "analyses": ["tags"], "context": "listing", "lane": "interactive"}
    answer = browser.post("/console/jobs/urls", fields)
    assert answer.status_code == 303
    page = browser.page(answer.headers["Location"])
    assert "2 pictures are on their way" in page.text
    assert "2 pictures are on their way" not in browser.page(answer.headers["Location"]).text, "said once"
    with owner_db.transaction() as session:
        (job,) = jobs.page(session, account.id)
        found = session.execute(text("SELECT url FROM items ORDER BY seq")).scalars().all()
    assert (job.name, job.analyses, job.context, job.lane) == ("spring", ["tags"], "listing", "interactive")
    assert found == ["https://shop.example/1.jpg", "http://shop.example/2.jpg"]


def test_a_bad_line_is_named_and_nothing_is_lost(browse: Browse, owner_db: Database) -> None:
    browser = browse("reviewer")
    lines = "https://shop.example/1.jpg\nfile:///etc/passwd\n"
    answer = browser.post("/console/jobs/urls", {"urls": lines, "analyses": "tags"})
    assert answer.status_code == 422
    page = Page(answer.text)
    assert "line 2" in page.text
    assert page.all("textarea")[0].text.strip() == lines.strip(), "the lines are still there to be mended"
    assert count(owner_db, "jobs") == 0
    assert browser.post("/console/jobs/urls", {"urls": " \n", "analyses": "tags"}).status_code == 422
    assert browser.post("/console/jobs/urls", {"urls": "https://a.example/", "context": "Bad!"}).status_code == 422


def test_files_become_a_job(browse: Browse, owner_db: Database, account: TestAccount, app: Flask) -> None:
    browser = browse("reviewer")
    form = next(each for each in browser.page("/console/jobs/new").all("form") if each.attributes.get("enctype"))
    fields = {
        "name": "from my disk", "analyses": ["tags", "moderation"], "context": "", "lane": "bulk",
        "files": [(io.BytesIO(b"one"), "a.jpg"), (io.BytesIO(b"two"), "../../etc/b.jpg")],
    }  # fmt: skip
    answer = browser.client.post(str(form.attributes["action"]), data=fields, headers=OWN)
    assert answer.status_code == 303, answer.text
    with owner_db.transaction() as session:
        (job,) = jobs.page(session, account.id)
        rows = session.execute(text("SELECT filename, raw_key FROM items ORDER BY seq")).all()
    assert (job.name, job.total, job.analyses) == ("from my disk", 2, ["tags", "moderation"])
    assert [row.filename for row in rows] == ["a.jpg", "etc/b.jpg"]
    assert [app.extensions["tagmill"].blobs.get(row.raw_key) for row in rows] == [b"one", b"two"]


@pytest.mark.parametrize("token", ["", "token=", "token=x", "csrf"])
def test_an_upload_needs_its_token(browse: Browse, owner_db: Database, token: str) -> None:
    browser = browse("reviewer")
    # Not even the token of the other forms: addresses end up in logs, so this one opens nothing else.
    given = f"token={browser.csrf}" if token == "csrf" else token
    fields = {"analyses": "tags", "files": [(io.BytesIO(b"one"), "a.jpg")]}
    answer = browser.client.post(f"/console/jobs/files?{given}", data=fields, headers=OWN)
    assert answer.status_code == 403
    assert count(owner_db, "jobs") == 0


def test_a_refused_upload_keeps_nothing(browse: Browse, owner_db: Database, app: Flask) -> None:
    browser = browse("reviewer")
    form = next(each for each in browser.page("/console/jobs/new").all("form") if each.attributes.get("enctype"))
    for fields in ({"analyses": "nonsense", "files": [(io.BytesIO(b"one"), "a.jpg")]}, {"analyses": "tags"}):
        answer = browser.client.post(
            str(form.attributes["action"]), data=fields, headers=OWN, content_type="multipart/form-data"
        )
        assert answer.status_code == 422
    assert count(owner_db, "jobs") == 0
    assert [path for path in app.extensions["tagmill"].blobs.root.rglob("*") if path.is_file()] == []


def test_who_only_looks_may_not_submit_cancel_or_retry(
    browse: Browse, owner_db: Database, account: TestAccount
) -> None:
    job = submitted(owner_db, account, urls("a"))
    browser = browse("viewer")
    assert "/console/jobs/new" not in browser.get("/console/jobs").text
    for path in ("urls", f"{job}/cancel", f"{job}/retry"):
        assert browser.post(f"/console/jobs/{path}", {"urls": "https://a.example/"}).status_code == 403
    assert browser.get("/console/jobs/new").status_code == 403


def test_a_running_job_is_shown_live_and_cancelled(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    job = submitted(owner_db, account, urls("a", "b"))
    browser = browse("reviewer")
    live = browser.page(f"/console/jobs/{job}/progress")
    assert live.all("section")[0].attributes["data-refresh"] == f"/console/jobs/{job}/progress"
    assert browser.post(f"/console/jobs/{job}/cancel").status_code == 303
    assert "cancelled" in browser.page(f"/console/jobs/{job}").text
    with owner_db.transaction() as session:
        actor = session.execute(text("SELECT actor FROM audit_log WHERE action = 'job.cancel'")).scalar_one()
    assert browser.person is not None
    assert actor == browser.person.actor


def test_the_page_says_what_was_reused(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    job = submitted(owner_db, account, urls("a", "b"))
    browser = browse("viewer")
    assert "not fetched again" not in browser.page(f"/console/jobs/{job}").text
    with owner_db.transaction() as session:
        reused = json.dumps({"not_modified": 2, "known_bytes": 1})
        session.execute(text("UPDATE chunks SET reused = CAST(:reused AS jsonb)"), {"reused": reused})
    assert "2 not fetched again" in browser.page(f"/console/jobs/{job}").text
    assert "1 not decoded again" in browser.get(f"/console/jobs/{job}/progress").text


def test_failures_by_code_and_host_and_their_retry(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    items = [
        NewItem(url=f"https://{host}/{n}.jpg") for n, host in enumerate(["a.example:8443", "b.example", "B.example"])
    ]
    job = submitted(owner_db, account, items)
    settle(owner_db, str(job), {0: None, 1: "http_404", 2: "http_503"})
    with owner_db.transaction() as session:
        session.execute(
            text("UPDATE chunks SET failed = 2, done = 1, codes = CAST(:codes AS jsonb) WHERE job_id = :id"),
            {"id": job, "codes": '{"http_404": 1, "http_5xx": 1}'},
        )
        session.execute(text("UPDATE results SET code = 'http_5xx' WHERE code = 'http_503'"))
    browser = browse("reviewer")
    page = browser.page(f"/console/jobs/{job}")
    assert not page.all("section", **{"data-refresh": f"/console/jobs/{job}/progress"}), "it has ended"
    hosts = [each.text for each in page.all("th", scope="row")]
    assert "b.example" in hosts, "host names are compared without case"
    assert "http_404" in page.text
    answer = browser.post(f"/console/jobs/{job}/retry", {"only": "http_5xx"})
    assert answer.status_code == 303
    assert "1 picture goes back to work" in browser.page(f"/console/jobs/{job}").text
    assert browser.post(f"/console/jobs/{job}/retry", {"only": "nonsense"}).status_code == 422
    assert browser.post(f"/console/jobs/{job}/retry", {"only": "all"}).status_code == 409, "it is at work"


def test_the_gallery_filters(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    job = submitted(owner_db, account, urls("a", "b", "c"))
    settle(owner_db, str(job), {0: None, 1: "http_404"})
    with owner_db.transaction() as session:
        session.execute(text("UPDATE jobs SET state = 'running', settled_at = NULL"))
    browser = browse("viewer")

    def shown(query: str) -> int:
        return len(browser.page(f"/console/jobs/{job}/pictures?{query}").all("a", **{"class": "shot"}))

    assert shown("") == 3
    assert shown("outcome=&verdict=&tag=&code=") == 3, "an untouched filter form"
    assert shown("outcome=done") == 1
    assert shown("outcome=open") == 1
    assert shown("code=http_404") == 1
    assert shown("code=http_404&outcome=done") == 0
    assert shown("verdict=approve") == 1
    assert shown("verdict=reject") == 0
    assert shown("tag=dress") == 1
    assert shown("tag=dres") == 0
    assert browser.get(f"/console/jobs/{job}/pictures?code=nonsense").status_code == 400
    with owner_db.transaction() as session:
        append(session, account.id, [Decision(job, 0, SHA, "", "review", "reject", "user:x", code="nudity")])
    assert shown("verdict=approve") == 0, "a person's verdict is the one that counts"
    assert shown("verdict=reject") == 1


def test_an_item_says_why(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    job = submitted(owner_db, account, urls("a"))
    settle(owner_db, str(job), {0: None})
    browser = browse("viewer")
    assert browser.person is not None
    said = Decision(job, 0, SHA, "", "review", "reject", browser.person.actor, code="nudity", comment="see the left")
    with owner_db.transaction() as session:
        append(session, account.id, [said])
    page = browser.page(f"/console/items/{job.hex}-0")
    for words in ("Neutral", "0.970", "dress", "0.91", "nsfwjs@1", "nudity", "see the left", browser.person.name):
        assert words in page.text, words
    assert not page.all("img", src="https://shop.example/a.jpg"), "no page loads a seller's URL"


# --- pictures ------------------------------------------------------------------------------------------------


def colours(data: bytes) -> tuple[Image.Image, bool]:
    """The picture, and whether it is grey."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    grey = all(abs(r - g) < 6 and abs(g - b) < 6 for r, g, b in image.resize((16, 16)).get_flattened_data())
    return image, grey


def test_what_is_approved_is_shown_and_small(
    browse: Browse, owner_db: Database, account: TestAccount, app: Flask
) -> None:
    job = submitted(owner_db, account, urls("a"))
    settle(owner_db, str(job), {0: None})
    picture(app, account)
    browser = browse("viewer")
    answer = browser.get(f"/console/pictures/{job.hex}-0?size=96")
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")
    assert answer.headers["Cache-Control"].startswith("private")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    image, grey = colours(answer.data)
    assert image.size == (96, 72)
    assert not grey
    assert browser.get(f"/console/pictures/{job.hex}-0?size=97").status_code == 400
    _, veiled = colours(browser.get(f"/console/pictures/{job.hex}-0?veil=true").data)
    assert veiled, "a page may ask for the veil, so that the picture does not tell the verdict"


def test_what_is_not_approved_is_veiled_until_it_is_asked_for(
    browse: Browse, owner_db: Database, account: TestAccount, app: Flask
) -> None:
    job = submitted(owner_db, account, urls("a"))
    settle(owner_db, str(job), {0: None})
    with owner_db.transaction() as session:
        session.execute(text("UPDATE results SET moderation = jsonb_set(moderation, '{verdict}', '\"review\"')"))
    picture(app, account)
    item = f"{job.hex}-0"
    browser = browse("reviewer")
    veiled, grey = colours(browser.get(f"/console/pictures/{item}?size=240").data)
    assert grey
    assert veiled.size == (240, 180)
    row = [veiled.getpixel((x, 90))[0] for x in range(240)]  # type: ignore[index]
    steps = [abs(a - b) for a, b in itertools.pairwise(row)]
    assert max(steps) < 20, "the edge in the middle is gone"
    for forged in ("9999999999.x", "x", f"{'9' * 13}.x", "9999999999." + "A" * 43):
        assert colours(browser.get(f"/console/pictures/{item}?clear={forged}").data)[1]
    told = browser.post("/console/pictures/clear", {"items": [item], "size": "240"}, json=True).get_json()
    address = told["pictures"][item]
    assert not colours(browser.get(address).data)[1]
    assert colours(browse("reviewer").get(address).data)[1], "a grant is of one session"
    parts = urlsplit(address)
    assert colours(browser.get(f"{parts.path}?{parts.query.replace('clear=', 'clear=1')}").data)[1], "nor longer"
    assert browse("viewer").post("/console/pictures/clear", {"items": [item]}, json=True).status_code == 403
    page = browser.post("/console/pictures/clear", {"items": [item]})
    assert "clear=" in str(Page(page.text).all("img")[-1].attributes["src"]), "a page for who has no scripts"


def test_guessed_addresses_and_other_accounts_are_not_found(
    browse: Browse, owner_db: Database, account: TestAccount, other: TestAccount, app: Flask
) -> None:
    job = submitted(owner_db, other, urls("a"), name="theirs")
    settle(owner_db, str(job), {0: None})
    picture(app, other)
    browser = browse("admin")
    for path in (
        f"/console/pictures/{job.hex}-0", f"/console/pictures/{job.hex}-1", "/console/pictures/x",
        f"/console/items/{job.hex}-0", f"/console/jobs/{job}", f"/console/jobs/{job}/progress",
        f"/console/jobs/{job}/pictures", "/console/static/../pages.py", "/console/static/nothing.css",
        "/console/pictures/..%2f..%2fetc%2fpasswd",
    ):  # fmt: skip
        assert browser.get(path).status_code == 404, path
    for path in ("cancel", "retry"):
        assert (
            browser.post(f"/console/jobs/{job}/{path}", {"only": "all"} if path == "retry" else {}).status_code == 404
        )
    assert browser.post("/console/pictures/clear", {"items": f"{job.hex}-0"}).status_code == 404
    assert "theirs" not in browser.get("/console/jobs").text
    assert browse("viewer", of=other).get(f"/console/pictures/{job.hex}-0").status_code == 200


# --- strangers' text -----------------------------------------------------------------------------------------


def test_markup_of_strangers_is_text(browse: Browse, owner_db: Database, account: TestAccount, app: Flask) -> None:
    """In names, ids, file names, tags, codes of policies, comments: parsed, the pages have no element of theirs."""
    items = [NewItem(filename=NASTY, raw_key=f"raw/1/00/{'0' * 64}", client_id=NASTY, product_id=NASTY)]
    job = submitted(owner_db, account, items, name=NASTY)
    settle(owner_db, str(job), {0: None})
    tag = {"label": NASTY, "group": NASTY, "score": 0.5, "model": NASTY}
    names = dict.fromkeys(("verdict", "code", "text", "rule", "class"), NASTY)
    reasons = [{**names, "score": 0.5, "threshold": 0.1}]
    moderation = {
        **dict.fromkeys(("verdict", "policy", "model", "rule"), NASTY),
        "scores": {NASTY: 0.5},
        "reasons": reasons,
    }
    with owner_db.transaction() as session:
        session.execute(
            text("UPDATE results SET tags = CAST(:tags AS jsonb), moderation = CAST(:moderation AS jsonb)"),
            {"tags": json.dumps([tag]), "moderation": json.dumps(moderation)},
        )
        session.execute(text("UPDATE accounts SET name = :x WHERE id = :id"), {"x": NASTY[:190], "id": account.id})
        said = Decision(job, 0, SHA, "", "review", "reject", NASTY, code=NASTY, text=NASTY, comment=NASTY, policy=NASTY)
        append(session, account.id, [said])
    browser = browse("admin", name="planted")
    pages = ["/console/jobs", f"/console/jobs/{job}", f"/console/jobs/{job}/pictures", f"/console/items/{job.hex}-0",
             "/console/own", f"/console/jobs/{job}/pictures?tag={NASTY}", f"/console/{NASTY}"]  # fmt: skip
    for path in pages:
        answer = browser.get(path)
        assert "alert(1)" in answer.text, f"{path} does not show it at all"
        page = Page(answer.text)
        inline = [each for each in page.all("script") if "src" not in each.attributes or each.text.strip()]
        assert not inline, path
        handlers = [name for each in page.elements for name in each.attributes if name.startswith("on")]
        assert not handlers, path
        sources = {str(each.attributes.get("src", "/")) for each in page.elements}
        assert all(source.startswith("/") for source in sources), path
        assert str(7777 * 7777) not in answer.text, "a template of theirs was run"
