"""Blobs in one bucket of any S3 service, under their ids."""

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial

from mediasvc.core.errors import StartupRefused, StoreUnavailable
from mediasvc.core.span import Span
from mediasvc.store.budget import ByteBudget
from mediasvc.store.digests import Digests
from mediasvc.store.interface import Stored
from mediasvc.store.part_memory import PartMemory
from mediasvc.store.parts import LARGEST, MAX_BLOB_SIZE, PartPlan
from mediasvc.store.s3_client import S3Client, StoreAway, StoreRefused
from mediasvc.store.s3_download import Download
from mediasvc.store.s3_growth import S3Growth
from mediasvc.store.s3_kept import remove, remove_tails, tails_there
from mediasvc.store.s3_presigned import S3Presigned
from mediasvc.store.s3_send import Sender
from mediasvc.store.s3_upload import Outgoing
from mediasvc.store.slabs import in_turn, slabs
from mediasvc.store.threads import Line, unbroken
from mediasvc.store.url import S3Url

IN_FLIGHT = LARGEST  # bytes of parts being sent, of all uploads together
CHECK_SECONDS = 5.0
PROBE = "mediasvc-probe"  # a key that is no blob id

_BLOB_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}


class S3Store:
    """An S3 bucket. What `put` returned has been acknowledged by the store and looked at once more."""

    files = None
    max_blob_size: int | None = MAX_BLOB_SIZE

    def __init__(self, url: S3Url) -> None:
        self._url = url
        self._client = S3Client(url)
        self.presigned = S3Presigned(self._client)
        self._senders = ThreadPoolExecutor(12, "s3-send")  # as many as smallest parts fit into the budget
        self._readers = ThreadPoolExecutor(16, "s3-read")
        self._hashers = ThreadPoolExecutor(8, "s3-hash")
        self._sender = Sender(self._client, self._senders, ByteBudget(IN_FLIGHT), PartMemory())
        self.resumable = S3Growth(self._sender, self._readers, self._hashers)
        self._accepted = False  # whether the store has let us write and delete since we started

    async def start(self) -> None:
        try:
            await self._try_out()
        except StoreRefused as refusal:
            raise StartupRefused(self._advice(refusal.code)) from refusal

    async def check(self) -> None:
        try:
            await self._try_out()
        except StoreRefused as refusal:
            raise StoreUnavailable(self._advice(refusal.code)) from refusal

    async def _try_out(self) -> None:
        """One question without repetition; the first time also whether we may write and delete."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._look()
        except (StoreAway, TimeoutError) as error:
            raise StoreUnavailable(f"the store at {self._url.address} does not answer") from error

    async def _look(self) -> None:
        # A listing and not HEAD: only an answer with a body says what is wrong.
        await self._client.probe("list_objects_v2", MaxKeys=1)
        if not self._accepted:
            await self._client.probe("put_object", Key=PROBE, Body=b"")
            await self._client.probe("delete_object", Key=PROBE)
            self._accepted = True

    def _advice(self, code: str) -> str:
        at = f"at {self._url.address}"
        if code == "NoSuchBucket":
            return (
                f"the store's bucket {self._url.bucket} does not exist {at}: "
                "run `mediasvc store init` with the same settings"
            )
        if code == "NoCredentials":
            return f"the store {at} needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if code in _WRONG_KEYS:
            return (
                f"the store {at} does not accept the credentials ({code}): "
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if code == "AccessDenied":
            return (
                f"the credentials may not list, write and delete in bucket {self._url.bucket} {at}: allow it"
            )
        if code == "CertificateNotTrusted":
            return (
                f"the certificate of the store {at} is not trusted: set AWS_CA_BUNDLE to its authority's file"
            )
        return f"the store {at} refuses to work with bucket {self._url.bucket} ({code}): check MEDIASVC_STORE_URL"

    async def put(
        self,
        blob_id: str,
        body: AsyncIterable[bytes | memoryview],
        digests: Digests,
        *,
        length: int | None = None,
    ) -> Stored:
        plan = PartPlan(length)
        self._sender.memory.begin()
        outgoing = Outgoing(self._sender, blob_id, plan, digests)
        try:
            hashing = Line(self._hashers)
            absorbing = in_turn(slabs(body), lambda slab: hashing.add(partial(outgoing.absorb, slab)))
            async with aclosing(absorbing) as absorbed:
                async for full in absorbed:
                    outgoing.look_after_parts()
                    for part in full:
                        await outgoing.send(part)
            await outgoing.finish()
        except BaseException:
            await unbroken(outgoing.undo(self.discard))
            raise
        finally:
            self._sender.memory.end()
        return Stored(blob_id, outgoing.size)

    @asynccontextmanager
    async def open(self, blob_id: str, span: Span | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        if span is not None and span.length == 0:  # HTTP has no range of no bytes
            await self.stat(blob_id)
        download = Download(self._client, self._readers, blob_id, span)
        try:
            await download.begin()
            yield download.chunks()
        finally:
            download.close()

    async def stat(self, blob_id: str) -> Stored:
        answer = await self._client.ask("head_object", Key=blob_id)
        return Stored(blob_id, answer["ContentLength"])

    async def delete(self, *blob_ids: str) -> None:
        await remove(self._client, blob_ids)

    async def discard(self, blob_id: str) -> None:
        # First what is unfinished, then what is whole: SeaweedFS could destroy an object on a late abort.
        await self._client.abort_unfinished(blob_id)
        await remove_tails(self._client, blob_id)
        await self.delete(blob_id)

    async def scan(self, prefix: str = "") -> AsyncIterator[Stored]:
        markers = {"NextContinuationToken": "ContinuationToken"}
        async for page in self._client.pages("list_objects_v2", markers, Prefix=prefix):
            for item in page.get("Contents", ()):
                if _BLOB_ID.fullmatch(item["Key"]):
                    yield Stored(item["Key"], item["Size"])

    async def scan_unfinished(self) -> AsyncIterator[str]:
        begun: set[str] = set()
        async for key, _ in self._client.unfinished(""):
            if key not in begun and _BLOB_ID.fullmatch(key):
                begun.add(key)
                yield key
        async for tail in tails_there(self._client):
            if (blob_id := tail[:32]) not in begun:
                begun.add(blob_id)
                yield blob_id

    async def close(self) -> None:
        for pool in (self._hashers, self._senders, self._readers):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._client.close)
