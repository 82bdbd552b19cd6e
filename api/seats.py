"""How many event streams a process serves at once. Counts only."""

import threading

from api.errors import Problem


class Seats:
    """How many event streams this process serves now."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)

    def take(self) -> None:
        """Problem `too_many_streams` when all are taken."""
        if not self._free.acquire(blocking=False):
            raise Problem("too_many_streams", "Poll the job instead, or try later.", headers={"Retry-After": "10"})

    def leave(self) -> None:
        self._free.release()
