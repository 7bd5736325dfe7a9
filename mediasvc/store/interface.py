"""The door to bytes at rest: `BlobStore`, and what only some stores can do.

A blob is written once under a random id and never changed. Ids come from `core.ids.new_blob_id` (32 hex
digits); nothing an uploader wrote ever becomes part of one.
"""

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from mediasvc.core.span import Span
from mediasvc.store.digests import Digests as Digests


class BlobMissing(Exception):
    """There are no bytes under this blob id."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole blob at rest: its id and its size in bytes."""

    blob_id: str
    size: int


class Files(Protocol):
    """What a store of plain files can do besides: nginx and sendfile can have them."""

    def path(self, blob_id: str) -> Path:
        """Where the blob lies; whether it is there is not looked at."""

    def open(self, blob_id: str) -> BinaryIO:
        """The blob's file, open for reading, unbuffered. Raises BlobMissing. Blocks for one system call."""

    def size(self, blob_id: str) -> int:
        """Bytes the blob's file has. Raises BlobMissing. Blocks for one system call."""

    def free(self) -> int:
        """Bytes that fit on its disk, at most. Blocks for one system call."""


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """`origin` is `http://HOST:PORT`, `host` what a request must send as Host, `target` the raw path and query."""

    origin: str
    host: str
    target: str

    def __str__(self) -> str:
        return self.origin + self.target


class Presigned(Protocol):
    """What a store that speaks HTTP can do besides: URLs with which a blob can be fetched (GET) for a while, and with
    no other credentials. They cost microseconds. Raise StoreFault where there is nothing to sign with,
    StoreUnavailable where that cannot be had at the moment."""

    def inside(self, blob_id: str, *, seconds: int) -> PresignedUrl:
        """For whoever reaches the store where we do."""

    def outside(self, blob_id: str, *, seconds: int, answer: Mapping[str, str]) -> PresignedUrl:
        """For clients. `answer`: what the store is to answer with, `response-content-type` and the like."""


class BlobStore(Protocol):
    """Keeps immutable blobs. Every method may raise StoreUnavailable (away, within 30 s), StoreFull or StoreFault."""

    @property
    def files(self) -> Files | None:
        """Blobs as plain files, where the store has them."""

    @property
    def presigned(self) -> Presigned | None:
        """URLs with which others fetch blobs, where the store has them."""

    @property
    def max_blob_size(self) -> int | None:
        """Bytes; what is larger cannot be kept (`None`: no limit of its own)."""

    async def start(self) -> None:
        """Connect and check. Raises StartupRefused where the store says no, StoreUnavailable where it is away."""

    async def check(self) -> None:
        """Raise StoreUnavailable unless the store answers and can be written to, within 5 s (for /readyz)."""

    async def put(
        self,
        blob_id: str,
        body: AsyncIterable[bytes | memoryview],
        digests: Digests,
        *,
        length: int | None = None,
    ) -> Stored:
        """Keep `body` under `blob_id`: durable when it returns, or nothing is there.

        `digests` is fed every byte, in the store's threads. `length` is what the client declared: a hint to
        plan parts with, never trusted (a body of another length is kept as it is). Raises TooLarge with
        `limit_source="store"`; what `body` raises passes through, and so does cancellation, with everything
        that was written removed.
        """

    def open(
        self, blob_id: str, span: Span | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of the span (or all) in chunks of at most 256 KiB.

        Raises BlobMissing before the first byte. A source that breaks or falls short raises StoreUnavailable
        in the middle, so that a transfer ends visibly broken, never short.
        """

    async def stat(self, blob_id: str) -> Stored:
        """Raises BlobMissing."""

    async def delete(self, *blob_ids: str) -> None:
        """Remove whole blobs. Deleting what is not there is no error."""

    async def discard(self, blob_id: str) -> None:
        """Remove everything under this id, what a broken `put` left as well (part files, multipart uploads)."""

    def scan(self, prefix: str = "") -> AsyncIterator[Stored]:
        """Every whole blob whose id begins with `prefix`, in no order."""

    def scan_unfinished(self) -> AsyncIterator[str]:
        """The blob ids for which a `put` began and neither ended nor was discarded."""

    async def close(self) -> None:
        """Let go of threads and connections."""
