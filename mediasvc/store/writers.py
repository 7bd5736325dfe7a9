"""The threads that write bodies to the disk, while others look at the same bytes."""

from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager

from mediasvc.store.disk import Incoming
from mediasvc.store.slabs import in_turn

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
        self, incoming: Incoming, body: AsyncIterable[bytes | memoryview], feed: Callable[[memoryview], None]
    ) -> None:
        """Append the body to `incoming`; `feed` gets every byte of it, in order. No thread is at work any more
        when this has ended, in whatever way."""

        def work(slab: memoryview) -> None:
            """Feed while another thread writes, which takes half as long; ends when both have."""
            if len(slab) < PARALLEL:
                feed(slab)
                incoming.write(slab)
                return
            written = self._helpers.submit(incoming.write, slab)
            try:
                feed(slab)
            finally:
                written.result()

        async with aclosing(in_turn(self.threads, body, work)) as written:
            async for _ in written:
                pass
