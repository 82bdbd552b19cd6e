"""`tagmill moderate` as a person runs it: verdicts with reasons, failures, and what is not there."""

import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from db import chunks
from db.ids import item_id, uuid7
from db.session import Database
from tests.db.test_moderations import ingest, judge
from tests.worker.line import rows
from tests.worker.test_cli import EVIL, Cli, user
from tests.worker.test_up import TAGMILL

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


def test_a_picture_that_cannot_be_taken_is_named_and_the_others_go_on(
    user: Cli, owner_db: Database, tmp_path: Path
) -> None:
    zero, after = tmp_path / "zero.jpg", tmp_path / "after.jpg"
    zero.write_bytes(b"")
    after.write_bytes(b"\xff\xd8\xff")
    wrong = ["http://", "ftp://a.example/b.jpg", str(tmp_path)]
    with Workers(owner_db, 2, "approve"):
        ran = user("moderate", URL, str(zero), "no-such.jpg", *wrong, str(after), code=1)
    lines = [line.split() for line in ran.stdout.splitlines()]
    told = [(lines[n][0], lines[n][1], lines[n + 1][0]) for n in range(len(lines) - 1) if lines[n][0] == "failed"]
    assert told == [
        ("failed", str(zero), "no_picture:"),
        ("failed", "no-such.jpg", "no_such_file:"),
        ("failed", "http://", "invalid_body:"),
        ("failed", "ftp://a.example/b.jpg", "no_such_file:"),
        ("failed", str(tmp_path), "not_a_file:"),
    ]
    approved = [line for line in lines if line[0] == "approve"]
    assert [line[1] for line in approved] == [URL, str(after)]
    items = rows(owner_db, "SELECT id, job_id FROM moderations ORDER BY id")
    assert [line[2:] for line in approved] == [[str(m.id), "item", item_id(m.job_id, 0)] for m in items], (
        "for `banks add`"
    )


def test_as_json_a_picture_that_was_not_taken_is_a_line_too(user: Cli) -> None:
    failed = json.loads(user("moderate", "no-such.jpg", "--json", code=1).stdout)
    assert (failed["picture"], failed["state"], failed["code"]) == ("no-such.jpg", "failed", "no_such_file")


def test_a_verdict_is_told_when_it_comes_and_an_interruption_counts(user: Cli, owner_db: Database) -> None:
    command = [*TAGMILL, "moderate", "no-such.jpg", URL, "https://shop.example/2.jpg"]
    ran = subprocess.Popen(
        command, env=user.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert ran.stdout is not None
    assert ran.stdout.readline().split()[:2] == [b"failed", b"no-such.jpg"], "while the others wait"
    while len(rows(owner_db, "SELECT 1 FROM moderations")) < 2:
        assert ran.poll() is None
    with owner_db.transaction() as session:
        (held,) = chunks.claim(session, "ingest", uuid7(), 60, 1)
    first = rows(owner_db, "SELECT job_id FROM moderations ORDER BY id")[0].job_id == held.job_id
    slow, fast = (URL, "https://shop.example/2.jpg") if first else ("https://shop.example/2.jpg", URL)
    ingest(owner_db)
    judge(owner_db, "approve")
    ran.stdout.readline()  # why the first one failed
    assert ran.stdout.readline().split()[:2] == [b"approve", fast.encode()], "whatever waits before it"
    ran.send_signal(signal.SIGINT)
    out, err = ran.communicate(timeout=60)
    assert ran.returncode == 130, err
    assert out.split()[:2] == [b"pending", slow.encode()]
    assert err.decode() == "Stopped: 2 of 3 sent, 1 have a verdict; the others get it.\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([URL, "--context", "A B"], "invalid_body"),
        ([URL, "--policy", "no-such"], "unknown_policy"),
    ],
)
def test_mistakes_are_told_in_words(user: Cli, owner_db: Database, words: list[str], code: str) -> None:
    assert f"({code})" in user("moderate", *words, code=1).stderr
    assert rows(owner_db, "SELECT 1 FROM moderations") == []
