"""Errors: problems, never pages; and nothing of the inside."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.protocols import wire
from tests.servers import Server


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


MEMBERS = {"title", "status", "code", "detail", "request_id", "retryable"}
ERRORS = {
    "unknown route": ("GET", "/nothing", None, 404, "not_found"),
    "unknown api route": ("GET", "/v1/nothing", None, 404, "not_found"),
    "not built": ("POST", "/v1/webhooks", None, 404, "not_found"),
    "trailing slash": ("GET", "/v1/assets/", None, 404, "not_found"),
    "double slash": ("GET", "//v1/assets", None, 404, "not_found"),
    "upper case": ("GET", "/V1/assets", None, 404, "not_found"),
    "wrong method": ("PUT", "/v1/assets", b"", 405, "method_not_allowed"),
    "odd method": ("PROPFIND", "/v1/assets", None, 405, "method_not_allowed"),
    "no JSON": ("POST", "/v1/buckets", b"{", 400, "bad_body"),
    "no object": ("POST", "/v1/buckets", b"[]", 422, "invalid_input"),
    "no body": ("POST", "/v1/buckets", b"", 422, "invalid_input"),
    "wrong type": ("POST", "/v1/buckets", b'{"name": 1}', 422, "invalid_input"),
    "infinite": ("POST", "/v1/buckets", b'{"name": "abc", "quota_bytes": Infinity}', 422, "invalid_input"),
    "huge number": ("POST", "/v1/buckets", b'{"name": "abc", "quota_bytes": 1e400}', 422, "invalid_input"),
    "surrogate": ("POST", "/v1/buckets", b'{"name": "\\ud800"}', 400, "bad_bucket"),
    "invalid utf-8": ("POST", "/v1/buckets", b'{"name": "\xff"}', 400, "bad_body"),
    "deep": ("POST", "/v1/buckets", b"[" * 100_000, 400, "bad_body"),
    "large": ("POST", "/v1/buckets", b" " * ((1 << 20) + 1), 413, "too_large"),
    "missing": ("GET", "/v1/assets/ast_0", None, 404, "not_found"),
    "no file": ("GET", "/f/ast_0/x", None, 404, "not_found"),
    "no key": ("GET", "/b/media/absent", None, 404, "not_found"),
    "no preset": ("GET", "/i/huge/ast_0.webp", None, 404, "not_found"),
    "docs file": ("GET", "/docs/assets/../../etc/passwd", None, 404, "not_found"),
    "docs files": ("GET", "/docs/assets/", None, 404, "not_found"),
    "unknown query": ("GET", "/v1/assets?limit=x", None, 422, "invalid_input"),
}


@pytest.mark.parametrize(("method", "target", "body", "status", "code"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_a_problem(
    api: httpx.Client, method: str, target: str, body: bytes | None, status: int, code: str
) -> None:
    answer = api.request(method, target, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, status, code)


def assert_problem(answer: httpx.Response | wire.Answer, status: int, code: str) -> None:
    got = answer.status_code if isinstance(answer, httpx.Response) else answer.status
    assert got == status, answer.content
    problem = json.loads(answer.content)
    assert problem.keys() >= MEMBERS
    assert (problem["status"], problem["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_list("X-Request-Id") == [problem["request_id"]]
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(
        rb"Traceback|File \"|/mediasvc/|<html|sqlalchemy|pydantic", answer.content, re.IGNORECASE
    )


def test_what_only_looks_like_json_is_a_problem_too(api: httpx.Client) -> None:
    for kind in ("text/plain", "application/xml", "multipart/form-data; boundary=x", ""):
        answer = api.post("/v1/buckets", content=b'{"name": "typeless"}', headers={"Content-Type": kind})
        assert answer.status_code in (201, 400, 415, 422)
        assert "json" in answer.headers["Content-Type"]
        api.delete("/v1/buckets/typeless")


def test_a_large_json_without_a_length_is_413(api: httpx.Client) -> None:
    answer = api.post("/v1/buckets", content=iter([b"[" + b" " * (1 << 20), b" ]"]))
    assert_problem(answer, 413, "too_large")
    assert answer.json()["limit"] == 1 << 20
    assert answer.json()["limit_source"] == "server"


def test_every_answer_says_nosniff_once_and_names_its_request(api: httpx.Client) -> None:
    made = api.put("/b/public/x", content=b"1")
    for answer in (
        made,
        api.get("/b/public/x"),
        api.head("/b/public/x"),
        api.get("/b/public/x", headers={"Range": "bytes=0-0"}),
        api.get("/b/public/x", headers={"Range": "bytes=9-"}),
        api.get("/b/public/x", headers={"If-None-Match": made.headers["ETag"]}),
        api.get("/v1/assets"),
        api.get("/healthz"),
        api.get("/docs"),
        api.get("/docs/assets/favicon.png"),
        api.get("/"),
        api.options("/v1/assets"),
        api.options("/v1/assets", headers={"Origin": "https://a", "Access-Control-Request-Method": "GET"}),
        api.delete("/b/public/x"),
    ):
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"], answer.request
        assert len(answer.headers.get_list("X-Request-Id")) == 1
        assert (
            "Vary" not in answer.headers
            or "Origin" not in answer.headers["Vary"]
            or answer.request.method == "OPTIONS"
        )


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/b/media/x", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("/b/media/a/b%0Ac", {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}),
        ("/u/x", {"PUT", "OPTIONS"}),
        ("/f/ast_0/x", {"GET", "HEAD", "OPTIONS"}),
        ("/i/thumb/ast_0.webp", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/assets", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/assets/ast_0", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/assets/ast_0/tasks", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/buckets", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/buckets/media", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("/v1/keys", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/v1/keys/key_0", {"GET", "HEAD", "DELETE", "OPTIONS"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("/metrics", {"GET", "HEAD", "OPTIONS"}),
        ("/docs", {"GET", "HEAD", "OPTIONS"}),
        ("/openapi.json", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_allow_lists_every_method_of_a_url(api: httpx.Client, target: str, allowed: set[str]) -> None:
    answer = api.request("PROPFIND", target)
    assert_problem(answer, 405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed
    options = api.options(target)
    assert options.status_code == 204
    assert set(options.headers["Allow"].split(", ")) == allowed
    for method in {"GET", "PUT", "POST", "PATCH", "DELETE"} - allowed:
        assert api.request(method, target).status_code == 405, method


HEADS = [
    "/v1/assets", "/v1/buckets", "/v1/buckets/media", "/v1/keys", "/healthz", "/readyz", "/openapi.json", "/docs", "/",
    "/redoc", "/docs/assets/favicon.png", "/v1/nothing", "/v1/assets/ast_0", "/b/public/head.txt",
]  # fmt: skip


@pytest.mark.parametrize("target", HEADS)
def test_head_answers_as_get_without_the_body(api: httpx.Client, target: str) -> None:
    api.put("/b/public/head.txt", content=b"1")
    get, head = api.get(target), api.head(target)
    assert head.status_code == get.status_code
    assert head.content == b""
    ignored = {"date", "x-request-id"}
    told = [{k: v for k, v in one.headers.items() if k not in ignored} for one in (get, head)]
    assert told[0] == told[1]


# ---- CORS

ORIGIN = {"Origin": "https://app.example"}
PREFLIGHT = ORIGIN | {
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,x-tags,content-type",
}


@pytest.mark.parametrize("target", ["/v1/assets", "/b/media/x", "/u/x", "/f/ast_0/x", "/v1/keys"])
def test_a_preflight_needs_no_key(server: Server, target: str) -> None:
    answer = httpx.options(server.url + target, headers=PREFLIGHT)
    assert answer.status_code in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_scripts_may_read_every_answer(api: httpx.Client) -> None:
    api.put("/b/public/cors", content=b"1")
    for answer in (
        api.get("/b/public/cors", headers=ORIGIN),
        api.get("/v1/assets", headers=ORIGIN),
        api.get("/v1/nothing", headers=ORIGIN),
        api.get("/b/media/absent", headers=ORIGIN),
        api.get("/v1/assets", headers=ORIGIN | {"Authorization": ""}),
        api.put("/b/absent/x", content=b"1", headers=ORIGIN),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "*", answer.request
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert "Location" in answer.headers["Access-Control-Expose-Headers"]


# ---- what is no HTTP, or more than one


MALFORMED = {
    "raw bytes in the target": b"GET /b/media/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "bare line feed in a header": b"GET /healthz HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "space before the colon": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "both framings": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, other order": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "length with a sign": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd",
    "negative length": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "length in hex": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 0x4\r\n\r\nabcd",
    "unknown encoding": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "bad chunk size": b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
}
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_what_is_ambiguous_is_refused_and_closed(server: Server, raw: bytes) -> None:
    answers = wire.statuses(server.url, raw + SMUGGLED)
    assert answers in ([], [400], [401])
    assert "/v1/smuggled" not in server.logged()
    assert httpx.get(server.url + "/healthz").status_code == 200


def test_what_is_no_http_is_a_problem_too(server: Server) -> None:
    answer = wire.exchange(server.url, MALFORMED["raw bytes in the target"])
    assert_problem(answer, 400, "bad_request")


def test_noise_after_a_request_does_not_get_into_its_answer(server: Server, api: httpx.Client) -> None:
    body = bytes(range(256)) * 40_000
    api.put("/b/public/large", content=body)
    with wire.connect(server.url) as connection:
        connection.sendall(wire.head("GET", "/b/public/large", {}) + b"\xff\xfe noise\r\n\r\n")
        received = wire.read_to_end(connection)
    assert received.count(b"HTTP/1.1") <= 1
    assert body.startswith(received.partition(b"\r\n\r\n")[2])


def test_requests_in_a_row_are_answered_in_a_row(server: Server) -> None:
    last = wire.head("GET", "/nothing", {"Connection": "close"})
    answers = wire.statuses(server.url, wire.head("GET", "/healthz", {}) * 3 + last)
    assert answers == [200, 200, 200, 404]


@pytest.mark.parametrize("size", [70_000, 1 << 20])
def test_a_huge_head_is_refused(server: Server, size: int) -> None:
    answers = wire.statuses(
        server.url, wire.head("GET", "/healthz", {"X-Big": "x" * size, "Connection": "close"})
    )
    assert len(answers) <= 1
    assert httpx.get(server.url + "/healthz").status_code == 200
