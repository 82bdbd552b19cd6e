"""Bulk writes into the partitioned tables by COPY, with an insert that tolerates existing rows as the fallback."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from psycopg import sql
from psycopg.errors import UniqueViolation
from sqlalchemy.orm import Session

from db.session import driver_connection

Partitioned = Literal["items", "ingests", "results"]


def leaf(table: Partitioned, bucket: int) -> sql.Identifier:
    """The partition of a bucket. COPY names it because Postgres refuses COPY into a table with row-level security;
    the roles may insert into leaves and read through the walled parent only."""
    return sql.Identifier(f"{table}_b{bucket:d}")


def copy_rows(
    session: Session, table: Partitioned, bucket: int, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows into the partition of `bucket`; psycopg's UniqueViolation when one exists already."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        leaf(table, bucket), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with driver_connection(session).cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def record_rows(
    session: Session, table: Partitioned, bucket: int, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Write outcome rows; those that exist already stay as they are (the first committed outcome wins).

    COPY costs about a fifth of an insert, and a conflict is rare: so COPY inside a savepoint first.
    """
    if not rows:
        return
    connection = driver_connection(session)
    try:
        with connection.transaction():
            copy_rows(session, table, bucket, columns, rows)
    except UniqueViolation:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
        )
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)
