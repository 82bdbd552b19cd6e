"""The API over a real database, in process and behind gunicorn."""

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.settings import ApiSettings
from db import accounts
from db.session import Database
from tests.api.browsers import Browser, signed_in, somebody
from tests.conftest import TestAccount, make_account

Make = Callable[..., Flask]
_people = itertools.count(1)


@pytest.fixture
def make_app(database_url: str, tmp_path: Path) -> Iterator[Make]:
    """An app with these settings changed."""
    made: list[Flask] = []

    def make(**changed: Any) -> Flask:
        given = {"database_url": database_url, "blob_root": tmp_path / "blobs", "model_root": tmp_path / "models"}
        made.append(create_app(ApiSettings(**(given | changed))))
        return made[-1]

    yield make
    for app in made:
        app.extensions["tagmill"].database.dispose()


@pytest.fixture
def app(make_app: Make) -> Flask:
    return make_app()


def client_of(app: Flask, account: TestAccount) -> FlaskClient:
    """A client that presents the account's key."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {account.secret}"
    return client


@pytest.fixture
def client(app: Flask, account: TestAccount) -> FlaskClient:
    return client_of(app, account)


@pytest.fixture
def other(owner_db: Database) -> TestAccount:
    """Another account."""
    return make_account(owner_db, "rival")


def key_with(database: Database, account: TestAccount, *scopes: str) -> dict[str, str]:
    """Headers with a key of the account that has these scopes only."""
    with database.transaction() as session:
        _, secret = accounts.create_key(session, account.id, "narrow", scopes)
    return {"Authorization": f"Bearer {secret}"}


@dataclass(frozen=True)
class Server:
    """Where a gunicorn listens, and its first process."""

    address: str
    pid: int

    def peak_memory(self) -> int:
        """The most bytes that its worker process has held so far (Linux's VmHWM)."""
        worker = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0]
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@contextmanager
def gunicorn(database_url: str, folder: Path, **settings: Any) -> Iterator["Server"]:
    """A real server process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"database_url": database_url, "blob_root": folder / "blobs", "model_root": folder / "models"} | settings
    environment = os.environ | {f"TAGMILL_{name.upper()}": str(value) for name, value in given.items()}
    command = [
        sys.executable, "-m", "gunicorn", "api.wsgi:app", "--bind", f"127.0.0.1:{port}", "--threads", "8",
        "--worker-class", "api.server.HeadFirstWorker", "--no-control-socket", "--log-level", "warning",
        "--graceful-timeout", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "gunicorn ended"
                assert time.monotonic() < until, "gunicorn did not come up"
                time.sleep(0.05)
        yield Server(f"127.0.0.1:{port}", process.pid)
    finally:
        with suppress(ProcessLookupError):  # the test may have killed it
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@pytest.fixture
def browse(app: Flask, owner_db: Database, account: TestAccount) -> Callable[..., Browser]:
    """`browse("curator")`: a browser in which somebody new with this role is signed in, of `account` or another."""

    def sign_in(role: str = "admin", of: TestAccount | None = None, **given: Any) -> Browser:
        whose = of or account
        name = given.pop("name", f"{role}-{whose.name}-{next(_people)}")
        return signed_in(app, owner_db, somebody(owner_db, whose, name, role, **given))

    return sign_in
