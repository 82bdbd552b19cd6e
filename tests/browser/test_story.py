"""The whole way in a real browser, over real processes: submit, watch, review, correct a tag, see it in the catalog."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.session import Database
from tests.browser.conftest import Console, Visit
from tests.conftest import TestAccount
from tests.faults.system import COLOURS, Pictures, System
from tests.hostile import HostileServer
from tests.misbehaviour import png

PRODUCT = "coat <b>7</b>"


@pytest.fixture
def system(
    console: Console, database_url: str, broker_url: str, owner_db: Database, account: TestAccount, tmp_path: Path
) -> Iterator[System]:
    """Crawler, worker and maintenance as processes, on the database of the console."""
    with HostileServer(files={}) as server:
        made = System(tmp_path, database_url, broker_url, account.id, server, Pictures(), owner_db)
        made.install_models()
        made.mend()
        yield made
        made.close()


@pytest.mark.slow
def test_from_files_to_the_catalog(visit: Visit, system: System) -> None:
    """Three pictures of a product: what the machine is unsure of waits for a person, and a person's word counts."""
    page, seen = visit("curator")

    # Submit, by dropping files.
    page.goto("/console/jobs/new")
    form = page.locator("form[enctype]")
    form.get_by_text("More").click()
    form.get_by_label("Product").fill(PRODUCT)
    files = [
        {"name": f"{name}.png", "mimeType": "image/png", "buffer": png(64, 48, COLOURS[name])}
        for name in ("grey", "green", "blue")
    ]
    form.locator("input[type=file]").set_input_files(files)
    form.get_by_role("button", name="Upload").click()

    # Watch: the page goes on by itself to its end.
    page.get_by_text("3 pictures are on their way").wait_for()
    page.get_by_text("3 of 3").wait_for(timeout=90_000)
    page.wait_for_selector("[data-refresh]", state="detached", timeout=30_000)

    # Review: green is what the moderation model is not sure of.
    page.get_by_role("link", name="Review", exact=True).click()
    page.get_by_role("button", name="One by one").click()
    page.get_by_text("green.png").wait_for()
    with page.expect_response("**/console/pictures/clear"):
        page.keyboard.press("b")
    with page.expect_navigation():
        page.keyboard.press("a")

    # The catalog: the pictures disagree about the colour, and the verdict is a person's.
    page.get_by_role("link", name="Catalog").click()
    page.get_by_role("heading", name=PRODUCT).get_by_role("link").click()
    page.get_by_text("pictures disagree").first.wait_for()
    assert page.get_by_text("review", exact=True).count() == 0
    page.get_by_label("On all pictures this is").select_option("blue")
    page.get_by_role("button", name="Save for all").click()
    page.get_by_text("Noted for 3 pictures").wait_for()
    assert page.get_by_text("pictures disagree").count() == 0
    page.goto("/console/catalog")
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=PRODUCT))
    card.get_by_text("blue").wait_for()
    assert card.get_by_text("grey").count() == 0
    assert seen.nothing()
