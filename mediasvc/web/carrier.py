"""Plans of downloads carried out: what a plan says is sent by the way it names, and counted."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.errors import NotFound, StoreFault
from mediasvc.core.value import value
from mediasvc.deliver.links import bad_link
from mediasvc.deliver.plan import HandToNginx, Header, Headers, Nothing, Plan, Redirect, SendFile, Stream
from mediasvc.deliver.receipts import Receipts
from mediasvc.logs import log
from mediasvc.store.interface import BlobMissing, BlobStore
from mediasvc.web.sendfile import EXTENSION, SMALL, FileBroken, read_at_once
from mediasvc.web.small_blobs import SmallBlobs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@value
class Ready:
    """A plan, and its headers as they are sent. `small_blob`: the id of a blob of few bytes, "" for others."""

    plan: Plan
    lines: bytes
    small_blob: str

    @classmethod
    def of(cls, plan: Plan) -> "Ready":
        body, small_blob = plan.body, ""
        if isinstance(body, HandToNginx | SendFile) and body.size <= SMALL:
            small_blob = body.blob_id
        return cls(plan, header_lines(plan.headers), small_blob)


def header_lines(headers: Iterable[Header]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


class Carrier:
    """Knows every way out of the house, and none of the reasons."""

    def __init__(self, catalogue: Catalogue, store: BlobStore, receipts: Receipts) -> None:
        self._catalogue = catalogue
        self._store = store
        self._receipts = receipts
        self._small_blobs = SmallBlobs()

    def carry_out(self, plan: Plan, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Raises BlobMissing only before anything was sent; what goes wrong later breaks the answer off."""
        if plan.counts:
            send = self._counting(plan.counts, send)
        match plan.body:
            case SendFile():
                return self._send_file(plan, plan.body, send)
            case Stream():
                return self._stream(plan, plan.body, scope, receive, send)
            case HandToNginx():
                return self._hand_over(plan, plan.body, send)
            case Nothing() | Redirect():
                return self._say(plan, plan.body, send)

    def _counting(self, link_id: str, send: Send) -> Send:
        """Uses up one download of the link as the answer begins: what is not there was no download.

        The answer's start raises Forbidden where somebody else was quicker.
        """

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                try:
                    async with self._catalogue.transaction() as tx:
                        await tx.begin_download(link_id)
                except Gone:
                    raise bad_link() from None
            await send(message)

        return counting_send

    async def _say(self, plan: Plan, body: Nothing | Redirect, send: Send) -> None:
        if body.blob_id and not self._is_whole(body):
            raise damaged_blob(body.blob_id)
        _count(plan)
        await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
        await send({"type": "http.response.body", "body": b""})

    async def _hand_over(self, plan: Plan, body: HandToNginx, send: Send) -> None:
        if not self._is_whole(body):
            raise damaged_blob(body.blob_id)
        headers = [*plan.headers, *self._receipt(plan)]
        await send({"type": "http.response.start", "status": plan.status, "headers": headers})
        _count(plan)
        await send({"type": "http.response.body", "body": b""})

    def _is_whole(self, body: HandToNginx | Nothing | Redirect) -> bool:
        """Where the blob is a file. A look at it costs 2 µs, and keeps the promises that we make where we send it
        ourselves."""
        return self._store.files is None or self._store.files.size(body.blob_id) == body.size

    def _receipt(self, plan: Plan) -> Headers:
        """What nginx's line about this answer will quote; the line is expected from here on."""
        if plan.delivery is None:
            return ()
        return ((b"x-download-id", self._receipts.expect(plan.delivery).encode()),)

    def ask(self, ready: Ready) -> bool:
        """Note that it is asked for; whether these are few bytes that so many ask for that they are kept in memory."""
        return bool(ready.small_blob) and self._small_blobs.ask(ready.small_blob)

    def at_once(self, ready: Ready) -> tuple[bytes, bytes | bytearray] | None:
        """Header lines and body, where nothing has to be waited for: the blob is nginx's to send, or few bytes that are
        in memory. None: it has to be carried out, and nothing has happened. Raises BlobMissing, StoreUnavailable."""
        plan, lines = ready.plan, ready.lines
        match plan.body:
            case _ if plan.counts:
                return None
            case HandToNginx() if self._is_whole(plan.body):
                _count(plan)
                return lines + header_lines(self._receipt(plan)), b""
            case SendFile() if (few := self._few(plan.body)) is not None:
                _count(plan)
                metrics.download_bytes.inc(SendFile.name, by=len(few))
                if plan.delivery is not None:
                    self._receipts.delivered(plan.delivery, len(few), complete=True)
                return lines, few
        return None

    def _few(self, body: SendFile) -> bytes | bytearray | None:
        """The whole blob, where it is small and nothing has to be read from the disk."""
        files = self._store.files
        if files is None or body.size > SMALL:
            return None
        if (few := self._small_blobs.get(body.blob_id)) is not None:
            return few
        with files.open(body.blob_id) as file:
            if os.fstat(file.fileno()).st_size != body.size:
                return None
            few = read_at_once(file.fileno(), 0, body.size)
        if few is not None:
            self._small_blobs.keep(body.blob_id, few)
        return few

    def _delivered(self, plan: Plan, sent: int) -> None:
        """What we sent ourselves has a receipt of its own."""
        if plan.delivery is not None:
            length = next(int(value) for name, value in plan.headers if name == b"content-length")
            self._receipts.delivered(plan.delivery, sent, complete=sent == length)

    async def _send_file(self, plan: Plan, body: SendFile, send: Send) -> None:
        files = self._store.files
        assert files is not None
        with files.open(body.blob_id) as file:
            if os.fstat(file.fileno()).st_size != body.size:
                raise damaged_blob(body.blob_id)
            await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
            _count(plan)
            sent = 0
            span: Message = {}
            try:
                for number, part in enumerate(body.parts, 1):
                    more = number < len(body.parts)
                    if isinstance(part, bytes):
                        await send({"type": "http.response.body", "body": part, "more_body": more})
                        sent += len(part)
                        continue
                    span = {
                        "type": EXTENSION,
                        "file": file,
                        "offset": part.start,
                        "count": part.length,
                        "more_body": more,
                    }
                    await send(span)
                    span, sent = {}, sent + part.length
            except ConnectionResetError:
                pass  # the client has gone; nobody is left to be told
            except FileBroken as error:
                # The connection is cut already: too late for an answer, not for the operator.
                log.error("download cut", blob_id=body.blob_id, reason=str(error))
            finally:
                sent += span.get("sent", 0)  # of one that broke off
                metrics.download_bytes.inc(SendFile.name, by=sent)
                self._delivered(plan, sent)

    async def _stream(self, plan: Plan, body: Stream, scope: Message, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces(body)) as pieces:
            # The first piece before the status: a missing blob is a clean 404, a store that is away a clean 503.
            first = await anext(pieces, b"")
            sent, begun = 0, False

            async def counted() -> AsyncIterator[bytes]:
                nonlocal sent, begun
                _count(plan)
                begun = True
                yield first
                sent += len(first)
                async for piece in pieces:
                    yield piece
                    sent += len(piece)

            response = StreamingResponse(counted(), status_code=plan.status)
            response.raw_headers = list(plan.headers)
            try:
                await response(scope, receive, send)
            finally:
                metrics.download_bytes.inc(Stream.name, by=sent)
                if begun:
                    self._delivered(plan, sent)

    async def _pieces(self, body: Stream) -> AsyncGenerator[bytes, None]:
        held, begun = b"", False
        for part in body.parts:
            if isinstance(part, bytes):
                held += part
                continue
            try:
                async with self._store.open(body.blob_id, part) as chunks:
                    async for chunk in chunks:
                        yield held + chunk if held else chunk
                        held, begun = b"", True
            except BlobMissing:
                if begun:
                    raise StoreFault("the blob went away between two parts of an answer") from None
                raise
        if held:
            yield held


def _count(plan: Plan) -> None:
    metrics.downloads.inc(plan.body.name, plan.status)


def missing_blob(missing: BlobMissing) -> NotFound:
    metrics.blobs_missing.inc()
    log.error("blob missing", reason=str(missing))
    return NotFound("the bytes are not in the store any more")


def damaged_blob(blob_id: str) -> StoreFault:
    log.error("blob damaged", blob_id=blob_id, reason="its size is not what was stored")
    return StoreFault("the stored bytes are not whole")
