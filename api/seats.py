"""How many event streams and exports a process serves at once, in all and for one account. Counts only."""

import threading
from collections import Counter
from collections.abc import Iterator

from api.errors import Problem

AGAIN = {"Retry-After": "10"}


class Seats:
    """The streams that this process serves now; each holds a thread, so no account may have them all."""

    def __init__(self, most: int, most_per_account: int) -> None:
        self._most = most
        self._most_per_account = most_per_account
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    def take(self, account_id: int) -> "Seat":
        """Problems: `too_many_streams` (all are taken), `too_many_streams_of_account` (the account has its share)."""
        with self._lock:
            if self._taken[account_id] >= self._most_per_account:
                detail = f"An account may have {self._most_per_account} at once; end one, poll instead, or try later."
                raise Problem("too_many_streams_of_account", detail, headers=AGAIN)
            if self._taken.total() >= self._most:
                raise Problem("too_many_streams", "Poll the job instead, or try later.", headers=AGAIN)
            self._taken[account_id] += 1
        return Seat(self, account_id)

    def offer(self, account_id: int) -> "Seat | None":
        """A seat if there is one: for who can do without."""
        with self._lock:
            if self._taken[account_id] >= self._most_per_account or self._taken.total() >= self._most:
                return None
            self._taken[account_id] += 1
        return Seat(self, account_id)

    def give_back(self, account_id: int) -> None:
        """One less."""
        with self._lock:
            self._taken[account_id] -= 1
            if not self._taken[account_id]:
                del self._taken[account_id]


class Seat:
    """One taken seat."""

    def __init__(self, seats: Seats, account_id: int) -> None:
        self._seats = seats
        self._account_id = account_id
        self._left = False

    def leave(self) -> None:
        """Free it. Safe to call twice."""
        if not self._left:
            self._left = True
            self._seats.give_back(self._account_id)

    def during(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        """The stream, and at its end the seat is free."""
        try:
            yield from stream
        finally:
            self.leave()
