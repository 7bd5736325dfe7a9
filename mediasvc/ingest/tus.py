"""tus 1.0: a request's head becomes a command, an outcome becomes status and headers. Nothing else happens here.

https://tus.io/protocols/resumable-upload. The marks in the comments (C4, R7 …) are those of the table of requirements
in `tests/ingest/test_tus.py`.
"""

from collections.abc import Sequence
from urllib.parse import urljoin, urlsplit

from mediasvc.core.checksums import expected_sha256
from mediasvc.core.conditions import format_date
from mediasvc.core.errors import (
    BadRequest,
    MediasvcError,
    MethodNotAllowed,
    OffsetMismatch,
    QuotaExceeded,
    TooLarge,
    UnsupportedVersion,
    WrongContentType,
)
from mediasvc.core.upload import Upload
from mediasvc.ingest.commands import (
    Append,
    Begin,
    Checksum,
    Command,
    Describe,
    Discard,
    Inspect,
    Limits,
    Reply,
)
from mediasvc.ingest.fields import (
    MAX_CONCAT,
    Headers,
    body_size,
    from_base64,
    media_type,
    metadata,
    method_of,
    number,
)

VERSION = "1.0.0"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
)
ALGORITHMS = {"sha1": 20, "sha256": 32, "md5": 16, "crc32": 4}  # bytes of each one's digest
BODY_TYPE = "application/offset+octet-stream"
_PORTS = {"http": 80, "https": 443}


def spoken(headers: Headers) -> bool:
    """Whether this request is tus."""
    return "tus-resumable" in headers


def read(method: str, headers: Headers, *, creating: bool, at: Sequence[str] = ()) -> Command:
    """What the client asks for, `creating` at the URL where uploads begin, else at that of one upload. `at`: all the
    absolute URLs that this beginning has, as the parts of a final lie below one of them.

    Raises UnsupportedVersion, MethodNotAllowed, WrongContentType and BadRequest.
    """
    method = method_of(method, headers)  # C7
    if method == "OPTIONS":
        return Describe()  # C20: whatever version it names
    if headers.get("tus-resumable") != VERSION:
        raise UnsupportedVersion(f"say Tus-Resumable: {VERSION}")  # C4
    match method, creating:
        case "POST", True:
            return _begin(headers, at)
        case "PATCH", False:
            return _append(headers)
        case "HEAD", False:
            return Inspect()
        case "DELETE", False:
            return Discard()
    allow = "OPTIONS, POST" if creating else "DELETE, HEAD, OPTIONS, PATCH"
    raise MethodNotAllowed(f"this URL takes {allow}", allow=allow)


def _begin(headers: Headers, at: Sequence[str]) -> Begin:
    size = body_size(headers)
    if size != 0 and media_type(headers) != BODY_TYPE:
        raise WrongContentType(f"what comes along with a creation is {BODY_TYPE}")  # W2
    said = headers.get("upload-metadata", "")
    concat = headers.get("upload-concat", "")
    parts = _parts(concat, at) if "upload-concat" in headers else ()
    if parts:
        _check_final(headers, size)
    return Begin(
        length=None if parts else _length(headers),
        names=metadata(said),
        said=said,  # R8: told again exactly as it was sent
        concat=concat,
        parts=parts,
        has_body=size != 0,
        size=size,
        checksum=_checksum(headers),
        content_digest=_content_digest(headers),
        sha256=_sha256(headers),
    )


def _append(headers: Headers) -> Append:
    if media_type(headers) != BODY_TYPE:
        raise WrongContentType(f"the body of a PATCH is {BODY_TYPE}")  # C14
    offset = number(headers, "upload-offset")
    if offset is None:
        raise BadRequest("say Upload-Offset: where the body begins")
    return Append(
        offset=offset,
        length=number(headers, "upload-length"),  # D3
        size=body_size(headers),
        checksum=_checksum(headers),
        content_digest=_content_digest(headers),
        sha256=_sha256(headers),
    )


def _length(headers: Headers) -> int | None:
    """R2, R3: one of the two is said, and not both."""
    length, deferred = number(headers, "upload-length"), headers.get("upload-defer-length")
    if deferred not in (None, "1"):
        raise BadRequest("Upload-Defer-Length can only be 1")
    if (length is None) == (deferred is None):
        raise BadRequest("say either Upload-Length or Upload-Defer-Length: 1")
    return length


def _check_final(headers: Headers, size: int | None) -> None:
    """N3: its length is the sum of its parts'."""
    if "upload-length" in headers or "upload-defer-length" in headers:
        raise BadRequest("a final upload is as long as its parts: leave Upload-Length away")
    if size != 0:
        raise BadRequest("a final upload is made of its parts, and takes no body")


