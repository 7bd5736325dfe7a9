"""The hot path in raw ASGI, in front of FastAPI: asks `deliver`, carries the plan out.

A route inside FastAPI would cost 70 µs a request, a bare callable 2 (measured). OpenAPI documents these URLs
all the same.
"""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from functools import cache
from typing import Any
from urllib.parse import quote

from prometheus_client import Counter
from starlette.responses import StreamingResponse

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.access import Caller
from mediasvc.core.errors import NotFound, StoreFault
from mediasvc.deliver.download import ById, ByKey, OfPreset, Target, plan_download
from mediasvc.deliver.plan import Nothing, Plan, SendFile, Stream
from mediasvc.logs import log
from mediasvc.store.interface import BlobMissing, BlobStore
from mediasvc.web.sendfile import EXTENSION, FileBroken

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

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
        caller_of: Callable[[bytes | None], Awaitable[Caller]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._store = store
        self._caller_of = caller_of
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        target = target_of(scope.get("raw_path") or quote(scope["path"]).encode())
        if target is None:
            await self._app(scope, receive, send)
            return
        authorization = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value
                break
        caller = await self._caller_of(authorization)
        zero_copy = self._store.files is not None and EXTENSION in scope.get("extensions", ())
        try:
            plan = await self._plan(target, scope, caller, zero_copy)
            await self._carry_out(plan, scope, receive, send)
        except BlobMissing:
            # Replaced and purged since we looked: then there is a next version. Else the bytes are lost.
            plan = await self._plan(target, scope, caller, zero_copy)
            try:
                await self._carry_out(plan, scope, receive, send)
            except BlobMissing as missing:
                raise _missing(missing) from None

    async def _plan(self, target: Target, scope: Message, caller: Caller, zero_copy: bool) -> Plan:
        return await plan_download(
            self._catalogue,
            target,
            scope["method"],
            scope["query_string"],
            scope["headers"],
            caller,
            self._clock(),
            zero_copy=zero_copy,
        )

    async def _carry_out(self, plan: Plan, scope: Message, receive: Receive, send: Send) -> None:
        """Raises BlobMissing only before anything was sent; what goes wrong later breaks the answer off."""
        match plan.body:
            case SendFile():
                await self._send_file(plan, plan.body, send)
            case Stream():
                await self._stream(plan, plan.body, scope, receive, send)
            case Nothing():
                _count(plan)
                await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
                await send({"type": "http.response.body", "body": b""})

    async def _send_file(self, plan: Plan, body: SendFile, send: Send) -> None:
        files = self._store.files
        assert files is not None
        with files.open(body.blob_id) as file:
            if os.fstat(file.fileno()).st_size != body.size:
                raise _damaged(body.blob_id)
            _count(plan)
            try:
                await send({"type": "http.response.start", "status": plan.status, "headers": plan.headers})
                for number, part in enumerate(body.parts, 1):
                    more = number < len(body.parts)
                    if isinstance(part, bytes):
                        await send({"type": "http.response.body", "body": part, "more_body": more})
                        _SENDFILE_BYTES.inc(len(part))
                        continue
                    await send(
                        {
                            "type": EXTENSION,
                            "file": file,
                            "offset": part.start,
                            "count": part.length,
                            "more_body": more,
                        }
                    )
                    _SENDFILE_BYTES.inc(part.length)
            except ConnectionResetError:
                pass  # the client has gone; nobody is left to be told
            except FileBroken as error:
                # The connection is cut already: too late for an answer, not for the operator.
                log.error("download cut", blob_id=body.blob_id, reason=str(error))

    async def _stream(self, plan: Plan, body: Stream, scope: Message, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces(body)) as pieces:
            # The first piece before the status: a missing blob is a clean 404, a store that is away a clean 503.
            first = await anext(pieces, b"")
            _count(plan)
            response = StreamingResponse(_counted(first, pieces), status_code=plan.status)
            response.raw_headers = list(plan.headers)
            await response(scope, receive, send)

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


async def _counted(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    _STREAM_BYTES.inc(len(first))
    async for piece in rest:
        yield piece
        _STREAM_BYTES.inc(len(piece))


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
