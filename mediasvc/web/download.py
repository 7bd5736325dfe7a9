"""The hot path in raw ASGI, in front of FastAPI: asks `deliver`, carries the plan out.

A route inside FastAPI would cost 70 µs a request, a bare callable 2 (measured). OpenAPI documents these URLs
all the same.
"""

import os
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    MutableMapping,
)
from contextlib import aclosing
from functools import cache
from typing import Any, TypeVar
from urllib.parse import quote

from prometheus_client import Counter
from starlette.responses import StreamingResponse

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.access import Caller
from mediasvc.core.errors import MediasvcError, NotFound, StoreFault
from mediasvc.core.signing import Signer
from mediasvc.deliver.download import ById, ByKey, OfPreset, Target, plan_download
from mediasvc.deliver.links import bad_link
from mediasvc.deliver.plan import HandToNginx, Header, Nothing, Plan, Redirect, SendFile, Stream
from mediasvc.deliver.receipts import Receipts
from mediasvc.deliver.ways import Way, Ways
from mediasvc.logs import log
from mediasvc.store.interface import BlobMissing, BlobStore
from mediasvc.web.caller import CallerOf
from mediasvc.web.sendfile import EXTENSION, SMALL, FileBroken, read_at_once

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# nginx asks again when the store does not have what we handed over: which blob that was.
MISSED = b"x-missed-blob"
_SENDFILE_BYTES = metrics.download_bytes.labels(SendFile.name)
_STREAM_BYTES = metrics.download_bytes.labels(Stream.name)


def target_of(raw_path: bytes) -> Target | None:
    """What a URL's path (percent-encoded) asks for, if it is one of ours."""
    kind = raw_path[:3]
    if kind == b"/b/":
        bucket, slash, key = raw_path[3:].partition(b"/")
        return ByKey(bucket, key) if slash and bucket else None
    if kind == b"/f/":
        asset_id, slash, _ = raw_path[3:].partition(b"/")
        return ById(asset_id) if slash else None
    if kind == b"/i/":
        preset, slash, name = raw_path[3:].partition(b"/")
        asset_id, dot, ext = name.rpartition(b".")
        return OfPreset(preset, asset_id, ext) if slash and dot and b"/" not in name else None
    return None


