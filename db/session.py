"""One engine per process and short transactions over it; the account of a transaction is set for row-level security."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection as PsycopgConnection
from sqlalchemy import CursorResult, Result, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError
from sqlalchemy.orm import Session as Session  # also for annotations of callers

from db.errors import Unavailable

# InternalError is what Postgres says when it turned read-only (a failover, a full disk) or ended an idle transaction.
PASSING = (
    OperationalError,
    InterfaceError,
    InternalError,
    TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
)

API_ROLE = "tagmill_api"
WORKER_ROLE = "tagmill_worker"


def psycopg_url(url: str) -> URL:
    """The SQLAlchemy URL, with the psycopg (3) driver, of a plain postgres:// or postgresql:// one."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    return parsed.set(drivername="postgresql+psycopg")


class Database:
    """Postgres as one role sees it.

    With `role`, and a login that is another one, connections take the role as their start-up setting, so that even
    `RESET ROLE` comes back to it and the tables' owner is never the one who asks.
    """

    def __init__(
        self,
        url: str,
        *,
        role: str | None = None,
        pool_size: int = 5,
        statement_timeout_ms: int = 30_000,
        application_name: str = "tagmill",
    ) -> None:
        options = [
            f"-c statement_timeout={statement_timeout_ms}",
            "-c lock_timeout=10000",
            "-c idle_in_transaction_session_timeout=30000",
            "-c timezone=UTC",
        ]
        if role is not None:
            options.append(f"-c role={role}")
        self.engine = create_engine(
            psycopg_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
            pool_recycle=1800,
            hide_parameters=True,  # customers' URLs do not belong into logs
            connect_args={
                "options": " ".join(options),
                "application_name": application_name,
                "connect_timeout": 5,
                "keepalives_idle": 30,
                "tcp_user_timeout": 30_000,
            },
        )

    @contextmanager
    def transaction(self, account_id: int | None = None) -> Iterator[Session]:
        """A transaction that commits at the end of the block and rolls back on an exception.

        With `account_id`, row-level security shows that account's rows only, until the end of the transaction.
        Raises Unavailable for what may pass by itself: a lost connection, a full pool, a statement or lock timeout,
        a server that is read-only for now.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                if account_id is not None:
                    enter_account(session, account_id)
                yield session
        except PASSING as error:
            raise Unavailable(str(error).split("\n", 1)[0]) from error

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def enter_account(session: Session, account_id: int) -> None:
    """From here to the end of the transaction, row-level security shows this account's rows."""
    session.execute(text("SELECT set_config('tagmill.account', :account, true)"), {"account": str(account_id)})


def changed(result: Result[Any]) -> int:
    """How many rows a statement inserted, updated or deleted."""
    assert isinstance(result, CursorResult)
    return result.rowcount


def driver_connection(session: Session) -> PsycopgConnection[Any]:
    """The psycopg connection under the session's transaction, for COPY."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, PsycopgConnection)
    return connection
