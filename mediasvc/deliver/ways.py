"""Which way bytes leave: by nginx, by a redirect to the store, or by ourselves.

What a client gets is the same on all of them. The preconditions and the range are decided already; here is known
what nginx and the store would make of the client's headers by themselves. Where that might be something else than
what was decided, we send the bytes.
"""

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

from mediasvc.catalogue.interface import Source
from mediasvc.core import ranges
from mediasvc.core.errors import StartupRefused
from mediasvc.core.span import Span
from mediasvc.core.tally import Delivery
from mediasvc.core.value import value
from mediasvc.deliver.plan import HandToNginx, Header, Headers, Plan, Redirect, SendFile, Stream
from mediasvc.store.interface import BlobStore, Presigned

LARGEST_CACHED = 64 * 1024 * 1024  # bytes; a reader who goes away soon still costs the whole of it
URL_SECONDS = 300

# Under which names nginx is told what the client gets to see; the rest go by their own.
_FOR_NGINX: Mapping[bytes, bytes] = {
    b"etag": b"x-etag",
    b"last-modified": b"x-last-modified",
    b"cache-control": b"x-cache-control",
    b"content-security-policy": b"x-csp",
    b"cross-origin-resource-policy": b"x-corp",
    b"repr-digest": b"x-repr-digest",
    b"content-disposition": b"x-content-disposition",
}
# Spellings that everybody reads alike: nginx answers others with 416, and takes no tabs or empty members.
_PLAIN_RANGES = re.compile(
    r"bytes=(?:\d{1,18}-\d{0,18}|-\d{1,18})(?:, ?(?:\d{1,18}-\d{0,18}|-\d{1,18}))*", re.ASCII
)


@value
class Answer:
    """A GET that is answered with bytes, decided but for their way.

    `headers` are the client's, all but those that follow from `spans` (None: the whole). `asked` holds the
    request's Range and preconditions. `whose` names whoever's connections at once are limited, "" for nobody's.
    `counts` and `lasts` are the plan's.
    """

    source: Source
    headers: Headers
    spans: Sequence[Span] | None
    asked: Mapping[bytes, str]
    delivery: Delivery
    whose: str = ""
    counts: str = ""
    lasts: bool = False

    @property
    def status(self) -> int:
        return 200 if self.spans is None else 206

    @property
    def plain_range(self) -> bool:
        """Whether anybody who reads the client's Range (and If-Range beside our ETag) comes to the same spans."""
        asked = self.asked.get(b"range")
        if asked is None:
            return True
        # One range and the whole: another version is asked for, by its tag.
        another = "," not in asked and self.asked.get(b"if-range", "").endswith('"')
        return (self.spans is not None or another) and _PLAIN_RANGES.fullmatch(asked) is not None


Way = Callable[[Answer], Plan]


def by_sendfile(answer: Answer) -> Plan:
    """The blob is a file, and the connection takes files."""
    return _by_us(answer, SendFile)


def by_stream(answer: Answer) -> Plan:
    """From any store, over any connection."""
    return _by_us(answer, Stream)


class Ways:
    """All ways out of this house. `delivery` is the setting."""

    def __init__(self, delivery: Literal["direct", "nginx", "redirect"], store: BlobStore) -> None:
        """Raises StartupRefused."""
        self._by_nginx: Callable[[Way], Way] | None = None
        self._redirect: Callable[[Way], Way] | None = None
        self._has_files = store.files is not None
        presigned = store.presigned
        if delivery == "redirect":
            if presigned is None:
                raise StartupRefused(
                    "MEDIASVC_DELIVERY=redirect needs a store with an address of its own: "
                    "set MEDIASVC_STORE_URL to s3://…, or MEDIASVC_DELIVERY to direct or nginx"
                )
            self._redirect = lambda us: _Redirected(presigned, us)
        elif delivery == "nginx":
            self._by_nginx = _FromDisk if presigned is None else lambda us: _FromS3(presigned, us)
        self._known: dict[tuple[bool, bool], Way] = {
            (behind_nginx, zero_copy): self._make(behind_nginx, zero_copy)
            for behind_nginx in (False, True)
            for zero_copy in (False, True)
        }

    def choose(self, *, behind_proxy: bool, zero_copy: bool) -> Way:
        """`behind_proxy`: a trusted proxy is the peer; `zero_copy`: the connection takes files."""
        return self._known[behind_proxy, zero_copy]

    def _make(self, behind_proxy: bool, zero_copy: bool) -> Way:
        us = by_sendfile if zero_copy and self._has_files else by_stream
        if self._redirect is not None:
            return self._redirect(us)
        if self._by_nginx is not None and behind_proxy:
            return self._by_nginx(us)
        return us


class _FromDisk:
    """nginx opens the blob's file and cuts the ranges itself."""

    def __init__(self, us: Way) -> None:
        self._us = us

    def __call__(self, answer: Answer) -> Plan:
        if _judged_again(answer) or not answer.plain_range:
            return _at_rate(self._us(answer), answer)
        blob_id = answer.source.blob_id.encode()
        path = b"/_blobs/%b/%b/%b" % (blob_id[:2], blob_id[2:4], blob_id)
        return _handed_over(answer, (b"x-accel-redirect", path), lasts=answer.lasts)