class Downloads:
    """Answers GET and HEAD of `/b/…`, `/f/…` and `/i/…`; everything else goes on to `app`.

    Errors of the family are raised before anything was sent: turning them into answers is another layer's work.
    """

    def __init__(
        self,
        app: Application,
        catalogue: Catalogue,
        store: BlobStore,
        caller_of: CallerOf,
        signer: Signer,
        ways: Ways,
        receipts: Receipts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._store = store
        self._caller_of = caller_of
        self._signer = signer
        self._ways = ways
        self._receipts = receipts
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        target = target_of(scope.get("raw_path") or quote(scope["path"]).encode())
        if target is None:
            await self._app(scope, receive, send)
            return
        authorization, missed = None, b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = authorization or value
            elif name == MISSED:
                missed = value
        caller = await self._caller_of(authorization)
        behind_proxy = scope.get("state", {}).get("behind_proxy", False)
        way = self._ways.choose(behind_proxy=behind_proxy, zero_copy=EXTENSION in scope.get("extensions", ()))
        try:
            plan = await self._plan(target, scope, caller, way)
            # Whoever made this up has to know the blob's name, and learns that it is gone.
            if missed and isinstance(plan.body, HandToNginx) and plan.body.blob_id.encode() == missed:
                raise _missing(BlobMissing(plan.body.blob_id))
            await self._carry_out(plan, scope, receive, send)
        except BlobMissing:
            # Replaced and purged since we looked: then there is a next version. Else the bytes are lost.
            plan = await self._plan(target, scope, caller, way)
            try:
                await self._carry_out(plan, scope, receive, send)
            except BlobMissing as missing:
                raise _missing(missing) from None

    def _plan(self, target: Target, scope: Message, caller: Caller, way: Way) -> Awaitable[Plan]:
        client = scope.get("client")
        address = client[0] if client else ""
        return self._planned(
            target, scope["method"], scope["query_string"], scope["headers"], caller, way, address
        )

    def _planned(
        self,
        target: Target,
        method: str,
        query: bytes,
        headers: Iterable[Header],
        caller: Caller,
        way: Way,
        address: str,
    ) -> Coroutine[Any, Any, Plan]:
        return plan_download(
            self._catalogue,
            target,
            method,
            query,
            headers,
            caller,
            self._clock(),
            signer=self._signer,
            way=way,
            address=address,
        )

    def _carry_out(self, plan: Plan, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
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
                return self._say(plan, send)

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

    async def _say(self, plan: Plan, send: Send) -> None:
        _count(plan)
        await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
        await send({"type": "http.response.body", "body": b""})

    async def _hand_over(self, plan: Plan, body: HandToNginx, send: Send) -> None:
        if not self._is_whole(body):
            raise _damaged(body.blob_id)
        headers = self._for_nginx(plan)
        await send({"type": "http.response.start", "status": plan.status, "headers": headers})
        _count(plan)
        await send({"type": "http.response.body", "body": b""})

    def _is_whole(self, body: HandToNginx) -> bool:
        """A look at the file costs 2 µs, and keeps the promises that we make where we send it ourselves."""
        return self._store.files is None or self._store.files.size(body.blob_id) == body.size

    def _for_nginx(self, plan: Plan) -> list[Header]:
        """The answer's headers; its receipt is expected from here on."""
        if plan.delivery is None:
            return plan.headers
        return [*plan.headers, (b"x-download-id", self._receipts.expect(plan.delivery).encode())]

    def at_once(
        self, raw_path: bytes, query: bytes, authorization: bytes | None, address: str, *, behind_proxy: bool
    ) -> tuple[list[Header], bytes | bytearray] | None:
        """Headers and body of the 200 to a plain GET, where nothing has to be waited for: the blob is nginx's to send,
        or few bytes that are in memory. None: the answer is another, or not to be had at once; nothing has happened.
        """
        target = target_of(raw_path)
        if target is None:
            return None
        way = self._ways.choose(behind_proxy=behind_proxy, zero_copy=True)
        try:
            caller = _now(self._caller_of(authorization))
            plan = _now(self._planned(target, "GET", query, (), caller, way, address))
            if plan.counts:
                return None
            match plan.body:
                case HandToNginx() if self._is_whole(plan.body):
                    _count(plan)
                    return self._for_nginx(plan), b""
                case SendFile() if (few := self._few(plan.body)) is not None:
                    _count(plan)
                    _SENDFILE_BYTES.inc(len(few))
                    self._delivered(plan, len(few))
                    return plan.headers, few
        except (MediasvcError, BlobMissing, _Waits):
            pass
        return None

    def _few(self, body: SendFile) -> bytes | bytearray | None:
        """The whole blob, where it is small and nothing has to be read from the disk."""
        files = self._store.files
        if files is None or body.size > SMALL:
            return None
        with files.open(body.blob_id) as file:
            if os.fstat(file.fileno()).st_size != body.size:
                return None
            return read_at_once(file.fileno(), 0, body.size)

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
                raise _damaged(body.blob_id)
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
                _SENDFILE_BYTES.inc(sent)
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
                _STREAM_BYTES.inc(sent)
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


class _Waits(Exception):
    """What should have been there at once has to be waited for."""


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of what has nothing to wait for. Raises _Waits."""
    try:
        work.send(None)
    except StopIteration as ended:
        outcome: T = ended.value
        return outcome
    work.close()
    raise _Waits


def _count(plan: Plan) -> None:
    _downloads(plan.body.name, plan.status).inc()


@cache
def _downloads(name: str, status: int) -> Counter:
    """Finding a labelled metric costs more than counting it."""
    return metrics.downloads.labels(name, status)


def _missing(missing: BlobMissing) -> NotFound:
    metrics.blobs_missing.inc()
    log.error("blob missing", reason=str(missing))
    return NotFound("the bytes are not in the store any more")


def _damaged(blob_id: str) -> StoreFault:
    log.error("blob damaged", blob_id=blob_id, reason="its size is not what was stored")
    return StoreFault("the stored bytes are not whole")
