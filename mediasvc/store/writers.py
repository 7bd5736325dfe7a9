"""The threads that write bodies to the disk, while others look at the same bytes."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial

from mediasvc.store.disk import Incoming
from mediasvc.store.slabs import AtWork, slabs
from mediasvc.store.threads import Line, all_ended, unbroken

PARALLEL = 256 * 1024  # bytes from which a second thread is worth its while


class Writers:
    """`threads`: for all that blocks and writes."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(16, "store-write")  # two for each upload at work
        self._helpers = ThreadPoolExecutor(8, "store-write-too")
        self._being_written: set[str] = set()

    @property
    def pools(self) -> tuple[ThreadPoolExecutor, ...]:
        return self.threads, self._helpers

    @contextmanager
    def alone(self, blob_id: str) -> Iterator[None]:
        """Nobody else writes this blob meanwhile."""
        if blob_id in self._being_written:
            raise RuntimeError(f"blob {blob_id} is being written already")
        self._being_written.add(blob_id)
        try:
            yield
        finally:
            self._being_written.discard(blob_id)

    @asynccontextmanager
    async def written(
        self,
        incoming: Incoming,
        body: AsyncIterable[bytes | memoryview],
        feed: Callable[[memoryview], None],
        *,
        first: Callable[[], None],
        last: Callable[[], None],
    ) -> AsyncIterator[None]:
        """Append the body to `incoming`, between `first` and `last`; `feed` gets every byte of it, in order, in another
        thread where that is worth its while.

        Entered when it is written: what comes after that may begin while the last of it is still being fed. Left when
        all is fed; no thread is at work any more then, in whatever way that came.
        """
        writing, feeding, working = Line(self.threads), Line(self._helpers), AtWork()
        around = [writing.add(first)]
        fed: Future[None] | None = None  # the last that the writer has fed
        try:
            async with aclosing(slabs(body)) as full:
                async for slab in full:
                    if working.enough:
                        await working.first()
                    if len(slab) < PARALLEL and not feeding.busy:
                        fed = writing.add(partial(_both, feed, incoming.write, slab))
                        working.add(slab, [fed])
                    else:
                        write = writing.add(partial(incoming.write, slab))
                        working.add(slab, [write, feeding.add(partial(_after, fed, feed, slab))])
            around.append(writing.add(last))
            await unbroken(asyncio.wrap_future(around[-1]))  # of a line: it has failed if anything in it has
            yield
            while working:
                await working.first()
        finally:
            await working.ended()
            await all_ended(around)


def _both(feed: Callable[[memoryview], None], write: Callable[[memoryview], None], slab: memoryview) -> None:
    feed(slab)
    write(slab)


def _after(fed: Future[None] | None, feed: Callable[[memoryview], None], slab: memoryview) -> None:
    if fed is not None:
        fed.result()
    feed(slab)
