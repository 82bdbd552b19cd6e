"""One running system for all fault tests: what a test breaks is mended before the next one starts."""

from collections.abc import Iterator

import psycopg
import pytest

from db import accounts, webhooks
from db.session import Database
from db.webhook_secrets import Keys
from tests.conftest import Services
from tests.faults.system import Pictures, System
from tests.hostile import HostileServer

DATABASE = "faults"
KEY = "k" * 40


@pytest.fixture(scope="package")
def line(services: Services, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("faults")
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {template}")
    url = services.postgres.url_of(DATABASE)
    owner = Database(url)
    with owner.transaction() as session:
        account = accounts.create(session, "acme").id
    pictures = Pictures()
    with HostileServer(files=pictures.files) as server:
        system = System(folder, url, services.valkey.url_of(200), account, server, pictures, owner)
        system.install_models()
        try:
            yield system
        finally:
            system.close()
            owner.dispose()
            with psycopg.connect(services.postgres.url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


@pytest.fixture
def system(line: System, services: Services) -> System:
    """The system, whole: servers up, one process of each role, none of them with a failpoint."""
    services.postgres.start()
    services.valkey.start()
    line.mend()
    return line


@pytest.fixture
def endpoint(system: System) -> Iterator[dict[str, str]]:
    """An endpoint that hears of every job's end; settings under which it is sent to."""
    system.server.files["hook"] = b"ok"  # type: ignore[index]
    with system.owner.transaction() as session:
        url = system.server.url("hook")
        hook, _ = webhooks.create(session, system.account_id, url, None, None, keys=Keys([KEY]), actor="test")
    yield {
        "TAGMILL_WEBHOOK_KEYS": KEY,
        "TAGMILL_WEBHOOK_HTTP": "1",
        "TAGMILL_WEBHOOK_PORTS": str(system.server.port),
        "TAGMILL_WEBHOOK_CIDRS": "127.0.0.0/8",
        "TAGMILL_WEBHOOK_POLL_S": "0.1",
    }
    with system.owner.transaction() as session:
        webhooks.delete(session, system.account_id, hook.id, actor="test")
