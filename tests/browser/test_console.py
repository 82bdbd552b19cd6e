"""The console in a real Chromium: signing in, submitting, following, looking; keyboard, phone, contrast, no strangers'
scripts, nothing from another host."""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import jobs
from db.decisions import Decision, append
from db.jobs import JobSpec, NewItem
from db.session import Database
from tests.api.test_console_jobs import NASTY
from tests.browser.conftest import PHONE, Console, Visit, too_wide
from tests.browser.contrast import FAINT, NAMELESS
from tests.browser.shop import Shop, stock
from tests.conftest import TestAccount

PAGES = ("/console/jobs", "{job}", "{running}", "{job}/pictures", "{item}-0", "{item}-11", "{item}-10",
         "/console/jobs/new", "/console/system", "/console/people", "/console/own", "/console/nothing")  # fmt: skip


@pytest.fixture
def shop(owner_db: Database, account: TestAccount, console: Console) -> Shop:
    return stock(owner_db, account.id, console.blobs, count=40)


def paths(shop: Shop) -> list[str]:
    known = {"job": f"/console/jobs/{shop.finished}", "running": f"/console/jobs/{shop.running}",
             "item": f"/console/items/{shop.finished.hex}"}  # fmt: skip
    return [path.format(**known) for path in PAGES]


def everywhere(page: Any, shop: Shop) -> list[str]:
    """Those, and every page that the navigation leads to."""
    page.goto("/console/own")
    nav = page.locator("nav a").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    assert len(nav) > 3
    return list(dict.fromkeys([*paths(shop), *nav]))


def test_a_job_from_pasting_to_its_end(visit: Visit, owner_db: Database, account: TestAccount) -> None:
    """Submit, watch it go on without a reload, cancel."""
    page, seen = visit("reviewer")
    page.get_by_role("link", name="New job").first.click()
    page.get_by_label("One URL a line").fill("https://shop.example/1.jpg\nnot a url\n")
    page.get_by_role("button", name="Submit URLs").click()
    assert "line 2" in page.get_by_role("alert").last.inner_text()
    page.get_by_label("One URL a line").fill("https://shop.example/1.jpg\nhttps://shop.example/2.jpg\n")
    page.get_by_label("Name").first.fill("by hand")
    page.get_by_role("button", name="Submit URLs").click()
    page.get_by_text("2 pictures are on their way").wait_for()
    page.get_by_text("0 of 2").wait_for()
    with owner_db.transaction() as session:
        session.execute(text("UPDATE chunks SET failed = 1, codes = '{\"http_404\": 1}', progress = 1"))
    page.get_by_text("1 of 2").wait_for()
    assert page.evaluate("performance.getEntriesByType('navigation').length") == 1, "it was not loaded again"
    seen.dialogs.clear()
    page.once("dialog", lambda _: None)
    page.get_by_role("button", name="Cancel").click()
    assert seen.dialogs == ["Cancel this job? What is open gets no result."]
    with owner_db.transaction() as session:
        assert jobs.page(session, account.id)[0].state == "accepted", "dismissed: nothing happened"
    assert seen.complaints == []
    assert seen.foreign == []


def test_a_jobs_end_is_shown_by_itself(visit: Visit, owner_db: Database, shop: Shop) -> None:
    """What else the end changes (verdicts, tags, retry) is there too."""
    page, seen = visit("reviewer")
    page.goto(f"/console/jobs/{shop.running}")
    assert page.get_by_role("button", name="Retry failures").count() == 0
    with owner_db.transaction() as session:
        session.execute(
            text("UPDATE jobs SET state = 'finished', settled_at = now() WHERE id = :id"), {"id": shop.running}
        )
    page.get_by_role("button", name="Retry failures").wait_for()
    assert seen.nothing()


def test_files_are_uploaded(visit: Visit, owner_db: Database, account: TestAccount) -> None:
    page, seen = visit("reviewer")
    page.goto("/console/jobs/new")
    files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": bytes([n]) * 1000} for n in range(3)]
    page.locator("input[type=file]").set_input_files(files)
    assert "3 files" in page.locator("[data-chosen]").inner_text()
    page.get_by_role("button", name="Upload").click()
    page.get_by_text("3 pictures are on their way").wait_for()
    with owner_db.transaction() as session:
        assert jobs.page(session, account.id)[0].total == 3
    assert seen.nothing()


