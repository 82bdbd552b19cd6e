"""Hash banks in the console: made, filled, looked at, released; by curators only, and of the own account only."""

from collections.abc import Callable
from uuid import UUID

import pytest

from db import bank_entries, banks
from db.session import Database
from tests.api.browsers import Browser
from tests.conftest import TestAccount, make_account
from tests.db.bank_line import infer, ingest, near, public, submit, verdicts
from tests.db.test_banks import FAR, H, ban, entry_of, make_bank, sql, surge, work_off

Browse = Callable[..., Browser]
NASTY = "\"><script>alert(1)</script>'{{7*7}}"


@pytest.fixture
def job(db: Database, account: TestAccount) -> UUID:
    found = submit(db, account, ["same", "near", "other"])
    ingest(db, {"same": H, "near": near(H, 9), "other": FAR})
    infer(db)
    return found


def only(db: Database, bank: UUID) -> UUID:
    (row,) = sql(db, "SELECT id FROM hash_entries WHERE bank_id = :bank AND removed_at IS NULL", bank=bank)
    assert isinstance(row.id, UUID)
    return row.id


def test_from_a_bank_to_a_ban_and_back(browse: Browse, db: Database, account: TestAccount, job: UUID) -> None:
    browser = browse("curator")
    assert "No banks yet" in browser.page("/console/banks").text
    made = browser.post("/console/banks", {"name": "stolen", "kind": "block", "description": NASTY})
    assert made.status_code == 303
    bank = UUID(made.headers["Location"].rpartition("/")[2])
    (link,) = [each for each in browser.page(f"/console/items/{public(job)}").all("a") if "Ban" in each.text]
    (link,) = [each for each in browser.page(str(link.attributes["href"])).all("a") if each.text == "stolen"]
    assert link.attributes["href"] == f"/console/banks/{bank}?item={public(job)}"
    page = browser.page(str(link.attributes["href"]))
    assert NASTY in page.text
    assert not [each for each in page.all("script") if "alert" in each.text]
    assert page.all("input", id="f-what")[0].attributes["value"] == public(job)
    assert browser.post(f"/console/banks/{bank}/entries", {"what": public(job), "reason": NASTY}).status_code == 303
    assert "2 pictures match" in browser.page(f"/console/banks/{bank}").text
    work_off(db)
    assert verdicts(db, job) == ["reject", "reject", "approve"]
    entry = only(db, bank)
    assert entry_of(db, entry).actor.startswith("user:")
    page = browser.page(f"/console/banks/{bank}")
    assert "2 of 2 verdicts changed" in page.text
    shots = {each.attributes["src"] for each in page.all("img") if "/pictures/" in str(each.attributes["src"])}
    assert shots == {f"/console/pictures/{public(job, n)}?size=240" for n in (0, 1)}
    page = browser.page(f"/console/banks/{bank}/entries/{entry}")
    assert H in page.text
    assert page.text.count("reject") == 2
    assert browser.post(f"/console/banks/{bank}/entries/{entry}/off").status_code == 303
    work_off(db)
    assert verdicts(db, job) == ["approve"] * 3
    assert "The entry is off." in browser.page(f"/console/banks/{bank}/entries/{entry}").text
    browser.post(f"/console/banks/{bank}/entries/{entry}/on")
    browser.post(f"/console/banks/{bank}/entries/{entry}/remove")
    assert "No entries yet" in browser.page(f"/console/banks/{bank}").text
    browser.post(f"/console/banks/{bank}/settings", {"distance": "12", "quality": "60"})
    with db.transaction() as session:
        assert banks.read(session, account.id, bank).distance == 12
    browser.post(f"/console/banks/{bank}/off")
    assert "Switch on" in browser.page(f"/console/banks/{bank}").text
    assert browser.post(f"/console/banks/{bank}/remove").headers["Location"].endswith("/console/banks")
    assert "No banks yet" in browser.page("/console/banks").text


def test_a_list_is_pasted_and_its_wrong_lines_are_named(browse: Browse, db: Database, account: TestAccount) -> None:
    bank = make_bank(db, account.id)
    browser = browse("curator")
    path = f"/console/banks/{bank}/import"
    assert browser.post(path, {"form": "csv", "list": f"pdq\r\n{H}\r\nxyz\r\n{FAR}"}).status_code == 303
    text = browser.page(f"/console/banks/{bank}").text
    assert "2 added, 0 known already, 0 removed. 1 left out (3: A PDQ hash is 64 hexadecimal digits.)" in text
    for form, words in (("csv", "hash\n1"), ("signals", "nothing"), ("ncmec", "<a/>")):
        refused = browser.post(path, {"form": form, "list": words}, json=True)
        assert (refused.status_code, refused.json["code"]) == (422, "invalid_hash_list")
    refused = browser.post(path, {"form": "zip", "list": "x"}, json=True)
    assert refused.json["code"] == "invalid_form"


