"""Places for tasks of many accounts: turns between accounts, what is urgent first within one, none lost or doubled."""

import asyncio
import random
from collections.abc import Sequence

from worker.places import Places

Asked = tuple[str, int, bool]  # name, account, urgent


async def order(asked: Sequence[Asked]) -> list[str]:
    """Who gets the one place after whom, when all asked while it was taken."""
    places = Places(1)
    await places.take()
    served: list[str] = []

    async def one(name: str, account: int, urgent: bool) -> None:
        await places.take(account, urgent=urgent)
        served.append(name)
        places.give()

    tasks = []
    for name, account, urgent in asked:
        tasks.append(asyncio.create_task(one(name, account, urgent)))
        await asyncio.sleep(0)
    places.give()
    await asyncio.gather(*tasks)
    return served


def test_what_is_urgent_comes_before_all_else_of_its_account() -> None:
    asked = [("a", 1, False), ("b", 1, False), ("now", 1, True), ("c", 1, False), ("then", 1, True)]
    assert asyncio.run(order(asked)) == ["now", "then", "a", "b", "c"]


def test_accounts_take_turns_whatever_they_call_urgent() -> None:
    greedy = [(f"urgent {n}", 1, True) for n in range(4)]
    modest = [(f"plain {n}", 2, False) for n in range(3)]
    served = asyncio.run(order([*greedy, *modest]))
    assert served == ["urgent 0", "plain 0", "urgent 1", "plain 1", "urgent 2", "plain 2", "urgent 3"]


def test_one_urgent_picture_waits_for_one_turn_of_each_other_account_at_most() -> None:
    crowd = [(f"{account}", account, True) for account in (1, 2, 3) for _ in range(50)]
    served = asyncio.run(order([*crowd, ("mine", 4, True)]))
    assert served.index("mine") <= 3


def test_places_are_neither_lost_nor_doubled_whoever_gives_up() -> None:
    chance = random.Random(7)

    async def run() -> tuple[int, int]:
        places = Places(3)
        inside = peak = 0

        async def one(account: int) -> None:
            nonlocal inside, peak
            await places.take(account, urgent=chance.random() < 0.3)
            inside += 1
            peak = max(peak, inside)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                inside -= 1
                places.give()

        tasks = [asyncio.create_task(one(chance.randrange(4))) for _ in range(400)]
        for task in chance.sample(tasks, 150):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(3):  # all three are there again
            await asyncio.wait_for(places.take(), 5)
        return peak, inside

    assert asyncio.run(run()) == (3, 0)
