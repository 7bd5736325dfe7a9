"""The decision about a download: who may, which status, which headers, which bytes."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from mediasvc.catalogue.interface import Source
from mediasvc.core.access import ANONYMOUS, Caller
from mediasvc.core.asset import Asset, Blob, State
from mediasvc.core.bucket import Bucket
from mediasvc.core.checksums import repr_digest
from mediasvc.core.conditions import format_date
from mediasvc.core.errors import (
    BadKey,
    Forbidden,
    MediasvcError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    RenditionPending,
    Unauthorised,
    UploadIncomplete,
)
from mediasvc.core.ids import new_asset_id
from mediasvc.core.signing import Signer
from mediasvc.core.span import Span
from mediasvc.core.upload import Upload
from mediasvc.deliver.download import ById, ByKey, OfPreset, Target, plan_download
from mediasvc.deliver.plan import Nothing, Plan, SendFile, Stream
from mediasvc.deliver.ways import Way, by_sendfile, by_stream

CONTENT = b"0123456789" * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256[:32]}"'
MADE = 1_700_000_000
THEN, BEFORE, AFTER = format_date(MADE), format_date(MADE - 1), format_date(MADE + 1)
PRIVATE_ID, PUBLIC_ID, ABSENT_ID = new_asset_id(), new_asset_id(), new_asset_id()
READER = Caller("key_1", frozenset(("assets:read",)))


def source(asset_id: str, bucket: str, **other: Any) -> Source:
    whole = Source(
        asset_id, bucket, "holidays/zoë.png", "zoë.png", bucket == "public", 3, MADE, "b" * 32, 100, SHA256, "image/png"
    )  # fmt: skip
    return replace(whole, **other)


class Shelf:
    """The reads a download needs, over two assets: one private, one public, both with a grid already made."""

    def __init__(self, state: State = "ready") -> None:
        self.sources = {
            (asset_id, preset): source(asset_id, bucket, media_type=media_type)
            for asset_id, bucket in ((PRIVATE_ID, "media"), (PUBLIC_ID, "public"))
            for preset, media_type in (("", "image/png"), ("grid", "image/webp"))
        }
        self.state = state
        self.promises: dict[str, Upload] = {}

    async def promised(self, asset_id: str) -> Upload | None:
        return self.promises.get(asset_id)

    async def source(self, asset_id: str, preset: str = "") -> Source | None:
        return self.sources.get((asset_id, preset))

    async def source_at(self, bucket: str, key: str) -> Source | None:
        originals = (s for (_, preset), s in self.sources.items() if not preset)
        return next((s for s in originals if (s.bucket, s.key) == (bucket, key)), None)

    async def bucket(self, name: str) -> Bucket | None:
        return Bucket(name, 0, public=name == "public") if name in ("media", "public") else None

    async def asset(self, asset_id: str) -> Asset | None:
        found = self.sources.get((asset_id, ""))
        if found is None:
            return None
        blob = Blob(found.blob_id, found.size, found.sha256, 0)
        return Asset(
            found.asset_id, found.bucket, found.key, found.name, blob, found.media_type, self.state, 0, MADE
        )


def plan(
    target: Target | None = None,
    caller: Caller = READER,
    *,
    method: str = "GET",
    query: bytes = b"",
    shelf: Shelf | None = None,
    now: float = MADE + 100,
    way: Way = by_sendfile,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    **asked: str,
) -> Plan:
    sent = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in asked.items()]
    return asyncio.run(
        plan_download(
            shelf or Shelf(),  # type: ignore[arg-type]
            target or ById(PRIVATE_ID.encode()),
            method,
            query,
            [*headers, *sent],
            caller,
            now,
            signer=Signer(["a secret of the tests"]),
            way=way,
        )
    )


def header(answer: Plan, name: str) -> str | None:
    values = [value.decode() for key, value in answer.headers if key == name.encode()]
    assert len(values) < 2, f"{name} is sent twice"
    return values[0] if values else None


def original(public: bool = False) -> ById:
    return ById((PUBLIC_ID if public else PRIVATE_ID).encode())


def named(bucket: bytes = b"media", key: bytes = b"holidays/zo%C3%AB.png") -> ByKey:
    return ByKey(bucket, key)


def preset(name: bytes = b"grid", ext: bytes = b"webp", asset_id: str = PRIVATE_ID) -> OfPreset:
    return OfPreset(name, asset_id.encode(), ext)


# --- the whole, and what goes with it


@pytest.mark.parametrize("target", [original(), named()], ids=["by id", "by key"])
def test_the_whole_goes_out_with_everything_a_client_needs(target: Target) -> None:
    answer = plan(target)
    assert answer.status == 200
    assert answer.body == SendFile("b" * 32, 100, (Span(0, 100),))
    assert dict(answer.headers) == {
        b"etag": ETAG.encode(),
        b"last-modified": THEN.encode(),
        b"accept-ranges": b"bytes",
        b"content-length": b"100",
        b"content-type": b"image/png",
        b"content-disposition": b"inline; filename=\"zoe.png\"; filename*=UTF-8''zo%C3%AB.png",
        b"repr-digest": repr_digest(SHA256).encode(),
        b"cache-control": b"private, no-cache",
        b"content-security-policy": b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        b"media-src 'self'",
    }
    assert len(answer.headers) == len(dict(answer.headers))


def test_the_key_of_a_url_may_be_spelt_otherwise() -> None:
    assert plan(named(key=b"holidays/zoe%CC%88%2Epng")).status == 200


def test_head_is_get_without_a_body_and_without_ranges() -> None:
    answer = plan(method="HEAD", range="bytes=0-1")
    assert isinstance(answer.body, Nothing)
    assert sorted(answer.headers) == sorted(plan().headers)
    assert answer.status == 200


def test_where_files_cannot_be_sent_they_are_streamed() -> None:
    assert plan(way=by_stream).body == Stream("b" * 32, 100, (Span(0, 100),))


def test_a_version_has_its_date_once_that_cannot_lie_after_the_servers_own() -> None:
    """Which may be a second old."""
    for now in (MADE - 1, MADE, MADE + 0.9):
        assert header(plan(now=now), "last-modified") is None
        assert not plan(now=now).lasts
    assert header(plan(now=MADE + 1), "last-modified") == THEN
    assert plan(now=MADE + 1).lasts


CHANGED = {
    "name": ("content-disposition", {"name": "b.png"}),
    "kind": ("content-disposition", {"media_type": "text/plain"}),
    "bytes": ("etag", {"sha256": "1" * 64}),
    "digest": ("repr-digest", {"sha256": "1" * 64}),
    "time": ("last-modified", {"modified_at": MADE + 1}),
    "visibility": ("cache-control", {"public": True}),
    "origins": ("vary", {"cors_origins": ("https://a.example",)}),
}


@pytest.mark.parametrize(("told", "change"), CHANGED.values(), ids=CHANGED)
def test_what_changes_shows_in_the_next_answer(told: str, change: dict[str, Any]) -> None:
    shelf = Shelf()
    before = header(plan(shelf=shelf), told)
    shelf.sources[PRIVATE_ID, ""] = source(PRIVATE_ID, "media", **change)
    assert header(plan(shelf=shelf), told) != before
    assert header(plan(), told) == before


@pytest.mark.parametrize("query", [b"download", b"download=1", b"v=3&download", b"download="])
def test_download_forces_an_attachment(query: bytes) -> None:
    assert (header(plan(query=query), "content-disposition") or "").startswith("attachment; ")


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/pdf", "text/plain"])
def test_what_is_not_on_the_inline_list_is_an_attachment(media_type: str) -> None:
    shelf = Shelf()
    shelf.sources[PRIVATE_ID, ""] = source(PRIVATE_ID, "media", media_type=media_type)
    assert (header(plan(shelf=shelf), "content-disposition") or "").startswith("attachment; ")


# --- caching

CACHING = {
    "private original": (original(), b"", "private, no-cache"),
    "private rendition": (preset(), b"v=3", "private, no-cache"),
    "public original": (original(public=True), b"v=3", "public, no-cache"),
    "public original by key": (named(b"public"), b"", "public, no-cache"),
    "public rendition": (preset(asset_id=PUBLIC_ID), b"", "public, no-cache"),
    "public rendition of this version": (
        preset(asset_id=PUBLIC_ID),
        b"x=1&v=3",
        "public, max-age=31536000, immutable",
    ),
    "public rendition of another version": (preset(asset_id=PUBLIC_ID), b"v=2", "public, no-cache"),
    "public rendition of a longer number": (preset(asset_id=PUBLIC_ID), b"v=33", "public, no-cache"),
}


@pytest.mark.parametrize(("target", "query", "expected"), CACHING.values(), ids=CACHING)
def test_who_may_keep_a_copy(target: Target, query: bytes, expected: str) -> None:
    answer = plan(target, query=query)
    assert header(answer, "cache-control") == expected
    corp = header(answer, "cross-origin-resource-policy")
    assert corp == ("cross-origin" if expected.startswith("public") else None)


def test_partial_and_unchanged_answers_are_kept_alike() -> None:
    for answer in (plan(original(True), range="bytes=0-0"), plan(original(True), if_none_match=ETAG)):
        assert header(answer, "cache-control") == "public, no-cache"
        assert header(answer, "etag") == ETAG


@pytest.mark.parametrize("asked", [{}, {"range": "bytes=0-0"}, {"if_none_match": ETAG}], ids=str)
def test_where_the_bucket_names_origins_copies_are_kept_apart(asked: dict[str, str]) -> None:
    shelf = Shelf()
    assert header(plan(original(True), shelf=shelf, **asked), "vary") is None
    shelf.sources[PUBLIC_ID, ""] = source(PUBLIC_ID, "public", cors_origins=["https://app.example"])
    assert header(plan(original(True), shelf=shelf, **asked), "vary") == "Origin"


# --- ranges and preconditions


def test_one_range_is_a_part_with_the_headers_of_the_whole() -> None:
    answer = plan(range="bytes=-5")
    assert answer.status == 206
    assert answer.body == SendFile("b" * 32, 100, [Span(95, 100)])
    assert header(answer, "content-range") == "bytes 95-99/100"
    assert header(answer, "content-length") == "5"
    for name in (
        "etag",
        "cache-control",
        "content-type",
        "content-disposition",
        "repr-digest",
        "last-modified",
    ):
        assert header(answer, name) == header(plan(), name)


def test_several_ranges_are_a_multipart_answer_of_the_announced_length() -> None:
    answer = plan(range="bytes=0-1,-2")
    assert answer.status == 206
    assert header(answer, "content-range") is None
    content_type = header(answer, "content-type") or ""
    boundary = content_type.removeprefix("multipart/byteranges; boundary=")
    assert isinstance(answer.body, SendFile)
    body = b"".join(
        part if isinstance(part, bytes) else CONTENT[part.start : part.stop] for part in answer.body.parts
    )
    head = f"--{boundary}\r\nContent-Type: image/png\r\nContent-Range: bytes "
    assert body.decode() == (f"{head}0-1/100\r\n\r\n01\r\n{head}98-99/100\r\n\r\n89\r\n--{boundary}--\r\n")
    assert header(answer, "content-length") == str(len(body))


def test_one_range_left_of_two_is_no_multipart_answer() -> None:
    assert header(plan(range="bytes=0-1,500-"), "content-range") == "bytes 0-1/100"


STATUS = {
    "whole": ({}, 200),
    "open range": ({"range": "bytes=0-"}, 206),
    "unknown unit": ({"range": "pages=1"}, 200),
    "range and the right tag": ({"range": "bytes=0-1", "if_range": ETAG}, 206),
    "range and the right date": ({"range": "bytes=0-1", "if_range": THEN}, 206),
    "range and a wrong tag": ({"range": "bytes=0-1", "if_range": '"x"'}, 200),
    "range and a weak tag": ({"range": "bytes=0-1", "if_range": "W/" + ETAG}, 200),
    "range and a later date": ({"range": "bytes=0-1", "if_range": AFTER}, 200),
    "a range that cannot be had and a wrong tag": ({"range": "bytes=500-", "if_range": '"x"'}, 200),
    "If-Range without Range": ({"if_range": '"x"'}, 200),
    "unchanged by tag": ({"if_none_match": ETAG}, 304),
    "unchanged by date": ({"if_modified_since": THEN}, 304),
    "unchanged beats range": ({"if_none_match": ETAG, "range": "bytes=500-"}, 304),
    "changed": ({"if_none_match": '"x"'}, 200),
    "a browser that resumes": (
        {"range": "bytes=50-", "if_match": ETAG, "if_unmodified_since": THEN, "if_range": ETAG},
        206,
    ),
}


@pytest.mark.parametrize(("asked", "status"), STATUS.values(), ids=STATUS)
def test_status(asked: dict[str, str], status: int) -> None:
    assert plan(**asked).status == status  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_unchanged_sends_no_body(method: str) -> None:
    answer = plan(method=method, if_none_match="*")
    assert answer.status == 304
    assert isinstance(answer.body, Nothing)
    assert header(answer, "content-length") is None


@pytest.mark.parametrize("asked", [{"if_match": '"x"'}, {"if_unmodified_since": BEFORE}], ids=["tag", "date"])
def test_a_precondition_that_fails_is_an_error(asked: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        plan(range="bytes=500-", **asked)  # type: ignore[arg-type]


def test_a_range_beyond_the_end_says_where_the_end_is() -> None:
    with pytest.raises(RangeNotSatisfiable) as raised:
        plan(range="bytes=100-")
    assert raised.value.size == 100


def test_lists_may_come_on_several_lines() -> None:
    lines = ((b"if-none-match", b'"x"'), (b"if-none-match", ETAG.encode()))
    assert plan(headers=lines).status == 304
    assert plan(headers=((b"range", b"bytes=0-1"), (b"range", b"bytes=2-3"))).status == 200


# --- who may

LISTER = Caller("key_2", frozenset(("assets:write",)))
ELSEWHERE = Caller("key_3", frozenset(("assets:read",)), bucket="other")
OTHER_PREFIX = Caller("key_4", frozenset(("assets:read",)), bucket="media", prefix="work/")
NARROWED = Caller("key_5", frozenset(("assets:read",)), bucket="media", prefix="holidays/")
EVERY_PRIVATE = {"by id": original(), "by key": named(), "rendition": preset(), "not made": preset(b"thumb")}
EVERY_ABSENT = {
    "id": ById(ABSENT_ID.encode()),
    "malformed id": ById(b"ast_1"),
    "id in another alphabet": ById("ast_é".encode()),
    "key": named(key=b"nothing"),
    "bucket": named(b"nowhere"),
    "bucket in another alphabet": named(b"%C3%A9"),
    "rendition": preset(asset_id=ABSENT_ID),
    "rendition of a malformed id": preset(asset_id="x"),
    "preset": preset(b"huge"),
    "extension": preset(ext=b"png"),
    "rendition never made": preset(b"thumb"),
}


@pytest.mark.parametrize(
    "target", [*EVERY_PRIVATE.values(), *EVERY_ABSENT.values()], ids=[*EVERY_PRIVATE, *EVERY_ABSENT]
)
def test_nobody_without_a_key_learns_anything(target: Target) -> None:
    with pytest.raises(Unauthorised) as raised:
        plan(target, ANONYMOUS)
    with pytest.raises(Unauthorised) as elsewhere:
        plan(ById(ABSENT_ID.encode()), ANONYMOUS)
    assert str(raised.value) == str(elsewhere.value)


@pytest.mark.parametrize("caller", [ELSEWHERE, OTHER_PREFIX], ids=["another bucket", "another prefix"])
@pytest.mark.parametrize("target", EVERY_PRIVATE.values(), ids=EVERY_PRIVATE)
def test_what_a_key_may_not_see_is_not_there(target: Target, caller: Caller) -> None:
    with pytest.raises(NotFound) as raised:
        plan(target, caller)
    with pytest.raises(NotFound) as absent:
        plan(ById(ABSENT_ID.encode()), caller)
    assert (type(raised.value), str(raised.value)) == (type(absent.value), str(absent.value))


@pytest.mark.parametrize("target", EVERY_PRIVATE.values(), ids=EVERY_PRIVATE)
def test_a_key_that_sees_but_may_not_read_is_told_so(target: Target) -> None:
    with pytest.raises(Forbidden):
        plan(target, LISTER)


@pytest.mark.parametrize("target", EVERY_ABSENT.values(), ids=EVERY_ABSENT)
def test_what_is_not_there_is_not_there(target: Target) -> None:
    with pytest.raises(NotFound):
        plan(target)


@pytest.mark.parametrize(
    ("bucket", "caller", "answer"),
    [
        ("media", READER, UploadIncomplete),
        ("media", ELSEWHERE, NotFound),
        ("media", ANONYMOUS, Unauthorised),
        ("public", ANONYMOUS, UploadIncomplete),
    ],
)
def test_what_an_upload_will_become_is_not_there_yet(bucket: str, caller: Caller, answer: type) -> None:
    shelf = Shelf()
    shelf.promises[ABSENT_ID] = Upload("upl", "key", 0, 1, "blob", ABSENT_ID, bucket, "a")
    with pytest.raises(answer) as raised:
        plan(ById(ABSENT_ID.encode()), caller, shelf=shelf)
    assert type(raised.value) is answer


def test_a_narrowed_key_reads_within_its_prefix() -> None:
    assert plan(named(), NARROWED).status == 200


@pytest.mark.parametrize(
    "caller", [ANONYMOUS, ELSEWHERE, LISTER], ids=["nobody", "another bucket", "no scope"]
)
@pytest.mark.parametrize("target", [original(True), named(b"public"), preset(asset_id=PUBLIC_ID)])
def test_what_is_public_is_for_anyone(target: Target, caller: Caller) -> None:
    assert plan(target, caller).status == 200


BAD_KEYS = [b"", b"a/../b", b"%00", b"%FF", b"x" * 1025]


@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize(
    ("bucket", "caller", "error"),
    [(b"media", READER, BadKey), (b"media", ANONYMOUS, Unauthorised), (b"public", ANONYMOUS, BadKey)],
)
def test_a_key_that_cannot_be_is_an_error(
    key: bytes, bucket: bytes, caller: Caller, error: type[MediasvcError]
) -> None:
    with pytest.raises(error):
        plan(named(bucket, key), caller)


def test_what_is_missing_in_a_public_bucket_is_missing_for_anyone() -> None:
    with pytest.raises(NotFound):
        plan(named(b"public", b"nothing"), ANONYMOUS)


# --- renditions


def test_a_rendition_is_named_after_its_asset() -> None:
    answer = plan(preset())
    assert header(answer, "content-type") == "image/webp"
    assert (
        header(answer, "content-disposition")
        == "inline; filename=\"zoe.webp\"; filename*=UTF-8''zo%C3%AB.webp"
    )


PENDING = {
    "thumb": (preset(b"thumb"), RenditionPending),
    "thumb with another extension": (preset(b"thumb", b"jpg"), NotFound),
    "preview": (preset(b"preview", b"jpg"), RenditionPending),
    "preview that may have alpha": (preset(b"preview", b"webp"), RenditionPending),
    "preview as PNG": (preset(b"preview", b"png"), NotFound),
    "no preset": (preset(b"huge"), NotFound),
    "made already, with another extension": (preset(b"grid", b"jpg"), NotFound),
}


@pytest.mark.parametrize(("target", "error"), PENDING.values(), ids=PENDING)
def test_what_is_not_made_yet_is_pending(target: Target, error: type[MediasvcError]) -> None:
    with pytest.raises(NotFound) as raised:
        plan(target, shelf=Shelf("processing"))
    assert type(raised.value) is error


@pytest.mark.parametrize("state", ["ready", "damaged"])
def test_what_will_never_be_made_is_not_pending(state: State) -> None:
    with pytest.raises(NotFound) as raised:
        plan(preset(b"thumb"), shelf=Shelf(state))
    assert type(raised.value) is NotFound
