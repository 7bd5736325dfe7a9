"""One blob on its way into an S3 store: nothing on disk, and its parts leave while it arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from mediasvc.core.errors import MediasvcError
from mediasvc.store.digests import Digests
from mediasvc.store.part_memory import Part
from mediasvc.store.parts import PartPlan, too_large
from mediasvc.store.s3_send import OCTETS, PartBody, Sender
from mediasvc.store.threads import ended

AT_ONCE = 4  # parts of one upload; more gain nothing (measured)
UNDO_SECONDS = 4.0


class Outgoing:
    """Parts leave while the body arrives; a blob of a single part is one PUT."""

    def __init__(self, sender: Sender, blob_id: str, plan: PartPlan, digests: Digests) -> None:
        self._sender = sender
        self._blob_id = blob_id
        self._plan = plan
        self._digests = digests
        self._edge = plan.edge
        self._part = sender.memory.take(plan.size(1))  # being filled
        self._filled = 0  # parts
        self.size = 0
        self._upload_id: str | None = None
        self._sent = 0
        self._sending: dict[asyncio.Task[None], PartBody] = {}
        self._etags: dict[int, str] = {}
        self._touched = False  # whether the store may know of us

    def absorb(self, slab: memoryview) -> list[Part]:
        """Hash a slab and add it to the part being filled; gives the parts that are full. Blocks.

        A part is full when a byte comes for which it has no room, so the last one is never empty.
        """
        full: list[Part] = []
        self.size += len(slab)
        if self.size > self._edge:
            raise too_large(self._edge)
        self._digests.update(slab)
        while slab := slab[self._part.add(slab) :]:
            full.append(self._part)
            self._filled += 1
            self._part = self._sender.memory.take(self._plan.size(self._filled + 1))
        return full

    async def send(self, part: Part) -> None:
        """Begin to send the next part, once there is room for it. Raises what an earlier part failed with."""
        if self._upload_id is None:
            self._touched = True
            self._upload_id = await self._sender.create(self._blob_id)
        while len(self._sending) >= AT_ONCE:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            self.look_after_parts()
        self._sent += 1
        await self._begin("upload_part", part, UploadId=self._upload_id, PartNumber=self._sent)

    def look_after_parts(self) -> None:
        """Raises what a part failed with."""
        for task in [task for task in self._sending if task.done()]:
            del self._sending[task]
            task.result()

    async def finish(self) -> None:
        """Send what is left, make the blob visible, and see that it is all there."""
        if self._upload_id is None:
            self._touched = True
            await self._begin("put_object", self._part, ContentType=OCTETS)
            await self._all_sent()
            await self._sender.see(self._blob_id, self.size)
        else:
            await self.send(self._part)
            await self._all_sent()
            etags = [self._etags[number] for number in sorted(self._etags)]
            await self._sender.complete(self._blob_id, self._upload_id, etags, self.size)

    async def _begin(self, operation: str, part: Part, **parameters: Any) -> None:
        await self._sender.budget.take(part.length)
        body = PartBody(part.bytes)
        task = asyncio.create_task(self._send_bytes(operation, body, parameters))
        # By callback, because a task that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: self._part_over(part))
        self._sending[task] = body

    def _part_over(self, part: Part) -> None:
        self._sender.budget.give_back(part.length)
        self._sender.memory.give_back(part)

    async def _send_bytes(self, operation: str, body: PartBody, parameters: dict[str, Any]) -> None:
        etag = await self._sender.send(operation, self._blob_id, body, **parameters)
        if number := parameters.get("PartNumber"):
            self._etags[number] = etag

    async def _all_sent(self) -> None:
        while self._sending:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            self.look_after_parts()

    async def undo(self, discard: Callable[[str], Awaitable[None]]) -> None:
        """Stop sending and leave nothing in the store, as far as it answers within 4 s; a sweep does the rest."""
        for task, body in self._sending.items():
            body.cut()
            task.cancel()
        # A part that is still being sent could be stored after the abort.
        for task in self._sending:
            await ended(task)
        if self._touched:
            with suppress(MediasvcError, TimeoutError):
                async with asyncio.timeout(UNDO_SECONDS):
                    await discard(self._blob_id)