def test_a_veiled_picture_is_shown_clear_when_asked(visit: Visit, shop: Shop) -> None:
    page, seen = visit("reviewer")
    page.goto(f"/console/items/{shop.finished.hex}-11")
    picture = page.locator("#picture img")

    def coloured() -> bool:
        """Whether the pixels that the browser got have any colour."""
        found: bool = page.evaluate(
            """async (e) => { await e.decode(); const c = document.createElement("canvas"); c.width = c.height = 32;
              const g = c.getContext("2d"); g.drawImage(e, 0, 0, 32, 32); const d = g.getImageData(0, 0, 32, 32).data;
              for (let i = 0; i < d.length; i += 4)
                if (Math.abs(d[i] - d[i + 1]) + Math.abs(d[i + 1] - d[i + 2]) > 24) return true;
              return false; }""",
            picture.element_handle(),
        )
        return found

    assert not coloured()
    with page.expect_response("**/console/pictures/clear"):
        page.get_by_role("button", name="Show clear").click()
    page.wait_for_selector("#picture img[src*='clear=']")
    assert coloured()
    assert seen.nothing()


def test_everything_works_without_scripts(visit: Visit, shop: Shop) -> None:
    page, _ = visit("reviewer", context={"java_script_enabled": False})
    page.goto(f"/console/jobs/{shop.finished}/pictures?verdict=review")
    page.get_by_role("button", name="Show clear").click()
    page.locator("img[src*='clear=']").first.wait_for()
    page.get_by_role("link", name="Back").click()
    page.wait_for_url("**/pictures")
    page.goto(f"/console/jobs/{shop.running}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The job is cancelled").wait_for()


