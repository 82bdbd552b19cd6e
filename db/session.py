"""One engine per process and short transactions over it; the account of a transaction is set for row-level security."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection as PsycopgConnection
from psycopg.errors import UndefinedColumn, UndefinedFunction, UndefinedTable
from sqlalchemy import CursorResult, Result, create_engine, event, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, ProgrammingError, TimeoutError
from sqlalchemy.orm import Session as Session  # also for annotations of callers

from db.connections import SPARE_S, ImpatientConnection
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
# Said by a database that is at another revision than this code: before its migration, or after one was taken back.
OTHER_SCHEMA = (UndefinedTable, UndefinedColumn, UndefinedFunction)

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
            # A transaction whose client is gone, or does not hear it, holds its locks no longer than this.
            f"-c idle_in_transaction_session_timeout={min(30_000, statement_timeout_ms + 5000)}",
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
        _give_up_after(self.engine, statement_timeout_ms / 1000 + SPARE_S)

    @contextmanager
    def transaction(self, account_id: int | None = None) -> Iterator[Session]:
        """A transaction that commits at the end of the block and rolls back on an exception.

        With `account_id`, row-level security shows that account's rows only, until the end of the transaction.
        Raises Unavailable for what may pass by itself: a lost connection, a full pool, a statement or lock timeout,
        a server that is read-only for now, a schema that is not (or no longer) the one of this code.
        """
        with _outages(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            if account_id is not None:
                enter_account(session, account_id)
            yield session

    @contextmanager
    def statement(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction of its own. Raises as `transaction`."""
        with _outages(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


@contextmanager
def _outages() -> Iterator[None]:
    """What may pass by itself becomes Unavailable."""
    try:
        yield
    except PASSING as error:
        raise Unavailable(str(error).split("\n", 1)[0]) from error
    except (ProgrammingError, psycopg.ProgrammingError) as error:
        if not isinstance(getattr(error, "orig", error), OTHER_SCHEMA):
            raise
        # The work in hand is not at fault: it must not count as tried.
        raise Unavailable(f"the schema is another one: {str(error).split(chr(10), 1)[0]}") from error


def _give_up_after(engine: Engine, answer_s: float) -> None:
    """Its connections wait so long for an answer, and longer only within a transaction that asked for it."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: object, arguments: list[Any], named: dict[str, Any]) -> ImpatientConnection:
        made = ImpatientConnection.connect(*arguments, **named)
        made.answer_s = answer_s
        return made

    @event.listens_for(engine, "checkin")
    def reset(connection: ImpatientConnection | None, record: object) -> None:
        if connection is not None:
            connection.answer_s = answer_s


def long_statements(session: Session, seconds: int) -> None:
    """From here to the end of the transaction, a statement may take so long."""
    session.execute(text(f"SET LOCAL statement_timeout = {seconds * 1000:d}"))
    connection = driver_connection(session)
    if isinstance(connection, ImpatientConnection):
        connection.answer_s = seconds + SPARE_S


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
