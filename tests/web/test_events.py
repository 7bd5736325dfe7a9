"""The live feed within the process: who hears what, and what slowness costs."""

import asyncio

import pytest

from mediasvc.core.event import Event
from mediasvc.feed import MOST_PENDING, Feed, News

pytestmark = pytest.mark.anyio


def event(number: int, bucket: str = "media", *, deleted: bool = False) -> Event:
    return Event(f"ast_{number}", bucket, f"key {number}", deleted)


async def test_everybody_hears_what_he_wants_to_hear_from_then_on() -> None:
    feed = Feed()
    feed.announce([event(0)])
    with feed.follow(lambda _: True) as one, feed.follow(lambda one: one.bucket == "public") as other:
        feed.announce([event(1), event(2, "public")])
        assert await one.news(5) == News((event(1), event(2, "public")))
        assert await other.news(5) == News((event(2, "public"),))
    feed.announce([event(3)])
    assert await one.news(0) == News()


async def test_who_waits_is_woken_and_silence_is_told_too() -> None:
    feed = Feed()
    with feed.follow(lambda _: True) as follower:
        assert await follower.news(0) == News()
        waiting = asyncio.create_task(follower.news(60))
        await asyncio.sleep(0)
        feed.announce([event(1)])
        assert await waiting == News((event(1),))


async def test_of_an_asset_only_the_last_event_waits() -> None:
    feed = Feed()
    with feed.follow(lambda _: True) as follower:
        feed.announce([event(1), event(2), event(1, deleted=True)])
        assert await follower.news(5) == News((event(2), event(1, deleted=True)))


async def test_who_is_too_slow_is_told_that_he_missed_something_and_costs_nothing() -> None:
    feed = Feed()
    with feed.follow(lambda _: True) as slow:
        feed.announce(event(number) for number in range(MOST_PENDING * 3))
        assert len(slow._pending) == 0
        assert await slow.news(5) == News(missed=True)
        feed.announce([event(1)])
        assert await slow.news(5) == News((event(1),))


async def test_closing_ends_it_for_who_waits_and_for_who_comes_later() -> None:
    feed = Feed()
    with feed.follow(lambda _: True) as follower:
        waiting = asyncio.create_task(follower.news(60))
        await asyncio.sleep(0)
        feed.close()
        assert await waiting is None
    with feed.follow(lambda _: True) as late:
        assert await late.news(60) is None
