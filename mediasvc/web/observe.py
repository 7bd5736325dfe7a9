"""What can be seen of requests from outside: ids, the access log, metrics."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mediasvc import metrics
from mediasvc.core.errors import MediasvcError, Unavailable
from mediasvc.deliver.plan import Headers
from mediasvc.ingest import draft
from mediasvc.ingest.fields import joined
from mediasvc.logs import log, log_request
from mediasvc.web.errors import problem, problem_told
from mediasvc.web.preflight import is_question

_QUIET = ("/healthz", "/readyz", "/metrics")
_BYTES = (
    "/b/",
    "/f/",
    "/i/",
    "/u/",
    "/z/",
    "/v1/events",
)  # how long these take is up to their size and their reader
_UPLOADER = "upt_"  # what upload tokens, secrets in URLs, begin with
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_GONE = 499  # nginx's number for a client that left before its answer


class Observed:
    """Request id, access log and metrics; `nosniff` on every answer; what nobody caught becomes a 500 problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, size = time.perf_counter(), 0, 0
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id

        def observed_send(message: Message) -> Awaitable[None]:
            nonlocal status, size
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *own_headers(request_id)]
            elif kind == "http.response.body":
                size += len(message.get("body", b""))
            elif kind == "http.response.zerocopysend":
                size += message.get("count") or 0
            return send(message)

        try:
            await self._app(scope, receive, observed_send)
        except asyncio.CancelledError:
            # Only a shutdown whose patience ended cancels a request.
            if not status:
                stopping = Unavailable("the server is stopping; send it again in a moment")
                await problem(stopping, request_id)(scope, receive, observed_send)
        except Exception:
            log.exception(
                "request_error",
                request_id=request_id,
                method=scope["method"],
                path=_without_secret(scope["path"]),
            )
            if status:
                raise  # the connection is closed: visibly broken
            unexpected = MediasvcError("something went wrong here; the log knows it by this request_id")
            await problem(unexpected, request_id)(scope, receive, observed_send)
        finally:
            if not is_question(scope):
                _count_refusal(scope)
                client = scope.get("client")
                note(
                    request_id,
                    scope["method"],
                    scope["path"],
                    shown_path(scope["path"], scope.get("raw_path", b"")),
                    status or _GONE,
                    size,
                    time.perf_counter() - began,
                    client[0] if client else "",
                )


def new_request_id() -> str:
    return f"{random.getrandbits(64):016x}"  # tells requests apart, and may be guessed


def own_headers(request_id: str) -> Headers:
    """What every answer of ours says."""
    return _NOSNIFF, (b"x-request-id", request_id.encode())


def note(
    request_id: str,
    method: str,
    path: str,
    shown: str,
    status: int,
    size: int,
    seconds: float,
    client: str,
) -> None:
    """Count and log one request. `path` is the decoded one, `shown` what the log says, `seconds` how long it took."""
    metrics.requests.inc(method, status)
    if not path.startswith(_BYTES):
        metrics.request_seconds.observe(seconds)
    if path not in _QUIET:
        log_request(
            request_id=request_id,
            method=method,
            path=shown,
            status=status,
            size=size,
            seconds=seconds,
            client=client,
        )


def shown_path(path: str, raw_path: bytes) -> str:
    """As it was sent, which has no control characters; but for an upload token, which is a secret."""
    if _UPLOADER in path:  # decoded: none hides behind percent codes
        return quote(_without_secret(path), safe="/*")
    return raw_path.decode("latin-1")


def _without_secret(path: str) -> str:
    return re.sub(rf"{_UPLOADER}[^/]*", f"{_UPLOADER}***", path)


def refusals_are_counted(scope: Scope) -> None:
    """Whoever takes this upload in counts what becomes of it."""
    scope["state"]["refusals_are_counted"] = True


def _count_refusal(scope: Scope) -> None:
    """An upload that was refused before anything of it was taken in."""
    code = problem_told(scope)
    if code is not None and "refusals_are_counted" not in scope["state"] and (door := _door(scope)):
        metrics.uploads.labels(door, code).inc()


def _door(scope: Scope) -> str | None:
    """By which door an upload came; None for other requests, and for those whose doors count by themselves."""
    method, path = scope["method"], scope["path"]
    if method == "POST" and path == "/v1/assets":
        return "form"
    if method != "PUT":
        return None
    if path.startswith("/b/"):
        return "draft" if draft.spoken(joined(scope["headers"])) else "put"
    return "dropbox" if path.startswith("/u/") else None


class Outcome:
    """Told once the bytes are acknowledged."""

    def __init__(self, door: str) -> None:
        self._door = door

    def stored(self, size: int) -> None:
        metrics.upload_bytes.labels(self._door).inc(size)


@contextmanager
def upload(door: str, scope: Scope) -> Iterator[Outcome]:
    """Wraps the receiving of one file through a door (put, dropbox, form)."""
    began, outcome = time.monotonic(), "broken"
    try:
        yield Outcome(door)
        outcome = "stored"
    except MediasvcError as error:
        outcome = error.code
        raise
    finally:
        if outcome != "stored":
            refusals_are_counted(scope)
        metrics.uploads.labels(door, outcome).inc()
        metrics.upload_seconds.labels(door).observe(time.monotonic() - began)
