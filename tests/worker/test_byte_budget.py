"""The crawler's budget of bytes in hand: its bound, its turns between accounts, and what a cancelled wait leaves."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.byte_budget import ByteBudget, Share


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def taking(budget: ByteBudget, account: int, size: int) -> tuple[Share, asyncio.Task[None]]:
    share = budget.share(account)
    return share, asyncio.create_task(share.take(size))


def test_what_does_not_fit_waits_until_it_does() -> None:
    async def main() -> None:
        budget = ByteBudget(100)
        first, second = budget.share(), budget.share()
        await first.take(60)
        await second.take(40)
        third, waiting = taking(budget, 0, 50)
        await settled()
        assert not waiting.done()
        second.shrink(10)  # 30 free
        await settled()
        assert not waiting.done()
        first.release()
        await waiting
        assert budget.used == 60
        third.release()
        third.release()
        second.release()
        assert budget.used == 0

    asyncio.run(main())


def test_one_body_larger_than_all_is_let_in_alone() -> None:
    async def main() -> None:
        budget = ByteBudget(100)
        small = budget.share()
        await small.take(1)
        large, waiting = taking(budget, 0, 500)
        _, behind = taking(budget, 0, 1)
        await settled()
        assert not waiting.done()
        assert not behind.done()  # else small ones could hold it up for ever
        small.release()
        await waiting
        await settled()
        assert not behind.done()
        large.release()
        await behind

    asyncio.run(main())


def test_accounts_take_turns_and_none_takes_more_than_half_from_others() -> None:
    async def main() -> None:
        budget = ByteBudget(100)
        greedy = [taking(budget, 1, 10) for _ in range(30)]
        await settled()
        assert sum(task.done() for _, task in greedy) == 10  # alone, it may have everything
        others = [taking(budget, 2, 10) for _ in range(8)]
        await settled()
        for share, _ in greedy[:5]:
            share.release()
        await settled()
        assert sum(task.done() for _, task in others) == 5  # all that became free: the greedy one has half
        assert sum(task.done() for _, task in greedy) == 10
        for share, _ in greedy[5:7]:
            share.release()
        await settled()
        assert sum(task.done() for _, task in others) + sum(task.done() for _, task in greedy) == 17
        for _, task in [*greedy, *others]:
            task.cancel()

    asyncio.run(main())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 150), st.integers(0, 4), st.booleans()), max_size=30),
)
def test_nothing_is_lost_whatever_is_cancelled(plan: list[tuple[int, int, int, bool]]) -> None:
    async def body(budget: ByteBudget, account: int, size: int, ticks: int) -> None:
        share = budget.share(account)
        try:
            await share.take(size)
            assert budget.used <= max(100, size)
            for _ in range(ticks):
                await asyncio.sleep(0)
        finally:
            share.release()

    async def main() -> list[Any]:
        budget = ByteBudget(100)
        tasks = []
        for account, size, ticks, cancelled in plan:
            tasks.append(asyncio.create_task(body(budget, account, size, ticks)))
            for _ in range(ticks):
                await asyncio.sleep(0)
            if cancelled:
                tasks[-1].cancel()
        async with asyncio.timeout(10):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert budget.used == 0
        await budget.take(7, 100)
        return [result for result in results if isinstance(result, Exception)]

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("size", [0, 1])
def test_a_wait_that_is_cancelled_at_the_moment_of_its_turn_keeps_nothing(size: int) -> None:
    async def main() -> None:
        budget = ByteBudget(1)
        first = budget.share()
        await first.take(1)
        second, waiting = taking(budget, 0, size)
        await settled()
        first.release()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (budget.used, second.size) == (0, 0)

    asyncio.run(main())
