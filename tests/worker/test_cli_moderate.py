"""`tagmill moderate` as a person runs it: verdicts with reasons, failures, and what is not there."""

import json
import threading
from pathlib import Path

import pytest

from db.session import Database
from tests.db.test_moderations import ingest, judge
from tests.worker.line import rows
from tests.worker.test_cli import EVIL, Cli, user

__all__ = ["user"]  # the fixture
URL = "https://shop.example/1.jpg"


class Workers:
    """Inside the block, what is sent gets this verdict, or fails, once there are so many."""

    def __init__(self, database: Database, count: int, verdict: str = "review", code: str | None = None) -> None:
        self._database = database
        self._count = count
        self._verdict = verdict
        self._code = code
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while len(rows(self._database, "SELECT 1 FROM moderations")) < self._count and not self._over.wait(0.05):
            continue
        ingest(self._database, self._code)
        judge(self._database, self._verdict)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_each_picture_has_its_verdict_and_why(user: Cli, owner_db: Database, tmp_path: Path) -> None:
    file = tmp_path / "a [red].jpg"
    file.write_bytes(b"\xff\xd8\xff")
    with Workers(owner_db, 2):
        shown = user("moderate", str(file), URL, "--user", "u-1", "--context", "avatar", "--category", "Dress").stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["review", "porn_review"] * 2
    assert str(file) in shown
    assert URL in shown
    stored = rows(owner_db, "SELECT subject_user, context FROM moderations")
    assert [tuple(row) for row in stored] == [("u-1", "avatar")] * 2
    assert {row.category for row in rows(owner_db, "SELECT category FROM items")} == {"Dress"}


def test_as_json_every_line_is_a_moderation(user: Cli, owner_db: Database) -> None:
    with Workers(owner_db, 1, "approve"):
        shown = user("moderate", URL, "--json", "--product", EVIL).stdout
    moderation = json.loads(shown)
    assert (moderation["verdict"], moderation["subject"]["product"]) == ("approve", EVIL)


def test_a_failed_picture_says_so_and_fails_the_command(user: Cli, owner_db: Database) -> None:
    with Workers(owner_db, 1, code="http_404"):
        shown = user("moderate", URL, code=1).stdout
    assert shown.split()[0] == "failed"
    assert "http_404: so it is" in shown


def test_without_a_verdict_in_time_it_ends(user: Cli) -> None:
    assert user("moderate", URL, "--wait", "0", code=1).stdout.startswith("pending")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["no-such.jpg"], "no_such_file"),
        (["."], "not_a_file"),
        (["ftp://a.example/b.jpg"], "no_such_file"),
        ([URL, "--context", "A B"], "invalid_body"),
        ([URL, "--policy", "no-such"], "unknown_policy"),
    ],
)
def test_mistakes_are_told_in_words(user: Cli, owner_db: Database, words: list[str], code: str) -> None:
    assert f"({code})" in user("moderate", *words, code=1).stderr
    assert rows(owner_db, "SELECT 1 FROM moderations") == []
