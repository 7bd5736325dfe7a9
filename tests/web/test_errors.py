"""Every error of the family becomes a problem that tells as much as it should."""

import json
from collections.abc import Iterator

import pytest

from mediasvc.core import errors
from mediasvc.core.errors import MediasvcError
from mediasvc.web.errors import malformed_request, problem

MADE: dict[type[MediasvcError], MediasvcError] = {
    errors.LimitError: errors.LimitError("too much", limit=5, limit_source="key"),
    errors.TooLarge: errors.TooLarge("too much", limit=5, limit_source="bucket:media"),
    errors.QuotaExceeded: errors.QuotaExceeded("too much", limit=5, limit_source="bucket:media"),
    errors.RateLimited: errors.RateLimited("too often", limit=5, limit_source="key", retry_after=3),
    errors.MethodNotAllowed: errors.MethodNotAllowed("no", allow="GET, HEAD"),
    errors.RangeNotSatisfiable: errors.RangeNotSatisfiable("no", size=10),
    errors.OffsetMismatch: errors.OffsetMismatch("no", offset=5, provided=7),
    errors.AlreadyComplete: errors.AlreadyComplete("no", offset=5, provided=7),
}


def family(parent: type[MediasvcError] = MediasvcError) -> Iterator[type[MediasvcError]]:
    for kind in parent.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from family(kind)


@pytest.mark.parametrize("kind", list(family()), ids=lambda kind: kind.__name__)
def test_an_error_is_told_as_a_problem(kind: type[MediasvcError]) -> None:
    error = MADE.get(kind) or kind("what is wrong and how to mend it")
    answer = problem(error, "abc")
    body = json.loads(bytes(answer.body))
    assert answer.status_code == body["status"] == kind.status
    assert answer.media_type == "application/problem+json"
    assert (body["code"], body["title"], body["detail"]) == (kind.code, kind.title, error.detail)
    assert (body["request_id"], body["retryable"]) == ("abc", kind.retryable)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.get("Retry-After") == (str(error.retry_after) if error.retry_after else None)
    assert ("limit" in body) == ("limit_source" in body) == issubclass(kind, errors.LimitError)
    assert ("WWW-Authenticate" in answer.headers) == (kind is errors.Unauthorised)
    assert ("Allow" in answer.headers) == (kind is errors.MethodNotAllowed)
    assert answer.headers.get("Content-Range") == (
        "bytes */10" if kind is errors.RangeNotSatisfiable else None
    )


def test_codes_tell_errors_apart() -> None:
    codes = [kind.code for kind in family() if "code" in vars(kind)]
    assert len(codes) == len(set(codes))


def test_a_detail_may_hold_anything() -> None:
    answer = problem(errors.NotFound("\udcff \0 \u2028 <script>"), "abc")
    assert json.loads(bytes(answer.body))["code"] == "not_found"


def test_what_is_no_http_gets_a_whole_answer() -> None:
    head, _, body = malformed_request().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 400 Bad Request"
    headers = dict(line.split(b": ", 1) for line in lines[1:])
    assert len(headers) == len(lines) - 1
    assert int(headers[b"content-length"]) == len(body)
    assert headers[b"connection"] == b"close"
    assert json.loads(body)["request_id"].encode() == headers[b"x-request-id"]
