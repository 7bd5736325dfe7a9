"""One blob on its way into an S3 store: nothing on disk, and every part in memory is accounted for."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any

from mediasvc.core.errors import MediasvcError, StoreFault
from mediasvc.store.budget import ByteBudget
from mediasvc.store.digests import Digests
from mediasvc.store.part_memory import Part, PartMemory
from mediasvc.store.parts import PartPlan, too_large
from mediasvc.store.s3_client import S3Client, StoreAway, StoreRefused
from mediasvc.store.threads import ended, in_thread

AT_ONCE = 4  # parts of one upload; more gain nothing (measured)
UNDO_SECONDS = 4.0
SLICE = 256 * 1024
OCTETS = "application/octet-stream"
LOST = "the store acknowledged a blob and does not have all of it"


class PartBody:
    """A part as botocore and urllib3 read it: a file whose reads are views of the bytes, never copies.

    urllib3 asks for 16 KiB at a time; it is given 256 KiB, as each read costs a system call and a fight for
    the GIL. A plain `bytes` would be sent in one call, and its timeout would count for the whole part.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self._cut = False

    def __len__(self) -> int:
        return len(self._data)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def read(self, size: int = -1) -> memoryview | bytes:
        if self._cut:
            raise StoreAway("the upload was given up")
        piece = self._data[self._at : self._at + SLICE]
        self._at += len(piece)
        return piece or b""

    def cut(self) -> None:
        """Make the thread that is sending stop at its next read."""
        self._cut = True


class Outgoing:
    """Parts leave while the body arrives; a blob of a single part is one PUT."""

    def __init__(
        self,
        client: S3Client,
        senders: Executor,
        budget: ByteBudget,
        memory: PartMemory,
        blob_id: str,
        plan: PartPlan,
        digests: Digests,
    ) -> None:
        self._client, self._senders, self._budget, self._memory = client, senders, budget, memory
        self._blob_id = blob_id
        self._plan = plan
        self._digests = digests
        self._edge = plan.edge
        self._part = memory.take(plan.size(1))  # the one being filled
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
            self._part = self._memory.take(self._plan.size(self._filled + 1))
        return full

    async def send(self, part: Part) -> None:
        """Begin to send the next part, once there is room for it. Raises what an earlier part failed with."""
        if self._upload_id is None:
            self._touched = True
            await self._create()
        while len(self._sending) >= AT_ONCE:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            self.look_after_parts()
        self._sent += 1
        await self._begin("upload_part", part, UploadId=self._upload_id, PartNumber=self._sent)

    async def _create(self) -> None:
        attempts = 0

        async def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            return await self._client.ask_once(
                "create_multipart_upload", Key=self._blob_id, ContentType=OCTETS
            )

        answer = await self._client.insist(attempt)
        self._upload_id = answer["UploadId"]
        if attempts > 1:  # one whose answer was lost would lie there for a month
            await self._client.abort_unfinished(self._blob_id, but=self._upload_id)

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
            if not await self._client.insist(self._whole):
                raise StoreFault(LOST)
        else:
            await self.send(self._part)
            await self._all_sent()
            await self._client.insist(self._complete)

    async def _complete(self) -> None:
        parts = [{"PartNumber": number, "ETag": self._etags[number]} for number in sorted(self._etags)]
        try:
            await self._client.ask_once(
                "complete_multipart_upload",
                Key=self._blob_id,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
            )
        except StoreAway:
            # No answer is not a no: look before it is repeated.
            if await self._whole():
                return
            raise
        except StoreRefused as refusal:
            # An earlier attempt whose answer was lost has used the upload up.
            if refusal.code == "NoSuchUpload" and await self._whole():
                return
            raise
        if not await self._whole():
            raise StoreFault(LOST)

    async def _whole(self) -> bool:
        """Whether the store has a blob of our size. Its ETag is not asked: RGW 16 sends none for Complete."""
        try:
            answer = await self._client.ask_once("head_object", Key=self._blob_id)
        except StoreRefused as refusal:
            if refusal.missing:
                return False
            raise
        return bool(answer["ContentLength"] == self.size)

    async def _begin(self, operation: str, part: Part, **parameters: Any) -> None:
        await self._budget.take(part.length)
        body = PartBody(part.bytes)
        task = asyncio.create_task(self._send_bytes(operation, body, parameters))
        # By callback, because a task that is cancelled before its first step runs none of its own code.
        task.add_done_callback(lambda _: self._part_over(part))
        self._sending[task] = body

    def _part_over(self, part: Part) -> None:
        self._budget.give_back(part.length)
        self._memory.give_back(part)

    async def _send_bytes(self, operation: str, body: PartBody, parameters: dict[str, Any]) -> None:
        async def attempt() -> Any:
            body.seek(0)
            return await in_thread(
                self._senders,
                self._client.call_unless_away,
                operation,
                Key=self._blob_id,
                Body=body,
                **parameters,
            )

        answer = await self._client.insist(attempt, seconds=None)
        if number := parameters.get("PartNumber"):
            self._etags[number] = answer["ETag"]

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
