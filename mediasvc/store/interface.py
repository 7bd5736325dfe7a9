"""The door to bytes at rest: `BlobStore`, and what only some stores can do.

A blob is written once under a random id and never changed. Ids come from `core.ids.new_blob_id` (32 hex
digits); nothing an uploader wrote ever becomes part of one.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

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
    """What a store that speaks HTTP can do besides: URLs with which a blob can be fetched (GET), or sent in parts
    (PUT), for a while, and with no other credentials. They cost microseconds. Raise StoreFault where there is nothing
    to sign with, StoreUnavailable where that cannot be had at the moment.

    Parts that clients send are no blob until `Resumable.finish` makes one of what `gathered` gives; nobody can send any
    more then. `BlobStore.discard` removes them, `scan_unfinished` lists them.
    """

    def inside(self, blob_id: str, *, seconds: int) -> PresignedUrl:
        """For whoever reaches the store where we do."""

    def outside(self, blob_id: str, *, seconds: int, answer: Mapping[str, str]) -> PresignedUrl:
        """For clients. `answer`: what the store is to answer with, `response-content-type` and the like."""

    def part_size(self, length: int) -> int:
        """Bytes of each part of a blob of that length; the last may be shorter. Raises TooLarge."""

    async def begin(self, blob_id: str) -> str:
        """Let clients send parts; gives what these are asked for with. What an earlier `begin` gave is over."""

    def part(
        self, blob_id: str, begun: str, number: int, *, seconds: int, size: int | None = None
    ) -> PresignedUrl:
        """For a client to send the part of that number (from 1): of `size` bytes exactly, or of any (`None`)."""

    async def parts(self, blob_id: str, begun: str) -> Mapping[int, "SentPart"]:
        """What was sent so far, by number. Raises Lost where it is over."""

    def gathered(self, blob_id: str, begun: str, parts: Sequence["SentPart"]) -> "Growing":
        """These parts, the first ones without a gap, as `Resumable.finish` takes them."""


@dataclass(frozen=True, slots=True)
class SentPart:
    """One part in the store: its ETag, in quotes, and its size in bytes."""

    etag: str
    size: int


class Lost(Exception):
    """Of a blob that grows fewer bytes are there than were promised."""


@dataclass(frozen=True, slots=True)
class Growing:
    """A blob that is not whole yet: `size` bytes of it are kept; `notes` is what its store has to remember of it
    (small JSON). Whoever lets it grow saves this value."""

    blob_id: str
    size: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)


class Resumable(Protocol):
    """Blobs that grow, append by append, until they are whole. One append at a time for each of them."""

    def append(
        self,
        growing: Growing,
        body: AsyncIterable[bytes | memoryview],
        feed: Callable[[memoryview], None],
        *,
        length: int | None = None,
    ) -> AsyncGenerator[Growing, None]:
        """Add `body` behind the first `growing.size` bytes; what an append that nobody counted left there goes.

        Yields what is kept, now and then and always at the end: each of these survives the death of this process
        once the caller has saved it. Where `body` raises an Exception, all that came is kept and yielded, then the
        exception passes through; a cancellation keeps what was yielded last. `feed` gets every byte in order, in
        the store's threads. `length` is that of the whole blob, as far as known: a hint. When a process dies in
        the middle, `found` finds all but at most 16 MiB of what came. Raises TooLarge (`limit_source="store"`).
        """

    async def found(self, growing: Growing, *, all_of_it: bool) -> Growing:
        """What is there after whoever appended died: `growing`, or more where `all_of_it` may be counted, what was
        not yielded as well. A blob that is whole already counts. Raises Lost."""

    async def sync(self, growing: Growing) -> None:
        """What is kept survives a power cut, too."""

    async def finish(self, growing: Growing) -> Stored:
        """Make it a whole blob of `growing.size` bytes under its id, durable when this returns. May be repeated,
        also after a crash in the middle. Raises Lost."""


class BlobStore(Protocol):
    """Keeps immutable blobs. Every method may raise StoreUnavailable (away, within 30 s), StoreFull or StoreFault."""

    @property
    def files(self) -> Files | None:
        """Blobs as plain files, where the store has them."""

    @property
    def presigned(self) -> Presigned | None:
        """URLs with which others fetch blobs, where the store has them."""

    @property
    def resumable(self) -> Resumable:
        """Blobs that come in several appends; `discard` removes these too, `scan_unfinished` lists them."""

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
