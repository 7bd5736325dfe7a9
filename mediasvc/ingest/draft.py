"""Resumable Uploads for HTTP, the IETF's draft: a head becomes a command, an outcome becomes status and headers.

draft-ietf-httpbis-resumable-upload; interop 3 is its -01, 4 -02, 5 -03, 6 -04 and -05, 7 -06 to -08, 8 -09 and all
since. Who names none of them is taken to speak 8. The marks in the comments (I3, I10 …) are those of the table of
requirements in `tests/ingest/test_draft.py`.
"""

from mediasvc.core.checksums import expected_sha256
from mediasvc.core.errors import (
    BadRequest,
    BodyMismatch,
    ChecksumMismatch,
    InconsistentLength,
    MediasvcError,
    MethodNotAllowed,
    OffsetMismatch,
    QuotaExceeded,
    Superseded,
    TooLarge,
    TypeNotAllowed,
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
    Headers,
    body_size,
    boolean,
    dictionary,
    filename_in,
    integer,
    media_type,
    metadata,
    method_of,
)

OLDEST, NEWEST = 3, 8
INVERTED = 3  # says Upload-Incomplete; all later ones say Upload-Complete
TYPED_SINCE = 6  # from here on a PATCH has a media type of its own
AGE_SINCE = 7  # `max-age` was `expires` before, and what completes need not be at the upload's URL
BODY_TYPE = "application/partial-upload"
_NO_FILE_TYPES = ("", BODY_TYPE, "application/offset+octet-stream")

_PROBLEMS = "https://iana.org/assignments/http-problem-types#"
MISMATCHING_OFFSET = _PROBLEMS + "mismatching-upload-offset"
INCONSISTENT_LENGTH = _PROBLEMS + "inconsistent-upload-length"
COMPLETED_UPLOAD = _PROBLEMS + "completed-upload"  # -04 to -11; the newest text has only the other two

SIGNS = ("upload-complete", "upload-incomplete", "upload-draft-interop-version", "upload-offset")


def spoken(headers: Headers) -> bool:
    """Whether this request is of the draft; where it says `Tus-Resumable`, it is tus."""
    return "tus-resumable" not in headers and any(sign in headers for sign in SIGNS)


def version(headers: Headers) -> int:
    """The interop version to speak: the client's, or the newest where it names none that is known."""
    return _named_version(headers) or NEWEST


def may_inform(headers: Headers) -> bool:
    """I7: whether this client can take a 104. A proxy that is between us, listed or not, may choke on it."""
    passed_on = any(name in ("via", "forwarded") or name.startswith("x-forwarded-") for name in headers)
    return _named_version(headers) is not None and not passed_on


def _named_version(headers: Headers) -> int | None:
    named = integer(headers.get("upload-draft-interop-version"))
    return named if named is not None and OLDEST <= named <= NEWEST else None


def read(method: str, headers: Headers, *, creating: bool, bucket: str = "", key: str = "") -> Command:
    """What the client asks for, `creating` at a URL where uploads begin (of this `bucket` and `key`, where the URL
    says so), else at that of one upload.

    Raises MethodNotAllowed, WrongContentType, InconsistentLength and BadRequest.
    """
    method = method_of(method, headers)
    match method, creating:
        case "OPTIONS", _:
            return Describe()
        case "POST" | "PUT" | "PATCH", True:
            where = {name: value for name, value in (("bucket", bucket), ("key", key)) if value}
            return _begin(headers, where, plain=method == "PUT")
        case "PATCH", False:
            return _append(headers)
        case "HEAD" | "GET", False:
            _refuse_state(headers, "upload-length")
            return Inspect()
        case "DELETE", False:
            _refuse_state(headers)
            return Discard()
    allow = "OPTIONS, PATCH, POST, PUT" if creating else "DELETE, GET, HEAD, OPTIONS, PATCH"
    raise MethodNotAllowed(f"this URL takes {allow}", allow=allow)


