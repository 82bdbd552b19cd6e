"""The catalog in the console: products found by their ids, disagreements shown, and corrected by people."""

from collections.abc import Callable
from urllib.parse import quote
from uuid import UUID

import pytest
from sqlalchemy import text

from db import catalog, jobs, products, registry
from db.ids import item_id
from db.jobs import JobSpec, NewItem
from db.labels import Group
from db.session import Database
from tests.api.browsers import Browser
from tests.api.rows import settle
from tests.conftest import TestAccount, make_account

Browse = Callable[..., Browser]
NASTY = "\"><script>alert(1)</script>'{{7*7}}"
CARD = {
    "name": "tagger", "version": "1", "task": "tags", "head": {"category": "softmax", "attributes": "sigmoid"},
    "labels": [
        *({"name": name, "group": "category"} for name in ("dress", "shirt")),
        *({"name": name, "group": "attributes"} for name in ("striped", "long")),
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def model(owner_db: Database) -> None:
    with owner_db.transaction() as session:
        registry.install_model(session, CARD, "0" * 64)
        registry.activate(session, "tagger", "1")


def product(database: Database, account: TestAccount, product_id: str, *tags: str) -> UUID:
    """A product with a picture for each tag, all different."""
    items = [NewItem(url=f"https://shop.example/{product_id}/{n}", product_id=product_id) for n in range(len(tags))]
    with database.transaction() as session:
        job = jobs.submit(session, account.id, JobSpec(), items, max_items=100).id
    for seq, tag in enumerate(tags):
        settle(database, str(job), {seq: None}, sha=bytes([seq, len(product_id)]) * 16)
        with database.transaction() as session:
            session.execute(
                text("UPDATE results SET tags = jsonb_set(tags, '{0,label}', to_jsonb(CAST(:tag AS text)))"
                     " WHERE job_id = :job AND seq = :seq"),
                {"tag": tag, "job": job, "seq": seq},
            )  # fmt: skip
    return job


def test_products_are_found_by_the_beginning_of_their_ids(
    browse: Browse, owner_db: Database, account: TestAccount
) -> None:
    for name in ("a%1", "a_2", "ab3", "b4"):
        product(owner_db, account, name, "dress")
    browser = browse("viewer")

    def names(query: str) -> list[str]:
        links = [link.text.strip() for link in browser.page(f"/console/catalog{query}").all("a")]
        return [name for name in links if name in ("a%1", "a_2", "ab3", "b4")]

    assert names("") == ["a%1", "a_2", "ab3", "b4"]
    assert names("?q=a") == ["a%1", "a_2", "ab3"]
    assert names("?q=a%25") == ["a%1"], "% is a character of an id, no wildcard"
    assert names("?q=a_") == ["a_2"]
    assert names("?q=zz") == []


def test_the_list_goes_from_page_to_page(owner_db: Database, api_db: Database, account: TestAccount) -> None:
    for n in range(5):
        product(owner_db, account, f"p{n}", "dress", "dress")
    with api_db.transaction(account.id) as session:
        first = catalog.product_ids(session, account.id, limit=3)
        rest = catalog.product_ids(session, account.id, after=first[-1], limit=3)
    assert (first, rest) == (["p0", "p1", "p2"], ["p3", "p4"])


def test_pictures_that_disagree_are_said_and_a_person_settles_it(
    browse: Browse, owner_db: Database, account: TestAccount
) -> None:
    product(owner_db, account, "coat-7", "dress", "dress", "shirt")
    browser = browse("curator")
    address = "/console/catalog/product?id=coat-7"
    assert "pictures disagree" in browser.page(address).text
    assert "pictures disagree" in browser.page("/console/catalog").text
    answer = browser.post("/console/catalog/correct", {"product": "coat-7", "group": "category", "labels": "shirt"})
    assert (answer.status_code, answer.headers["Location"]) == (303, address)
    after = browser.page(address)
    assert "pictures disagree" not in after.text
    assert "Noted for 3 pictures" in after.text
    with owner_db.transaction() as session:
        tags = {tag["label"]: tag["pictures"] for tag in products.view(session, account.id, "coat-7").tags}
        actors = set(session.scalars(text("SELECT DISTINCT actor FROM labels")))
    assert tags == {"shirt": 3}
    assert browser.person is not None
    assert actors == {browser.person.actor}
    again = browser.post("/console/catalog/correct", {"product": "coat-7", "group": "category", "labels": "shirt"})
    assert again.status_code == 303
    assert "That was said already" in browser.page(address).text


def test_one_picture_is_corrected_and_given_back_to_the_model(
    browse: Browse, owner_db: Database, account: TestAccount
) -> None:
    job = product(owner_db, account, "coat-7", "dress", "dress")
    one = item_id(job, 1)
    browser = browse("curator")

    def say(**fields: str) -> int:
        return browser.post("/console/catalog/correct", {"product": "coat-7", "item": one, **fields}).status_code

    def shown() -> dict[str, int]:
        with owner_db.transaction() as session:
            return {tag["label"]: tag["pictures"] for tag in products.view(session, account.id, "coat-7").tags}

    assert say(group="category", labels="shirt") == 303
    assert shown() == {"shirt": 1, "dress": 1}
    assert say(group="attributes", labels="long") == 303
    assert shown() == {"shirt": 1, "dress": 1, "long": 1}
    assert say(group="category") == 303
    assert say(group="attributes", back="true") == 303
    assert shown() == {"dress": 2}


def test_wrong_corrections_change_nothing(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    product(owner_db, account, "coat-7", "dress")
    other = make_account(owner_db, "rival")
    theirs = product(owner_db, other, "their-1", "dress")
    curator = browse("curator")
    good = {"product": "coat-7", "group": "category", "labels": "shirt"}
    for wrong, status in (
        ({**good, "labels": "sofa"}, 422),
        ({**good, "group": "colour"}, 422),
        ({**good, "group": "verdict", "labels": "approve"}, 422),
        ({**good, "product": "none"}, 404),
        ({**good, "item": item_id(theirs, 0)}, 404),
        ({**good, "product": "their-1"}, 404),
        ({**good, "extra": "1"}, 422),
    ):
        assert curator.post("/console/catalog/correct", wrong).status_code == status, wrong
    assert browse("reviewer").post("/console/catalog/correct", good).status_code == 403
    with owner_db.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM labels")) == 0
    assert curator.page("/console/catalog/product?id=their-1", 404)
    assert "their-1" not in curator.page("/console/catalog").text


def test_ids_and_tags_are_text(browse: Browse, owner_db: Database, account: TestAccount) -> None:
    product(owner_db, account, NASTY, NASTY, "dress")
    browser = browse("curator")
    for address in ("/console/catalog", f"/console/catalog/product?id={quote(NASTY, safe='')}"):
        page = browser.page(address)
        assert NASTY in page.text
        assert not [each for each in page.all("script") if "src" not in each.attributes]


def test_groups_count_the_best_tag_of_exclusive_groups_and_all_attributes() -> None:
    known = {"category": Group("exclusive", ("dress", "shirt")), "attributes": Group("attributes", ("long", "red"))}
    tag = {"group": "category", "score": 0.5, "model": "m@1"}
    long = {"label": "long", "group": "attributes", "score": 0.9, "model": "m@1"}
    pictures = [
        {"labels": [], "tags": [{**tag, "label": "dress"}, {**tag, "label": "shirt"}, long]},
        {"labels": [{"group": "category", "labels": ["shirt"]}], "tags": [{**tag, "label": "dress"}, long]},
        {"labels": [{"group": "verdict", "labels": ["reject"]}], "tags": [{**tag, "label": "shirt"}]},
    ]
    category, attributes = catalog.groups(pictures, known)
    assert (category.labels, category.said, category.conflict) == ({"shirt": 2, "dress": 1}, 1, True)
    assert (attributes.labels, attributes.said, attributes.conflict) == ({"long": 2}, 0, False)
