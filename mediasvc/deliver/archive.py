"""The decision about an archive's download, and which bytes of which blobs its answer is made of."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core import conditions, ranges
from mediasvc.core.archive import Archive, Member
from mediasvc.core.errors import ArchiveEnded, PreconditionFailed
from mediasvc.core.filenames import content_disposition
from mediasvc.core.ids import well_formed
from mediasvc.core.signing import Signer
from mediasvc.core.span import Span
from mediasvc.core.zip64 import header, listed, tail, within
from mediasvc.deliver.download import CONTENT_SECURITY_POLICY
from mediasvc.deliver.links import bad_link, claim_in
from mediasvc.deliver.plan import Header

_PURPOSE = "archive"
_PAGE = 500  # entries read from the catalogue at once
_ENOUGH = 64 * 1024  # bytes of the listing put together before they are sent
_CONDITIONS = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"))


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """A whole answer. `span` is what of the archive is its body: None for HEAD and 304."""

    status: int
    headers: list[Header]
    archive: Archive
    span: Span | None


@dataclass(frozen=True, slots=True)
class BlobSpan:
    """Bytes of a blob, `size` being that of the whole: one of any other size is not it."""

    blob_id: str
    size: int
    span: Span


def archive_url(signer: Signer, archive: Archive) -> str:
    """Path and query of the link to an archive; it ends when the archive does."""
    ends = int(archive.expires_at)
    key_id, signature = signer.sign(_PURPOSE, archive.id, ends)
    return f"/z/{archive.id}/{quote(archive.name, safe='')}?exp={ends}&kid={key_id}&sig={signature}"


async def plan_archive(
    catalogue: Catalogue,
    signer: Signer,
    archive_id: bytes,
    method: str,
    query: bytes,
    headers: Iterable[Header],
    now: float,
) -> ArchivePlan:
    """What a GET or HEAD of `/z/{id}/…` is answered with; `headers` are the request's, names in lower case.

    Several ranges are answered with the whole, as RFC 9110, section 14.2 allows. Raises Forbidden for a link that
    does not hold, ArchiveEnded for one whose archive is over, PreconditionFailed, RangeNotSatisfiable.
    """
    archive = await _find(catalogue, signer, archive_id.decode("latin-1"), query, now)
    asked: dict[bytes, str] = {}
    for name, value in headers:
        if name in _CONDITIONS or name in (b"range", b"if-range"):
            text = value.decode("latin-1")
            asked[name] = f"{asked[name]}, {text}" if name in asked else text
    size, made = archive.layout.size, int(archive.created_at)
    answer: list[Header] = [
        (b"etag", archive.etag.encode()),
        (b"accept-ranges", b"bytes"),
        # What is in it may be deleted, which ends the archive: a cache would not hear of it.
        (b"cache-control", b"private, no-cache"),
        (b"content-security-policy", CONTENT_SECURITY_POLICY),
    ]
    if made + 1 < now:  # the server's Date may lag by a second, and must not lie before it
        answer.append((b"last-modified", conditions.format_date(made).encode()))
    verdict = conditions.evaluate(
        archive.etag,
        made,
        **{name.decode().replace("-", "_"): asked[name] for name in _CONDITIONS if name in asked},
    )
    if verdict == "failed":
        raise PreconditionFailed(f"the archive is {archive.etag}")
    if verdict == "not_modified":
        return ArchivePlan(304, answer, archive, None)
    status, span = 200, Span(0, size)
    if (
        b"range" in asked
        and method == "GET"
        and conditions.range_counts(asked.get(b"if-range"), archive.etag, made)
    ):
        spans = ranges.parse(asked[b"range"], size)
        if spans is not None and len(spans) == 1:
            status, span = 206, spans[0]
            answer.append((b"content-range", ranges.content_range(span, size).encode()))
    answer += [
        (b"content-disposition", content_disposition(archive.name, inline=False).encode("ascii")),
        (b"content-type", b"application/zip"),
        (b"content-length", b"%d" % span.length),
    ]
    return ArchivePlan(status, answer, archive, None if method == "HEAD" else span)


async def _find(catalogue: Catalogue, signer: Signer, archive_id: str, query: bytes, now: float) -> Archive:
    """The archive, once its link is believed. One whose link never was tells nothing, not even that it is over."""
    claim = claim_in(query, now)
    if (
        claim is None
        or claim.link_id
        or claim.disposition
        or not well_formed("zip", archive_id)
        or not signer.verify(claim.key_id, claim.signature, _PURPOSE, archive_id, claim.expires_at)
    ):
        raise bad_link()
    archive = await catalogue.archive(archive_id)
    if archive is None or archive.expires_at <= now:
        raise _ended()
    return archive


def _ended() -> ArchiveEnded:
    return ArchiveEnded("an asset in the archive was deleted, replaced or expired: make a new archive")


async def pieces(
    catalogue: Catalogue, archive: Archive, span: Span
) -> AsyncGenerator[bytes | BlobSpan, None]:
    """The bytes of the span, in order: our own, and what has to come from a blob.

    Raises ArchiveEnded where the archive ends while it is read.
    """
    layout = archive.layout
    files = Span(min(span.start, layout.listing_start), min(span.stop, layout.listing_start))
    async with aclosing(_members(catalogue, archive, files)) as members:
        async for member in members:
            for part in within(member.entry, span):
                if isinstance(part, bytes):
                    yield part
                else:
                    yield BlobSpan(member.blob_id, member.entry.size, part)
    async for part in _listing(catalogue, archive, span):
        yield part
    if span.stop > layout.tail_start and (rest := _cut(tail(layout), layout.tail_start, span)):
        yield rest


async def _listing(catalogue: Catalogue, archive: Archive, span: Span) -> AsyncIterator[bytes]:
    """What of the listing lies in the span."""
    begin, end = archive.layout.listing_start, archive.layout.tail_start
    start, stop = max(span.start, begin), min(span.stop, end)
    if start >= stop:
        return
    lines, first = bytearray(), 0
    async with aclosing(
        _members(catalogue, archive, Span(start - begin, stop - begin), listing=True)
    ) as members:
        async for member in members:
            if not lines:
                first = begin + member.entry.listed
            lines += listed(member.entry)
            if len(lines) >= _ENOUGH:
                yield _cut(bytes(lines), first, span)
                lines.clear()
    if lines:
        yield _cut(bytes(lines), first, span)


def _cut(part: bytes, start: int, span: Span) -> bytes:
    """What of a part that begins at `start` lies in the span."""
    return part[max(0, span.start - start) : max(0, span.stop - start)]


async def _members(
    catalogue: Catalogue, archive: Archive, span: Span, *, listing: bool = False
) -> AsyncGenerator[Member, None]:
    """The entries in the span, a page at a time: memory does not grow with an archive."""
    while span.start < span.stop:
        page = await catalogue.members(archive.id, span, _PAGE, listed=listing)
        # Looked at after the page was read: what is dropped has ended before.
        if not page or await catalogue.archive(archive.id) is None:
            raise _ended()
        for member in page:
            yield member
        last = page[-1].entry
        behind = last.listed + len(listed(last)) if listing else last.start + len(header(last)) + last.size
        span = Span(min(behind, span.stop), span.stop)
