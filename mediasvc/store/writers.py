"""The threads that write bodies to the disk, while others look at the same bytes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from functools import partial

from mediasvc.store.disk import Incoming
from mediasvc.store.slabs import in_turn, slabs
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

    async def write(
        self,
        incoming: Incoming,
        body: AsyncIterable[bytes | memoryview],
        feed: Callable[[memoryview], None],
        *,
        first: Callable[[], None],
        last: Callable[[], None],
    ) -> None:
        """Append the body to `incoming`, between `first` and `last`; `feed` gets every byte of it, in order, in another
        thread. No thread is at work any more when this has ended, in whatever way."""
        writing, feeding = Line(self.threads), Line(self._helpers)
        around = [writing.add(first)]
        fed: Future[None] | None = None  # the last that the writer has fed

        def begin(slab: memoryview) -> Sequence[Future[None]]:
            nonlocal fed
            if len(slab) < PARALLEL and not feeding.busy:
                fed = writing.add(partial(_both, feed, incoming.write, slab))
                return (fed,)
            return (
                writing.add(partial(incoming.write, slab)),
                feeding.add(partial(_after, fed, feed, slab)),
            )

        async def whole() -> AsyncGenerator[memoryview, None]:
            async with aclosing(slabs(body)) as full:
                async for slab in full:
                    yield slab
            around.append(writing.add(last))

        try:
            async with aclosing(in_turn(whole(), begin)) as written:
                async for _ in written:
                    pass
            for step in around:
                await unbroken(asyncio.wrap_future(step))
        finally:
            await all_ended(around)


def _both(feed: Callable[[memoryview], None], write: Callable[[memoryview], None], slab: memoryview) -> None:
    feed(slab)
    write(slab)


def _after(fed: Future[None] | None, feed: Callable[[memoryview], None], slab: memoryview) -> None:
    if fed is not None:
        fed.result()
    feed(slab)
