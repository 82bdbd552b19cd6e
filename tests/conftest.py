"""Fixtures that every test package uses: real Postgres and Valkey, a fresh database per test, an account."""

import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from db import accounts, migrate
from db.session import API_ROLE, WORKER_ROLE, Database
from worker.embedded import EmbeddedPostgres, EmbeddedValkey

# A shell that starts us in the background has Ctrl-C ignored, and so would everything that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEMPLATE = "tagmill_template"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Services:
    """The servers of this pytest run; tests that stop or kill one must start it again."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey


@dataclass(frozen=True)
class TestAccount:
    """An account with one key that has every scope; `secret` is the key's text, as a client presents it."""

    __test__ = False

    id: int
    name: str
    key_id: str
    secret: str


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    # Throw-away data: a crash of the machine may lose it, a SIGKILL of the server may not.
    fast = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "300"}
    with (
        EmbeddedPostgres(folder / "postgres", settings=fast) as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
    ):
        yield Services(postgres, valkey)


@pytest.fixture(scope="session")
def template(services: Services) -> str:
    """The name of a migrated database that nobody connects to; tests copy it."""
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    url = services.postgres.url_of(TEMPLATE)
    migrate.upgrade(url, api_password="api", worker_password="worker")
    # The first default policy gives all three verdicts by scores alone, which most tests of the line look at.
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM policies WHERE version = 2")
        connection.execute("DELETE FROM policy_activations WHERE version = 2")
        connection.execute("UPDATE policies SET state = 'active', retired_at = NULL WHERE version = 1")
    return TEMPLATE


@pytest.fixture
def database_url(services: Services, template: str) -> Iterator[str]:
    """The owner's URL of a fresh, migrated database."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield services.postgres.url_of(name)
    # A test may have restarted the server: a fresh connection.
    with psycopg.connect(services.postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _database(url: str, role: str | None) -> Iterator[Database]:
    database = Database(url, role=role)
    yield database
    database.dispose()


@pytest.fixture
def owner_db(database_url: str) -> Iterator[Database]:
    """The database as its owner sees it: no row-level security. To set up and to look."""
    yield from _database(database_url, None)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The database as a worker sees it."""
    yield from _database(database_url, WORKER_ROLE)


@pytest.fixture
def api_db(database_url: str) -> Iterator[Database]:
    """The database as the API sees it."""
    yield from _database(database_url, API_ROLE)


@pytest.fixture
def account(owner_db: Database) -> TestAccount:
    return make_account(owner_db, "acme")


def make_account(database: Database, name: str) -> TestAccount:
    """One more account, for tests that need two."""
    with database.transaction() as session:
        made = accounts.create(session, name)
        key, secret = accounts.create_key(session, made.id, "test", accounts.SCOPES)
        return TestAccount(made.id, name, key.key_id, secret)


@pytest.fixture
def broker_url(services: Services) -> str:
    """The URL of an empty Valkey database of the test's own."""
    url = services.valkey.url_of(1 + next(_numbers) % 255)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photos and published models beside the checkout; tests skip where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is not here: no photos and no published models to test with")
    return folder
