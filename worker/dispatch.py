"""Hints ready infer chunks to the workers through the broker; losing a hint costs time, never work.

    while running:  if the queue holds fewer than `window` hints: take ready chunks from Postgres, publish their ids
                    in between, many times a second: the same, if something of the interactive lane is ready

Postgres is not told that a worker took a hint: a chunk whose hint woke nobody is simply hinted again after a while.
"""

import time
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError

from db import chunks
from db.session import Database
from worker.app import CANARY_TASK, INFER_TASK, QUEUE, SCHEMA_VERSION, create_app
from worker.log import Throttle, get
from worker.settings import WorkerSettings


class Dispatcher:
    """One connection to the broker, kept while it works. Not safe for use from several threads."""

    def __init__(self, settings: WorkerSettings, database: Database) -> None:
        self._window = settings.hint_window
        self._resend_s = settings.resend_s
        self._database = database
        self._app: Celery = create_app(settings)
        self._connection: Connection | None = None
        self._log = get("dispatch")
        self._throttle = Throttle(10)

    def run_once(self) -> int:
        """Publish hints up to the window; the number published. A broker that is away counts as a full window."""
        try:
            room = self._window - self.depth()
            if room <= 0:
                return 0
            with self._database.transaction() as session:
                ids = chunks.hints(session, room, self._resend_s)
            for chunk_id in ids:
                self._send(INFER_TASK, {"chunk_id": chunk_id, "v": SCHEMA_VERSION})
        except (OperationalError, OSError) as error:
            self._lost(error)
            return 0
        if self._throttle.held:
            self._log.info("broker is back")
        self._throttle.reset()
        return len(ids)

    def urgent(self) -> bool:
        """Whether something of the interactive lane is ready: a query and no word to the broker."""
        with self._database.transaction() as session:
            return chunks.urgent_ready(session, "infer")

    def canary(self) -> None:
        """Send one message that does nothing, so that a worker can tell a quiet queue from a dead connection.

        None into a full window: nobody listens, or there are messages enough to hear.
        """
        try:
            if self.depth() < self._window:
                self._send(CANARY_TASK, {})
        except (OperationalError, OSError) as error:
            self._lost(error)

    def depth(self) -> int:
        """Hints waiting in the broker. Raises kombu's OperationalError or OSError."""
        connection = self._connect()
        try:
            client: Any = connection.default_channel.client  # type: ignore[attr-defined]
            return int(client.llen(QUEUE))
        except connection.connection_errors + connection.channel_errors as error:
            raise OperationalError(str(error)) from error

    def close(self) -> None:
        """Drop the connection; the next use opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            try:
                connection.release()  # type: ignore[no-untyped-call]
            except (OperationalError, OSError):
                return  # it was lost already

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
            self._connection.ensure_connection(max_retries=1, timeout=5)
        return self._connection

    def _send(self, name: str, kwargs: dict[str, int]) -> None:
        # It never expires: a worker would judge that by its own clock, and one that is ahead would take no hint at all.
        # A hint that waited for long wakes a worker to nothing new, which costs it a query.
        self._app.send_task(
            name,
            kwargs=kwargs,
            queue=QUEUE,
            connection=self._connect(),
            retry=False,
            argsrepr="",
            kwargsrepr="",
            ignore_result=True,
        )

    def _lost(self, error: Exception) -> None:
        if self._throttle.ready():
            self._log.warning("broker away, will keep trying", error=str(error), held_back=self._throttle.held)
            self._throttle.held = 0
        self.close()


class Turns:
    """The dispatcher's turns, every `urgent_poll_s`: all hints in every n-th, a canary in fewer, and in the others only
    what is urgent. While all is quiet, only every n-th is taken (`pause_s`). One thread, because a connection belongs
    to one."""

    def __init__(self, dispatcher: Dispatcher, settings: WorkerSettings) -> None:
        self._dispatcher = dispatcher
        self._all = max(1, round(settings.dispatch_every_s / settings.urgent_poll_s))
        self._canary = self._all * max(1, round(settings.canary_every_s / settings.dispatch_every_s))
        self._quiet_s = settings.urgent_quiet_s
        self._poll_s = settings.urgent_poll_s
        self._turn = 0
        self._hinted_at = 0.0

    def __call__(self) -> int:
        turn = self._turn
        if self._quiet():
            turn += -turn % self._all
        self._turn = turn + 1
        if turn % self._canary == 0:
            self._dispatcher.canary()
        if turn % self._all and not self._dispatcher.urgent():
            return 0
        hinted = self._dispatcher.run_once()
        if hinted:
            self._hinted_at = time.monotonic()
        return hinted

    def pause_s(self) -> float:
        """Seconds until the next turn."""
        return self._poll_s * (self._all if self._quiet() else 1)

    def _quiet(self) -> bool:
        return time.monotonic() - self._hinted_at >= self._quiet_s
