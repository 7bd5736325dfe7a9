"""One blob on its way out of an S3 store. A slow reader holds a connection, never a thread."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Any

from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
from urllib3.exceptions import HTTPError

from mediasvc.core.errors import StoreUnavailable
from mediasvc.core.span import Span
from mediasvc.store.interface import BlobMissing
from mediasvc.store.s3_client import S3Client, StoreAway, StoreRefused
from mediasvc.store.threads import in_thread

CHUNK = 256 * 1024  # bytes a reader gets at once


class Download:
    """The bytes of a span (or all). A connection that breaks is made anew where it broke: blobs never change."""

    def __init__(self, client: S3Client, readers: Executor, blob_id: str, span: Span | None) -> None:
        self._client, self._readers = client, readers
        self._blob_id = blob_id
        self._at = span.start if span else 0
        self._stop = span.stop if span else None
        self._source: Any = None
        self._closed = False

    async def begin(self) -> None:
        """Raises BlobMissing; StoreUnavailable where the blob is shorter than the span."""
        if self._at != self._stop:
            await self._client.insist(self._connect)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._readers, self._get)

    def _get(self) -> None:
        ranged = {} if self._at == 0 and self._stop is None else {"Range": f"bytes={self._at}-{self._last}"}
        try:
            answer = self._client.call_unless_away("get_object", Key=self._blob_id, **ranged)
        except StoreRefused as refusal:
            if refusal.status == 416:
                raise StoreUnavailable(f"a blob ended before byte {self._at}") from refusal
            raise
        self._source = answer["Body"]
        if self._closed:  # nobody waited for us any longer
            self.close()
        length = answer["ContentLength"]
        if self._stop is None:
            self._stop = self._at + length
        elif length != self._stop - self._at:
            self.close()
            raise StoreUnavailable(f"a blob ended at byte {self._at + length}, before {self._stop}")

    @property
    def _last(self) -> str:
        return "" if self._stop is None else str(self._stop - 1)

    async def chunks(self) -> AsyncIterator[bytes]:
        """At most 256 KiB at once. Raises StoreUnavailable in the middle."""
        while self._stop is not None and self._at < self._stop:
            try:
                chunk = await self._client.insist(self._read, seconds=None)
            except BlobMissing:
                raise StoreUnavailable(f"a blob was gone at byte {self._at}") from None
            self._at += len(chunk)
            yield chunk

    async def _read(self) -> bytes:
        if self._source is None:
            await self._connect()
        return await in_thread(self._readers, self._read_chunk)

    def _read_chunk(self) -> bytes:
        assert self._stop is not None
        try:
            chunk: bytes = self._source.read(min(CHUNK, self._stop - self._at))
        except (HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError, OSError) as error:
            self._drop()
            raise StoreAway(str(error)) from error
        if not chunk:
            self._drop()
            raise StoreAway(f"the answer ended at byte {self._at}, before {self._stop}")
        return chunk

    def _drop(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()  # cuts the connection, without reading what is left

    def close(self) -> None:
        """Leave, wherever it stands."""
        self._closed = True
        self._drop()
