"""Errors as people get them: RFC 9457 `application/problem+json`, never HTML, never internals."""

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from mediasvc.core.errors import (
    BadBody,
    BadRequest,
    InvalidInput,
    LimitError,
    MediasvcError,
    MethodNotAllowed,
    NotFound,
    RangeNotSatisfiable,
    Unauthorised,
)

MEDIA_TYPE = "application/problem+json"


class Problem(Response):
    """An answer that tells an error. Its code stays with the request, for whoever counts refusals."""

    media_type = MEDIA_TYPE

    def __init__(self, body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"), status, headers)
        self._code = body["code"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["problem"] = self._code
        await super().__call__(scope, receive, send)


def problem_told(scope: Scope) -> str | None:
    """The code of the error that the request was answered with."""
    code: str | None = scope.get("state", {}).get("problem")
    return code


def problem(
    error: MediasvcError,
    request_id: str,
    *,
    detail: str | None = None,
    type: str | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """The answer that tells `error`. What an error of ours says is meant for the caller; nothing else is.

    `type` is the URI of a registered type of problem, `members` what belongs to it.
    """
    body: dict[str, Any] = {
        **({"type": type} if type else {}),
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": detail or error.detail,
        "request_id": request_id,
        "retryable": error.retryable,
    }
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    match error:
        case LimitError(limit=limit, limit_source=source):
            body |= {"limit": limit, "limit_source": source}
        case Unauthorised():
            headers["WWW-Authenticate"] = 'Basic realm="mediasvc"'
        case MethodNotAllowed(allow=allow):
            headers["Allow"] = allow
        case RangeNotSatisfiable(size=size):
            headers |= {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
    body |= members or {}
    return Problem(body, error.status, headers)


def malformed_request() -> bytes:
    """The whole answer, as it goes over the wire, to what is no HTTP request: there is no scope to answer in."""
    request_id = secrets.token_hex(8)
    answer = problem(BadRequest("the request is not valid HTTP/1.1; the connection is closed"), request_id)
    headers = [
        *answer.raw_headers,
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    ]
    lines = [b"HTTP/1.1 400 Bad Request", *(b"%b: %b" % pair for pair in headers), b"", bytes(answer.body)]
    return b"\r\n".join(lines)


def request_id_of(scope: Scope) -> str:
    return str(scope.get("state", {}).get("request_id", ""))


def allowed_methods(routes: Iterable[BaseRoute], scope: Scope) -> str:
    """Every method some route has for this URL, for `Allow`."""
    methods: set[str] = {"OPTIONS"}
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= set(getattr(route, "methods", None) or ())
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


Handler = Callable[[Request, Any], Response]


def handlers() -> dict[Any, Any]:
    """FastAPI's exception handlers: everything it or a route raises becomes a problem."""

    def ours(request: Request, error: MediasvcError) -> Response:
        return problem(error, request_id_of(request.scope))

    def invalid(request: Request, error: RequestValidationError) -> Response:
        return ours(request, translate_validation(error))

    def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            allow = allowed_methods(request.app.routes, request.scope)
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": allow})
            return ours(request, MethodNotAllowed(f"this URL takes {allow}", allow=allow))
        if error.status_code == 404:
            return ours(request, NotFound("there is nothing here; /docs lists what is"))
        return ours(request, BadBody("the body cannot be read as what its Content-Type says"))

    def gone(request: Request, error: ClientDisconnect) -> Response:
        """Who only stopped sending can still read this."""
        return ours(request, BadBody("the connection broke before the body was complete"))

    return {
        MediasvcError: ours,
        RequestValidationError: invalid,
        HTTPException: http,
        ClientDisconnect: gone,
    }


def translate_validation(error: RequestValidationError | ValidationError) -> MediasvcError:
    """The first thing that is wrong, with the name of where it stands."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    if first["type"] == "json_invalid":
        return BadBody("the body is not valid JSON")
    message = str(first["msg"]).removeprefix("Value error, ")
    return InvalidInput(f"{where}: {message}" if where else f"the body: {message}")
