"""Whose turn it is among accounts, and among the hosts of each; knows neither limits of hosts nor requests."""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class Turns(Generic[H]):
    """Accounts with something ready take turns, then the ready hosts within each.

    One that holds half of the places lets the others first: turns alone would leave nearly all places to the account
    whose requests are the slowest.
    """

    def __init__(self, total: int) -> None:
        """`total` places in all."""
        self._half = max(1, total // 2)
        self._held: Counter[int] = Counter()
        # Both in the order of their turns.
        self._ready: OrderedDict[int, OrderedDict[H, None]] = OrderedDict()

    def ready(self, account: int, host: H, *, first: bool = False) -> None:
        """This account could use a place at this host; said twice, it keeps its earlier turn. `first`: before the
        account's other hosts."""
        hosts = self._ready.setdefault(account, OrderedDict())
        hosts[host] = None
        if first:
            hosts.move_to_end(host, last=False)

    def next(self) -> tuple[int, H] | None:
        """Whose turn it is, out of the row by that; an account that cannot use it keeps its turn for its next host."""
        if not self._ready:
            return None
        first = next(iter(self._ready))
        account = next((each for each in self._ready if self._held[each] < self._half), first)
        hosts = self._ready[account]
        host, _ = hosts.popitem(last=False)
        if not hosts:
            del self._ready[account]
        return account, host

    def took(self, account: int) -> None:
        """It has one more place, and its next turn after all others."""
        self._held[account] += 1
        if account in self._ready:
            self._ready.move_to_end(account)

    def gave(self, account: int) -> None:
        """It has one place less."""
        self._held[account] -= 1
        if self._held[account] == 0:
            del self._held[account]
