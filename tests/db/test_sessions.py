"""Sessions, links and attempts of the console, as maintenance and several processes at once meet them."""

import threading

import pytest
from sqlalchemy import text

from db import people, sessions, sign_in
from db.errors import Conflict
from db.session import Database
from tests.conftest import TestAccount


def test_old_rows_are_forgotten_and_no_others(owner_db: Database, db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        anna = people.create(session, account.id, "anna", actor="test")
        for _ in range(2):
            sessions.begin(session, anna, means="link", address="", agent="", hours=1)
            sign_in.issue_link(session, anna, actor="test")
            sign_in.count(session, "name:anna", 10)
        for table, column in (
            ("console_sessions", "expires_at"), ("sign_in_links", "expires_at"), ("sign_in_attempts", "created_at"),
        ):  # fmt: skip
            one = f"(SELECT id FROM {table} LIMIT 1)"
            session.execute(text(f"UPDATE {table} SET {column} = now() - interval '8 days' WHERE id = {one}"))
    with db.transaction() as session:
        sessions.forget(session)
        for table in ("console_sessions", "sign_in_links", "sign_in_attempts"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 1, table


def test_attempts_that_come_at_once_are_all_counted(api_db: Database) -> None:
    """Twelve guesses in parallel, five are looked at."""
    start = threading.Barrier(12)
    taken: list[bool] = []

    def guess() -> None:
        start.wait()
        try:
            with api_db.transaction() as session:
                sign_in.claim(session, "anna", "203.0.113.7", most_of_name=5, most_of_address=100)
            taken.append(True)
        except sign_in.TooManyAttempts:
            taken.append(False)

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == [False] * 7 + [True] * 5


def test_a_link_that_two_browsers_use_at_once_lets_one_in(
    owner_db: Database, api_db: Database, account: TestAccount
) -> None:
    with owner_db.transaction() as session:
        anna = people.create(session, account.id, "anna", actor="test")
        token = sign_in.issue_link(session, anna, actor="test")
    start = threading.Barrier(6)
    let_in: list[bool] = []

    def use() -> None:
        start.wait()
        try:
            with api_db.transaction() as session:
                sign_in.use_link(session, token)
            let_in.append(True)
        except sign_in.BadLink:
            let_in.append(False)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(let_in) == [False] * 5 + [True]


@pytest.mark.parametrize("name", ["", "-a", "a b", "ä", "a" * 64, "a@b"])
def test_names_that_cannot_be(owner_db: Database, account: TestAccount, name: str) -> None:
    with owner_db.transaction() as session, pytest.raises(people.BadPerson) as refused:
        people.create(session, account.id, name, actor="test")
    assert refused.value.field == "name"


def test_a_name_is_one_persons_in_all_accounts(owner_db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        people.create(session, account.id, "Anna", email="A@b.example", actor="test")
    for name, email in (("anna", None), ("berta", "a@B.example")):
        with pytest.raises(Conflict), owner_db.transaction() as session:
            people.create(session, account.id, name, email=email, actor="test")


def test_a_role_is_more_than_those_before_it(owner_db: Database, account: TestAccount) -> None:
    with owner_db.transaction() as session:
        curator = people.create(session, account.id, "anna", role="curator", actor="test")
    assert [curator.may(role) for role in (*people.ROLES, people.OPERATOR, "king")] == [True] * 3 + [False] * 3
