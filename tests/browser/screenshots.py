"""Pictures of every page of the console, both themes, both widths: `python -m tests.browser.screenshots FOLDER`.

To be looked at by people. With `--photos FOLDER` the shop's pictures are those; else they are drawn.
"""

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from db import accounts, migrate, people, sign_in
from db.session import API_ROLE, Database
from tests.api.conftest import gunicorn
from tests.browser.conftest import DESKTOP, PHONE, QUIET, executable
from tests.browser.shop import Shop, stock, wait_for_people
from worker.embedded import EmbeddedPostgres


def pages(shop: Shop) -> dict[str, str]:
    """Name → path."""
    job, item = f"/console/jobs/{shop.finished}", f"/console/items/{shop.finished.hex}"
    return {
        "jobs": "/console/jobs", "job": job, "job-running": f"/console/jobs/{shop.running}",
        "pictures": f"{job}/pictures", "item": f"{item}-0", "item-review": f"{item}-11", "item-decided": f"{item}-5",
        "item-failed": f"{item}-10",
        "job-new": "/console/jobs/new", "system": "/console/system", "people": "/console/people", "own": "/console/own",
        "missing": "/console/nothing-here",
    }  # fmt: skip


def main() -> None:
    """Everything in a throw-away database."""
    asked = argparse.ArgumentParser()
    asked.add_argument("folder", type=Path)
    asked.add_argument("--photos", type=Path)
    asked.add_argument("--only", default="")
    asked.add_argument("--more", nargs="*", default=[], help="more paths")
    given = asked.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, EmbeddedPostgres(Path(scratch) / "postgres") as postgres:
        migrate.upgrade(postgres.url)
        database = Database(postgres.url)
        with database.transaction() as session:
            account = accounts.create(session, "acme")
            person = people.create(session, account.id, "anna", role="admin", email="anna@shop.example", actor="cli")
            people.set_operator(session, person, True, actor="cli")
            people.create(session, account.id, "berta", role="reviewer", actor="cli")
            link = sign_in.issue_link(session, person, actor="cli")
        shop = stock(database, account.id, Path(scratch) / "blobs", given.photos)
        wait_for_people(database, account.id, shop)
        wanted = {name: path for name, path in pages(shop).items() if re.search(given.only, name)}
        wanted |= {path.strip("/").replace("/", "-"): path for path in given.more}
        with gunicorn(postgres.url, Path(scratch), database_role=API_ROLE) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable(), args=list(QUIET))
            shoot(browser, f"http://{server.address}", link, wanted, given.folder)
            browser.close()
        database.dispose()


def shoot(browser: Any, url: str, link: str, wanted: dict[str, str], folder: Path) -> None:
    """Sign in once, and take every page four times."""
    context = browser.new_context(base_url=url)
    page = context.new_page()
    page.goto("/console/sign-in")
    page.screenshot(path=folder / "sign-in.png")
    page.goto(f"/console/link/{link}")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/**")
    for width, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size(viewport)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for name, path in wanted.items():
                page.goto(path, wait_until="networkidle")
                page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=True)
    page.set_viewport_size(DESKTOP)
    page.goto("/console/review")
    page.get_by_role("button", name="One by one").click()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"review-desktop-{theme}.png")
    context.close()


if __name__ == "__main__":
    main()
