"""Who may overtake the chunk that a worker is at: accounts share the device, whatever they call urgent. Pure: no I/O.

Every picture scored counts for its account, as in start-time fair queueing: an account that comes late, or back,
starts at the level that the account in work has come to, so that having been away earns nothing. An account may
overtake another one while it is not more than one urgent chunk ahead of it; its own chunks it may always overtake.
"""

from collections.abc import Callable, Collection

from db.chunks import URGENT_CHUNK


class Overtaking:
    """The count of one worker, and when it is time to look again."""

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next = 0.0
        self._level = 0
        self._scored: dict[int, int] = {}

    def due(self) -> bool:
        """Whether to look for something urgent now; at most every so many seconds."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._every_s
        return True

    def scored(self, account: int, pictures: int = 1, *, overtook: bool = False) -> None:
        """Pictures of this account went through; `overtook`: ahead of another chunk, which stays the one in work."""
        count = max(self._scored.get(account, 0), self._level) + pictures
        self._scored[account] = count
        if not overtook:
            self._level = count

    def ahead(self, account: int) -> Collection[int]:
        """The accounts that may not overtake a chunk of this one now."""
        limit = max(self._scored.get(account, 0), self._level) + URGENT_CHUNK
        return [other for other, count in self._scored.items() if other != account and count >= limit]