class _FromS3:
    """nginx has the blob in its cache, or fetches the range that we say; a whole that is not large, to keep it."""

    def __init__(self, presigned: Presigned, us: Way) -> None:
        self._presigned = presigned
        self._us = us

    def __call__(self, answer: Answer) -> Plan:
        spans, size = answer.spans, answer.source.size
        # Of what it has in its cache nginx cuts the client's range itself. The store takes one range at a time.
        if _judged_again(answer) or not answer.plain_range or (spans is not None and len(spans) > 1):
            return _at_rate(self._us(answer), answer)
        whole = spans is None or spans[0] == Span(0, size)
        blob_id = answer.source.blob_id
        url = self._presigned.inside(blob_id, seconds=URL_SECONDS)
        told = [
            (b"x-accel-redirect", b"@s3cache" if whole and size <= LARGEST_CACHED else b"@s3"),
            (b"x-s3-uri", url.target.encode()),
            (b"x-s3-host", url.host.encode()),
            (b"x-s3-cache-id", blob_id.encode()),
        ]
        if spans is not None:
            told.append((b"x-s3-range", b"bytes=%d-%d" % (spans[0].start, spans[0].stop - 1)))
        return _handed_over(answer, *told, lasts=False)  # the URL does not


class _Redirected:
    """The client asks the store, with the same headers: only what the store cannot misread is sent there."""

    def __init__(self, presigned: Presigned, us: Way) -> None:
        self._presigned = presigned
        self._us = us

    def __call__(self, answer: Answer) -> Plan:
        asked, spans = answer.asked, answer.spans
        # The store's tags and dates are others than ours, and it knows one range at a time.
        if (
            answer.delivery.link_id  # a presigned URL opens the whole as often as one likes, and nobody counts
            or _judged_again(answer)
            or b"if-modified-since" in asked
            or (b"range" in asked and b"if-range" in asked)
            or not answer.plain_range
            or "," in asked.get(b"range", "")
            or (spans is not None and len(spans) > 1)
        ):
            return self._us(answer)
        told = dict(answer.headers)
        url = self._presigned.outside(
            answer.source.blob_id,
            seconds=URL_SECONDS,
            answer={
                "response-cache-control": told[b"cache-control"].decode(),
                "response-content-disposition": told[b"content-disposition"].decode(),
                "response-content-type": answer.source.media_type,
            },
        )
        headers = [
            (b"location", str(url).encode()),
            (b"cache-control", b"no-store"),
            (b"content-length", b"0"),
        ]
        body = Redirect(answer.source.blob_id, answer.source.size)
        return Plan(307, headers, body, answer.counts, answer.delivery)


def _judged_again(answer: Answer) -> bool:
    """Whether nginx, or the store, would judge by a tag or a date of its own what we have decided: it says 412."""
    return b"if-match" in answer.asked or b"if-unmodified-since" in answer.asked


def _handed_over(answer: Answer, *told: Header, lasts: bool) -> Plan:
    source = answer.source
    headers = [*told, *_for_nginx(answer.headers, source.media_type)]
    if answer.spans is not None:
        headers.append((b"x-accept-ranges", b"bytes"))
    if answer.whose:
        headers.append((b"x-limit-key", answer.whose.encode()))
    body = HandToNginx(source.blob_id, source.size)
    return _at_rate(Plan(answer.status, headers, body, answer.counts, answer.delivery, lasts), answer)


@lru_cache(maxsize=2048)
def _for_nginx(headers: Headers, media_type: str) -> Headers:
    # nginx adds Accept-Ranges itself, and would double ours; but it takes it back where it cuts a range.
    renamed = ((_FOR_NGINX.get(name, name), value) for name, value in headers if name != b"accept-ranges")
    return (*renamed, (b"content-type", media_type.encode()), (b"content-length", b"0"))


def _at_rate(plan: Plan, answer: Answer) -> Plan:
    """nginx slows down whatever answer of ours says so; it keeps the header for itself."""
    if answer.source.download_rate:
        plan.headers.append((b"x-accel-limit-rate", b"%d" % answer.source.download_rate))
    return plan


def _by_us(answer: Answer, body: type[SendFile] | type[Stream]) -> Plan:
    source = answer.source
    status, headers, parts = as_sent(answer)
    return Plan(
        status,
        headers,
        body(source.blob_id, source.size, parts),
        answer.counts,
        answer.delivery,
        answer.lasts,
    )


def as_sent(answer: Answer) -> tuple[int, list[Header], Sequence[bytes | Span]]:
    """Status, headers and the parts of the body, as a client gets them."""
    source, spans, headers = answer.source, answer.spans, list(answer.headers)
    media_type = source.media_type.encode()
    parts: Sequence[bytes | Span]
    if spans is None:
        length, parts = source.size, (Span(0, source.size),)
    elif len(spans) == 1:
        length, parts = spans[0].length, spans
        headers.append((b"content-range", ranges.content_range(spans[0], source.size).encode()))
    else:
        boundary = secrets.token_hex(16).encode()
        parts = _multipart(spans, source.size, media_type, boundary)
        length = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
        media_type = b"multipart/byteranges; boundary=" + boundary
    headers += ((b"content-type", media_type), (b"content-length", b"%d" % length))
    return answer.status, headers, parts


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
