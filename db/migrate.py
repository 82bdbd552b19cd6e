"""Brings a database to the newest schema and gives the roles their passwords. Run by `tagmill migrate`."""

import time
from collections.abc import Callable
from importlib.resources import files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from db.locks import lock_key
from db.session import API_ROLE, WORKER_ROLE, psycopg_url

TRIES: Final = 10
"""A migration that meets running roles may lose a deadlock against them, or wait too long for a lock: then it is rolled
back, they go on, and it is tried again."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")))
    return config


def head() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(session: Session) -> str | None:
    """The revision that the database is at, or None when it was never migrated."""
    if session.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = session.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


def upgrade(
    url: str, *, api_password: str | None = None, worker_password: str | None = None, revision: str = "head"
) -> None:
    """Migrate as the owner; two at once wait for each other. With passwords, the roles become logins."""
    engine = create_engine(psycopg_url(url), poolclass=NullPool, connect_args={"options": "-c lock_timeout=10000"})
    try:
        with engine.connect() as lock, engine.connect() as connection:
            lock.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key("tagmill.migrate")})
            config = _config()
            config.attributes["connection"] = connection
            MigrationContext.configure(connection)._ensure_version_table()
            connection.commit()
            _try(connection, lambda: command.upgrade(config, revision))
            for role, password in ((API_ROLE, api_password), (WORKER_ROLE, worker_password)):
                if password is not None:
                    _let_login(connection, role, password)
            connection.commit()
            lock.rollback()
    finally:
        engine.dispose()


def downgrade(url: str, revision: str) -> None:
    """Migrate back to a revision ('base' for none)."""
    engine = create_engine(psycopg_url(url), poolclass=NullPool, connect_args={"options": "-c lock_timeout=10000"})
    try:
        with engine.connect() as connection:
            config = _config()
            config.attributes["connection"] = connection
            _try(connection, lambda: command.downgrade(config, revision))
    finally:
        engine.dispose()


def _try(connection: Connection, run: Callable[[], None]) -> None:
    """Run migrations, each a transaction of its own, and commit; what met a lock is tried again."""
    for left in reversed(range(TRIES)):
        try:
            run()
            connection.commit()
        except OperationalError as error:
            connection.rollback()
            if not left or not isinstance(error.orig, DeadlockDetected | LockNotAvailable):
                raise
            time.sleep(0.5)
        else:
            return


def _let_login(connection: Connection, role: str, password: str) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None
    # Hashed here, because servers may log the statement.
    hashed = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
    # Through SQLAlchemy, else its commit() sees no transaction and leaves the change to be rolled back.
    connection.exec_driver_sql(statement.as_string(driver))
