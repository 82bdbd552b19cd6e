"""`tagmill accounts`: shares and limits are set, shown and noted."""

from pathlib import Path

import pytest
from sqlalchemy import text

from db.session import Database
from tests.conftest import TestAccount
from tests.worker.test_cli import Cli


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Cli:
    return Cli(tmp_path / "none", TAGMILL_DATABASE_URL=database_url)


def row_of(shown: str, name: str) -> list[str]:
    return next(line.split() for line in shown.splitlines() if line.split()[:1] == [name])


def test_shares_and_limits(operator: Cli, account: TestAccount, owner_db: Database) -> None:
    name = account.name
    assert row_of(operator("accounts", "list").stdout, name) == [name, "1", "as", "all", "as", "all", "0"]
    operator("accounts", "set", name, "--share", "5", "--items-per-day", "20000")
    said = operator("accounts", "set", name, "--requests-per-minute", "0").stdout
    assert said == f"{name}: share 5, requests a minute any, items a day 20,000.\n"
    assert row_of(operator("accounts", "list").stdout, name) == [name, "5", "any", "20,000", "0"]
    assert "as all" in operator("accounts", "set", name, "--as-all").stdout
    with owner_db.transaction() as session:
        noted = session.scalars(text("SELECT detail FROM audit_log WHERE action = 'account.change' ORDER BY id")).all()
        kept = session.execute(text("SELECT weight, requests_per_minute, items_per_day FROM accounts")).one()
    assert noted[0] == {"weight": 5, "items_per_day": 20000}
    assert noted[2] == {"requests_per_minute": None, "items_per_day": None}
    assert tuple(kept) == (5, None, None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nobody", "--share", "2"), 1, "no account named 'nobody'"),
        (("acme",), 2, "say what is to change"),
        (("acme", "--as-all", "--items-per-day", "1"), 2, "it takes limits away"),
        (("acme", "--share", "0"), 2, "--share"),
    ],
)
def test_what_is_wrong_is_said(
    operator: Cli, account: TestAccount, words: tuple[str, ...], code: int, said: str
) -> None:
    assert said in operator("accounts", "set", *words, code=code).stderr
