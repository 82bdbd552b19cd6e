"""The API as its role runs it, and a client of it."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TestAccount
from tests.worker.test_up import until
from worker import leashed, roles
from worker.client import Client
from worker.service import free_port


@pytest.fixture
def api_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """The API alone, as its role runs it."""
    listen = roles.Listen(port=free_port(), workers=1, threads=4)
    variables = {
        "TAGMILL_DATABASE_URL": database_url,
        "TAGMILL_DATABASE_ROLE": "tagmill_api",
        "TAGMILL_BLOB_ROOT": str(tmp_path / "blobs"),
        "TAGMILL_MODEL_ROOT": str(tmp_path / "models"),
    }
    process = leashed.spawn(roles.command("api", listen), env=roles.environment(variables), output=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{listen.port}"
    with Client(url, None) as client:
        until(client.ready)
    yield url
    leashed.end_child(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


@pytest.fixture
def client(api_url: str, account: TestAccount) -> Iterator[Client]:
    with Client(api_url, account.secret) as made:
        yield made