def test_the_quarantine_is_seen_and_ended(browse: Browse, db: Database, account: TestAccount) -> None:
    bank = make_bank(db, account.id)
    entry = ban(db, account.id, bank, reason="a blank page")
    found = surge(db, account, 4, "new")
    work_off(db, surge=3)
    browser = browse("curator")
    assert "1 entry is in quarantine" in browser.page(f"/console/banks/{bank}").text
    assert "a blank page" in browser.page(f"/console/banks/{bank}?state=quarantined").text
    page = browser.page(f"/console/banks/{bank}/entries/{entry}")
    assert "In quarantine since" in page.text
    assert page.text.count("review") >= 4
    assert browser.post(f"/console/banks/{bank}/entries/{entry}/release").status_code == 303
    work_off(db, surge=3)
    assert verdicts(db, found) == ["reject"] * 4
    assert "In quarantine" not in browser.page(f"/console/banks/{bank}/entries/{entry}").text


def test_an_entry_that_found_too_much_is_seen_and_said_to_be_meant(
    browse: Browse, db: Database, account: TestAccount
) -> None:
    bank = make_bank(db, account.id)
    surge(db, account, 4, "old")
    entry = ban(db, account.id, bank, reason="a blank page")
    work_off(db, surge=3)
    browser = browse("curator")
    assert "1 wide" in browser.page("/console/banks").text
    assert "1 entry is wide" in browser.page(f"/console/banks/{bank}").text
    assert "a blank page" in browser.page(f"/console/banks/{bank}?state=wide").text
    here = f"/console/banks/{bank}/entries/{entry}"
    page = browser.page(here)
    assert "Wide: it found 4 of the pictures" in page.text
    assert "It is meant" in page.text
    assert [each for each in page.all("form") if each.attributes.get("action") == f"{here}/release"]
    assert browser.post(f"{here}/release").status_code == 303
    page = browser.page(here)
    assert "Noted: it is meant to hit that many." in page.text
    assert "Wide:" not in page.text
    assert entry_of(db, entry).state == "on"


def test_entries_and_their_pictures_come_in_pages(browse: Browse, db: Database, account: TestAccount) -> None:
    bank = make_bank(db, account.id)
    with db.transaction() as session:
        new = [bank_entries.NewEntry(f"{n:02x}" * 32) for n in range(1, 24)]
        bank_entries.add_many(session, account.id, bank, new, "test")
    browser = browse("viewer")
    page = browser.page(f"/console/banks/{bank}")
    (more,) = page.all("a", rel="next")
    assert "17171717" in page.text
    page = browser.page(str(more.attributes["href"]))
    assert "01010101" in page.text
    assert not page.all("a", rel="next")
    entry = ban(db, account.id, bank)
    surge(db, account, 38, "p")
    page = browser.page(f"/console/banks/{bank}/entries/{entry}")
    (more,) = page.all("a", rel="next")
    assert len([each for each in page.all("img") if "/pictures/" in str(each.attributes["src"])]) == 36
    page = browser.page(str(more.attributes["href"]))
    assert len([each for each in page.all("img") if "/pictures/" in str(each.attributes["src"])]) == 2


def test_viewers_look_and_only_curators_change(browse: Browse, db: Database, account: TestAccount, job: UUID) -> None:
    bank = make_bank(db, account.id)
    entry = ban(db, account.id, bank)
    for role in ("viewer", "reviewer"):
        browser = browse(role)
        assert not [each for each in browser.page(f"/console/items/{public(job)}").all("a") if "Ban" in each.text]
        page = browser.page(f"/console/banks/{bank}")
        assert not [each for each in page.all("form") if "/banks" in str(each.attributes.get("action"))]
        for path in ("", f"/{bank}/off", f"/{bank}/remove", f"/{bank}/entries", f"/{bank}/import", f"/{bank}/settings",
                     f"/{bank}/entries/{entry}/off", f"/{bank}/entries/{entry}/release"):  # fmt: skip
            assert browser.post(f"/console/banks{path}").status_code == 403, path


def test_banks_of_others_are_not_there(
    browse: Browse, db: Database, owner_db: Database, account: TestAccount, job: UUID
) -> None:
    other = make_account(owner_db, "rival")
    theirs, shared = make_bank(db, other.id, "theirs"), make_bank(db, None, "shared")
    browser = browse("admin")
    text = browser.page("/console/banks").text
    assert "shared" in text
    assert "theirs" not in text
    for bank in (theirs, shared):
        entry = ban(db, other.id if bank == theirs else None, bank, FAR)
        browser.page(f"/console/banks/{bank}", 404)
        browser.page(f"/console/banks/{bank}/entries/{entry}", 404)
        for path, fields in (
            ("/off", {}), ("/remove", {}), ("/entries", {"what": H}), (f"/entries/{entry}/remove", {}),
            ("/settings", {"distance": "1", "quality": "1"}), ("/import", {"form": "signals", "list": f"pdq {H}"}),
        ):  # fmt: skip
            assert browser.post(f"/console/banks/{bank}{path}", fields).status_code == 404, path
        assert entry_of(db, entry).state == "on"
