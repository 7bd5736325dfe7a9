"""A body cut into batches of about 1 MiB: what one trip into a thread is worth."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TypeVar

from mediasvc.store.threads import ended, unbroken

T = TypeVar("T")

BATCH = 1 << 20  # bytes
# A bound on what a body of 2-byte chunks costs in objects.
MOST_CHUNKS = 1024


async def batches(body: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """The body's chunks, unjoined, in lists of 1 MiB or a little more; no list and no chunk is empty."""
    batch: list[bytes] = []
    size = 0
    async for chunk in body:
        if not chunk:
            continue
        batch.append(chunk)
        size += len(chunk)
        if size >= BATCH or len(batch) == MOST_CHUNKS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def in_batches(
    pool: Executor, body: AsyncIterable[bytes], work: Callable[[list[bytes]], T]
) -> AsyncGenerator[T, None]:
    """What `work` makes of each batch, in order, in a thread: one batch is worked on while the next arrives.

    When this generator is left, by whatever way, no thread is at work any more.
    """
    working: asyncio.Future[T] | None = None
    try:
        async with aclosing(batches(body)) as full:
            async for batch in full:
                if working is not None:
                    yield await unbroken(working)
                working = asyncio.wrap_future(pool.submit(work, batch))
    except BaseException:
        if working is not None:
            await ended(working)
        raise
    if working is not None:
        yield await unbroken(working)
