"""The decision about a download: look up, allow, preconditions, range → a plan and its headers.

Everything is decided here and nothing is sent. This is the hot path: an authorised small download has 50 µs
of Python from scope to plan, so headers that never change are made once.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from mediasvc.catalogue.interface import Catalogue, Source
from mediasvc.core import conditions, ranges
from mediasvc.core.access import ANONYMOUS, Caller
from mediasvc.core.asset import etag_of
from mediasvc.core.checksums import repr_digest
from mediasvc.core.errors import (
    PreconditionFailed,
)
from mediasvc.core.filenames import content_disposition
from mediasvc.core.media_types import shown_inline
from mediasvc.core.signing import Signer
from mediasvc.core.tally import Delivery
from mediasvc.deliver.find import ById, ByKey, OfPreset, Target, find, find_linked
from mediasvc.deliver.links import Claim, bad_link, claim_in
from mediasvc.deliver.plan import Header, Headers, Nothing, Plan
from mediasvc.deliver.ways import Answer, Way, as_sent

__all__ = ["CONTENT_SECURITY_POLICY", "ById", "ByKey", "OfPreset", "Target", "plan_download"]

CONTENT_SECURITY_POLICY = (
    b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src 'self'"
)
_ALWAYS: Headers = (
    (b"accept-ranges", b"bytes"),
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
)
_PRIVATE: Headers = ((b"cache-control", b"private, no-cache"),)
_ANYWHERE: Header = (b"cross-origin-resource-policy", b"cross-origin")
_PUBLIC: Headers = ((b"cache-control", b"public, no-cache"), _ANYWHERE)
_IMMUTABLE: Headers = ((b"cache-control", b"public, max-age=31536000, immutable"), _ANYWHERE)
_COUNTED: Headers = (*_PRIVATE, _ANYWHERE)  # what a cache hands out again, nobody counts
_VARIES: Header = (b"vary", b"Origin")  # who may read it is the bucket's to say: caches must not mix
_OF_BYTES = (b"repr-digest", b"content-disposition")  # a 304 has none
_ASKED_IN = frozenset(
    (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)


async def plan_download(
    catalogue: Catalogue,
    target: Target,
    method: str,
    query: bytes,
    headers: Iterable[Header],
    caller: Caller,
    now: float,
    *,
    signer: Signer,
    way: Way,
    address: str = "",
) -> Plan:
    """What a GET or HEAD is answered with; `headers` are the request's, names in lower case.

    Where the query holds a link (`links.claim_in`) it alone decides, whoever sends it: a URL means the same to
    everybody, caches too.
    `way` is how bytes would leave (`Ways.choose`), `address` the client's. Raises Unauthorised, Forbidden, NotFound,
    RenditionPending, BadKey, PreconditionFailed, RangeNotSatisfiable, and what the way raises.
    """
    claim, link = claim_in(query, now), None
    if claim is None:
        source = await find(catalogue, target, caller)
    else:
        source, link = await find_linked(catalogue, target, claim, signer)
    asked: dict[bytes, str] = {}
    for name, value in headers:
        if name in _ASKED_IN:
            text = value.decode("latin-1")
            asked[name] = f"{asked[name]}, {text}" if name in asked else text
    etag = etag_of(source.sha256)
    # The server's Date may lag by a second, and Last-Modified must not lie after it (RFC 9110, section 8.8.2.1).
    dated = source.modified_at + 1 <= now
    answer = _headers(
        source.sha256,
        source.modified_at,
        _caching(source, target, query, claim, now),
        *_shown_as(source, target, query, claim),
        dated=dated,
        varies=bool(source.cors_origins),
    )
    if asked and (verdict := _preconditions(asked, etag, source.modified_at)) != "proceed":
        if verdict == "failed":
            raise PreconditionFailed(f"the current version is {etag}")
        return Plan(304, [pair for pair in answer if pair[0] not in _OF_BYTES], Nothing())
    spans = None
    if (
        b"range" in asked
        and method == "GET"
        and conditions.range_counts(asked.get(b"if-range"), etag, source.modified_at)
    ):
        spans = ranges.parse(asked[b"range"], source.size)
    from_start = spans is None or any(span.start == 0 for span in spans)
    if link is not None and from_start and link.used_up:  # the rest of a download begun may still be fetched
        raise bad_link()
    link_id = link.id if link is not None else ""
    whose = _whose(source, link_id, caller if claim is None else ANONYMOUS, address)
    decided = Answer(
        source,
        answer,
        spans,
        asked,
        Delivery(source.asset_id, link_id, not isinstance(target, OfPreset), from_start),
        whose,
        counts=link_id if from_start else "",
        # What the time or the client's address has no part in.
        lasts=claim is None and source.expires_at is None and dated and not whose,
    )
    if method == "HEAD":
        status, sent, _ = as_sent(decided)
        return Plan(status, sent, Nothing(source.blob_id, source.size))
    return way(decided)


def _whose(source: Source, link_id: str, caller: Caller, address: str) -> str:
    """Whose connections at once are limited: only where something is to be spared, a rate or a counted link."""
    if link_id:
        return link_id
    return (caller.key_id or address) if source.download_rate else ""


@lru_cache(maxsize=2048)
def _headers(
    sha256: str, modified_at: int, caching: Headers, name: str, inline: bool, *, dated: bool, varies: bool
) -> Headers:
    """What is told of a version, whichever bytes of it are sent: it stays the same from one download to the next."""
    told: list[Header] = [(b"etag", etag_of(sha256).encode()), *_ALWAYS, *caching]
    if varies:
        told.append(_VARIES)
    if dated:
        told.append((b"last-modified", conditions.format_date(modified_at).encode()))
    told.append((b"repr-digest", repr_digest(sha256).encode()))
    told.append((b"content-disposition", content_disposition(name, inline=inline).encode("ascii")))
    return tuple(told)


def _preconditions(asked: Mapping[bytes, str], etag: str, last_modified: int) -> conditions.Verdict:
    return conditions.evaluate(
        etag,
        last_modified,
        if_match=asked.get(b"if-match"),
        if_unmodified_since=asked.get(b"if-unmodified-since"),
        if_none_match=asked.get(b"if-none-match"),
        if_modified_since=asked.get(b"if-modified-since"),
    )


def _caching(source: Source, target: Target, query: bytes, claim: Claim | None, now: float) -> Headers:
    if claim is not None:
        if claim.link_id:
            return _COUNTED
        return (b"cache-control", b"public, max-age=%d" % claim.max_age(now, source.expires_at)), _ANYWHERE
    if not source.public:
        return _PRIVATE
    if isinstance(target, OfPreset) and query and b"v=%d" % source.version in query.split(b"&"):
        return _IMMUTABLE
    return _PUBLIC


def _shown_as(source: Source, target: Target, query: bytes, claim: Claim | None) -> tuple[str, bool]:
    """Under which name, and whether in place."""
    name, inline = source.name, shown_inline(source.media_type)
    if claim is not None and claim.disposition == "attachment":
        inline = False
    if isinstance(target, OfPreset):
        stem, _, _ = name.rpartition(".")
        name = f"{stem or name}.{target.ext.decode('latin-1')}"
    if query and any(field.partition(b"=")[0] == b"download" for field in query.split(b"&")):
        inline = False
    return name, inline
