"""Archives in raw ASGI, in front of FastAPI as downloads are: asks `deliver`, carries the plan out."""

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import BinaryIO
from urllib.parse import quote

from starlette.responses import StreamingResponse

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.errors import ArchiveEnded, MediasvcError, StoreFault
from mediasvc.core.signing import Signer
from mediasvc.deliver.archive import ArchivePlan, BlobSpan, pieces, plan_archive
from mediasvc.deliver.plan import Nothing, SendFile, Stream
from mediasvc.logs import log
from mediasvc.store.interface import BlobMissing, BlobStore
from mediasvc.web.carrier import Message, Receive, Send, damaged_blob, missing_blob
from mediasvc.web.download import Application
from mediasvc.web.sendfile import EXTENSION, SMALL, FileBroken, read_at_once

Pieces = AsyncGenerator[bytes | BlobSpan, None]

_LOOKED_AT = 2  # pieces before the status: with the first header comes the first file


class Archives:
    """Answers GET and HEAD of `/z/…`; everything else goes on to `app`.

    Errors of the family are raised before anything was sent. What goes wrong later breaks the answer off: an
    archive never looks whole that is not.
    """

    def __init__(
        self,
        app: Application,
        catalogue: Catalogue,
        store: BlobStore,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._store = store
        self._signer = signer
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        archive_id, slash, _ = raw_path.removeprefix(b"/z/").partition(b"/")
        if not (raw_path.startswith(b"/z/") and slash):
            await self._app(scope, receive, send)
            return
        plan = await plan_archive(
            self._catalogue,
            self._signer,
            archive_id,
            scope["method"],
            scope["query_string"],
            scope["headers"],
            self._clock(),
        )
        if plan.span is None:
            metrics.downloads.inc(Nothing.name, plan.status)
            await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
            await send({"type": "http.response.body", "body": b""})
            return
        async with aclosing(pieces(self._catalogue, plan.archive, plan.span)) as rest:
            if self._store.files is not None and EXTENSION in scope.get("extensions", ()):
                await self._send_files(plan, rest, send)
            else:
                await self._stream(plan, rest, scope, receive, send)

    async def _send_files(self, plan: ArchivePlan, rest: Pieces, send: Send) -> None:
        first = [piece for _ in range(_LOOKED_AT) if (piece := await anext(rest, None))]
        for piece in first:
            if isinstance(piece, BlobSpan):
                try:
                    self._open(piece).close()
                except BlobMissing as missing:
                    raise await self._why_missing(plan, missing) from None
        metrics.downloads.inc(SendFile.name, plan.status)
        try:
            await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
            # Headers and small files leave together: one by one they cost a fifth more (measured).
            held = bytearray()
            async for piece in _together(first, rest):
                if len(held) >= SMALL:
                    await send({"type": "http.response.body", "body": held, "more_body": True})
                    metrics.download_bytes.inc(SendFile.name, by=len(held))
                    held = bytearray()
                if isinstance(piece, bytes):
                    held += piece
                    continue
                start, length = piece.span.start, piece.span.length
                with self._open(piece) as file:
                    if length <= SMALL and (few := read_at_once(file.fileno(), start, length)) is not None:
                        held += few
                        continue
                    if held:
                        await send({"type": "http.response.body", "body": held, "more_body": True})
                    await send(
                        {"type": EXTENSION, "file": file, "offset": start, "count": length, "more_body": True}
                    )
                metrics.download_bytes.inc(SendFile.name, by=len(held) + length)
                held = bytearray()
            await send({"type": "http.response.body", "body": held})
            metrics.download_bytes.inc(SendFile.name, by=len(held))
        except ConnectionResetError:
            pass  # the client has gone; nobody is left to be told
        except (FileBroken, BlobMissing, MediasvcError) as error:
            # Returning without the last byte cuts the connection: the client sees that something is missing.
            why = await self._why_missing(plan, error) if isinstance(error, BlobMissing) else error
            log.error("archive cut", archive_id=plan.archive.id, reason=str(why))

    def _open(self, piece: BlobSpan) -> BinaryIO:
        """Raises BlobMissing, StoreFault."""
        files = self._store.files
        assert files is not None
        file = files.open(piece.blob_id)
        if os.fstat(file.fileno()).st_size != piece.size:
            file.close()
            raise damaged_blob(piece.blob_id)
        return file

    async def _stream(
        self, plan: ArchivePlan, rest: Pieces, scope: Message, receive: Receive, send: Send
    ) -> None:
        async with aclosing(self._chunks(plan, rest)) as chunks:
            # The first chunk before the status: a missing blob is a clean 404, a store that is away a clean 503.
            try:
                first = await anext(chunks)
            except BlobMissing as missing:
                raise await self._why_missing(plan, missing) from None
            metrics.downloads.inc(Stream.name, plan.status)
            response = StreamingResponse(_counted(first, chunks), status_code=plan.status)
            response.raw_headers = list(plan.headers)
            await response(scope, receive, send)

    async def _chunks(self, plan: ArchivePlan, rest: Pieces) -> AsyncGenerator[bytes, None]:
        held, begun = b"", False
        try:
            async for piece in rest:
                if isinstance(piece, bytes):
                    held += piece
                    if len(held) >= SMALL:
                        yield held
                        held, begun = b"", True
                    continue
                async with self._store.open(piece.blob_id, piece.span) as chunks:
                    async for chunk in chunks:
                        yield held + chunk if held else chunk
                        held, begun = b"", True
            if held:
                yield held
        except (BlobMissing, ArchiveEnded) as error:
            if not begun:
                raise
            why = await self._why_missing(plan, error) if isinstance(error, BlobMissing) else error
            raise StoreFault(f"archive {plan.archive.id} cut: {why}") from None

    async def _why_missing(self, plan: ArchivePlan, missing: BlobMissing) -> MediasvcError:
        """Deleted with its asset since the archive was looked up, or lost."""
        if await self._catalogue.archive(plan.archive.id) is None:
            return ArchiveEnded("an asset in the archive was just deleted or replaced: make a new archive")
        return missing_blob(missing)


async def _together(first: list[bytes | BlobSpan], rest: Pieces) -> Pieces:
    for piece in first:
        yield piece
    async for piece in rest:
        yield piece


async def _counted(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    metrics.download_bytes.inc(Stream.name, by=len(first))
    async for chunk in rest:
        yield chunk
        metrics.download_bytes.inc(Stream.name, by=len(chunk))
