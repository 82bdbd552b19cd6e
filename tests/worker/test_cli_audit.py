"""`tagmill audit verify` as an operator runs it, and the duty that seals."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from db import audit
from db.session import Database
from tests.conftest import TestAccount
from tests.db.judged import judge
from tests.worker.test_cli import Cli
from worker import sealing


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Cli:
    return Cli(tmp_path / "none", TAGMILL_DATABASE_URL=database_url)


@pytest.fixture
def log(db: Database, account: TestAccount) -> int:
    """Five sealed entries, one of them the digest of a chunk's verdicts."""
    judge(db, account, ["approve", "reject"])
    with db.transaction() as session:
        for number in range(4):
            audit.record(session, account.id, "key:[red]x", "test.act", f"s{number}")
    return sealing.run_once(db)


def test_a_whole_chain_ends_with_its_head(operator: Cli, log: int) -> None:
    assert log == 5
    lines = operator("audit", "verify").stdout.splitlines()
    assert lines[0] == "whole: 5 entries from seal 1 on, 1 digest of decisions and verdicts"
    assert lines[-1].startswith("5:")
    assert "whole" in operator("audit", "verify", "--expect-head", lines[-1], "--from", "5").stdout
    found = json.loads(operator("audit", "verify", "--json", "--no-evidence").stdout)
    assert (found["sound"], found["entries"], found["evidence"], found["head"]) == (True, 5, 0, lines[-1])


def test_what_was_changed_is_named_and_ends_with_one(operator: Cli, log: int, owner_db: Database) -> None:
    with owner_db.transaction() as session:
        session.execute(text("UPDATE audit_log SET subject = '[bold]x' WHERE id = 3"))
        session.execute(text('UPDATE results SET moderation = moderation || \'{"verdict": "approve"}\''))
    shown = operator("audit", "verify", code=1).stdout
    assert "edited entry 3 is not what was sealed as 3; it says now: test.act of [bold]x by key:[red]x" in shown
    assert "edited a verdict of job" in shown
    assert "not whole" in shown
    assert "kept elsewhere" not in shown, "the head of a broken chain is nothing to keep"
    found = json.loads(operator("audit", "verify", "--json", code=1).stdout)
    assert [(each["what"], each["entry"]) for each in found["findings"]] == [("edited", 3), ("edited", 1)]


def test_a_head_that_is_gone_and_one_that_never_was(operator: Cli, log: int, owner_db: Database) -> None:
    head = operator("audit", "verify").stdout.splitlines()[-1]
    with owner_db.transaction() as session:
        for sql in ("DELETE FROM audit_log WHERE id = 5", "DELETE FROM audit_seals WHERE seq = 5"):
            session.execute(text(sql))
    assert "whole" in operator("audit", "verify").stdout
    assert f"before the expected head {head}" in operator("audit", "verify", "--expect-head", head, code=1).stdout
    assert "SEQ:HASH" in operator("audit", "verify", "--expect-head", "last", code=2).stderr


def test_an_empty_log_is_whole(operator: Cli) -> None:
    assert operator("audit", "verify").stdout.startswith("whole: 0 entries")
