"""Connections to Postgres that do not wait for ever: one that is frozen, or behind a wire that swallows bytes, is
given up.

`statement_timeout` is the server's own promise, and a server that stands still keeps none. What the kernel notices by
itself (`tcp_user_timeout`, keepalives) is a machine that is gone, not a process that hangs.
"""

from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

RV = TypeVar("RV")
SPARE_S: Final = 5.0
"""Beyond the time that the server gives a statement: it says so itself, where it can."""
PING_S: Final = 3.0


class ImpatientConnection(psycopg.Connection[Any]):
    """Closes itself, and raises OperationalError, when an answer takes longer than `answer_s`."""

    answer_s = 30.0 + SPARE_S

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """What the generator comes to; every word of ours to the server goes through here."""
        if timeout is None:
            # Autocommit: SQLAlchemy asks whether a pooled connection is alive, which takes no time where it is.
            timeout = PING_S if self.autocommit else self.answer_s
        try:
            return super().wait(gen, interval, timeout)
        except _WaitTimeout:
            self.pgconn.finish()  # what it might still answer is nobody's
            raise
