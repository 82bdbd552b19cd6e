"""Every page of the console against another account's objects: not found, by the application and by Postgres alone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from api.console.pages import Page, PageCall
from api.routing import Call
from db.people import OPERATOR
from db.session import Database
from tests.abuse.estate import ELSE, SINCE, WEBHOOK_KEYS, Estate, estate, rows_of
from tests.abuse.test_tenants import owner_of
from tests.api.browsers import Browser, signed_in, somebody
from tests.api.conftest import Make
from tests.conftest import TestAccount

# Their path names nothing of an account.
NOTHING = {
    "/console/static/<name>": "a file",
    "/console/link/<token>": "whoever holds the link",
}
FORMS: dict[str, dict[str, str]] = {
    "/console/review/<uuid:review_id>/escalate": {"version": "1"},
    "/console/review/<uuid:review_id>/skip": {"version": "1"},
    "/console/review/<uuid:review_id>/comment": {"version": "1", "comment": "x"},
    "/console/review/<uuid:review_id>/decide": {"version": "1", "verdict": "approve"},
    "/console/people/<uuid:person_id>/role": {"role": "viewer"},
    "/console/banks/<uuid:bank_id>/settings": {"distance": "3", "quality": "50"},
    "/console/banks/<uuid:bank_id>/entries": {"what": ELSE},
    "/console/banks/<uuid:bank_id>/import": {"list": f"pdq\n{ELSE}\n", "form": "csv"},
    "/console/webhooks/<uuid:webhook_id>": {"url": "https://rival.example/in"},
    "/console/webhooks/<uuid:webhook_id>/redeliver": {"since": SINCE},
}


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app(webhook_keys=WEBHOOK_KEYS)


@pytest.fixture
def victim(app: Flask, db: Database, owner_db: Database, account: TestAccount, tmp_path: Path) -> Estate:
    found = estate(app, db, account, tmp_path / "blobs", "acme")
    person = somebody(owner_db, account, "anna", "admin")
    browser = signed_in(app, owner_db, person)
    page = browser.client.get("/console/own", headers=browser.headers).get_data(as_text=True)
    sessions = re.findall(r"/console/own/sessions/([0-9a-f-]{36})/end", page)
    found.at.update(person_id=str(person.id), session_id=sessions[0] if sessions else str(person.id))
    return found


@pytest.fixture
def stranger(app: Flask, owner_db: Database, other: TestAccount) -> Browser:
    return signed_in(app, owner_db, somebody(owner_db, other, "eve", "admin"))


def pages(app: Flask) -> list[Page]:
    """Those whose path names an object of an account."""
    found = [getattr(app.view_functions[rule.endpoint], "page", None) for rule in app.url_map.iter_rules()]
    named = [page for page in found if page is not None and "<" in page.path and page.path not in NOTHING]
    return sorted((page for page in named if page.role != OPERATOR), key=lambda page: (page.method, page.path))


def address(page: Page, things: dict[str, str]) -> str:
    path = re.sub(r"<any\((\w+)[^)]*\):\w+>", r"\1", page.path)
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda parameter: things[parameter[1]], path)


def ask(browser: Browser, token: str, page: Page, things: dict[str, str]) -> Any:
    """`token`: that of the browser's forms."""
    form = None if page.method == "GET" else {"csrf": token, **FORMS.get(page.path, {})}
    return browser.client.open(address(page, things), method=page.method, data=form, headers=browser.headers)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch, victim: Estate, other: TestAccount) -> Callable[[], None]:
    """The mutation: pages and queries take the stranger for the victim; what Postgres is told stays the truth."""

    def mutate() -> None:
        monkeypatch.setattr(PageCall, "account_id", property(lambda self: victim.account.id))
        monkeypatch.setattr(Call, "transaction", lambda self: self.house.database.transaction(other.id))

    return mutate


@pytest.mark.parametrize("wall", ["both", "row-level security alone"])
def test_another_accounts_objects_have_no_page(
    app: Flask, owner_db: Database, victim: Estate, stranger: Browser, careless: Callable[[], None], wall: str
) -> None:
    assert len(pages(app)) > 35
    before, token = rows_of(owner_db, victim.account), stranger.csrf
    if wall != "both":
        careless()
    wrong = {}
    for page in pages(app):
        answer = ask(stranger, token, page, victim.at)
        if answer.status_code != 404:
            wrong[f"{page.method} {page.path}"] = (answer.status_code, answer.headers.get("Location"))
        told = answer.get_data(as_text=True)
        assert not [each for each in victim.ids() if each in told.replace(address(page, victim.at), "")], page.path
    assert wrong == {}
    assert rows_of(owner_db, victim.account) == before


def test_the_cases_reach_their_objects(app: Flask, owner_db: Database, account: TestAccount, victim: Estate) -> None:
    """Its own administrator is never told that it is not there: only so do the tests above say anything."""
    own = signed_in(app, owner_db, somebody(owner_db, account, "bert", "admin"))
    token = own.csrf
    lost = {
        f"{page.method} {page.path}"
        for page in pages(app)
        if not page.path.endswith(("remove", "delete")) and ask(own, token, page, victim.at).status_code == 404
    }
    # Somebody's own session is nobody else's, also not an administrator's.
    assert lost <= {"POST /console/own/sessions/<uuid:session_id>/end"}


def test_without_both_walls_every_page_is_open(
    make_app: Make, owner_db: Database, other: TestAccount, victim: Estate, careless: Callable[[], None]
) -> None:
    """The mutation of the first test: as the tables' owner, whom row-level security does not hold."""
    app = make_app(webhook_keys=WEBHOOK_KEYS, database_role=owner_of(owner_db))
    eve = signed_in(app, owner_db, somebody(owner_db, other, "eve", "admin"))
    token = eve.csrf
    careless()
    open_ = [page for page in pages(app) if not page.path.endswith(("remove", "delete"))]
    hidden = [page.path for page in open_ if ask(eve, token, page, victim.at).status_code == 404]
    assert hidden in ([], ["/console/own/sessions/<uuid:session_id>/end"])
