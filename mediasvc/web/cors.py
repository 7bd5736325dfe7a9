"""Who may call from a browser: Starlette's CORS, told in our terms, and narrowed by buckets."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from fastapi import status
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.errors import Unavailable
from mediasvc.core.ids import well_formed
from mediasvc.core.origins import narrow
from mediasvc.deliver.download import ByKey
from mediasvc.web.download import target_of
from mediasvc.web.errors import problem, request_id_of
from mediasvc.web.middleware import header

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
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Complete",
    "Upload-Concat",
    "Upload-Defer-Length",
    "Upload-Draft-Interop-Version",
    "Upload-Expires",
    "Upload-Incomplete",
    "Upload-Length",
    "Upload-Limit",
    "Upload-Metadata",
    "Upload-Offset",
    "X-Request-Id",
]
OriginsOf = Callable[[Scope], Awaitable[Sequence[str]]]


def bucket_origins(catalogue: Catalogue) -> OriginsOf:
    """Finds the `cors_origins` of the bucket behind a byte route; empty where it names none, or is none.

    What they are is no secret of the caller's: a preflight carries no key, so it has to be told to everybody.
    """

    async def origins_of(scope: Scope) -> Sequence[str]:
        target = target_of(scope.get("raw_path") or scope["path"].encode())
        if target is None:
            return ()
        if isinstance(target, ByKey):
            bucket = await catalogue.bucket(unquote_to_bytes(target.bucket).decode("latin-1"))
            return bucket.cors_origins if bucket else ()
        asset_id = target.asset_id.decode("latin-1")
        source = await catalogue.source(asset_id) if well_formed("ast", asset_id) else None
        return source.cors_origins if source else ()

    return origins_of


class Cors:
    """Lets the named origins read every answer, errors too; never with credentials.

    A bucket may narrow them for its own URLs: one policy for each set of origins, chosen by the URL alone.
    """

    def __init__(
        self, app: ASGIApp, allow_origins: Sequence[str], origins_of: OriginsOf | None = None
    ) -> None:
        self._app = app
        self._allowed = allow_origins
        self._policy = _Policy(app, allow_origins)
        self._origins_of = origins_of
        self._narrowed = lru_cache(maxsize=256)(lambda origins: _Policy(app, origins))

    @property
    def allows_all(self) -> bool:
        """Whether every origin is allowed, so that no answer to anything but a browser's script depends on it."""
        return self._policy.allow_all_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        called = scope["type"] == "http" and header(scope, b"origin") is not None
        # Starlette looks at every request's headers and answers; most come from no browser's script.
        if not called and self.allows_all:
            await self._app(scope, receive, send)
            return
        policy = self._policy
        if called and self._origins_of is not None:
            try:
                by = await self._origins_of(scope)
            except Unavailable as away:
                await problem(away, request_id_of(scope))(scope, receive, send)
                return
            if by:
                policy = self._narrowed(tuple(narrow(self._allowed, by)))
        await policy(scope, receive, send)


class _Policy(CORSMiddleware):
    """Answers preflights without a key; which origins there are decides about every other answer.

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

    def preflight_response(self, request_headers: Headers) -> Response:
        headers = super().preflight_response(request_headers).headers
        told = {name: value for name, value in headers.items() if not name.startswith("content-")}
        return Response(status_code=status.HTTP_204_NO_CONTENT, headers=told)

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            headers, origin = MutableHeaders(scope=message), request_headers.get("origin")
            if origin is not None and self.is_allowed_origin(origin):
                headers.update(self.simple_headers)
                if not self.allow_all_origins:
                    headers["Access-Control-Allow-Origin"] = origin
            # A download of a bucket that names origins says so already, whoever asks.
            if not self.allow_all_origins and not _varies(headers):
                headers.add_vary_header("Origin")
        await send(message)


def _varies(headers: Headers) -> bool:
    return any(name.strip().lower() == "origin" for name in ",".join(headers.getlist("vary")).split(","))
