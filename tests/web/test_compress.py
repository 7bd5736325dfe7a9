"""What is compressed, for whom, and what stays true about it."""

import gzip

import pytest

from mediasvc.web.compress import MINIMUM, Compressed
from mediasvc.web.middleware import HeadAsGet
from tests.web.test_middleware import Exchange, answering, ask

BODY = b'{"name": "value"}' * 1000
ETAG = '"0123456789abcdef"'


def fetch(
    accept: bytes | None = b"gzip, br",
    method: str = "GET",
    *,
    status: int = 200,
    body: bytes = BODY,
    content_type: str = "application/json",
    **more: str,
) -> Exchange:
    app = answering(status, body, content_type=content_type, content_length=str(len(body)), **more)
    headers = {b"accept-encoding": accept} if accept is not None else {}
    return ask(HeadAsGet(Compressed(app)), method, headers=headers)


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/problem+json", "text/html; charset=utf-8", "text/javascript", "text/css"],
)  # fmt: skip
def test_json_problems_and_pages_are_compressed(kind: str) -> None:
    exchange = fetch(content_type=kind)
    assert exchange.headers[b"content-encoding"] == b"gzip"
    assert exchange.headers[b"vary"] == b"Accept-Encoding"
    assert gzip.decompress(exchange.body) == BODY
    assert int(exchange.headers[b"content-length"]) == len(exchange.body) < len(BODY)


@pytest.mark.parametrize(
    "kind",
    ["image/png", "image/svg+xml", "video/mp4", "audio/mpeg", "application/zip", "application/octet-stream",
     "text/plain; version=0.0.4", "text/event-stream"],
)  # fmt: skip
def test_everything_else_is_left_alone(kind: str) -> None:
    exchange = fetch(content_type=kind, etag=ETAG)
    assert exchange.body == BODY
    assert b"content-encoding" not in exchange.headers


@pytest.mark.parametrize(
    ("accept", "compressed"),
    [
        (b"gzip", True),
        (b"GZIP", True),
        (b"br;q=1, gzip;q=0.5", True),
        (b"gzip;q=0.001", True),
        (b"x-gzip", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"identity", False),
        (b"notgzip", False),
        (b"*", False),
        (b";;,,=q", False),
        (b"", False),
        (None, False),
    ],
)
def test_only_who_takes_gzip_gets_it(accept: bytes | None, compressed: bool) -> None:
    exchange = fetch(accept)
    assert (b"content-encoding" in exchange.headers) is compressed
    assert exchange.headers[b"vary"] == b"Accept-Encoding"
    assert (exchange.body == BODY) is not compressed


def test_what_fits_into_a_packet_is_not_worth_it() -> None:
    exchange = fetch(body=b"x" * (MINIMUM - 1))
    assert b"content-encoding" not in exchange.headers
    assert exchange.body == b"x" * (MINIMUM - 1)


def test_head_tells_what_get_would() -> None:
    got, told = fetch(etag=ETAG), fetch(method="HEAD", etag=ETAG)
    assert told.headers == got.headers
    assert told.body == b""


def test_the_etag_of_a_compressed_page_is_weak() -> None:
    assert fetch(etag=ETAG).headers[b"etag"] == b"W/" + ETAG.encode()
    assert fetch(None, etag=ETAG).headers[b"etag"] == ETAG.encode()
    assert fetch(etag="W/" + ETAG).headers[b"etag"] == b"W/" + ETAG.encode()
    unchanged = fetch(status=304, body=b"", etag=ETAG)
    assert unchanged.headers[b"etag"] == b"W/" + ETAG.encode()
    assert unchanged.headers[b"vary"] == b"Accept-Encoding"


def test_the_etag_of_what_was_stored_stays_strong() -> None:
    exchange = fetch(method="PUT", status=201, etag=ETAG)
    assert exchange.headers[b"content-encoding"] == b"gzip"
    assert exchange.headers[b"etag"] == ETAG.encode()


def test_a_part_of_a_page_stays_what_it_is() -> None:
    exchange = fetch(status=206, content_range="bytes 0-16999/40000")
    assert exchange.body == BODY
    assert b"content-encoding" not in exchange.headers
