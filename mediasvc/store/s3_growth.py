"""Blobs that grow in an S3 store: a multipart upload, and a tail that is not yet large enough to be a part."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import replace

from mediasvc.core.errors import MediasvcError
from mediasvc.store.interface import BlobMissing, Growing, Lost, Stored
from mediasvc.store.part_memory import Part
from mediasvc.store.parts import SMALLEST, too_large
from mediasvc.store.s3_client import UploadGone
from mediasvc.store.s3_download import Download
from mediasvc.store.s3_kept import Kept, new_tail, parts_there, remove, remove_tails, size_of
from mediasvc.store.s3_send import OCTETS, PartBody, Sender
from mediasvc.store.slabs import UntilItBreaks, give_back, slabs
from mediasvc.store.threads import in_thread

REMOVE_SECONDS = 4.0


class S3Growth:
    """The `Resumable` capability. At most one part of an append is in memory; it is sent before more is taken."""

    def __init__(self, sender: Sender, readers: Executor, hashers: Executor) -> None:
        self._sender, self._client = sender, sender.client
        self._readers, self._hashers = readers, hashers

    async def append(
        self,
        growing: Growing,
        body: AsyncIterable[bytes | memoryview],
        feed: Callable[[memoryview], None],
        *,
        length: int | None = None,
    ) -> AsyncGenerator[Growing, None]:
        """Also raises Lost. What the store did not take before it was away or full is not kept."""
        came = UntilItBreaks(body)
        append = Append(self._sender, self._readers, growing, length)
        self._sender.memory.begin()
        try:
            await append.begin()
            async with aclosing(slabs(came)) as pieces:
                async for slab in pieces:
                    append.check_room(len(slab))
                    rest = slab
                    while rest:
                        rest = rest[await in_thread(self._hashers, append.absorb, rest, feed) :]
                        if await append.store():
                            yield append.growing
                            await append.remove_superseded()
                    give_back(slab)
            if await append.store(whatever=True) or append.growing.size == growing.size:
                yield append.growing
            await append.remove_superseded()
        finally:
            append.end()
            self._sender.memory.end()
        if came.error:
            raise came.error

    async def found(self, growing: Growing, *, all_of_it: bool) -> Growing:
        try:
            return await self._look(growing, all_of_it)
        except Lost as lost:
            whole = await size_of(self._client, growing.blob_id)
            if whole is None and not growing.size:
                return growing
            if whole is None or whole < growing.size:
                raise Lost(f"not all of {growing.size} bytes are there") from lost
            return replace(growing, size=whole)

    async def _look(self, growing: Growing, all_of_it: bool) -> Growing:
        kept = Kept.noted(growing)
        if not kept.size:
            raise Lost("nothing is noted: it is whole, or nothing is there")
        if kept.upload_id:
            there = await parts_there(self._client, growing.blob_id, kept.upload_id)
            for number, part in enumerate(kept.parts, 1):
                if there.get(number) != part:
                    raise Lost(f"part {number} is not there")
            if all_of_it and (more := kept.with_more(there)) != kept:
                return more.growing(growing.blob_id)
        if kept.tail and await size_of(self._client, kept.tail) != kept.tail_size:
            raise Lost("the tail is not there")
        return growing

    async def sync(self, growing: Growing) -> None:
        """What the store has acknowledged it keeps."""

    async def finish(self, growing: Growing) -> Stored:
        try:
            await self._complete(growing)
        except (Lost, UploadGone) as lost:
            # An earlier `finish` may have come that far.
            if await size_of(self._client, growing.blob_id) != growing.size:
                raise Lost(f"not all of {growing.size} bytes are there") from lost
        with suppress(MediasvcError, TimeoutError):
            async with asyncio.timeout(REMOVE_SECONDS):
                await remove_tails(self._client, growing.blob_id)
        return Stored(growing.blob_id, growing.size)

    async def _complete(self, growing: Growing) -> None:
        blob_id, kept, sender = growing.blob_id, Kept.noted(growing), self._sender
        etags = [etag for etag, _ in kept.parts]
        if kept.tail or not kept.parts:
            tail = Part(kept.tail_size)
            await read_tail(sender, self._readers, kept, tail)
            if not kept.parts:
                # Those of appends that nobody counted; before there is a blob, for SeaweedFS's sake.
                await self._client.abort_unfinished(blob_id)
                await sender.send_part("put_object", blob_id, tail, ContentType=OCTETS)
                await sender.see(blob_id, growing.size)
                return
            number, upload_id = len(etags) + 1, kept.upload_id
            etags.append(
                await sender.send_part("upload_part", blob_id, tail, UploadId=upload_id, PartNumber=number)
            )
        await sender.complete(blob_id, kept.upload_id, etags, growing.size)


class Append:
    """One append at work: the part being filled, and what is kept so far. One thread at a time."""

    def __init__(self, sender: Sender, readers: Executor, growing: Growing, length: int | None) -> None:
        """Raises Lost; TooLarge where `length` can never be kept."""
        self._sender, self._readers = sender, readers
        self._blob_id, self._length = growing.blob_id, length
        self._kept = Kept.noted(growing)
        self._given = self._kept.tail  # kept until the next append: this one may come to nothing
        self._edge = self._kept.sequel(length).edge
        self._part: Part | None = None
        self._size = growing.size
        self._superseded: list[str] = []
        if length is not None and length > self._edge:
            raise too_large(self._edge)

    @property
    def growing(self) -> Growing:
        return self._kept.growing(self._blob_id)

    async def begin(self) -> None:
        """Take the tail back into memory; make sure that parts nobody counted never count."""
        kept = self._kept
        if kept.tail:
            await read_tail(self._sender, self._readers, kept, self._room())
        if kept.upload_id:
            client, count = self._sender.client, len(kept.parts)
            there = await parts_there(client, self._blob_id, kept.upload_id, after=count)
            for number in [number for number, (_, size) in there.items() if size >= SMALLEST]:
                # There is no way to remove a part; one this small is never counted. Ceph completes only with all
                # parts: should the blob end before this number after all, it is lost.
                blot = PartBody(memoryview(b"\0"))
                await self._sender.send(
                    "upload_part", self._blob_id, blot, UploadId=kept.upload_id, PartNumber=number
                )
        if kept.old:
            self._superseded.append(kept.old)
            await self.remove_superseded()
        self._kept = replace(kept, old="")

    def _room(self) -> Part:
        if self._part is None:
            # More than the tail has: a plan made for another length may have had larger parts.
            size = max(self._kept.sequel(self._length).next_size, self._kept.tail_size + 1)
            self._part = self._sender.memory.take(size)
        return self._part

    def check_room(self, count: int) -> None:
        """Raises TooLarge where that many bytes more do not fit."""
        self._size += count
        if self._size > self._edge:
            raise too_large(self._edge)

    def absorb(self, data: memoryview, feed: Callable[[memoryview], None]) -> int:
        """Feed what the part has room for and add it; gives how much. Blocks."""
        taken = self._room().add(data)
        feed(data[:taken])
        return taken

    async def store(self, *, whatever: bool = False) -> bool:
        """Send the part once it is full; what is in it where it grows large, or `whatever` is in it, becomes the
        tail. Says whether more is kept now."""
        part, kept = self._part, self._kept
        if part is None or part.length == kept.tail_size:
            return False
        if part.length == part.room:
            await self._store_part(part)
        elif whatever or part.length - kept.tail_size >= SMALLEST:
            key = new_tail(self._blob_id)
            await self._sender.send_part("put_object", key, part, ContentType=OCTETS)
            self._kept = kept.with_tail(key, part.length)
        else:
            return False
        if kept.tail == self._given:
            self._kept = replace(self._kept, old=kept.tail or kept.old)
        elif kept.tail:
            self._superseded.append(kept.tail)
        return True

    async def _store_part(self, part: Part) -> None:
        if not self._kept.upload_id:
            upload_id = await self._sender.create(self._blob_id)
            # Those of appends that nobody counted.
            await self._sender.client.abort_unfinished(self._blob_id, but=upload_id)
            self._kept = replace(self._kept, upload_id=upload_id)
        number = len(self._kept.parts) + 1
        try:
            etag = await self._sender.send_part(
                "upload_part", self._blob_id, part, UploadId=self._kept.upload_id, PartNumber=number
            )
        except UploadGone:
            raise Lost("the multipart upload is not there") from None
        self._kept = self._kept.with_part((etag, part.length))
        self.end()

    async def remove_superseded(self) -> None:
        """Tails that nobody can come back to. Those that stay all the same go with `finish` or `discard`."""
        keys, self._superseded = self._superseded, []
        with suppress(MediasvcError, TimeoutError):
            async with asyncio.timeout(REMOVE_SECONDS):
                await remove(self._sender.client, keys)

    def end(self) -> None:
        """Give the part's memory back."""
        part, self._part = self._part, None
        if part is not None:
            self._sender.memory.give_back(part)


async def read_tail(sender: Sender, readers: Executor, kept: Kept, part: Part) -> None:
    """Add the tail to the part. Raises Lost."""
    if not kept.tail:
        return
    download = Download(sender.client, readers, kept.tail, None)
    try:
        await download.begin()
        async for chunk in download.chunks():
            part.add(memoryview(chunk))
    except BlobMissing:
        raise Lost("the tail is not there") from None
    finally:
        download.close()
    if part.length != kept.tail_size:
        raise Lost(f"the tail has {part.length} bytes, not {kept.tail_size}")
