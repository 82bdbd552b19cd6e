"""A real Chromium before a real server. Skipped, saying so, where there is no Chromium."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from db import sign_in
from db.session import API_ROLE, Database
from tests.api.browsers import somebody
from tests.api.conftest import gunicorn
from tests.conftest import TestAccount

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser tests")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}


def executable() -> str:
    """The Chromium to drive; skips the test where there is none."""
    found = os.environ.get("TAGMILL_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found is None or not Path(found).exists():
        pytest.skip("no Chromium here: set TAGMILL_CHROMIUM to one")
    return found


@pytest.fixture(scope="module")  # while it lives, its event loop runs in this thread, and no other one can
def chromium() -> Iterator[Any]:
    path = executable()
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page did that no page of ours may do."""

    dialogs: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def nothing(self) -> bool:
        """Whether it did none of it."""
        return not (self.dialogs or self.complaints or self.foreign)


@dataclass(frozen=True)
class Console:
    """A server with the console, and its blob store."""

    url: str
    blobs: Path


@pytest.fixture
def console(database_url: str, tmp_path: Path) -> Iterator[Console]:
    """The API role as it is run, seeing Postgres as the API does."""
    with gunicorn(database_url, tmp_path, database_role=API_ROLE) as server:
        yield Console(f"http://{server.address}", tmp_path / "blobs")


Visit = Callable[..., tuple[Any, Seen]]


@pytest.fixture
def visit(chromium: Any, console: Console, owner_db: Database, account: TestAccount) -> Iterator[Visit]:
    """`page, seen = visit("curator")`: a page of the browser in which somebody new is signed in, by their link."""
    contexts = []

    def enter(role: str = "admin", **given: Any) -> tuple[Any, Seen]:
        options = {"viewport": given.pop("viewport", DESKTOP), **given.pop("context", {})}
        person = somebody(owner_db, account, f"{role}{len(contexts)}", role, **given)
        with owner_db.transaction() as session:
            link = sign_in.issue_link(session, person, actor="test")
        context = chromium.new_context(base_url=console.url, **options)
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        seen = watched(page, console.url)
        page.goto(f"/console/link/{link}")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console/**")
        return page, seen

    yield enter
    for context in contexts:
        context.close()


def watched(page: Any, url: str) -> Seen:
    """Note dialogs, complaints of the console (a policy that was broken, a script that failed), foreign requests."""
    seen = Seen()

    def dialog(opened: Any) -> None:
        seen.dialogs.append(opened.message)
        opened.dismiss()

    def complain(text: str) -> None:
        # That an answer was 4xx is no fault of the page: tests look at answers themselves.
        if not text.startswith("Failed to load resource: the server responded with a status of 4"):
            seen.complaints.append(text)

    page.on("dialog", dialog)
    page.on("console", lambda said: complain(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("request", lambda sent: seen.foreign.append(sent.url) if not sent.url.startswith(url) else None)
    return seen


def too_wide(page: Any) -> list[str]:
    """Elements that stick out of the page at the right, where nothing around them scrolls."""
    found: list[str] = page.evaluate(
        """() => {
          const wide = document.documentElement.clientWidth;
          const scrolls = (e) => { for (let p = e.parentElement; p; p = p.parentElement) {
            if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(p).overflowX)) return true; }
            return false; };
          return [...document.querySelectorAll("body *")].filter((e) => { const box = e.getBoundingClientRect();
            return box.width && box.right > wide + 1 && !scrolls(e); })
            .map((e) => e.tagName + "." + e.className + " " + Math.round(e.getBoundingClientRect().right)); }"""
    )
    return found
