"""Which way bytes leave, and what nginx and the store are told."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from mediasvc.catalogue.interface import Source
from mediasvc.core.errors import StartupRefused
from mediasvc.core.ranges import parse
from mediasvc.core.span import Span
from mediasvc.core.tally import Delivery
from mediasvc.deliver.plan import HandToNginx, Plan, Redirect, SendFile, Stream
from mediasvc.deliver.ways import LARGEST_CACHED, Answer, Ways
from mediasvc.store.credentials import Credentials
from mediasvc.store.interface import PresignedUrl
from mediasvc.store.presign import Presigner

BLOB = "ab12" + "0" * 28
SOURCE = Source("ast_1", "media", "a.mp4", "a.mp4", False, 1, 1000, BLOB, 1000, "0" * 64, "video/mp4")
HEADERS = (
    (b"etag", b'"0"'),
    (b"accept-ranges", b"bytes"),
    (b"content-security-policy", b"sandbox"),
    (b"cache-control", b"private, no-cache"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"last-modified", b"Thu, 01 Jan 1970 00:16:40 GMT"),
    (b"repr-digest", b"sha-256=:AA==:"),
    (b"content-disposition", b"attachment; filename=\"a b\"; filename*=UTF-8''a%20b"),
)


class Presigned:
    """As the S3 store signs, with keys of our own."""

    def __init__(self) -> None:
        credentials = Credentials("AK", "SK")
        self._inside = Presigner("http://inside:9000", "store", "eu-1", lambda: credentials)
        self._outside = Presigner("https://outside.example", "store", "eu-1", lambda: credentials)

    def inside(self, blob_id: str, *, seconds: int) -> PresignedUrl:
        return self._inside.url(blob_id, seconds=seconds)

    def outside(self, blob_id: str, *, seconds: int, answer: Mapping[str, str]) -> PresignedUrl:
        return self._outside.url(blob_id, seconds=seconds, answer=answer)


DISK: Any = SimpleNamespace(files=object(), presigned=None)
S3: Any = SimpleNamespace(files=None, presigned=Presigned())


def answer(asked: Mapping[str, str] | None = None, *, heeded: bool = True, **source: Any) -> Answer:
    """What was decided for these headers; `heeded`: the range counts beside an If-Range."""
    sent = {name.encode(): value for name, value in (asked or {}).items()}
    blob = replace(SOURCE, **source)
    spans = parse(sent.get(b"range"), blob.size) if heeded else None
    return Answer(blob, HEADERS, spans, sent, Delivery("ast_1", "", True, True))


def plan(
    delivery: Any, store: Any, decided: Answer | None = None, *, proxied: bool = True, zero_copy: bool = True
) -> Plan:
    way = Ways(delivery, store).choose(behind_proxy=proxied, zero_copy=zero_copy)
    return way(decided or answer())


def header(made: Plan, name: str) -> str | None:
    values = [value.decode() for key, value in made.headers if key == name.encode()]
    assert len(values) < 2, f"{name} is sent twice"
    return values[0] if values else None


CHOSEN = {
    "disk": ("direct", DISK, True, True, SendFile),
    "disk over TLS": ("direct", DISK, True, False, Stream),
    "S3": ("direct", S3, True, True, Stream),
    "nginx and disk": ("nginx", DISK, True, True, HandToNginx),
    "nginx and S3": ("nginx", S3, True, True, HandToNginx),
    "nginx and disk, asked by a stranger": ("nginx", DISK, False, True, SendFile),
    "nginx and S3, asked by a stranger": ("nginx", S3, False, True, Stream),
    "redirect": ("redirect", S3, False, True, Redirect),
    "redirect through a proxy": ("redirect", S3, True, True, Redirect),
}


@pytest.mark.parametrize(("delivery", "store", "proxied", "zero_copy", "body"), CHOSEN.values(), ids=CHOSEN)
def test_the_way_is_chosen(delivery: str, store: Any, proxied: bool, zero_copy: bool, body: type) -> None:
    made = plan(delivery, store, proxied=proxied, zero_copy=zero_copy)
    assert isinstance(made.body, body)
    assert made.delivery == Delivery("ast_1", "", True, True)


@pytest.mark.parametrize("lasts", [True, False])
@pytest.mark.parametrize(
    ("delivery", "store", "may"),
    [("direct", DISK, True), ("nginx", DISK, True), ("nginx", S3, False), ("redirect", S3, False)],
)
def test_a_plan_with_a_presigned_url_lasts_no_longer_than_it(
    delivery: str, store: Any, may: bool, lasts: bool
) -> None:
    assert plan(delivery, store, replace(answer(), lasts=lasts)).lasts == (lasts and may)


def test_only_nginx_is_told_where_blobs_lie() -> None:
    for store in (DISK, S3):
        for delivery, proxied in (("direct", True), ("nginx", False)):
            names = [name for name, _ in plan(delivery, store, proxied=proxied).headers]
            assert not [name for name in names if name.startswith((b"x-accel", b"x-s3"))]


def test_a_store_on_disk_has_no_address_to_redirect_to() -> None:
    with pytest.raises(StartupRefused, match="MEDIASVC_DELIVERY=redirect needs"):
        Ways("redirect", DISK)


def test_nginx_gets_the_clients_headers_under_other_names() -> None:
    assert plan("nginx", DISK).headers == [
        (b"x-accel-redirect", f"/_blobs/ab/12/{BLOB}".encode()),
        (b"x-etag", b'"0"'),
        (b"x-csp", b"sandbox"),
        (b"x-cache-control", b"private, no-cache"),
        (b"x-corp", b"cross-origin"),
        (b"x-last-modified", b"Thu, 01 Jan 1970 00:16:40 GMT"),
        (b"x-repr-digest", b"sha-256=:AA==:"),
        (b"x-content-disposition", b"attachment; filename=\"a b\"; filename*=UTF-8''a%20b"),
        (b"content-type", b"video/mp4"),
        (b"content-length", b"0"),
    ]


def test_what_nginx_is_told_follows_the_asset_and_not_the_answer_before() -> None:
    assert header(plan("nginx", DISK), "content-type") == "video/mp4"
    assert header(plan("nginx", DISK, answer(media_type="video/webm")), "content-type") == "video/webm"
    slowed = plan("nginx", DISK, answer(download_rate=1000))
    assert header(slowed, "x-accel-limit-rate") == "1000"
    assert header(plan("nginx", DISK), "x-accel-limit-rate") is None


def test_of_a_blob_in_s3_nginx_learns_the_address_and_the_range() -> None:
    made = plan("nginx", S3, answer({"range": "bytes=-10"}, size=LARGEST_CACHED + 1))
    assert made.status == 206
    assert header(made, "x-accel-redirect") == "@s3"
    assert header(made, "x-s3-host") == "inside:9000"
    assert header(made, "x-s3-cache-id") == BLOB
    assert header(made, "x-s3-range") == f"bytes={LARGEST_CACHED - 9}-{LARGEST_CACHED}"
    uri = urlsplit(header(made, "x-s3-uri") or "")
    assert uri.path == f"/store/{BLOB}"
    assert dict(parse_qsl(uri.query))["X-Amz-Expires"] == "300"


ASKED = {
    "nothing": ({}, True),
    "one range": ({"range": "bytes=0-1"}, True),
    "an open range": ({"range": "bytes=5-"}, True),
    "an end": ({"range": "bytes=-5"}, True),
    "a range in capitals": ({"range": "Bytes=0-1"}, True),
    "a range with tabs": ({"range": "bytes=0-1\t"}, True),
    "a range and an empty one": ({"range": "bytes=0-1,,"}, True),
    "a range that counts beside If-Range": ({"range": "bytes=0-1", "if-range": '"0"'}, True),
    "a range of another version": ({"range": "bytes=0-1", "if-range": '"1"'}, False),
    "a range of another day": ({"range": "bytes=0-1", "if-range": "Thu, 01 Jan 1970 00:00:01 GMT"}, False),
    "two ranges of another version": ({"range": "bytes=0-1,5-6", "if-range": '"1"'}, False),
    "another unit": ({"range": "pages=1"}, True),
    "a malformed range": ({"range": "bytes=x"}, True),
    "two ranges": ({"range": "bytes=0-1, 5-6"}, True),
    "two ranges, one of which is left": ({"range": "bytes=0-1,5000-"}, True),
    "ranges that are more than the whole": ({"range": "bytes=0-,0-"}, True),
    "If-None-Match": ({"if-none-match": '"1"'}, True),
    "If-Modified-Since": ({"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}, True),
    "If-Match": ({"if-match": '"0"'}, True),
    "If-Unmodified-Since": ({"if-unmodified-since": "Thu, 01 Jan 1970 00:16:40 GMT"}, True),
}
# Who sends the bytes then: nginx (from S3 in a "part", or the whole, to keep it), the store, or we.
BY = {
    "nothing": ("nginx", "whole", "store"),
    "one range": ("nginx", "part", "store"),
    "an open range": ("nginx", "part", "store"),
    "an end": ("nginx", "part", "store"),
    "a range in capitals": ("us", "us", "us"),
    "a range with tabs": ("us", "us", "us"),
    "a range and an empty one": ("us", "us", "us"),
    "a range that counts beside If-Range": ("nginx", "part", "us"),
    "a range of another version": ("nginx", "whole", "us"),
    "a range of another day": ("us", "us", "us"),
    "two ranges of another version": ("us", "us", "us"),
    "another unit": ("us", "us", "us"),
    "a malformed range": ("us", "us", "us"),
    "two ranges": ("nginx", "us", "us"),
    "two ranges, one of which is left": ("nginx", "part", "us"),
    "ranges that are more than the whole": ("us", "us", "us"),
    "If-None-Match": ("nginx", "whole", "store"),
    "If-Modified-Since": ("nginx", "whole", "us"),
    "If-Match": ("us", "us", "us"),
    "If-Unmodified-Since": ("us", "us", "us"),
}
_SENDERS = {"/": "nginx", "@s3cache": "whole", "@s3": "part"}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    ("delivery", "store", "index"),
    [("nginx", DISK, 0), ("nginx", S3, 1), ("redirect", S3, 2)],
    ids=["nginx and disk", "nginx and S3", "redirect"],
)
def test_only_what_is_read_alike_is_left_to_others(delivery: str, store: Any, index: int, asked: str) -> None:
    sent, heeded = ASKED[asked]
    made = plan(delivery, store, answer(sent, heeded=heeded))
    match made.body:
        case HandToNginx():
            redirect = header(made, "x-accel-redirect") or ""
            sender = _SENDERS["/" if redirect.startswith("/") else redirect]
        case Redirect():
            sender = "store"
        case _:
            sender = "us"
    assert sender == BY[asked][index]


@pytest.mark.parametrize(
    ("size", "field", "location"),
    [
        (0, None, "@s3cache"),
        (1, None, "@s3cache"),
        (1, "bytes=0-", "@s3cache"),  # a player's first question
        (LARGEST_CACHED, None, "@s3cache"),
        (LARGEST_CACHED, "bytes=-99999999999", "@s3cache"),
        (LARGEST_CACHED, "bytes=1-", "@s3"),
        (LARGEST_CACHED + 1, None, "@s3"),
        (LARGEST_CACHED + 1, "bytes=0-", "@s3"),
    ],
)
def test_the_cache_keeps_what_is_not_large_and_asked_for_whole(
    size: int, field: str | None, location: str
) -> None:
    made = plan("nginx", S3, answer({"range": field} if field else {}, size=size))
    assert header(made, "x-accel-redirect") == location


@pytest.mark.parametrize("store", [DISK, S3], ids=["disk", "S3"])
@pytest.mark.parametrize("asked", [{}, {"if-match": '"0"'}], ids=["handed over", "sent by us"])
def test_nginx_slows_down_what_the_bucket_says(store: Any, asked: dict[str, str]) -> None:
    made = plan("nginx", store, answer(asked, download_rate=20_000))
    assert header(made, "x-accel-limit-rate") == "20000"
    assert header(plan("nginx", store, answer(asked)), "x-accel-limit-rate") is None


def test_nobody_else_hears_of_the_rate() -> None:
    assert header(plan("direct", DISK, answer(download_rate=20_000)), "x-accel-limit-rate") is None


def test_whose_connections_are_counted_is_told() -> None:
    assert header(plan("nginx", DISK, replace(answer(), whose="lnk_1")), "x-limit-key") == "lnk_1"
    assert header(plan("nginx", DISK), "x-limit-key") is None


@pytest.mark.parametrize("from_start", [True, False])
def test_what_is_counted_is_not_redirected(from_start: bool) -> None:
    """A presigned URL opens the whole, as often as its bearer likes."""
    decided = replace(answer(), delivery=Delivery("ast_1", "lnk_1", True, from_start))
    assert isinstance(plan("redirect", S3, decided).body, SendFile | Stream)
    assert isinstance(plan("nginx", S3, decided).body, HandToNginx)


def test_a_redirect_names_the_public_address_and_says_how_to_answer() -> None:
    made = plan("redirect", S3)
    assert made.status == 307
    assert [name for name, _ in made.headers] == [b"location", b"cache-control", b"content-length"]
    assert header(made, "cache-control") == "no-store"
    location = urlsplit(header(made, "location") or "")
    assert (location.scheme, location.netloc, location.path) == ("https", "outside.example", f"/store/{BLOB}")
    asked = dict(parse_qsl(location.query))
    assert asked["response-content-type"] == "video/mp4"
    assert asked["response-content-disposition"] == "attachment; filename=\"a b\"; filename*=UTF-8''a%20b"
    assert asked["response-cache-control"] == "private, no-cache"
    assert int(asked["X-Amz-Expires"]) <= 300


def test_what_we_send_has_the_parts_asked_for() -> None:
    made = plan("nginx", S3, answer({"range": "bytes=0-1,5-6"}))
    assert isinstance(made.body, Stream)
    assert [part for part in made.body.parts if isinstance(part, Span)] == [Span(0, 2), Span(5, 7)]
    assert header(made, "x-accel-redirect") is None
