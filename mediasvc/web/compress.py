"""JSON, pages and problem documents travel gzipped to whoever takes that; the bytes of assets never come here."""

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MINIMUM = 1024  # bytes; below, an answer is one packet either way
_LEFT_ALONE = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "image/*", "text/plain", "application/octet-stream")


class Compressed:
    """Starlette's gzip, for clients that accept it; it must lie below `HeadAsGet`, so that HEAD tells the same.

    A compressed page is another sequence of bytes than the plain one, so its ETag is a weak one
    (RFC 9110, section 8.8.3.3). The ETag in an answer to PUT names what was stored, and stays.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gzip = GZipMiddleware(
            app,
            minimum_size=MINIMUM,
            compresslevel=6,
            thread_minimum_size=32 << 10,  # half a millisecond and more: not on the event loop
            exclude_content_types=_LEFT_ALONE,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = [value for name, value in scope["headers"] if name == b"accept-encoding"]
        takes_gzip = _takes_gzip(b",".join(asked))
        if asked:
            # Starlette looks for the word alone, and takes `gzip;q=0` for a wish.
            others = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
            told = [(b"accept-encoding", b"gzip")] if takes_gzip else []
            scope = {**scope, "headers": others + told}

        async def truthful_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                if message["status"] == 304:
                    headers.add_vary_header("Accept-Encoding")
                etag = headers.get("etag", "")
                if takes_gzip and scope["method"] == "GET" and etag.startswith('"'):
                    headers["etag"] = "W/" + etag
            await send(message)

        await self._gzip(scope, receive, truthful_send)


def _takes_gzip(accept_encoding: bytes) -> bool:
    """Whether gzip is named with a weight above 0 (RFC 9110, section 12.5.3)."""
    for item in accept_encoding.lower().split(b","):
        coding, *parameters = (part.strip() for part in item.split(b";"))
        if coding in (b"gzip", b"x-gzip"):
            weights = [part.partition(b"=")[2].strip() for part in parameters if part.startswith(b"q")]
            return not weights or weights[0].strip(b"0.") != b""
    return False