def _begin(headers: Headers, where: dict[str, str], *, plain: bool) -> Begin:
    if integer(headers.get("upload-offset")):
        raise BadRequest("an upload begins at byte 0: send what follows to the upload's own URL")
    completes = _completes(headers)
    if completes is None:
        # Without Upload-Complete it is no resumable upload (I6). A PUT is an ordinary one then, which is all there.
        if not plain:
            raise BadRequest("say Upload-Complete: ?1 if the body is the whole, ?0 if more follows")
        completes = True
    size, said = body_size(headers), headers.get("upload-metadata", "")
    return Begin(
        length=_length(headers, 0, size, completes),
        names=_names(headers) | metadata(said) | where,
        said=said,
        has_body=size != 0,
        size=size,
        completes=completes,
        content_digest=_content_digest(headers),
        sha256=_sha256(headers),
    )


def _append(headers: Headers) -> Append:
    if version(headers) >= TYPED_SINCE and media_type(headers) != BODY_TYPE:
        raise WrongContentType(f"the body of a PATCH is {BODY_TYPE}")  # I10
    offset = integer(headers.get("upload-offset"))
    if offset is None:
        raise BadRequest("say Upload-Offset: where the body begins")
    # I4: an upload is incomplete until somebody says otherwise.
    size, completes = body_size(headers), _completes(headers) or False
    return Append(
        offset=offset,
        length=_length(headers, offset, size, completes),
        size=size,
        completes=completes,
        content_digest=_content_digest(headers),
        # Of the whole, as at the creation: before the end there is nothing that it could be compared with.
        sha256=_sha256(headers) if completes else None,
    )


def _completes(headers: Headers) -> bool | None:
    """Whether the body's end is the upload's; None where it does not say."""
    complete, incomplete = boolean(headers.get("upload-complete")), boolean(headers.get("upload-incomplete"))
    said = [complete, None if incomplete is None else not incomplete]
    if version(headers) == INVERTED:
        # -01: complete "with the Upload-Incomplete header field being omitted or set to false".
        said = [*reversed(said), True]
    return next((one for one in said if one is not None), None)


def _length(headers: Headers, offset: int, size: int | None, completes: bool) -> int | None:
    """I3: said by Upload-Length, or by the size of a body that completes; both must agree."""
    said = integer(headers.get("upload-length"))
    end = offset + size if size is not None else None
    if said is not None and end is not None and (end > said or (completes and end < said)):
        raise InconsistentLength(f"the body ends at byte {end}, but Upload-Length is {said}")
    return said if said is not None else end if completes else None


def _refuse_state(headers: Headers, *besides: str) -> None:
    """Up to interop 6: a request without content that says how the upload stands MUST be answered with a 400."""
    spoken_here = version(headers)
    state = ["upload-offset", "upload-incomplete" if spoken_here == INVERTED else "upload-complete"]
    if spoken_here == 6:
        state += besides
    if spoken_here < AGE_SINCE and any(name in headers for name in state):
        raise BadRequest(f"leave {' and '.join(state)} away: the answer says it")


def _names(headers: Headers) -> dict[str, str]:
    """What the fields of a creation say of the file. Upload-Metadata goes before: nobody sends that by default."""
    names = {"filename": filename_in(headers.get("content-disposition", "")), "filetype": media_type(headers)}
    if names["filetype"] in _NO_FILE_TYPES:
        del names["filetype"]
    return {name: value for name, value in names.items() if value}


def _content_digest(headers: Headers) -> Checksum | None:
    """I15: Content-Digest is of this body."""
    sha256 = expected_sha256(None, headers.get("content-digest"))
    return Checksum("sha256", bytes.fromhex(sha256)) if sha256 else None


def _sha256(headers: Headers) -> str | None:
    """I15: Repr-Digest is of the whole, as is our own field."""
    return expected_sha256(headers.get("x-checksum-sha256"), None, headers.get("repr-digest"))


