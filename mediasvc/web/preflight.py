"""Uploads are decided before nginx takes a byte of their body: the head alone walks through the real routes.

nginx says `100 Continue` by itself and a client's bytes flow the moment it does, so it asks first (`auth_request`): a
GET to `/.preflight` that carries the upload's own headers, and its method, target and length in three of ours. The
answer is 204, or 403 for every refusal, for `auth_request` knows no other. Then nginx asks again, with a fourth header,
for the refusal itself and passes it on. There is no second set of rules: the request goes through the whole
application without its body, and whoever asks for the body, or is about to change something, has let it in.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import httptools
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc.core.errors import Unavailable
from mediasvc.web.errors import problem, request_id_of
from mediasvc.web.middleware import LINGER_SECONDS, UNTIL_READ, header, is_upload
from mediasvc.web.proxy import Proxies

PATH = "/.preflight"
# What a head alone can be refused with. All else, what an upload's state has to say above all, is left to the request.
REFUSALS = frozenset({400, 401, 403, 404, 412, 413, 415, 429, 507})
_OF_THE_CONNECTION = (b"connection", b"content-length", b"transfer-encoding", UNTIL_READ)


class Welcome(BaseException):
    """Nothing in the head speaks against the upload. No `Exception`: nobody on the way may take it for an error."""


def is_preflight(scope: Scope) -> bool:
    """Whether only the head is asked about. Who changes something before reading a body raises Welcome instead."""
    return "preflight" in scope.get("state", {})


def is_question(scope: Scope) -> bool:
    """Whether nobody but nginx gets to see the answer: the upload itself, or its refusal, is yet to come."""
    return bool(scope.get("state", {}).get("preflight") == "question")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer as the application gave it."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class Preflight:
    """Answers nginx's question, and only nginx's: for whoever is no trusted proxy there is nothing at `/.preflight`."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(scope) if scope["type"] == "http" and scope["path"] == PATH else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        refusal = await _verdict(self._app, asked) if is_upload(asked) else None
        if is_question(asked):
            await Response(status_code=403 if refusal else 204)(scope, receive, send)
        else:
            await _answer(refusal or _changed(asked), send)

    def _asked(self, scope: Scope) -> Scope | None:
        """The upload in question, as it would come without nginx; None where nobody may ask, or nothing is asked."""
        client = scope.get("client")
        method, target = header(scope, b"x-preflight-method"), header(scope, b"x-preflight-target")
        if not (client and self._proxies.trusts(client[0]) and method and target):
            return None
        try:
            parts = httptools.parse_url(target)  # as uvicorn does
            raw_path = parts.path or b""
            path = unquote(raw_path.decode("ascii"))
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            return None
        headers = [pair for pair in scope["headers"] if not pair[0].startswith(b"x-preflight-")]
        if (length := header(scope, b"x-preflight-length") or b"").isdigit():
            headers.append((b"content-length", length))
        stage = "question" if header(scope, b"x-preflight-answer") is None else "answer"
        return {
            **scope,
            "method": method.decode("latin-1"),
            "path": path,
            "raw_path": raw_path,
            "query_string": parts.query or b"",
            "headers": headers,
            "state": {**scope.get("state", {}), "preflight": stage},
        }


async def _verdict(app: ASGIApp, asked: Scope) -> Refusal | None:
    """What the application refuses the upload with; None for what is welcome."""
    start: Message = {}
    body = bytearray()

    async def no_body() -> Message:
        if not start:
            raise Welcome
        return {"type": "http.disconnect"}  # an answer was given, what would follow is read over

    async def collect(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        body.extend(message.get("body", b""))

    try:
        await app(asked, no_body, collect)
    except Welcome:
        return None
    if start.get("status") not in REFUSALS:
        return None
    return Refusal(start["status"], start.get("headers", ()), bytes(body))


def _changed(asked: Scope) -> Refusal:
    """For an upload that was refused a moment ago, and now would not be."""
    again = Unavailable("what stood against this upload has gone meanwhile; send it again")
    response = problem(again, request_id_of(asked))
    return Refusal(response.status_code, response.raw_headers, bytes(response.body))


async def _answer(refusal: Refusal, send: Send) -> None:
    """The refusal at once, its end a little later: until then nginx keeps the connection and reads nothing from it, so
    that a client in the middle of sending gets to see the answer."""
    headers = [pair for pair in refusal.headers if pair[0] not in _OF_THE_CONNECTION]
    headers.append((UNTIL_READ, str(len(refusal.body)).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": refusal.body, "more_body": True})
    await asyncio.sleep(LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
