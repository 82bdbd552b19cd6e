"""Signing in to the console: passwords, one-time links, sessions, and what refuses a request before any view."""

import re
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import text
from werkzeug.test import TestResponse

from db import passwords, people, sessions, sign_in
from db.session import Database
from tests.api.browsers import OWN, Browser, Page, somebody
from tests.api.conftest import Make
from tests.conftest import TestAccount

Browse = Callable[..., Browser]
PASSWORD = "correct horse battery staple"


def attempt(browser: Browser, name: str, password: str, **more: str) -> TestResponse:
    return browser.post("/console/sign-in", {"name": name, "password": password, **more})


@pytest.fixture
def anna(owner_db: Database, account: TestAccount) -> people.Person:
    return somebody(
        owner_db, account, "anna", "curator", email="Anna@Shop.example", password_hash=passwords.hashed(PASSWORD)
    )


def test_by_name_or_address_and_password(app: Flask, anna: people.Person) -> None:
    for name in ("anna", "ANNA ", "anna@shop.example"):
        browser = Browser(app.test_client())
        answer = attempt(browser, name, PASSWORD, next="/console/own?x=1")
        assert (answer.status_code, answer.headers["Location"]) == (303, "/console/own?x=1")
        cookie = next(each for each in answer.headers.getlist("Set-Cookie") if "session" in each)
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie, "over plain HTTP on this machine the browser would drop it"
        assert "anna" in browser.page("/console/own").text


