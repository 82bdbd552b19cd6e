"""`tagmill users`: people are made, let in by a link, given roles and shut out; the first one of a machine."""

from pathlib import Path

import pytest
from sqlalchemy import text

from db import people, sessions, sign_in
from db.session import Database
from tests.conftest import TestAccount
from tests.worker.test_cli import Cli
from worker import local_person

PASSWORD = "correct horse battery staple"


@pytest.fixture
def users(database_url: str, tmp_path: Path) -> Cli:
    return Cli(tmp_path / "none", TAGMILL_DATABASE_URL=database_url, TAGMILL_PUBLIC_URL="https://tags.shop.example")


def token_of(link: str) -> str:
    front, _, token = link.strip().rpartition("/")
    assert front == "https://tags.shop.example/console/link"
    return token


def test_somebody_from_making_to_shutting_out(users: Cli, owner_db: Database) -> None:
    made = users("users", "create", "Anna", "--role", "curator", "--account", "shop", "--email", "anna@shop.example")
    with owner_db.transaction() as session:
        person = sign_in.use_link(session, token_of(made.stdout))
        assert (person.name, person.role, person.account_name, person.operator) == ("anna", "curator", "shop", False)
        sessions.begin(session, person, means="link", address="::1", agent="Firefox [/x]", hours=1)
    assert "no password" in users("users", "list").stdout
    assert "Firefox [/x]" in users("users", "sessions", "anna@shop.example").stdout
    users("users", "role", "anna", "admin", "--operator")
    said = users("users", "password", "anna", stdin=PASSWORD.encode() + b"\n").stdout
    assert "1 session ended" in said
    listed = users("users", "list", "--account", "shop").stdout
    assert "admin, operator" in listed
    assert PASSWORD not in listed
    users("users", "disable", "anna")
    assert "disabled" in users("users", "list").stdout
    assert "(conflict)" in users("users", "link", "anna", code=1).stderr
    users("users", "enable", "anna")
    with owner_db.transaction() as session:
        token = token_of(users("users", "link", "anna").stdout)
        assert sign_in.use_link(session, token).name == "anna"
        actions = session.execute(text("SELECT DISTINCT action FROM audit_log WHERE actor = 'cli'")).scalars().all()
    assert {"person.create", "person.role", "person.operator", "person.password", "person.disable"} <= set(actions)


def test_a_new_password_uses_up_links_that_are_about(users: Cli, owner_db: Database) -> None:
    token = token_of(users("users", "create", "anna").stdout)
    users("users", "password", "anna", stdin=PASSWORD.encode() + b"\n")
    with owner_db.transaction() as session, pytest.raises(sign_in.BadLink):
        sign_in.use_link(session, token)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "anna", "--role", "king"), "bad_person"),
        (("create", "An na"), "bad_person"),
        (("create", "anna", "--email", "nowhere"), "bad_person"),
        (("create", "taken"), "conflict"),
        (("create", "anna", "--password"), "weak_password"),
        (("link", "nobody"), "not_found"),
        (("list", "--account", "nowhere"), "not_found"),
    ],
)
def test_mistakes_are_told_in_words(users: Cli, words: tuple[str, ...], code: str) -> None:
    users("users", "create", "taken")
    assert f"({code})" in users("users", *words, code=1, stdin=b"short\n").stderr


def test_the_first_person_of_a_machine(database_url: str, owner_db: Database, account: TestAccount) -> None:
    """`tagmill up` makes them once, as an operator without a password, whoever else there is."""
    with owner_db.transaction() as session:
        session.execute(text("UPDATE accounts SET name = 'local' WHERE id = :id"), {"id": account.id})
        people.create(session, account.id, "admin", role="viewer", actor="test")
    first = local_person.sign_in_link(database_url, "http://127.0.0.1:8080")
    again = local_person.sign_in_link(database_url, "http://127.0.0.1:8080/")
    assert first[0] == again[0] == "admin-2", "the name is somebody's who is no operator"
    assert first[1] != again[1]
    with owner_db.transaction() as session:
        assert [each.name for each in people.everybody(session)] == ["admin", "admin-2"]
        person = sign_in.use_link(session, again[1].rpartition("/")[2])
    assert (person.role, person.operator, person.has_password) == ("admin", True, False)