def created(upload: Upload, location: str, limits: Limits, version: int) -> Reply:
    """I6: the bytes that came along are kept, and more are to come. `location`: the upload's absolute URL."""
    headers = {"Location": location, "Upload-Limit": _limit(limits, version)}
    return Reply(201, headers | _state(upload, version, complete=False))


def appended(upload: Upload, version: int) -> Reply:
    """More are to come. Clients need the offset, though the newer texts do not ask for it."""
    status = 201 if version < AGE_SINCE else 204
    return Reply(status, _state(upload, version, complete=False))


def inspected(upload: Upload, limits: Limits, version: int) -> Reply:
    """I9."""
    headers = _state(upload, version, complete=upload.state in ("complete", "failed"))
    headers |= {"Upload-Limit": _limit(limits, version), "Cache-Control": "no-store"}
    if upload.length is not None:
        headers["Upload-Length"] = str(upload.length)
    return Reply(204, headers)


def discarded() -> Reply:
    """I14."""
    return Reply(204)


def described(limits: Limits, version: int = NEWEST) -> Reply:
    """I5: what OPTIONS answers; `Accept-Patch` is asked for by -10 and -11."""
    return Reply(204, {"Upload-Limit": _limit(limits, version), "Accept-Patch": BODY_TYPE})


def informed(location: str, limits: Limits, version: int) -> dict[str, str]:
    """I7: the 104 that goes before the body is read; `location` is the same as in every answer to this request."""
    return {
        "Location": location,
        "Upload-Limit": _limit(limits, version),
        "Upload-Draft-Interop-Version": str(version),
    }


def completed(upload: Upload, version: int, location: str = "") -> dict[str, str]:
    """I11: what the answer with the asset says besides. `location` (of a creation): the upload's URL, which the older
    texts want there; the newer ones leave it to the asset."""
    headers = _state(upload, version, complete=True)
    if location and version < AGE_SINCE:
        headers["Location"] = location
    return headers


def on_error(
    error: MediasvcError, version: int, *, limits: Limits, upload: Upload | None = None
) -> tuple[dict[str, str], str | None, dict[str, int]]:
    """What an answer that tells `error` says besides: headers, the problem's type, and its members.

    `upload`: how it stands now, where that is known.
    """
    # A whole that came, and is refused, is the end of it; after anything else the client may go on (I11).
    ended = isinstance(error, ChecksumMismatch | TypeNotAllowed) and not isinstance(error, BodyMismatch)
    headers = _complete(version, complete=ended)
    if upload is not None and version < AGE_SINCE and not isinstance(error, Superseded):
        headers["Upload-Offset"] = str(upload.offset)  # of an active upload in every answer, up to interop 6
    match error:
        case OffsetMismatch(offset=offset, provided=provided):  # I10
            headers["Upload-Offset"] = str(offset)
            if offset == provided:  # nothing but completeness is in the way
                return headers, COMPLETED_UPLOAD, {}
            return headers, MISMATCHING_OFFSET, {"expected-offset": offset, "provided-offset": provided}
        case InconsistentLength():  # I3
            return headers, INCONSISTENT_LENGTH, {}
        case TooLarge() | QuotaExceeded():  # I5
            headers["Upload-Limit"] = _limit(limits, version)
    return headers, None, {}


def _state(upload: Upload, version: int, *, complete: bool) -> dict[str, str]:
    if upload.state == "completing":  # nobody has an offset to agree on
        return _complete(version, complete=complete)
    return {"Upload-Offset": str(upload.offset)} | _complete(version, complete=complete)


def _complete(version: int, *, complete: bool) -> dict[str, str]:
    if version == INVERTED:
        return {"Upload-Incomplete": "?0" if complete else "?1"}
    return {"Upload-Complete": "?1" if complete else "?0"}


def _limit(limits: Limits, version: int) -> str:
    """I5: never empty."""
    named = {
        "max-size": limits.max_size,
        "max-append-size": limits.max_append_size,
        "max-age" if version >= AGE_SINCE else "expires": limits.max_age,
    }
    return dictionary({name: value for name, value in named.items() if value is not None} or {"min-size": 0})