def _parts(concat: str, at: Sequence[str]) -> tuple[str, ...]:
    """N2, N4: the ids at the ends of the URLs of a final upload, absolute or relative, in order; none of a partial."""
    if concat == "partial":
        return ()
    kind, _, urls = concat.partition(";")
    if len(concat) > MAX_CONCAT:
        raise BadRequest(f"Upload-Concat may have {MAX_CONCAT} bytes: name the parts by their ids alone")
    if kind != "final" or not urls.split():
        raise BadRequest("Upload-Concat is partial, or final;URL URL …")
    return tuple(_id_in(url, at) for url in urls.split())


def _id_in(url: str, at: Sequence[str]) -> str:
    """What a URL says after the one where uploads begin; an id alone counts as if that one ended in a slash."""
    try:
        for beginning in at:
            for base in (beginning, f"{beginning}/"):
                host, path = _place(urljoin(base, url))
                parent, _, upload_id = path.rpartition("/")
                if upload_id and (host, parent) == _place(beginning):
                    return upload_id
    except ValueError:
        pass  # it is no URL
    raise BadRequest("Upload-Concat names what is no upload here: send each Location as it came")


def _place(url: str) -> tuple[tuple[str | None, int | None], str]:
    """Host, port and path. A proxy that ends TLS may hide from us which scheme its clients use."""
    parts = urlsplit(url)
    port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
    return (parts.hostname, port), parts.path


def _checksum(headers: Headers) -> Checksum | None:
    """K2, K3. A CRC-32 is its four bytes, the highest first."""
    value = headers.get("upload-checksum")
    if value is None:
        return None
    algorithm, _, encoded = value.partition(" ")
    if algorithm not in ALGORITHMS:
        raise BadRequest(f"Upload-Checksum can be one of: {', '.join(ALGORITHMS)}")
    digest = from_base64(encoded, "the digest in Upload-Checksum")
    if len(digest) != ALGORITHMS[algorithm]:
        raise BadRequest(f"a {algorithm} has {ALGORITHMS[algorithm]} bytes; write them in base64")
    return Checksum(algorithm, digest)


def _content_digest(headers: Headers) -> Checksum | None:
    """Of this body, beside or instead of tus's own checksum (RFC 9530)."""
    sha256 = expected_sha256(None, headers.get("content-digest"))
    return Checksum("sha256", bytes.fromhex(sha256)) if sha256 else None


def _sha256(headers: Headers) -> str | None:
    """Of the whole upload: tus has no word for it, and takes ours."""
    return expected_sha256(headers.get("x-checksum-sha256"), None, headers.get("repr-digest"))


def created(upload: Upload, location: str, limits: Limits) -> Reply:
    """R6: `location` is the absolute URL of the upload."""
    return Reply(201, _said() | {"Location": location} | _progress(upload) | _concat(upload) | _size(limits))


def appended(upload: Upload) -> Reply:
    """C16."""
    return Reply(204, _said() | _progress(upload))


def inspected(upload: Upload) -> Reply:
    """C8 to C12."""
    headers = _said() | {"Cache-Control": "no-store"} | _progress(upload) | _concat(upload)
    if upload.length is not None:
        headers["Upload-Length"] = str(upload.length)
    elif not upload.final:
        headers["Upload-Defer-Length"] = "1"  # D2
    if upload.said:
        headers["Upload-Metadata"] = upload.said  # R8
    return Reply(200, headers)


def discarded() -> Reply:
    """T2."""
    return Reply(204, _said())


def described(limits: Limits) -> Reply:
    """C20: what OPTIONS answers."""
    headers = {
        "Tus-Version": VERSION,
        "Tus-Extension": ",".join(EXTENSIONS),
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),  # K1
    }
    return Reply(204, _said() | headers | _size(limits))


def on_error(error: MediasvcError, limits: Limits) -> dict[str, str]:
    """What an answer that tells `error` says besides."""
    headers = _said()
    match error:
        case UnsupportedVersion():
            headers["Tus-Version"] = VERSION  # C4
        case OffsetMismatch(offset=offset):
            headers["Upload-Offset"] = str(offset)
        case TooLarge() | QuotaExceeded():
            headers |= _size(limits)
    return headers


def _said() -> dict[str, str]:
    return {"Tus-Resumable": VERSION}  # C3


def _progress(upload: Upload) -> dict[str, str]:
    headers = {}
    if upload.state != "completing":  # N7: it has no offset before it is joined
        headers["Upload-Offset"] = str(upload.offset)
    if upload.state in ("open", "completing"):
        headers["Upload-Expires"] = format_date(int(upload.expires_at))  # E2
    return headers


def _concat(upload: Upload) -> dict[str, str]:
    return {"Upload-Concat": upload.concat} if upload.concat else {}  # N7: as it was received


def _size(limits: Limits) -> dict[str, str]:
    return {} if limits.max_size is None else {"Tus-Max-Size": str(limits.max_size)}  # C6
