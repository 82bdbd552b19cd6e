"""A number of places that tasks of many accounts wait for; it does no work in them.

A free place goes to the accounts in turns, and within an account to what is urgent first: nobody gets more by calling
everything urgent, and a single urgent picture never stands behind its own account's thousands.
"""

import asyncio
from collections import OrderedDict

from worker.lanes import Lanes

Turn = asyncio.Future[None]


class Places:
    """For one event loop."""

    def __init__(self, total: int) -> None:
        self._free = total
        # In the order of their turns; an account is in it only while it waits.
        self._waiting: OrderedDict[int, Lanes[Turn]] = OrderedDict()

    async def take(self, account: int = 0, *, urgent: bool = False) -> None:
        """Wait for a place; it is given back by `give`."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        turn: Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, Lanes()).put(turn, urgent=urgent)
        self._pump()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was let in at the same moment
                self.give()
            raise

    def give(self) -> None:
        """A place is free again."""
        self._free += 1
        self._pump()

    def _pump(self) -> None:
        while self._free > 0 and self._waiting:
            account, waiting = next(iter(self._waiting.items()))
            turn = waiting.take()
            if not turn.done():  # one that was cancelled costs the account no turn
                self._free -= 1
                turn.set_result(None)
                self._waiting.move_to_end(account)
            if not waiting:
                del self._waiting[account]
