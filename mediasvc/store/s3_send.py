"""Bytes on their way into an S3 store: every part in memory is accounted for, every outcome is looked at."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from mediasvc.core.errors import StoreFault
from mediasvc.store.budget import ByteBudget
from mediasvc.store.part_memory import Part, PartMemory
from mediasvc.store.s3_client import S3Client, StoreAway, StoreRefused
from mediasvc.store.threads import ended, in_thread

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


class Sender:
    """All uploads share it: one pool of threads, one budget of bytes being sent, the memory of parts."""

    def __init__(self, client: S3Client, threads: Executor, budget: ByteBudget, memory: PartMemory) -> None:
        self.client, self._threads = client, threads
        self.budget, self.memory = budget, memory

    async def create(self, key: str) -> str:
        """Begin a multipart upload; gives its id."""
        attempts = 0

        async def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            return await self.client.ask_once("create_multipart_upload", Key=key, ContentType=OCTETS)

        upload_id: str = (await self.client.insist(attempt))["UploadId"]
        if attempts > 1:  # one whose answer was lost would lie there for a month
            await self.client.abort_unfinished(key, but=upload_id)
        return upload_id

    async def send(self, operation: str, key: str, body: PartBody, **parameters: Any) -> str:
        """`put_object` or `upload_part`, for as long as the store takes; gives the ETag."""

        async def attempt() -> Any:
            body.seek(0)
            return await in_thread(
                self._threads, self.client.call_unless_away, operation, Key=key, Body=body, **parameters
            )

        answer = await self.client.insist(attempt, seconds=None)
        return str(answer.get("ETag", ""))  # not every store sends one for a whole object

    async def send_part(self, operation: str, key: str, part: Part, **parameters: Any) -> str:
        """`send`, once there is room for it in the budget. Nobody reads the part any more when this has ended."""
        await self.budget.take(part.length)
        body = PartBody(part.bytes)
        sending = asyncio.create_task(self.send(operation, key, body, **parameters))
        try:
            await asyncio.wait([sending])
        except BaseException:
            body.cut()
            sending.cancel()
            await ended(sending)
            raise
        finally:
            self.budget.give_back(part.length)
        return sending.result()

    async def see(self, key: str, size: int) -> None:
        """Raises StoreFault unless the store has a blob of that size."""
        if not await self.client.insist(lambda: self._whole(key, size)):
            raise StoreFault(LOST)

    async def complete(self, key: str, upload_id: str, etags: Sequence[str], size: int) -> None:
        """Make the parts a blob of `size` bytes, and see that it is all there."""
        await self.client.insist(lambda: self._complete(key, upload_id, etags, size))

    async def _complete(self, key: str, upload_id: str, etags: Sequence[str], size: int) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        try:
            await self.client.ask_once(
                "complete_multipart_upload", Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
        except StoreAway:
            # No answer is not a no: look before it is repeated.
            if await self._whole(key, size):
                return
            raise
        except StoreRefused as refusal:
            # An earlier attempt whose answer was lost has used the upload up.
            if refusal.code == "NoSuchUpload" and await self._whole(key, size):
                return
            raise
        if not await self._whole(key, size):
            raise StoreFault(LOST)

    async def _whole(self, key: str, size: int) -> bool:
        """Whether the store has a blob of that size. Its ETag is not asked: RGW 16 sends none for Complete."""
        try:
            answer = await self.client.ask_once("head_object", Key=key)
        except StoreRefused as refusal:
            if refusal.missing:
                return False
            raise
        return bool(answer["ContentLength"] == size)
