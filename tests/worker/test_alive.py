"""The health check of containers: a role is alive on a host if it beat there lately."""

import socket

import pytest

from db import workers
from db.ids import uuid7
from db.session import Database
from worker import alive


def test_only_the_role_that_beat_on_this_host_is_alive(db: Database) -> None:
    with db.transaction() as session:
        workers.beat(session, uuid7(), "crawler", "here", 1, {})
    assert alive.beats(db, "crawler", "here")
    assert not alive.beats(db, "worker", "here")
    assert not alive.beats(db, "crawler", "elsewhere")


def test_silence_and_goodbye_are_not_life(db: Database) -> None:
    gone = uuid7()
    with db.transaction() as session:
        workers.beat(session, gone, "crawler", "here", 1, {})
        workers.gone(session, gone)
        workers.beat(session, uuid7(), "worker", "here", 1, {})
    assert not alive.beats(db, "crawler", "here")
    assert not alive.beats(db, "worker", "here", within_s=0.0)


def test_the_exit_code_says_it(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAGMILL_DATABASE_URL", database_url)
    monkeypatch.setenv("TAGMILL_BLOB_ROOT", "unused")
    monkeypatch.setenv("TAGMILL_MODEL_ROOT", "unused")
    assert alive.main("maintenance") == 1
    with db.transaction() as session:
        workers.beat(session, uuid7(), "maintenance", socket.gethostname(), 1, {})
    assert alive.main("maintenance") == 0
    monkeypatch.setenv("TAGMILL_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert alive.main("maintenance") == 1
    assert "database_unavailable" in capsys.readouterr().err
