"""One look at what waits, shared by the duties of a maintenance process that are done once a second."""

import threading
import time
from collections.abc import Callable

from db import pending
from db.pending import Kind
from db.session import Database

LASTS_S = 1.0


class Look:
    """Says whether something of a kind waits; it is a second old at most. From any thread."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        self._there: frozenset[Kind] = frozenset()

    def gated(self, kind: Kind, run: Callable[[], int]) -> Callable[[], int]:
        """`run`, where something of this kind is there; else nothing is done."""
        return lambda: run() if self.sees(kind) else 0

    def sees(self, kind: Kind) -> bool:
        """Whether there is something of this kind. Raises what the database does."""
        with self._lock:
            if self._clock() >= self._until:
                with self._database.transaction() as session:
                    self._there = pending.kinds(session)
                self._until = self._clock() + LASTS_S
            return kind in self._there
