"""What maintenance tells of the installation with its heartbeat; it decides nothing."""

from typing import Any

from db.webhook_secrets import key_id
from worker.heartbeat import Counters
from worker.settings import WorkerSettings


class Report:
    """The counters of the process, and which webhook keys it has: ids tell keys apart without telling them."""

    def __init__(self, settings: WorkerSettings, counters: Counters) -> None:
        self._counters = counters
        self._keys = [key_id(key) for key in settings.webhook_keys]

    def stats(self) -> dict[str, Any]:
        """What the heartbeat stores."""
        return {**self._counters.snapshot(), "webhook_keys": self._keys}
