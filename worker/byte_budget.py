"""How many bytes of pictures a crawler may hold at once, shared fairly between accounts; it holds none itself.

share.take(announced size) ─► there is room ─► go on
                           ─► none: wait; accounts take turns, and who has half of all lets the others first
share.shrink(real size) … share.release()
"""

import asyncio
from collections import OrderedDict

from worker.lanes import Lanes


class ByteBudget:
    """For one event loop. One body is always let in: what is larger than the whole budget would wait for ever."""

    def __init__(self, total: int) -> None:
        """`total` in bytes."""
        self.total = total
        self.used = 0
        self._held: dict[int, int] = {}
        # In the order of their turns; an account is in it only while it waits.
        self._waiting: OrderedDict[int, Lanes[tuple[asyncio.Future[None], int]]] = OrderedDict()

    def share(self, account: int = 0, *, urgent: bool = False) -> "Share":
        """The share of one body, empty as yet; `urgent` comes before what else waits of its account."""
        return Share(self, account, urgent)

    async def take(self, account: int, size: int, *, urgent: bool = False) -> None:
        """Wait until `size` bytes are free and it is this account's turn; they are given back by `give`."""
        if not self._waiting and self._fits(size):
            self._book(account, size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (turn, size)
        self._waiting.setdefault(account, Lanes()).put(place, urgent=urgent)
        self._pump()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was let in at the same moment
                self.give(account, size)
            elif account in self._waiting and self._waiting[account].remove(place):
                self._settle(account)
                self._pump()
            raise

    def give(self, account: int, size: int) -> None:
        """`size` bytes are free again."""
        self._book(account, -size)
        self._pump()

    def _book(self, account: int, size: int) -> None:
        self.used += size
        held = self._held.get(account, 0) + size
        if held:
            self._held[account] = held
        else:
            self._held.pop(account, None)

    def _fits(self, size: int) -> bool:
        return self.used == 0 or self.used + size <= self.total

    def _modest(self, account: int) -> bool:
        """Whether the first that waits of this account would leave half to the others, or is its only one."""
        held = self._held.get(account, 0)
        return held == 0 or held + self._waiting[account].first()[1] <= self.total / 2

    def _pump(self) -> None:
        """Let in who is next, again and again. Who does not fit yet holds up those behind, or never would fit."""
        while self._waiting:
            account = next((each for each in self._waiting if self._modest(each)), next(iter(self._waiting)))
            turn, size = self._waiting[account].first()
            if not turn.done():
                if not self._fits(size):
                    return
                self._book(account, size)
                turn.set_result(None)
            self._waiting[account].take()
            self._waiting.move_to_end(account)
            self._settle(account)

    def _settle(self, account: int) -> None:
        if not self._waiting[account]:
            del self._waiting[account]


class Share:
    """What one body holds of the budget, from before it is read until nobody needs it."""

    __slots__ = ("_account", "_budget", "_urgent", "size")

    def __init__(self, budget: ByteBudget, account: int, urgent: bool = False) -> None:
        self._budget = budget
        self._account = account
        self._urgent = urgent
        self.size = 0

    async def take(self, size: int) -> None:
        """Wait for room for `size` bytes; once for a share."""
        await self._budget.take(self._account, size, urgent=self._urgent)
        self.size += size

    def shrink(self, size: int) -> None:
        """It turned out to be only `size` bytes."""
        if size < self.size:
            spare, self.size = self.size - size, size
            self._budget.give(self._account, spare)

    def release(self) -> None:
        """The body is gone."""
        self.shrink(0)