def test_the_keyboard_is_enough(visit: Visit, shop: Shop) -> None:
    """Tab leads through the page in order, what has the focus is seen, and Enter follows it."""
    page, seen = visit("viewer")
    page.goto("/console/jobs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):
        page.keyboard.press("Tab")
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid", "the focus is not seen"
        if page.evaluate("document.activeElement.textContent") == "Spring collection":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/console/jobs/{shop.finished}")
    assert seen.nothing()


def test_the_theme_follows_the_machine_until_somebody_chooses(visit: Visit) -> None:
    page, seen = visit("viewer")
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.get_by_role("button", name="Theme: Light").click()
    page.wait_for_load_state()
    assert page.evaluate(ground) == light, "chosen, whatever the machine has"
    assert seen.nothing()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_and_things_have_names(visit: Visit, shop: Shop, theme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 (3 to 1 for large text); 4.1.2: every control has a name."""
    page, seen = visit("admin", operator=True)
    page.emulate_media(color_scheme=theme)
    for path in everywhere(page, shop):
        page.goto(path)
        assert page.evaluate(FAINT) == [], path
        assert page.evaluate(NAMELESS) == [], path
    assert seen.complaints == []
    assert seen.dialogs == []
    assert seen.foreign == []


def test_axe_finds_nothing(visit: Visit, shop: Shop) -> None:
    """With axe-core, where it was put: `npm install axe-core`, and TAGMILL_AXE names its axe.min.js."""
    script = os.environ.get("TAGMILL_AXE", "")
    if not Path(script).is_file():
        pytest.skip("no axe-core here: set TAGMILL_AXE to its axe.min.js")
    page, _ = visit("admin", operator=True, context={"bypass_csp": True})
    for path in everywhere(page, shop):
        page.goto(path)
        page.add_script_tag(path=script)
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa']})")
        told = [f"{each['id']}: {each['nodes'][0]['html'][:150]}" for each in found["violations"]]
        assert told == [], path


def test_a_phone_scrolls_down_only_and_can_be_touched(visit: Visit, shop: Shop) -> None:
    page, _ = visit("admin", operator=True, viewport=PHONE, context={"has_touch": True, "is_mobile": True})
    for path in everywhere(page, shop):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        assert too_wide(page) == [], path
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, .button, input:not([type=hidden]), select, .menu-button")]
              .filter((e) => e.checkVisibility() && !["checkbox", "radio", "file"].includes(e.type))
              .filter((e) => e.getBoundingClientRect().height < 43.5).map((e) => e.outerHTML.slice(0, 120))"""
        )
        assert small == [], path
    page.get_by_role("button", name="Menu").tap()
    page.get_by_role("link", name="People").tap()
    page.wait_for_url("**/console/people")


def test_strangers_scripts_do_not_run(
    visit: Visit, owner_db: Database, account: TestAccount, console: Console, shop: Shop
) -> None:
    """Planted wherever a stranger's text is shown: no dialog, no broken policy, no request to anywhere."""
    nasty = NASTY + "<img src=https://evil.example/x.png><a href=javascript:alert(3)>x</a>"
    items = [NewItem(filename=nasty, raw_key=f"raw/1/00/{'0' * 64}", client_id=nasty[:250], product_id=nasty[:250])]
    with owner_db.transaction() as session:
        job = jobs.submit(session, account.id, JobSpec(name=nasty[:200]), items, max_items=10)
        session.execute(
            text(
                "UPDATE results SET tags = jsonb_build_array(tags -> 0 || jsonb_build_object('label', CAST(:x AS"
                " text))), moderation = moderation || jsonb_build_object('policy', CAST(:x AS text))"
                " WHERE outcome = 'done'"
            ),
            {"x": nasty},
        )
        session.execute(text("UPDATE items SET filename = NULL, client_id = :x WHERE job_id = :job"),
                        {"x": nasty[:250], "job": shop.finished})  # fmt: skip
        session.execute(text("UPDATE accounts SET name = :x WHERE id = :id"), {"x": nasty[:200], "id": account.id})
        sha = session.execute(
            text("SELECT sha256 FROM results WHERE seq = 0 AND job_id = :job"), {"job": shop.finished}
        )
        words = {"code": nasty, "text": nasty, "comment": nasty}
        said = Decision(shop.finished, 0, sha.scalar_one(), "listing", "review", "reject", nasty, **words)
        append(session, account.id, [said])
    page, seen = visit("admin", operator=True)
    for path in (*everywhere(page, shop), f"/console/jobs/{job.id}", f"/console/items/{job.id.hex}-0"):
        page.goto(path, wait_until="networkidle")
        assert page.locator("a[href^='javascript']").count() == 0, path
    assert seen.dialogs == []
    assert seen.foreign == []
    assert seen.complaints == []


def test_the_policy_of_the_page_stops_what_got_through(visit: Visit) -> None:
    """The second wall: even markup that was written into the page runs nothing and loads nothing."""
    page, seen = visit("viewer")
    blocked = page.evaluate(
        """() => [
          () => document.createElement("img").setAttribute("onerror", "alert(1)"),
          () => { document.body.innerHTML = "<b>x</b>"; },
          () => { document.createElement("script").text = "alert(2)"; },
        ].map((act) => { try { act(); return "done"; } catch (error) { return error.name; } })"""
    )
    assert "done" not in blocked
    page.evaluate(
        """() => { const style = document.createElement("style"); style.textContent = "body { display: none }";
          const far = document.createElement("img"); far.src = "https://evil.example/x.png";
          document.body.append(style, far); }"""
    )
    page.wait_for_timeout(200)
    assert seen.dialogs == []
    assert page.evaluate("getComputedStyle(document.body).display") != "none"


def test_another_sites_form_does_nothing(visit: Visit, chromium: Any, console: Console) -> None:
    """A page of another origin, in the same browser, posts to ours: refused, and the session goes on."""
    page, _ = visit("viewer")
    form = f"<form method=post action='{console.url}/console/sign-out'><input name=csrf><button>go</button></form>"
    page.route("http://evil.example/**", lambda route: route.fulfill(content_type="text/html", body=form))
    page.goto("http://evil.example/")
    with page.expect_navigation():
        page.get_by_role("button", name="go").click()
    assert "foreign_origin" in page.content() or "signed_out" in page.content()
    page.goto(f"{console.url}/console/own")
    page.get_by_role("heading", name="Password").wait_for()


def test_a_photo_that_is_dropped_may_be_large(visit: Visit) -> None:
    """More than what a form may have: an upload is read as it comes."""
    page, _ = visit("reviewer")
    page.goto("/console/jobs/new")
    data = io.BytesIO(os.urandom(3 << 20)).getvalue()
    page.locator("input[type=file]").set_input_files([{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": data}])
    page.get_by_role("button", name="Upload").click()
    page.get_by_text("on their way").wait_for()
