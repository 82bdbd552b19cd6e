"""The pages of policies: read, written with faults beside their lines, compared, activated, assigned."""

from collections.abc import Callable

import pytest

from api.console.policies import BLANK, difference
from db import policies, policy_assignments, policy_text
from db.session import Database
from tests.api.browsers import Browser
from tests.conftest import TestAccount

Browse = Callable[..., Browser]
HERE = "/console/policies"
NEW = f"{HERE}/+new"
SHOP = """\
name: shop
rules:
  - id: nudity
    when: {score: Porn, at_least: 0.5}
    then: reject
    text: <script>alert(1)</script>
"""


def write(browser: Browser, source: str = SHOP) -> str:
    """Save a draft; the address of its page."""
    answer = browser.post(NEW, {"source": source, "act": "save"})
    assert answer.status_code == 303, answer.text[-800:]
    return str(answer.headers["Location"])


def test_a_policy_is_written_compared_activated_and_assigned(browse: Browse, account: TestAccount) -> None:
    anna = browse("curator")
    assert "name: my-policy" in anna.page(NEW).text
    first = write(anna)
    assert first == f"{HERE}/shop/1"
    page = anna.page(first)
    assert "shop@1 is saved; it decides once it is activated." in page.text
    assert [each.text for each in page.all("code") if "Porn" in each.text] == ["    when: {score: Porn, at_least: 0.5}"]
    assert anna.post(f"{first}/activate").status_code == 303
    second = write(anna, SHOP.replace("0.5", "0.7"))
    text = anna.page(f"{second}?against=1").text
    assert "From shop@1 to shop@2" in text
    assert anna.page(f"{NEW}?name=shop&version=1").text.count("at_least: 0.5") == 1
    anna.post(f"{HERE}/+assign", {"policy": "shop", "only": "one", "context": "avatar"})
    index = anna.page(HERE)
    assert "shop decides there from now on." in index.text
    assert [each.text.strip() for each in index.all("code")] == ["avatar"]
    in_use = anna.post(f"{first}/retire")
    assert (in_use.status_code, "policy_in_use" in in_use.text) == (409, True)
    anna.post(f"{HERE}/+assign", {"only": "one", "context": "avatar"})
    assert "taken back" in anna.page(HERE).text
    assert anna.post(f"{first}/retire").status_code == 303


def test_what_is_wrong_stands_beside_its_line_and_nothing_is_lost(browse: Browse) -> None:
    anna = browse("curator")
    bad = "\n# a comment\n" + SHOP.replace("0.5", "1.5").replace("reject", "ban")
    answer = anna.post(NEW, {"source": bad, "act": "save"})
    assert answer.status_code == 422
    assert "<b>Line 6</b>" in answer.text
    assert "must be a number from 0 to 1" in answer.text
    assert answer.text.count('class="is-wrong"') == 2
    assert "# a comment" in answer.text
    assert "<script>alert" not in answer.text
    good = anna.post(NEW, {"source": SHOP, "act": "check"})
    assert (good.status_code, "It is a policy: shop, 1 rule." in good.text) == (200, True)
    assert anna.page(f"{HERE}/shop", 404)
    empty = anna.post(NEW, {"act": "save"})
    assert "a policy is a mapping with name and rules" in empty.text


def test_viewers_look_and_curators_write(browse: Browse) -> None:
    anna, otto = browse("curator"), browse("viewer")
    first = write(anna)
    page = otto.page(first)
    assert not page.all("form", action=f"{first}/activate")
    assert not [each for each in page.all("a") if "+new" in str(each.attributes.get("href"))]
    for path in (NEW, f"{first}/activate", f"{first}/retire", f"{HERE}/+assign"):
        assert otto.post(path, {"source": SHOP}).status_code == 403, path
    assert otto.get(NEW).status_code == 403
    assert otto.page(HERE).text.count("shop@1") == 1


def test_another_accounts_policy_is_not_there(browse: Browse, other: TestAccount, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        policies.add(session, other.id, policy_text.read(SHOP), actor="cli")
        policies.activate(session, other.id, "shop", 1, actor="cli")
        policy_assignments.assign(session, other.id, "listing", "shop", actor="cli")
    anna = browse("curator")
    assert "shop" not in anna.page(HERE).text
    assert "listing" not in anna.page(HERE).text
    for path in (f"{HERE}/shop", f"{HERE}/shop/1", f"{NEW}?name=shop"):
        assert anna.page(path, 404)
    for path in (f"{HERE}/shop/1/activate", f"{HERE}/shop/1/retire"):
        assert anna.post(path).status_code == 404
    assert anna.post(f"{HERE}/+assign", {"policy": "shop"}).status_code == 404


def test_the_installations_policy_can_be_copied_and_not_changed(browse: Browse) -> None:
    anna = browse("curator")
    page = anna.page(f"{HERE}/default/1")
    assert [each.text.strip() for each in page.all("a", href=f"{NEW}?name=default&version=1")] == ["Copy"]
    assert not page.all("form", action=f"{HERE}/default/1/retire")
    refused = anna.post(f"{HERE}/default/1/retire")
    assert (refused.status_code, "policy_read_only" in refused.text) == (403, True)
    taken = anna.post(NEW, {"source": SHOP.replace("name: shop", "name: default"), "act": "save"})
    assert (taken.status_code, "policy_name_taken" in taken.text) == (409, True)


def test_what_a_new_policy_begins_with_is_a_policy() -> None:
    assert policy_text.read(BLANK).policy.first_match


def test_a_difference_is_short_and_says_where() -> None:
    old = "\n".join(f"line {number}" for number in range(20))
    new = old.replace("line 9", "line nine").replace("\nline 19", "")
    found = difference(old, new)
    assert [(sign, text) for sign, _, _, text in found if sign in "-+"] == [
        ("-", "line 9"),
        ("+", "line nine"),
        ("-", "line 19"),
    ]
    assert found[0] == ("…", None, None, "")
    assert (" ", 7, 7, "line 6") in found
    assert ("+", None, 10, "line nine") in found
    assert difference(old, old) == []


@pytest.mark.parametrize("name", ["%3Cb%3E", "..", "a%00b", "x" * 300])
def test_odd_names_are_not_found(browse: Browse, name: str) -> None:
    assert browse("viewer").get(f"{HERE}/{name}").status_code == 404
