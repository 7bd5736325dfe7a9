"""An upload becomes an asset: durable bytes, what they are, and one transaction for all its rows."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.asset import Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import (
    ChecksumMismatch,
    Conflict,
    MediasvcError,
    NotFound,
    UploadGone,
)
from mediasvc.core.media_types import decide
from mediasvc.core.signatures import HEAD_SIZE
from mediasvc.core.span import Span
from mediasvc.core.upload import KEPT_AFTER_END, Upload
from mediasvc.ingest.admission import Admission, Limit, Wanted, check_type
from mediasvc.ingest.receive import Received, Receiver
from mediasvc.logs import log
from mediasvc.store.interface import BlobMissing, BlobStore, Digests, Growing, Lost
from mediasvc.store.slabs import in_turn, slabs

Reading = Callable[[AsyncIterable[bytes]], AsyncIterable[bytes | memoryview]]


class Completer:
    """Ends uploads, well or badly."""

    def __init__(
        self, catalogue: Catalogue, store: BlobStore, receiver: Receiver, *, clock: Callable[[], float]
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._receiver = receiver
        self._clock = clock

    async def complete(
        self,
        upload: Upload,
        growing: Growing,
        digests: Digests | None,
        sha256: str | None = None,
        *,
        reading: Reading = lambda body: body,
    ) -> tuple[Upload, Received]:
        """Every byte is here: durable and visible when this returns. `digests` None: they are read again, through
        `reading`."""
        async with self._ending(upload, "bytes that were acknowledged are not there any more"):
            stored = await self._store.resumable.finish(growing)
            if digests is None:
                digests = await _digests(reading(self._chain([upload.blob_id])))
            return await self._enter(
                upload, Blob(upload.blob_id, stored.size, digests.sha256, digests.crc32), sha256
            )

    async def join(self, upload: Upload, reading: Reading) -> tuple[Upload, Received]:
        """A tus final: the bytes of its partials, one after the other, copied; the partials stay until they expire."""
        digests = Digests()
        async with self._ending(upload, "a partial upload is not there any more"):
            blobs = [await self._whole(part) for part in upload.parts]
            chain = reading(self._chain(blobs))
            stored = await self._store.put(upload.blob_id, chain, digests, length=upload.length)
            blob = Blob(upload.blob_id, stored.size, digests.sha256, digests.crc32)
            return await self._enter(upload, blob, None)

    @asynccontextmanager
    async def _ending(self, upload: Upload, lost: str) -> AsyncIterator[None]:
        """What can be tried again leaves the upload as it is; any other error ends it, and nothing is left of it."""
        try:
            yield
        except (BlobMissing, Lost):
            await self.fail(upload, lost)
            raise UploadGone(f"{lost}: begin again") from None
        except MediasvcError as error:
            if not error.retryable:
                await self.fail(upload, error.detail)
            raise

    async def fail(self, upload: Upload, why: str) -> None:
        """The bytes go first, then the row says why. What cannot be done now is left to the sweep."""
        now = await self._catalogue.upload(upload.id)
        if now is None or now.epoch != upload.epoch or now.state not in ("open", "completing"):
            return  # somebody else's by now, or an asset's
        log.warning("upload_failed", upload_id=upload.id, reason=why)
        await self._store.discard(upload.blob_id)
        async with self._catalogue.transaction() as tx:
            await tx.end_upload(
                upload.id,
                epoch=upload.epoch,
                state="failed",
                detail=why,
                expires_at=self._clock() + KEPT_AFTER_END,
            )

    async def _enter(self, upload: Upload, blob: Blob, sha256: str | None) -> tuple[Upload, Received]:
        """The rows. Whether it may be is asked once more: bucket, types and quota may have changed."""
        wanted = wanted_of(upload.wanted)
        for expected in {sha256, wanted.sha256} - {None, blob.sha256}:
            raise ChecksumMismatch(
                f"the upload's SHA-256 is {blob.sha256}, not the {expected} that was announced"
            )
        bucket = await self._catalogue.bucket(upload.bucket)
        if bucket is None:
            raise NotFound(f"there is no bucket {upload.bucket!r} any more")
        head = await self._head(blob)
        media_type = decide(head, wanted.declared_type, wanted.name)
        check_type(media_type, bucket, wanted)
        limit = Limit(upload.limit, upload.limit_source) if upload.limit is not None else None
        kept = self._receiver.known(Admission(wanted, bucket, limit), blob, media_type, head)
        until = self._clock() + KEPT_AFTER_END
        try:
            async with self._catalogue.transaction() as tx:
                created = await tx.asset(upload.asset_id) is None
                if upload.offset != blob.size:
                    joined = replace(upload, offset=blob.size, length=blob.size)
                    await tx.save_upload(joined, at_offset=upload.offset, epoch=upload.epoch)
                # Before the asset: the room that was reserved is what the asset takes.
                await tx.end_upload(
                    upload.id, epoch=upload.epoch, state="complete", created=created, expires_at=until
                )
                received = await self._receiver.enter(tx, kept, promised=upload.asset_id)
        except Gone as gone:
            raise Conflict("the bucket or the upload was removed meanwhile; send it again") from gone
        ended = replace(
            upload, offset=blob.size, length=blob.size, state="complete", created=created, expires_at=until
        )
        return ended, Received(received.asset, created)

    async def _head(self, blob: Blob) -> bytes:
        if not blob.size:
            return b""
        async with self._store.open(blob.id, Span(0, min(blob.size, HEAD_SIZE))) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def _whole(self, upload_id: str) -> str:
        """The blob of a partial. One that is empty, or whose server died at its very end, is made a blob only now."""
        partial = await self._catalogue.upload(upload_id)
        if partial is None or partial.state != "open":
            raise UploadGone("a partial upload is over: begin again")
        try:
            await self._store.stat(partial.blob_id)
        except BlobMissing:
            await self._store.resumable.finish(Growing(partial.blob_id, partial.offset, partial.notes))
        return partial.blob_id

    async def _chain(self, blob_ids: Sequence[str]) -> AsyncIterator[bytes]:
        for blob_id in blob_ids:
            async with self._store.open(blob_id) as chunks:
                async for chunk in chunks:
                    yield chunk


async def _digests(body: AsyncIterable[bytes | memoryview]) -> Digests:
    """Taken in a thread of their own, while more is read."""
    digests = Digests()
    with ThreadPoolExecutor(1, "read-again") as thread:
        async for _ in in_turn(slabs(body), lambda slab: thread.submit(digests.update, slab)):
            pass
    return digests


def check_head(upload: Upload, bucket: Bucket | None, head: bytes) -> None:
    """Raises TypeNotAllowed for an upload that begins with these bytes."""
    if bucket is not None:
        wanted = wanted_of(upload.wanted)
        check_type(decide(head, wanted.declared_type, wanted.name), bucket, wanted)


def wanted_of(kept: Any) -> Wanted:
    """From the JSON of an upload's row."""
    return Wanted(**{**kept, "tags": tuple(kept["tags"]), "allowed_types": tuple(kept["allowed_types"])})
