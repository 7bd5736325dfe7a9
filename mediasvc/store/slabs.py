"""A body in slabs: memory that its bytes are received into, hashed in and written from, page-aligned for the disk.

A long body of known length arrives in slabs already (`web/body.py`), in shorter ones while its client is slow; any
other is copied into them here, in pieces that are still in the processor's cache. Fresh pages cost more than hashing
does (measured), so slabs are reused.
"""

import asyncio
import mmap
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from itertools import count
from typing import Any, TypeVar

from mediasvc.store.threads import all_ended, unbroken

T = TypeVar("T")

SLAB = (
    2 << 20
)  # bytes: what one trip into a thread is worth; with 1 MiB, 512 MiB take a fifth longer (measured)
AT_WORK = 2  # slabs of one body
_KEPT = 8  # slabs that wait to be filled again

_spare: list[mmap.mmap] = []


def take() -> mmap.mmap:
    """Memory of `SLAB` bytes, page-aligned; what it holds is undefined. Safe in many threads at once."""
    try:
        return _spare.pop()
    except IndexError:
        return mmap.mmap(-1, SLAB)


def slab_of(chunk: bytes | memoryview) -> mmap.mmap | None:
    """The slab that the chunk lies in; whoever holds the chunk decides when it is given back. None: in no slab."""
    owner = chunk.obj if isinstance(chunk, memoryview) else None
    return owner if isinstance(owner, mmap.mmap) else None


def give_back(chunk: bytes | memoryview) -> None:
    """Nobody looks at this chunk any more: if it is a slab's, it may be filled again.

    A kindness, not a duty: what is forgotten is freed. Safe in many threads at once.
    """
    slab = slab_of(chunk)
    if slab is not None and len(_spare) < _KEPT:
        _spare.append(slab)


class UntilItBreaks:
    """A body that ends where it breaks, so that all that came is worked on; `error` is what it broke with."""

    def __init__(self, body: AsyncIterable[bytes | memoryview]) -> None:
        self._body = aiter(body)
        self.error: Exception | None = None

    def __aiter__(self) -> "UntilItBreaks":
        return self

    async def __anext__(self) -> bytes | memoryview:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopAsyncIteration from None


async def slabs(body: AsyncIterable[bytes | memoryview]) -> AsyncGenerator[memoryview, None]:
    """The body in whole slabs; only the last one is shorter, and what arrives in a slab stays as it is. None is
    empty."""
    slab, filled = None, 0
    async for chunk in body:
        if slab is None and slab_of(chunk) is not None:
            yield memoryview(chunk)
            continue
        rest = memoryview(chunk)
        while rest:
            slab = slab or take()
            taken = min(len(rest), SLAB - filled)
            slab[filled : filled + taken] = rest[:taken]
            filled, rest = filled + taken, rest[taken:]
            if filled == SLAB:
                yield memoryview(slab)
                slab, filled = None, 0
        give_back(chunk)
    if slab is not None:
        yield memoryview(slab)[:filled]


class AtWork:
    """Slabs of one body that threads look at; each is given back the moment all of them have, for whoever waits
    afterwards (for a turn in the catalogue, with many others) must not hold memory meanwhile."""

    def __init__(self) -> None:
        self._slabs: deque[Sequence[Future[Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._slabs)

    @property
    def enough(self) -> bool:
        return len(self._slabs) == AT_WORK

    def add(self, slab: memoryview, futures: Sequence["Future[Any]"]) -> None:
        """`futures`: what becomes of it in threads."""
        self._slabs.append(futures)
        ended = count(1)

        def one_ended(_: "Future[Any]") -> None:
            if next(ended) == len(futures):
                give_back(slab)

        for future in futures:
            future.add_done_callback(one_ended)

    async def first(self) -> Any:
        """Wait for the first slab; gives the outcome of its first future, raises what any of them raised."""
        futures = self._slabs[0]  # they stay until they are done with, however we are cancelled
        for future in futures:
            await unbroken(asyncio.wrap_future(future))
        self._slabs.popleft()
        return futures[0].result()

    async def ended(self) -> None:
        """Returns when no thread is at work on any slab, whatever has happened."""
        await all_ended(future for futures in self._slabs for future in futures)


async def in_turn(
    full: AsyncGenerator[memoryview, None], begin: Callable[[memoryview], "Future[T]"]
) -> AsyncGenerator[T, None]:
    """What `begin` makes of each slab in a thread, in order: two of them are at work, while the next arrives.

    When this generator is left, by whatever way, no thread is at work on a slab any more.
    """
    working = AtWork()
    try:
        async with aclosing(full):
            async for slab in full:
                if working.enough:
                    yield await working.first()
                working.add(slab, [begin(slab)])
        while working:
            yield await working.first()
    finally:
        await working.ended()
