"""What maintenance tells of the installation with its heartbeat; it decides nothing."""

from typing import Any

from db import review_load
from db.session import Database
from db.webhook_secrets import key_id
from worker.heartbeat import Counters
from worker.settings import WorkerSettings

REVIEWS_EVERY_S = 30.0  # with 100,000 open tasks it takes 0.1 to 0.2 s


class Report:
    """The counters of the process; which webhook keys it has (ids tell keys apart without telling them); and how much
    waits for people, once it is counted."""

    def __init__(self, settings: WorkerSettings, counters: Counters) -> None:
        self._counters = counters
        self._reviews: dict[str, Any] | None = None
        self._keys = [key_id(key) for key in settings.webhook_keys]

    def stats(self) -> dict[str, Any]:
        """What the heartbeat stores."""
        reviews = {} if self._reviews is None else {"reviews": self._reviews}
        return {**self._counters.snapshot(), "webhook_keys": self._keys, **reviews}

    def count_reviews(self, database: Database) -> int:
        """Count what waits for people; the next beats tell it."""
        with database.transaction() as session:
            self._reviews = review_load.count(session)
        return 1
