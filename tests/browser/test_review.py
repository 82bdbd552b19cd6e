"""The review pages as a reviewer uses them: by keys alone, on a phone, and without a script."""

import io
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from db.blobs import LocalBlobs, work_key
from db.session import Database
from tests.browser.conftest import PHONE, Console, Visit, too_wide
from tests.browser.contrast import FAINT, NAMELESS
from tests.conftest import TestAccount
from tests.db.reviewing import sha_of, tasks, verdict, work_off

NAMES = ("a", "b", "c", "d", "e", "f")
TOUCHED = """() => [...document.querySelectorAll("button, .button, .chip, input:not([type=hidden]), select, summary")]
  .filter((e) => e.checkVisibility() && !["checkbox", "radio"].includes(e.type))
  .filter((e) => e.getBoundingClientRect().height < 43.5).map((e) => e.outerHTML.slice(0, 120))"""


@pytest.fixture
def waiting(console: Console, db: Database, account: TestAccount) -> None:
    """Six red pictures in doubt, in this order; the first two are near-duplicates."""
    base = bytes(range(32))
    out = io.BytesIO()
    Image.new("RGB", (480, 360), "red").save(out, "JPEG")
    for name in NAMES:
        LocalBlobs(console.blobs).put(work_key(account.id, sha_of(name)), out.getvalue())
    pictures = {name: verdict("review", score=0.9 - n / 100) for n, name in enumerate(NAMES)}
    work_off(db, account, pictures, pdq={"a": base, "b": base}, context="listing")


def said(owner_db: Database) -> dict[str, str | None]:
    names = {sha_of(name): name for name in NAMES}
    return {names[bytes(task["sha256"])]: task["verdict"] for task in tasks(owner_db)}


def press(page: Any, key: str) -> None:
    """A key that sends a form: on to the page that follows."""
    with page.expect_navigation():
        page.keyboard.press(key)


def start(page: Any, how: str) -> None:
    page.goto("/console/review")
    with page.expect_navigation():
        page.get_by_role("button", name=how).click()
    page.wait_for_load_state("networkidle")


def test_one_by_one_with_keys_alone(visit: Visit, waiting: None, owner_db: Database) -> None:
    page, seen = visit("reviewer")
    start(page, "One by one")
    page.keyboard.press("n")
    page.locator("#near input:checked").wait_for()
    press(page, "a")
    assert said(owner_db) == {"a": "approve", "b": "approve", **dict.fromkeys("cdef")}
    page.get_by_text("Approved, with a near-duplicate.").wait_for()
    press(page, "u")
    assert said(owner_db) == dict.fromkeys(NAMES)
    page.keyboard.press("r")
    page.locator("body.choosing").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector("body.choosing", state="detached")
    page.keyboard.press("r")
    press(page, "2")
    with owner_db.transaction() as session:
        last = session.execute(text("SELECT verdict, code FROM decisions ORDER BY id DESC LIMIT 1")).one()
    assert last.verdict == "reject"
    page.keyboard.press("ArrowRight")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("c")
    page.keyboard.type("seen before: ask anna")
    page.keyboard.press("Escape")
    press(page, "e")
    press(page, "s")
    state = {task["level"] for task in tasks(owner_db)}
    assert state == {"reviewer", "curator"}
    assert sum(1 for task in tasks(owner_db) if task["skips"]) == 1
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    assert seen.nothing()


def middle(page: Any) -> list[int]:
    """The colour in the middle of the picture, as drawn."""
    colour: list[int] = page.evaluate(
        """async () => { const image = document.querySelector("img[data-item]"); await image.decode();
          const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
          const context = canvas.getContext("2d");
          context.drawImage(image, image.naturalWidth / 2, image.naturalHeight / 2, 1, 1, 0, 0, 1, 1);
          return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); }"""
    )
    return colour


