"""What happens around every request, in pure ASGI: drained, told in problems, admitted.

One `BaseHTTPMiddleware` would cost more per request than all the rest of the framework (measured).
"""

import asyncio
import contextlib
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc.core.errors import MediasvcError, TooLarge, Unauthorised
from mediasvc.ingest import draft, tus
from mediasvc.web.caller import CallerOf
from mediasvc.web.errors import problem, request_id_of

JSON_LIMIT = 1 << 20  # bytes of a JSON body
DRAIN_LIMIT = 256 << 10  # bytes read after a refusal, so that the client gets to see it
DRAIN_SECONDS = 2.0
LINGER_SECONDS = 0.5
# Instead of Content-Length in an answer to a body that is still coming, where a proxy would take its last byte for the
# end and hang up on a client that has yet to see it: nginx.conf turns it back.
UNTIL_READ = b"x-content-length"
_OF_UPLOADS = frozenset(name.encode() for name in ("tus-resumable", *draft.SIGNS))
_PROTECTED = ("/v1/", "/b/", "/f/", "/i/", "/u/", "/metrics")


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name."""
    for candidate, value in scope["headers"]:
        if candidate == name:
            return bytes(value)
    return None


class Drained:
    """An answer that comes before the body was read closes the connection, after reading a bounded amount.

    Closing at once would reset the connection and could take the answer with it; reading on for ever would
    let a refused upload cost all its bytes. So the answer is sent whole, a little more is read, then the
    connection goes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        more_to_come = True
        early = False
        waiting = header(scope, b"expect") is not None  # for leave to send, given by the first receive

        async def watched_receive() -> Message:
            nonlocal more_to_come, waiting
            waiting = False
            message = await receive()
            more_to_come = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def draining_send(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start" and more_to_come:
                early = True
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                if scope.get("state", {}).get("behind_proxy") and not _fits_the_drain(scope):
                    headers = [
                        (UNTIL_READ if name == b"content-length" else name, value) for name, value in headers
                    ]
                message["headers"] = headers
            if early and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                if not waiting:
                    await _drain(watched_receive)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, watched_receive, draining_send)


def _has_body(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def _fits_the_drain(scope: Scope) -> bool:
    declared = _declared_length(scope)
    return declared is not None and declared <= DRAIN_LIMIT


async def _drain(receive: Receive) -> None:
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_LIMIT:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    # Not read from any more, a client that sends on gets stuck: time to look up and find the answer.
    await asyncio.sleep(LINGER_SECONDS)


class Problems:
    """Errors of ours from the raw ASGI layers below, told as problems (FastAPI's own handlers do the routes)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        def noting_send(message: Message) -> Awaitable[None]:
            nonlocal started
            started = True
            return send(message)

        try:
            await self._app(scope, receive, noting_send)
        except MediasvcError as error:
            if started:
                raise
            await problem(error, request_id_of(scope))(scope, receive, send)


class TusSpoken:
    """Every answer to a client that says `Tus-Resumable` says so too, whoever gives it (tus 1.0, C3)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or not scope["path"].startswith(("/v1/uploads", "/t/"))
            or header(scope, b"tus-resumable") is None
        ):
            await self._app(scope, receive, send)
            return

        async def spoken_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                if not any(name == b"tus-resumable" for name, _ in headers):
                    message["headers"] = [*headers, (b"tus-resumable", tus.VERSION.encode())]
            await send(message)

        await self._app(scope, receive, spoken_send)


class HeadAsGet:
    """HEAD on everything that answers GET: FastAPI's routes know GET only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or is_one_upload(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def bodiless_send(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        state = {**scope.get("state", {}), "head": True}
        await self._app({**scope, "method": "GET", "state": state}, receive, bodiless_send)


class Admitted:
    """Decides for every route what needs no bucket, before a body byte is read: key, declared size, JSON's size."""

    def __init__(self, app: ASGIApp, caller_of: CallerOf, *, max_upload_size: int | None) -> None:
        self._app = app
        self._caller_of = caller_of
        self._max_upload_size = max_upload_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = await self._caller_of(header(scope, b"authorization"))
        scope["state"]["caller"] = caller
        if caller.anonymous and _needs_key(scope):
            raise Unauthorised("send an API key: Authorization: Bearer msk_…, or curl -u :msk_…")
        if not caller.anonymous:
            send = _private(send)
        limit = self._limit(scope)
        if limit is not None:
            declared = _declared_length(scope)
            if declared is None:
                receive, send = _counted(limit, scope, receive, send)
            elif declared > limit:
                raise _too_large(limit)
        await self._app(scope, receive, send)

    def _limit(self, scope: Scope) -> int | None:
        if not is_upload(scope):
            return JSON_LIMIT
        # Of these the upload itself knows the limits, and says them in the words of its dialect.
        resumable = scope["path"].startswith(("/v1/uploads", "/t/", "/b/")) and _resumable(scope)
        return None if resumable else self._max_upload_size


def _private(send: Send) -> Send:
    """What a key authorised is for its bearer alone, and asked for again each time."""

    async def private_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            if not any(name == b"cache-control" for name, _ in headers):
                message["headers"] = [*headers, (b"cache-control", b"private, no-cache")]
        await send(message)

    return private_send


def is_one_upload(path: str) -> bool:
    """Where HEAD is another question than GET: it takes an upload over."""
    return path.startswith(("/v1/uploads/", "/t/"))


def is_upload(scope: Scope) -> bool:
    """Whether the body is bytes to keep. These are the doors that a preflight decides, too."""
    method: str = scope["method"]
    path: str = scope["path"]
    if method == "PUT" and path.startswith(("/b/", "/u/")):
        return True
    if method == "POST" and path == "/v1/assets":
        return True
    if path.startswith("/t/"):
        return method in ("POST", "PATCH", "PUT") and "/tus" in path
    if path == "/v1/uploads":
        # Plain JSON says where bytes are to go, and has none.
        return method == "POST" and _resumable(scope)
    return method in ("POST", "PATCH", "PUT") and path.startswith("/v1/uploads/") and path.count("/") == 3


def _resumable(scope: Scope) -> bool:
    """Whether the head speaks of an upload that can be resumed."""
    return any(name in _OF_UPLOADS for name, _ in scope["headers"])


def _needs_key(scope: Scope) -> bool:
    path: str = scope["path"]
    if not path.startswith(_PROTECTED) or (scope["method"] == "OPTIONS" and not path.startswith("/metrics")):
        return False
    if path == "/v1/session":  # where a key is brought, and asked whether there is one
        return False
    # One asset's JSON is open where its bucket is public; the route decides, once it knows the bucket.
    public = scope["method"] in ("GET", "HEAD") and path.startswith("/v1/assets/") and path.count("/") == 3
    return not public


def _declared_length(scope: Scope) -> int | None:
    declared = header(scope, b"content-length")
    return int(declared) if declared is not None else None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"a body here may have {limit} bytes", limit=limit, limit_source="server")


def _counted(limit: int, scope: Scope, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """A body without a declared length stops at the limit, whatever the app below makes of that."""
    size = 0

    async def counting_receive() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    async def truthful_send(message: Message) -> None:
        if size <= limit:
            await send(message)
        elif message["type"] == "http.response.start":
            # FastAPI takes whatever breaks while it reads JSON for a malformed body.
            await problem(_too_large(limit), request_id_of(scope))(scope, receive, send)

    return counting_receive, truthful_send
