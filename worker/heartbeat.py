"""Reports that a process lives, and what it counts; a process whose reports stop loses its chunks to the reaper."""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from db import workers
from db.errors import DbError
from db.ids import uuid7
from db.session import Database
from worker.log import Throttle, get
from worker.steady import Steady


class Counters:
    """Seconds and numbers that a role adds up, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}

    def add(self, **amounts: float) -> None:
        """Add to the named counters."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[name] = self._values.get(name, 0.0) + amount

    def set(self, **values: float) -> None:
        """Set the named counters."""
        with self._lock:
            self._values.update(values)

    def snapshot(self) -> dict[str, float]:
        """The counters now, rounded to a millisecond."""
        with self._lock:
            return {name: round(value, 3) for name, value in self._values.items()}


class Heartbeat:
    """A thread that beats every `every_s`; `id` is the owner that this process writes into its leases."""

    def __init__(
        self,
        database: Database,
        role: str,
        *,
        every_s: float,
        stats: Callable[[], dict[str, Any]],
        id: UUID | None = None,
    ) -> None:
        self.id = id or uuid7()
        self.role = role
        self._database = database
        self._every_s = every_s
        self._stats = stats
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)
        self._log = get(role)
        self._throttle = Throttle(10)
        self._steady = Steady(self._log, "heartbeat")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Beat once, so that the reaper knows the owner before its first claim, and go on beating."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and say goodbye: what is still leased goes back at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._every_s + 5)
        # If it cannot be said, the missing beats say the same a little later.
        with self._steady, suppress(DbError), self._database.transaction() as session:
            workers.gone(session, self.id)

    def _loop(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._steady:
                self._beat()

    def _beat(self) -> None:
        try:
            with self._database.transaction() as session:
                workers.beat(session, self.id, self.role, socket.gethostname(), os.getpid(), self._stats())
            self._throttle.reset()
        except DbError as error:
            if self._throttle.ready():
                self._log.warning("heartbeat failed", error=str(error))


class Stopwatch:
    """`with Stopwatch(counters, "fetch_s"):` adds the seconds spent inside to that counter.

    With `cpu`, also the seconds of CPU time of this thread to that one: for what does not wait for another thread.
    """

    def __init__(self, counters: Counters, name: str, *, cpu: str | None = None) -> None:
        self._counters = counters
        self._name = name
        self._cpu = cpu

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._cpu_started = time.thread_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        spent = {self._name: time.perf_counter() - self._started}
        if self._cpu is not None:
            spent[self._cpu] = time.thread_time() - self._cpu_started
        self._counters.add(**spent)