def test_a_key_clears_the_picture_and_veils_it_again(visit: Visit, waiting: None, owner_db: Database) -> None:
    page, seen = visit("reviewer")
    start(page, "One by one")
    assert max(middle(page)) - min(middle(page)) < 8, "grey: what the browser has is grey"
    with page.expect_response("**/console/pictures/clear"):
        page.keyboard.press("b")
    page.get_by_role("button", name="Veil again").wait_for()
    page.wait_for_load_state("networkidle")
    red, green, _ = middle(page)
    assert red > 200 > 60 > green
    with owner_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM review_exposures")) == 1
    page.keyboard.press("b")
    page.get_by_role("button", name="Show clear").first.wait_for()
    assert max(middle(page)) - min(middle(page)) < 8
    page.keyboard.press("b")
    page.get_by_role("button", name="Veil again").wait_for()
    with owner_db.transaction() as session:
        assert session.scalar(text("SELECT shown FROM review_exposures")) == 1, "it was sent once"
    assert seen.nothing()


def test_the_grid_with_keys_alone(visit: Visit, waiting: None, owner_db: Database) -> None:
    page, seen = visit("reviewer")
    start(page, "A grid of 24")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator("[data-count]").inner_text() == "3"
    page.keyboard.press("Space")
    assert page.locator("[data-count]").inner_text() == "2"
    page.keyboard.press("r")
    press(page, "1")
    assert said(owner_db) == {"a": "reject", "b": "reject", **dict.fromkeys("cdef")}
    press(page, "a")
    assert said(owner_db)["c"] == "approve", "nothing was chosen: it is the one in focus"
    page.keyboard.press("*")
    assert page.locator("[data-count]").inner_text() == "3"
    press(page, "a")
    assert set(said(owner_db).values()) == {"reject", "approve"}
    page.get_by_text("Nothing waits").wait_for()
    press(page, "u")
    assert [said(owner_db)[name] for name in "cdef"] == ["approve", None, None, None]
    assert seen.nothing()


def test_on_a_phone(visit: Visit, waiting: None, owner_db: Database) -> None:
    page, seen = visit("curator", viewport=PHONE, context={"has_touch": True, "is_mobile": True})

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page.url
        assert too_wide(page) == [], page.url
        assert page.evaluate(TOUCHED) == [], page.url

    page.goto("/console/review/quality")
    fits()
    page.goto("/console/review")
    fits()
    with page.expect_navigation():
        page.get_by_role("button", name="One by one").tap()
    page.wait_for_load_state("networkidle")
    fits()
    page.get_by_role("button", name="Reject", exact=False).tap()
    page.locator("body.choosing").wait_for()
    assert said(owner_db)["a"] is None, "a rejection needs a reason"
    with page.expect_navigation():
        page.locator(".chip").first.tap()
    assert said(owner_db)["a"] == "reject"
    with page.expect_navigation():
        page.get_by_role("button", name="Give back").tap()
    with page.expect_navigation():
        page.get_by_role("button", name="A grid of 24").tap()
    page.wait_for_load_state("networkidle")
    fits()
    page.locator("#grid img").first.tap()
    with page.expect_navigation():
        page.get_by_role("button", name="Approve").tap()
    assert said(owner_db)["b"] == "approve"
    assert seen.nothing()


def test_without_scripts(visit: Visit, waiting: None, owner_db: Database) -> None:
    page, _ = visit("reviewer", context={"java_script_enabled": False})
    page.goto("/console/review")
    page.get_by_role("button", name="One by one").click()
    page.get_by_role("button", name="Show clear").first.click()
    assert "clear=" in str(page.locator("main img").first.get_attribute("src"))
    page.get_by_role("link", name="Back").click()
    page.locator(".chip").first.click()
    page.get_by_role("button", name="Reject").click()
    assert said(owner_db)["a"] == "reject"
    page.get_by_role("button", name="Undo").click()
    assert said(owner_db)["a"] is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_and_things_have_names(visit: Visit, waiting: None, theme: str) -> None:
    page, _ = visit("curator")
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")

    def good() -> None:
        assert page.evaluate(FAINT) == [], page.url
        assert page.evaluate(NAMELESS) == [], page.url

    page.goto("/console/review/quality")
    good()
    page.goto("/console/review")
    good()
    start(page, "One by one")
    good()
    page.get_by_role("button", name="Give back").click()
    start(page, "A grid of 24")
    page.keyboard.press("Space")
    good()
