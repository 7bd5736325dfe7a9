"""The body of one append as it arrives: what it may be at most, and whether it is what it was announced to be."""

import hashlib
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from mediasvc.core.errors import (
    AppendMismatch,
    BadRequest,
    BodyMismatch,
    InconsistentLength,
    MediasvcError,
    OffsetMismatch,
    QuotaExceeded,
    TooLarge,
)
from mediasvc.core.signatures import HEAD_SIZE
from mediasvc.core.upload import Upload
from mediasvc.ingest.admission import Limit
from mediasvc.ingest.commands import Append, Begin, Checksum


class Hasher(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: memoryview, /) -> None:
        self._crc = zlib.crc32(data, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(4, "big")


class Checks:
    """What a body is announced to hash to, and what it does hash to; false where nothing was announced.

    Raises BadRequest for an algorithm that is not known here.
    """

    def __init__(self, command: Begin | Append) -> None:
        # tus has a status of its own for its checksum.
        announced = (command.checksum, AppendMismatch), (command.content_digest, BodyMismatch)
        self._all = [(one, _hasher_of(one), error) for one, error in announced if one is not None]

    def __bool__(self) -> bool:
        return bool(self._all)

    def update(self, data: memoryview) -> None:
        for _, hasher, _ in self._all:
            hasher.update(data)

    def compare(self) -> None:
        """All of the body has come. Raises AppendMismatch, BodyMismatch."""
        for announced, hasher, error in self._all:
            if hasher.digest() != announced.digest:
                raise error(
                    f"the body's {announced.algorithm} is not the announced one; nothing of it was kept"
                )


def _hasher_of(checksum: Checksum) -> Hasher:
    match checksum.algorithm:
        case "crc32":
            return _Crc32()
        case "sha1" | "sha256" | "sha512" | "md5" as algorithm:
            # They find what was garbled on the way; none of them has to hold against an attacker here.
            return hashlib.new(algorithm, usedforsecurity=False)
    raise BadRequest("the checksum's algorithm is none of sha1, sha256, md5 and crc32")


def agreed(upload: Upload, command: Append) -> Upload:
    """The upload, with the length that the append tells; nothing has been read yet.

    Raises OffsetMismatch, InconsistentLength, TooLarge.
    """
    offset, length = upload.offset, upload.length
    if command.offset != offset:
        raise OffsetMismatch(
            f"the upload is at byte {offset}, not {command.offset}: go on from there",
            offset=offset,
            provided=command.offset,
        )
    told = [command.length]
    if command.completes and command.size is not None:
        told.append(offset + command.size)
    for one in told:
        if one is None:
            continue
        if length not in (None, one) or one < offset:
            raise InconsistentLength(
                f"the upload has {length if length is not None else offset} bytes, not {one}"
            )
        length = one
    if length is not None and upload.limit is not None and length > upload.limit:
        raise Limit(upload.limit, upload.limit_source).exceeded("the upload")
    if length is not None and offset + (command.size or 0) > length:
        raise TooLarge(
            f"the body goes beyond the upload's {length} bytes", limit=length, limit_source="upload"
        )
    return replace(upload, length=length)


def ends_upload(error: MediasvcError, command: Append) -> bool:
    """Whether the whole upload ends with an append that is refused so: in the draft (I12) with one of more bytes than
    its length leaves, however the body is framed. What is larger than a limit allows may come again, and smaller."""
    beyond_length = isinstance(error, TooLarge) and error.limit_source == "upload"
    return beyond_length and command.completes is not None


class Arriving:
    """The body, counted; it stops at the first byte that is too many, and at a type that is not allowed.

    `head`: the upload's first bytes, as far as they came before. `check` is told them, once there are enough of them to
    tell its type, and raises TypeNotAllowed.
    `alive` is called while bytes come. `refused` is what the body was refused with; `fatal`, whether that ends the
    whole upload.
    """

    def __init__(
        self,
        body: AsyncIterable[bytes | memoryview],
        upload: Upload,
        command: Append,
        limit: Limit | None,
        check: Callable[[bytes], None],
        alive: Callable[[], Awaitable[None]] | None = None,
        head: bytes = b"",
    ) -> None:
        self._body = body
        self._offset = upload.offset
        self._command = command
        self._limit = limit
        self._check = check
        self._alive = alive
        self.head = head
        self.refused: MediasvcError | None = None
        self.fatal = False

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        at, limit = self._offset, self._limit
        try:
            async for chunk in self._body:
                if limit is not None and at + len(chunk) > limit.bytes:
                    raise limit.exceeded("the upload")
                if at < HEAD_SIZE and at == len(self.head):
                    self.head += bytes(chunk[: HEAD_SIZE - at])
                    if len(self.head) == HEAD_SIZE:
                        self._look_at(self.head)
                if self._alive is not None:
                    await self._alive()
                at += len(chunk)
                yield chunk
        except (TooLarge, QuotaExceeded) as error:  # or the server's own limit, which the body itself tells
            self.refused, self.fatal = error, ends_upload(error, self._command)
            raise

    def _look_at(self, head: bytes) -> None:
        try:
            self._check(head)
        except MediasvcError as error:
            self.refused, self.fatal = error, True
            raise
