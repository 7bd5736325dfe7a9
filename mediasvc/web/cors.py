"""Who may call from a browser: Starlette's CORS, told in our terms."""

from collections.abc import Sequence

from fastapi import status
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a browser's script may read besides the few headers that are always open to it.
EXPOSED = [
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Length",
    "Content-Location",
    "Content-Range",
    "ETag",
    "Location",
    "Repr-Digest",
    "Retry-After",
    "X-Request-Id",
]


class Cors(CORSMiddleware):
    """Answers preflights without a key, and lets the named origins read every answer, errors too.

    Where every origin is allowed no answer depends on it, so none says `Vary: Origin`: caches keep one copy.
    What a preflight may not do is told by the headers it does not get: the browser enforces it.
    """

    def __init__(self, app: ASGIApp, allow_origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=allow_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
            max_age=86400,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette looks at every request's headers and answers; most come from no browser's script.
        if self.allow_all_origins and not any(name == b"origin" for name, _ in scope.get("headers", ())):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        headers = super().preflight_response(request_headers).headers
        told = {name: value for name, value in headers.items() if not name.startswith("content-")}
        return Response(status_code=status.HTTP_204_NO_CONTENT, headers=told)

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        if not self.allow_all_origins:
            await super().send(message, send, request_headers)
            return
        if message["type"] == "http.response.start" and "origin" in request_headers:
            message.setdefault("headers", [])
            MutableHeaders(scope=message).update(self.simple_headers)
        await send(message)
