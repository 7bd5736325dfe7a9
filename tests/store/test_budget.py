"""The bytes that all uploads share."""

import asyncio

import pytest

from mediasvc.store.budget import ByteBudget


def test_a_large_request_is_not_overtaken_by_small_ones() -> None:
    async def story() -> None:
        budget, order = ByteBudget(10), []
        await budget.take(6)

        async def want(name: str, size: int) -> None:
            await budget.take(size)
            order.append(name)

        waiting = [asyncio.create_task(want("large", 10)), asyncio.create_task(want("small", 1))]
        await asyncio.sleep(0)
        assert order == []
        budget.give_back(6)
        await asyncio.wait([waiting[0]])
        assert order == ["large"]
        budget.give_back(10)
        await asyncio.gather(*waiting)
        assert (order, budget.taken) == (["large", "small"], 1)

    asyncio.run(story())


def test_who_gives_up_waiting_leaves_the_line() -> None:
    async def story() -> None:
        budget = ByteBudget(10)
        await budget.take(6)
        large = asyncio.create_task(budget.take(10))
        small = asyncio.create_task(budget.take(4))
        await asyncio.sleep(0)
        large.cancel()
        await asyncio.wait_for(small, 5)
        assert large.cancelled()
        assert budget.taken == 10

    asyncio.run(story())


def test_who_is_cancelled_when_the_turn_comes_takes_nothing() -> None:
    async def story() -> None:
        budget = ByteBudget(10)
        await budget.take(10)
        waiting = asyncio.create_task(budget.take(10))
        await asyncio.sleep(0)
        budget.give_back(10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert budget.taken == 0

    asyncio.run(story())


def test_more_than_there_is_can_never_be_had() -> None:
    with pytest.raises(ValueError, match="more than the whole budget"):
        asyncio.run(ByteBudget(10).take(11))
