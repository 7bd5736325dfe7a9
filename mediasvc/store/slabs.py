"""A body in slabs: memory that its bytes are received into, hashed in and written from, page-aligned for the disk.

A long body of known length arrives in slabs already (`web/body.py`); any other is copied into them here, in pieces
that are still in the processor's cache. Fresh pages cost more than hashing does (measured), so slabs are reused.
"""

import asyncio
import mmap
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TypeVar

from mediasvc.store.threads import ended, unbroken

T = TypeVar("T")

SLAB = (
    2 << 20
)  # bytes: what one trip into a thread is worth; with 1 MiB, 512 MiB take a fifth longer (measured)
_KEPT = 8  # slabs that wait to be filled again

_spare: list[mmap.mmap] = []


def take() -> mmap.mmap:
    """Memory of `SLAB` bytes, page-aligned; what it holds is undefined. Safe in many threads at once."""
    try:
        return _spare.pop()
    except IndexError:
        return mmap.mmap(-1, SLAB)


def is_slab(chunk: bytes | memoryview) -> bool:
    """Whether whoever holds the chunk holds a slab, and so decides when it is given back."""
    return isinstance(chunk, memoryview) and isinstance(chunk.obj, mmap.mmap)


def give_back(chunk: bytes | memoryview) -> None:
    """Nobody looks at this chunk any more: if it is a slab's, it may be filled again.

    A kindness, not a duty: what is forgotten is freed. Safe in many threads at once.
    """
    if isinstance(chunk, memoryview) and isinstance(chunk.obj, mmap.mmap) and len(_spare) < _KEPT:
        _spare.append(chunk.obj)


async def slabs(body: AsyncIterable[bytes | memoryview]) -> AsyncGenerator[memoryview, None]:
    """The body in whole slabs, only the last one shorter; none is empty."""
    slab, filled = None, 0
    async for chunk in body:
        if slab is None and isinstance(chunk, memoryview) and is_slab(chunk):
            yield chunk
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


async def in_turn(
    pool: Executor, body: AsyncIterable[bytes | memoryview], work: Callable[[memoryview], T]
) -> AsyncGenerator[T, None]:
    """What `work` makes of each slab, in order, in a thread: one is worked on while the next arrives.

    When this generator is left, by whatever way, no thread is at work any more.
    """

    def work_on(slab: memoryview) -> T:
        made = work(slab)
        give_back(slab)
        return made

    working: asyncio.Future[T] | None = None
    try:
        async with aclosing(slabs(body)) as full:
            async for slab in full:
                if working is not None:
                    yield await unbroken(working)
                working = asyncio.wrap_future(pool.submit(work_on, slab))
    except BaseException:
        if working is not None:
            await ended(working)
        raise
    if working is not None:
        yield await unbroken(working)
