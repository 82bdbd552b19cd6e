"""Ends a Celery worker that has gone deaf: idle, while messages wait in the broker; it restarts nothing itself.

Kombu ≥ 5.7 with a socket timeout recovers from every broken connection that was tried; this is the second belt for
the ones that were not. The supervisor starts the worker again; a kill costs nothing, for Postgres holds the work.
"""

import os
import signal
import threading
import time
from contextlib import suppress

import redis
from celery.signals import task_received
from celery.worker import state as worker_state

from worker.app import KEY_PREFIX, QUEUE, connect
from worker.log import get
from worker.settings import WorkerSettings
from worker.steady import Steady


class Ear:
    """Decides from what it is told whether the worker is deaf. Pure: no clock, no connection."""

    def __init__(self, deaf_after_s: float, now: float) -> None:
        self._deaf_after_s = deaf_after_s
        self._fine_at = now

    def heard(self, now: float) -> None:
        """A message arrived."""
        self._fine_at = max(self._fine_at, now)

    def deaf(self, now: float, *, busy: bool, waiting: int) -> bool:
        """True once the worker has been idle with `waiting` > 0 messages, hearing none, for `deaf_after_s`."""
        if busy or waiting == 0:
            self._fine_at = now
        return now - self._fine_at >= self._deaf_after_s


def start(settings: WorkerSettings) -> None:
    """Watch this process from a thread. To be called in the worker's parent process only."""
    ear = Ear(settings.deaf_after_s, time.monotonic())

    def received(**_: object) -> None:
        ear.heard(time.monotonic())

    task_received.connect(received, weak=False)
    threading.Thread(target=_watch, args=(settings, ear), name="watchdog", daemon=True).start()


def _watch(settings: WorkerSettings, ear: Ear) -> None:
    logger = get("worker")
    pause = min(10.0, settings.deaf_after_s / 3)
    steady = Steady(logger, "watchdog")
    while True:
        time.sleep(pause)
        waiting = 0  # with the broker away, everybody hears nothing: not deaf
        # A fresh connection each time: an old one may be the deaf one.
        with steady, suppress(redis.RedisError), connect(settings.broker_url) as client:
            waiting = client.llen(KEY_PREFIX + QUEUE)
        if ear.deaf(time.monotonic(), busy=bool(worker_state.active_requests), waiting=waiting):
            logger.error("deaf: messages wait and none arrives, ending", waiting=waiting, after_s=settings.deaf_after_s)
            os.kill(os.getpid(), signal.SIGKILL)
