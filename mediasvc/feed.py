"""The live feed within one process: transactions announce what they committed, followers hear of it.

Nothing is kept: who was not there has missed it, and asks the catalogue. A follower that is too slow to read is told
that it missed something, so that nobody's slowness costs memory.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mediasvc.core.event import Event

MOST_PENDING = 256  # events that wait for one follower; an asset counts once, however often it changed


@dataclass(frozen=True, slots=True)
class News:
    """What happened since the last time, oldest first; `missed`: more than was kept."""

    events: Sequence[Event] = ()
    missed: bool = False


class Follower:
    """One who listens. Of an asset that changes again before it was told only the last event is kept."""

    def __init__(self, wants: Callable[[Event], bool]) -> None:
        self._wants = wants
        self._pending: dict[str, Event] = {}
        self._missed = False
        self._closed = False
        self._bell = asyncio.Event()

    async def news(self, within: float) -> News | None:
        """What is new as soon as there is something, nothing after `within` seconds; None where the feed has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._bell.wait()
        if self._closed:
            return None
        self._bell.clear()
        news = News(tuple(self._pending.values()), self._missed)
        self._pending, self._missed = {}, False
        return news

    def _hear(self, event: Event) -> None:
        if self._missed or not self._wants(event):
            return
        self._pending.pop(event.asset_id, None)
        self._pending[event.asset_id] = event
        if len(self._pending) > MOST_PENDING:
            self._pending, self._missed = {}, True
        self._bell.set()

    def _end(self) -> None:
        self._closed = True
        self._bell.set()


class Feed:
    """Hands every event to everyone who follows; all of it on the event loop's thread."""

    def __init__(self) -> None:
        self._followers: set[Follower] = set()
        self._closed = False

    def announce(self, events: Iterable[Event]) -> None:
        """Never waits, and never fails: what is announced has happened."""
        for event in events if self._followers else ():
            for follower in self._followers:
                follower._hear(event)

    @contextmanager
    def follow(self, wants: Callable[[Event], bool]) -> Iterator[Follower]:
        """Hear of every event that `wants` says yes to, from now to the end of the block."""
        follower = Follower(wants)
        if self._closed:
            follower._end()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """The server stops: every follower is told that this was the last of it."""
        self._closed = True
        for follower in self._followers:
            follower._end()