def test_over_https_the_cookie_is_bound_to_the_host(make_app: Make, anna: people.Person) -> None:
    client = make_app(public_url="https://tags.shop.example").test_client()
    page = Page(client.get("/console/sign-in", base_url="https://tags.shop.example").text)
    fields = {"csrf": page.hidden("csrf"), "name": "anna", "password": PASSWORD}
    answer = client.post(
        "/console/sign-in", data=fields, base_url="https://tags.shop.example",
        headers={"Origin": "https://tags.shop.example"},
    )  # fmt: skip
    assert answer.status_code == 303
    cookie = next(each for each in answer.headers.getlist("Set-Cookie") if "session" in each)
    assert cookie.startswith("__Host-tagmill-session=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_a_wrong_name_and_a_wrong_password_look_the_same(app: Flask, anna: people.Person) -> None:
    said = []
    for name in ("anna", "nobody"):
        answer = attempt(Browser(app.test_client()), name, "something else entirely")
        assert answer.status_code == 401
        said.append(Page(answer.text).text.replace(name, ""))
    assert said[0] == said[1]


def test_the_stand_in_hash_takes_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time of the answer would tell whether there is somebody of that name."""
    parameters = re.findall(r"m=\d+,t=\d+,p=\d+", passwords._NOBODY + passwords.hashed(PASSWORD))
    assert len(parameters) == 2
    assert parameters[0] == parameters[1]
    assert not passwords.verify(None, "nobody has this password, it only takes the time")


def test_attempts_are_counted_by_name_and_by_address(make_app: Make, anna: people.Person) -> None:
    app = make_app(sign_in_attempts=3)
    browser = Browser(app.test_client())
    assert [attempt(browser, "anna", "wrong wrong wrong").status_code for _ in range(3)] == [401] * 3
    refused = attempt(browser, "anna", PASSWORD)
    assert refused.status_code == 429, "the right password does not get around it"
    others = [attempt(browser, f"guess{n}", "wrong wrong wrong").status_code for n in range(7)]
    assert others == [401] * 6 + [429], "nine of one address, whatever the name"


def test_a_good_sign_in_forgives(make_app: Make, anna: people.Person) -> None:
    app = make_app(sign_in_attempts=2)
    for _ in range(3):
        assert attempt(Browser(app.test_client()), "anna", "wrong wrong wrong").status_code == 401
        assert attempt(Browser(app.test_client()), "anna", PASSWORD).status_code == 303


def test_an_attempt_is_forgotten_after_its_window(make_app: Make, anna: people.Person, owner_db: Database) -> None:
    app = make_app(sign_in_attempts=1)
    assert attempt(Browser(app.test_client()), "anna", "wrong wrong wrong").status_code == 401
    assert attempt(Browser(app.test_client()), "anna", PASSWORD).status_code == 429
    with owner_db.transaction() as session:
        session.execute(text("UPDATE sign_in_attempts SET created_at = now() - interval '16 minutes'"))
    assert attempt(Browser(app.test_client()), "anna", PASSWORD).status_code == 303


def test_a_proxy_is_believed_only_when_it_is_ours(make_app: Make, anna: people.Person, owner_db: Database) -> None:
    for proxies, expected in ((0, "address:127.0.0.1"), (1, "address:203.0.113.7"), (2, "address:198.51.100.9")):
        client = make_app(trusted_proxies=proxies).test_client()
        client.environ_base["HTTP_X_FORWARDED_FOR"] = "198.51.100.9, 203.0.113.7"
        attempt(Browser(client), "anna", "wrong wrong wrong")
        with owner_db.transaction() as session:
            found = session.execute(text("SELECT subject FROM sign_in_attempts")).scalars().all()
            assert expected in found
            session.execute(text("DELETE FROM sign_in_attempts"))


@pytest.mark.parametrize(
    "goal", ["https://evil.example/", "//evil.example", "/\\evil.example", "/consolex", "javascript:alert(1)", "/v1"]
)
def test_signing_in_leads_nowhere_else(app: Flask, anna: people.Person, goal: str) -> None:
    answer = attempt(Browser(app.test_client()), "anna", PASSWORD, next=goal)
    assert answer.headers["Location"] == "/console"


def test_a_link_works_once_and_only_by_a_press(app: Flask, anna: people.Person, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        link = sign_in.issue_link(session, anna, actor="cli")
    for _ in range(2):
        assert app.test_client().get(f"/console/link/{link}").status_code == 200, "a previewer does not use it up"
    browser = Browser(app.test_client())
    assert browser.post("/console/link", {"link": link}).status_code == 303
    assert browser.get("/console/own").status_code == 200
    again = Browser(app.test_client()).post("/console/link", {"link": link}, json=True)
    assert (again.status_code, again.get_json()["code"]) == (410, "bad_link")


def test_a_link_is_good_for_minutes(app: Flask, anna: people.Person, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        link = sign_in.issue_link(session, anna, actor="cli")
        session.execute(text("UPDATE sign_in_links SET expires_at = now() - interval '1 second'"))
    answer = Browser(app.test_client()).post("/console/link", {"link": link}, json=True)
    assert answer.get_json()["code"] == "bad_link"
    assert Browser(app.test_client()).post("/console/link", {"link": "x"}, json=True).get_json()["code"] == "bad_link"


def test_tokens_are_stored_as_hashes(app: Flask, anna: people.Person, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        link = sign_in.issue_link(session, anna, actor="cli")
        token = sessions.begin(session, anna, means="link", address="", agent="", hours=1)
        stored = str(session.execute(text("SELECT * FROM console_sessions")).all())
        stored += str(session.execute(text("SELECT * FROM sign_in_links")).all())
    assert token not in stored
    assert link not in stored
    assert len(token) == 43, "256 bits"


# --- sessions ------------------------------------------------------------------------------------------------


def test_signed_out_people_are_asked_to_sign_in(app: Flask) -> None:
    answer = app.test_client().get("/console/own?a=b")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/sign-in?next=%2Fconsole%2Fown%3Fa%3Db")
    asked = app.test_client().get("/console/own", headers={"Accept": "application/json"})
    assert (asked.status_code, asked.get_json()["code"]) == (401, "signed_out")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE console_sessions SET revoked_at = now()",
        "UPDATE console_sessions SET expires_at = now() - interval '1 second'",
        "UPDATE console_sessions SET last_seen_at = now() - interval '13 hours'",
        "UPDATE people SET disabled_at = now()",
    ],
)
def test_a_session_ends(browse: Browse, owner_db: Database, sql: str) -> None:
    browser = browse("viewer")
    assert browser.get("/console/own").status_code == 200
    with owner_db.transaction() as session:
        session.execute(text(sql))
    assert browser.get("/console/own").status_code == 303


def test_a_disabled_person_cannot_sign_in(app: Flask, anna: people.Person, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        link = sign_in.issue_link(session, anna, actor="cli")
        people.set_disabled(session, anna, True, actor="cli")
    assert attempt(Browser(app.test_client()), "anna", PASSWORD).status_code == 401
    assert Browser(app.test_client()).post("/console/link", {"link": link}).status_code == 410


def test_signing_out_ends_the_session_in_the_database(browse: Browse, app: Flask) -> None:
    browser = browse("viewer")
    cookie = browser.client.get_cookie("tagmill-session-80")
    assert cookie is not None
    assert browser.post("/console/sign-out").status_code == 303
    thief = app.test_client()
    thief.set_cookie("tagmill-session-80", cookie.value)
    assert thief.get("/console/own").status_code == 303


def test_a_new_password_ends_every_other_session(app: Flask, anna: people.Person) -> None:
    here, there = Browser(app.test_client()), Browser(app.test_client())
    for browser in (here, there):
        assert attempt(browser, "anna", PASSWORD).status_code == 303
        browser.person = anna
    new = "a quite different sentence"
    wrong = here.post("/console/own/password", {"now": "guess guess", "new": new, "again": new}, json=True)
    assert (wrong.status_code, wrong.get_json()["errors"][0]["field"]) == (422, "now")
    weak = here.post("/console/own/password", {"now": PASSWORD, "new": "short", "again": "short"}, json=True)
    assert weak.get_json()["code"] == "weak_password"
    done = here.post("/console/own/password", {"now": PASSWORD, "new": new, "again": new})
    assert done.status_code == 303
    assert "1 other session has ended" in here.page("/console/own").text
    assert there.get("/console/own").status_code == 303
    assert attempt(Browser(app.test_client()), "anna", PASSWORD).status_code == 401
    assert attempt(Browser(app.test_client()), "anna", new).status_code == 303


def test_somebody_ends_own_sessions_and_nobody_elses(browse: Browse, owner_db: Database, app: Flask) -> None:
    one, other = browse("viewer"), browse("admin")
    with owner_db.transaction() as session:
        rows = dict(session.execute(text("SELECT person_id, id FROM console_sessions")).tuples().all())
    assert other.person is not None
    assert one.person is not None
    refused = one.post(f"/console/own/sessions/{rows[other.person.id]}/end", json=True)
    assert (refused.status_code, refused.get_json()["code"]) == (404, "not_found")
    assert other.get("/console/own").status_code == 200
    assert one.post(f"/console/own/sessions/{rows[one.person.id]}/end").status_code == 303
    assert one.get("/console/own").status_code == 303


# --- what refuses a request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_foreign_origin_is_refused_even_with_the_token(browse: Browse, headers: dict[str, str]) -> None:
    browser = browse("viewer")
    token = browser.csrf
    browser.headers = headers
    answer = browser.client.post("/console/sign-out", data={"csrf": token}, headers=headers)
    assert answer.status_code == 403
    assert "foreign_origin" in answer.text
    assert browser.get("/console/own").status_code == 200, "nothing happened"


@pytest.mark.parametrize("token", [None, "", "x", "é", "A" * 43])
def test_a_missing_or_wrong_token_is_refused(browse: Browse, token: str | None) -> None:
    browser = browse("viewer")
    fields = {} if token is None else {"csrf": token}
    answer = browser.client.post("/console/sign-out", data=fields, headers=OWN)
    assert answer.status_code == 403
    assert "csrf_token" in answer.text
    assert browser.get("/console/own").status_code == 200


def test_another_sessions_token_is_refused(browse: Browse) -> None:
    one, other = browse("viewer"), browse("viewer")
    answer = one.client.post("/console/sign-out", data={"csrf": other.csrf}, headers=OWN)
    assert answer.status_code == 403


def test_signing_in_needs_the_forms_token_too(app: Flask, anna: people.Person) -> None:
    """Else another site could sign somebody in under its own name."""
    answer = app.test_client().post("/console/sign-in", data={"name": "anna", "password": PASSWORD}, headers=OWN)
    assert answer.status_code == 403


def test_plain_http_from_elsewhere_is_refused(make_app: Make) -> None:
    for base, plain, expected in (
        ("http://tags.shop.example", False, 403),
        ("http://tags.shop.example", True, 200),
        ("http://127.0.0.1:8080", False, 200),
        ("http://[::1]:8080", False, 200),
        ("https://tags.shop.example", False, 200),
    ):
        answer = make_app(console_plain_http=plain).test_client().get("/console/sign-in", base_url=base)
        assert answer.status_code == expected, base


def test_a_role_opens_what_is_below_it_and_no_more(browse: Browse) -> None:
    for role, expected in (("viewer", 403), ("reviewer", 404), ("admin", 404)):
        answer = browse(role).post("/console/pictures/clear", {"items": "x-1"}, json=True)
        assert answer.status_code == expected, role


def test_pages_carry_the_headers_that_wall_them(browse: Browse) -> None:
    browser = browse("viewer")
    for path in ("/console/own", "/console/nowhere", "/console/static/console.css"):
        headers = browser.get(path).headers
        policy = headers["Content-Security-Policy"]
        for part in ("default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


def test_methods_that_a_page_has_not(browse: Browse) -> None:
    assert browse("viewer").client.delete("/console/own", headers=OWN).status_code == 405


def test_the_database_lets_no_account_see_anothers_people(
    api_db: Database, owner_db: Database, account: TestAccount, other: TestAccount
) -> None:
    mine, theirs = somebody(owner_db, account, "mine"), somebody(owner_db, other, "theirs")
    with owner_db.transaction() as session:
        sessions.begin(session, theirs, means="link", address="", agent="", hours=1)
        sign_in.issue_link(session, theirs, actor="cli")
    with api_db.transaction(account.id) as session:
        assert session.execute(text("SELECT id FROM people")).scalars().all() == [mine.id]
        for table in ("console_sessions", "sign_in_links"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
    with pytest.raises(Exception, match="permission denied"), api_db.transaction(account.id) as session:
        people.set_operator(session, mine, True, actor="x")
