"""The decision about a download: look up, allow, preconditions, range → a plan and its headers.

Everything is decided here and nothing is sent. This is the hot path: an authorised small download has 50 µs
of Python from scope to plan, so headers that never change are made once.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mediasvc.catalogue.interface import Catalogue, Source
from mediasvc.core import conditions, ranges
from mediasvc.core.access import Caller
from mediasvc.core.asset import etag_of
from mediasvc.core.checksums import repr_digest
from mediasvc.core.errors import (
    BadKey,
    Forbidden,
    NotFound,
    PreconditionFailed,
    RenditionPending,
    Unauthorised,
)
from mediasvc.core.filenames import content_disposition
from mediasvc.core.ids import well_formed
from mediasvc.core.keys import decode_path, normalise_key
from mediasvc.core.media_types import shown_inline
from mediasvc.core.recipe import EXTENSIONS, PRESETS
from mediasvc.core.span import Span
from mediasvc.deliver.plan import Header, Nothing, Plan, SendFile, Stream

CONTENT_SECURITY_POLICY = (
    b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self'"
)
_ALWAYS: Sequence[Header] = (
    (b"accept-ranges", b"bytes"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
)
_PRIVATE: Sequence[Header] = ((b"cache-control", b"private, no-cache"),)
_PUBLIC: Sequence[Header] = (
    (b"cache-control", b"public, no-cache"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
_IMMUTABLE: Sequence[Header] = (
    (b"cache-control", b"public, max-age=31536000, immutable"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
_ASKED_IN = frozenset(
    (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)
# A JPEG cannot keep alpha: until it is made, a preset that prefers JPEG may still turn out as WebP.
_POSSIBLE_EXTENSIONS: Mapping[str, frozenset[str]] = {
    preset.name: frozenset((preset.ext, "webp")) for preset in PRESETS
}
_NOT_FOUND = "there is nothing here"


@dataclass(frozen=True, slots=True)
class ByKey:
    """`/b/{bucket}/{key}`, both as they stand in the URL: percent-encoded."""

    bucket: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class ById:
    """`/f/{id}/{name}`; the name is cosmetic."""

    asset_id: bytes


@dataclass(frozen=True, slots=True)
class OfPreset:
    """`/i/{preset}/{id}.{ext}`."""

    preset: bytes
    asset_id: bytes
    ext: bytes


Target = ByKey | ById | OfPreset


async def plan_download(
    catalogue: Catalogue,
    target: Target,
    method: str,
    query: bytes,
    headers: Iterable[Header],
    caller: Caller,
    now: float,
    *,
    zero_copy: bool,
) -> Plan:
    """What a GET or HEAD is answered with; `headers` are the request's, names in lower case.

    `zero_copy`: the blob is a file, and the connection takes files. Raises Unauthorised, Forbidden, NotFound,
    RenditionPending, BadKey, PreconditionFailed, RangeNotSatisfiable.
    """
    source = await _find(catalogue, target, caller)
    asked: dict[bytes, str] = {}
    for name, value in headers:
        if name in _ASKED_IN:
            text = value.decode("latin-1")
            asked[name] = f"{asked[name]}, {text}" if name in asked else text
    etag = etag_of(source.sha256)
    tag, last_modified, digest = _validators(source.sha256, source.modified_at)
    answer = [tag, *_ALWAYS, *_caching(source, query, rendition=isinstance(target, OfPreset))]
    if source.modified_at <= now:
        answer.append(last_modified)
    if asked and (verdict := _preconditions(asked, etag, source.modified_at)) != "proceed":
        if verdict == "failed":
            raise PreconditionFailed(f"the current version is {etag}")
        return Plan(304, answer, Nothing())
    answer.append(digest)
    answer.append((b"content-disposition", _disposition(source, target, query)))
    media_type = source.media_type.encode()
    spans = None
    if (
        b"range" in asked
        and method == "GET"
        and conditions.range_counts(asked.get(b"if-range"), etag, source.modified_at)
    ):
        spans = ranges.parse(asked[b"range"], source.size)
    parts: Sequence[bytes | Span]
    if spans is None:
        status, length, parts = 200, source.size, (Span(0, source.size),)
    elif len(spans) == 1:
        status, length, parts = 206, spans[0].length, spans
        answer.append((b"content-range", ranges.content_range(spans[0], source.size).encode()))
    else:
        boundary = secrets.token_hex(16).encode()
        status, parts = 206, _multipart(spans, source.size, media_type, boundary)
        length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
        media_type = b"multipart/byteranges; boundary=" + boundary
    answer.append((b"content-type", media_type))
    answer.append((b"content-length", b"%d" % length))
    if method == "HEAD":
        return Plan(status, answer, Nothing())
    return Plan(status, answer, (SendFile if zero_copy else Stream)(source.blob_id, source.size, parts))


async def _find(catalogue: Catalogue, target: Target, caller: Caller) -> Source:
    """The bytes, once the caller may have them."""
    match target:
        case ByKey(bucket, key):
            return await _find_by_key(catalogue, bucket, key, caller)
        case ById(asset_id):
            source = await _source(catalogue, asset_id, "")
        case OfPreset(preset, asset_id, ext):
            source = await _source(catalogue, asset_id, preset.decode("latin-1"))
            if source is None:
                raise await _why_not_made(catalogue, target, caller)
            if EXTENSIONS.get(source.media_type, "").encode() != ext:
                _allow(caller, source.bucket, source.key, public=source.public)
                raise NotFound(_NOT_FOUND)
    if source is None:
        raise _nothing_for(caller)
    _allow(caller, source.bucket, source.key, public=source.public)
    return source


async def _find_by_key(catalogue: Catalogue, raw_bucket: bytes, raw_key: bytes, caller: Caller) -> Source:
    bucket = raw_bucket.decode("latin-1")  # a name with anything but ASCII in it is simply not found
    try:
        source = await catalogue.source_at(bucket, normalise_key(decode_path(raw_key)))
    except BadKey:
        if caller.anonymous and not await _is_public(catalogue, bucket):
            raise _nothing_for(caller) from None
        raise
    if source is None:
        if caller.anonymous and await _is_public(catalogue, bucket):
            raise NotFound(_NOT_FOUND)
        raise _nothing_for(caller)
    _allow(caller, source.bucket, source.key, public=source.public)
    return source


async def _source(catalogue: Catalogue, raw_id: bytes, preset: str) -> Source | None:
    asset_id = raw_id.decode("latin-1")
    if not well_formed("ast", asset_id) or (preset and preset not in _POSSIBLE_EXTENSIONS):
        return None
    return await catalogue.source(asset_id, preset)


async def _why_not_made(
    catalogue: Catalogue, target: OfPreset, caller: Caller
) -> NotFound | Unauthorised | Forbidden:
    """Why there is no such rendition: not made yet, never will be, or not for this caller to know."""
    asset_id, preset = target.asset_id.decode("latin-1"), target.preset.decode("latin-1")
    asset = await catalogue.asset(asset_id) if well_formed("ast", asset_id) else None
    if asset is None:
        return _nothing_for(caller)
    _allow(caller, asset.bucket, asset.key, public=await _is_public(catalogue, asset.bucket))
    possible = target.ext.decode("latin-1") in _POSSIBLE_EXTENSIONS.get(preset, ())
    # "Ready" with the rendition: it was published between the two reads, so the next try finds it.
    if possible and (asset.state == "processing" or preset in asset.renditions):
        return RenditionPending(f"{preset} is being made; ask again in a second")
    return NotFound(_NOT_FOUND)


async def _is_public(catalogue: Catalogue, bucket: str) -> bool:
    found = await catalogue.bucket(bucket)
    return found is not None and found.public


def _allow(caller: Caller, bucket: str, key: str, *, public: bool) -> None:
    if public:
        return
    if caller.anonymous or not caller.sees(bucket, key):
        raise _nothing_for(caller)
    if not caller.has("assets:read"):
        raise Forbidden("the key lacks the scope assets:read")


def _nothing_for(caller: Caller) -> NotFound | Unauthorised:
    """Nobody without a key learns whether something exists."""
    if caller.anonymous:
        return Unauthorised("send an API key: Authorization: Bearer msk_…, or as the password of Basic")
    return NotFound(_NOT_FOUND)


@lru_cache(maxsize=4096)
def _validators(sha256: str, modified_at: int) -> tuple[Header, Header, Header]:
    """ETag, Last-Modified and Repr-Digest of a version."""
    return (
        (b"etag", etag_of(sha256).encode()),
        (b"last-modified", conditions.format_date(modified_at).encode()),
        (b"repr-digest", repr_digest(sha256).encode()),
    )


def _preconditions(asked: Mapping[bytes, str], etag: str, last_modified: int) -> conditions.Verdict:
    return conditions.evaluate(
        etag,
        last_modified,
        if_match=asked.get(b"if-match"),
        if_unmodified_since=asked.get(b"if-unmodified-since"),
        if_none_match=asked.get(b"if-none-match"),
        if_modified_since=asked.get(b"if-modified-since"),
    )


def _caching(source: Source, query: bytes, *, rendition: bool) -> Sequence[Header]:
    if not source.public:
        return _PRIVATE
    if rendition and query and b"v=%d" % source.version in query.split(b"&"):
        return _IMMUTABLE
    return _PUBLIC


def _disposition(source: Source, target: Target, query: bytes) -> bytes:
    name, inline = source.name, shown_inline(source.media_type)
    if isinstance(target, OfPreset):
        stem, _, _ = name.rpartition(".")
        name = f"{stem or name}.{target.ext.decode('latin-1')}"
    if query and any(field.partition(b"=")[0] == b"download" for field in query.split(b"&")):
        inline = False
    return content_disposition(name, inline=inline).encode("ascii")


def _multipart(spans: Sequence[Span], size: int, media_type: bytes, boundary: bytes) -> list[bytes | Span]:
    """RFC 9110, section 14.6: the spans, and what stands between them."""
    parts: list[bytes | Span] = []
    for span in spans:
        head = b"--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n" % (
            boundary,
            media_type,
            ranges.content_range(span, size).encode(),
        )
        parts += (b"\r\n" + head if parts else head, span)
    parts.append(b"\r\n--%b--\r\n" % boundary)
    return parts
