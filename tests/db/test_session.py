"""What a transaction raises when the database is there and does not serve, and what it keeps out of error texts."""

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from db import migrate
from db.errors import Unavailable
from db.session import WORKER_ROLE, Database, driver_connection
from tests.conftest import Services


def test_a_server_that_turned_read_only_is_unavailable_not_broken(database_url: str, db: Database) -> None:
    name = database_url.rsplit("/", 1)[1]
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        fresh = Database(database_url, role=WORKER_ROLE)
        try:
            with pytest.raises(Unavailable), fresh.transaction() as session:
                session.execute(text("DELETE FROM hosts"))
        finally:
            owner.execute("SET default_transaction_read_only = off")
            owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            fresh.dispose()
    with db.transaction() as session:
        session.execute(text("DELETE FROM hosts"))


def test_an_idle_transaction_that_the_server_ended_is_unavailable(db: Database) -> None:
    with pytest.raises(Unavailable), db.transaction() as session:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
        session.execute(text("SELECT 1"))
        with psycopg.connect(db.engine.url.set(drivername="postgresql").render_as_string(False)) as other:
            other.execute("SELECT pg_sleep(0.3)")
        session.execute(text("SELECT 1"))


def test_a_schema_that_is_another_one_is_unavailable_not_broken(owner_db: Database, db: Database) -> None:
    """Before its migration, say: the work in hand is not at fault. An error in a statement of ours stays one."""
    with owner_db.transaction() as session:
        session.execute(text("ALTER TABLE hosts RENAME TO guests"))
    with pytest.raises(Unavailable, match="another"), db.transaction() as session:
        session.execute(text("DELETE FROM hosts"))
    with pytest.raises(Unavailable, match="another"), db.transaction() as session:
        driver_connection(session).execute("SELECT nothing FROM jobs")
    with pytest.raises(ProgrammingError), db.transaction() as session:
        session.execute(text("SELEKT 1"))


def test_parameters_stay_out_of_error_texts(db: Database) -> None:
    with pytest.raises(DBAPIError) as failed, db.transaction() as session:
        session.execute(text("SELECT CAST(:url AS integer)"), {"url": "https://x.test/?token=secret"})
    assert "token=secret" not in str(failed.value).split("[SQL", 1)[1]


def test_roles_log_in_with_the_password_that_migration_gave_them(services: Services, database_url: str) -> None:
    migrate.upgrade(database_url, worker_password="worker")
    url = database_url.replace(services.postgres.url.split("@")[0], "postgresql://tagmill_worker:worker")
    login = Database(url)
    with login.transaction() as session:
        assert session.scalar(text("SELECT current_user")) == "tagmill_worker"
    login.dispose()
