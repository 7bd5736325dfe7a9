"""Everything that can go wrong, by name: one family, each with a stable code and an HTTP status.

A message names the thing and the fix. `web/errors.py` turns these into `application/problem+json`;
the command line prints `str(error)` and exits with `exit_code`. Anything outside the family is a bug.

    MediasvcError
      ├─ BadRequest  BadKey  BadBucket  BadBody  InconsistentLength   400
      ├─ Unauthorised 401   Forbidden 403   NotFound 404   MethodNotAllowed 405
      │    └─ RenditionPending  UploadIncomplete (404, come back)
      ├─ Conflict 409   ArchiveEnded  UploadGone 410   PreconditionFailed  UnsupportedVersion 412
      │    └─ OffsetMismatch: AlreadyComplete  Superseded 409   Locked 423
      ├─ TooLarge  QuotaExceeded                                413
      ├─ TypeNotAllowed  WrongContentType 415   RangeNotSatisfiable 416   ChecksumMismatch  InvalidInput 422
      │    └─ BodyMismatch: AppendMismatch 460
      ├─ RateLimited 429
      ├─ StoreFull 507   StoreFault 503
      ├─ Unavailable 503: StoreUnavailable  CatalogueUnavailable
      └─ StartupRefused: one sentence that stops the start (never sent over HTTP)
"""

from typing import ClassVar


class MediasvcError(Exception):
    """Base of the family; `detail` is one or two sentences for the person who asked."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal Server Error"
    retryable: ClassVar[bool] = False
    retry_after: int | None = None  # seconds
    exit_code: ClassVar[int] = 1  # the command line's, as rclone counts them

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadRequest(MediasvcError):
    code, status, title = "bad_request", 400, "Bad Request"


class BadKey(BadRequest):
    code, title = "bad_key", "Bad Key"


class BadBucket(BadRequest):
    code, title = "bad_bucket", "Bad Bucket"


class BadBody(BadRequest):
    """The body broke off, or is not what its headers say."""

    code, title = "bad_body", "Bad Body"


class InconsistentLength(BadRequest):
    """What a client says of an upload's length contradicts itself, or what it said before."""

    code, title = "inconsistent_length", "Inconsistent Upload Length"


class Unauthorised(MediasvcError):
    code, status, title = "unauthorised", 401, "Unauthorised"


class Forbidden(MediasvcError):
    code, status, title = "forbidden", 403, "Forbidden"


class NotFound(MediasvcError):
    code, status, title = "not_found", 404, "Not Found"
    exit_code = 4


class RenditionPending(NotFound):
    """It will be there in a moment."""

    code, title, retryable, retry_after = "rendition_pending", "Rendition Pending", True, 1


class UploadIncomplete(NotFound):
    """The asset is promised, and its bytes are still coming."""

    code, title, retryable, retry_after = "upload_incomplete", "Upload Incomplete", True, 5


class MethodNotAllowed(MediasvcError):
    """`allow` lists every method of the URL, for the `Allow` header."""

    code, status, title = "method_not_allowed", 405, "Method Not Allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow


class Conflict(MediasvcError):
    code, status, title = "conflict", 409, "Conflict"


class OffsetMismatch(Conflict):
    """The client and we do not agree where the next byte goes: `offset` is ours, `provided` the client's."""

    code, title, retryable = "offset_mismatch", "Offset Mismatch", True

    def __init__(self, detail: str, *, offset: int, provided: int) -> None:
        super().__init__(detail)
        self.offset = offset
        self.provided = provided


class AlreadyComplete(OffsetMismatch):
    """There is nothing to go on with."""

    title, retryable = "Upload Complete", False


class Superseded(Conflict):
    """A newer request for the same upload took over; what this one brought so far is kept."""

    code, title, retryable = "superseded", "Superseded", True


class Locked(MediasvcError):
    """Nobody can say at the moment how far an upload has come: ask again."""

    code, status, title, retryable, retry_after = "locked", 423, "Locked", True, 5


class UploadGone(MediasvcError):
    """It was here, and is over or lost: begin a new one."""

    code, status, title = "upload_gone", 410, "Gone"


class ArchiveEnded(MediasvcError):
    """It was there, and what it was made of is not any more."""

    code, status, title = "archive_ended", 410, "Gone"


class PreconditionFailed(MediasvcError):
    code, status, title = "precondition_failed", 412, "Precondition Failed"


class UnsupportedVersion(MediasvcError):
    """A version of a protocol that is not spoken here."""

    code, status, title = "unsupported_version", 412, "Unsupported Version"


class LimitError(MediasvcError):
    """A limit was hit: `limit` says how much is allowed, `limit_source` who says so.

    `limit_source` is `server`, `key`, `store` or `bucket:NAME`.
    """

    exit_code = 8

    def __init__(self, detail: str, *, limit: int, limit_source: str) -> None:
        super().__init__(detail)
        self.limit = limit
        self.limit_source = limit_source


class TooLarge(LimitError):
    code, status, title = "too_large", 413, "Content Too Large"


class QuotaExceeded(LimitError):
    code, status, title = "quota_exceeded", 413, "Quota Exceeded"


class RateLimited(LimitError):
    """Too many requests for now; after `retry_after` seconds there is room again."""

    code, status, title, retryable = "rate_limited", 429, "Too Many Requests", True
    exit_code = 5

    def __init__(self, detail: str, *, limit: int, limit_source: str, retry_after: int) -> None:
        super().__init__(detail, limit=limit, limit_source=limit_source)
        self.retry_after = retry_after


class TypeNotAllowed(MediasvcError):
    code, status, title = "type_not_allowed", 415, "Unsupported Media Type"


class WrongContentType(MediasvcError):
    """The body of this request has to be of one certain type."""

    code, status, title = "wrong_content_type", 415, "Unsupported Media Type"


class RangeNotSatisfiable(MediasvcError):
    """`size` is the length of what was asked for, for `Content-Range: bytes */size`."""

    code, status, title = "range_not_satisfiable", 416, "Range Not Satisfiable"

    def __init__(self, detail: str, *, size: int) -> None:
        super().__init__(detail)
        self.size = size


class ChecksumMismatch(MediasvcError):
    code, status, title = "checksum_mismatch", 422, "Checksum Mismatch"


class BodyMismatch(ChecksumMismatch):
    """The body of one append is not what its digest says; the upload itself may go on."""


class AppendMismatch(BodyMismatch):
    """One append is not what its checksum says: none of it was kept (tus, extension checksum)."""

    code, status, title = "append_mismatch", 460, "Checksum Mismatch"


class InvalidInput(MediasvcError):
    """JSON of the right form with values that make no sense."""

    code, status, title = "invalid_input", 422, "Invalid Input"


class Unavailable(MediasvcError):
    """Away for the moment; nothing was lost and the same request may be sent again."""

    code, status, title, retryable, retry_after = "unavailable", 503, "Service Unavailable", True, 5
    exit_code = 5


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class CatalogueUnavailable(Unavailable):
    code = "catalogue_unavailable"


class StoreFull(MediasvcError):
    code, status, title = "store_full", 507, "Insufficient Storage"


class StoreFault(MediasvcError):
    """The store failed in a way that is neither full nor away (EIO on fsync): nothing was acknowledged."""

    code, status, title, retryable, retry_after = "store_fault", 503, "Store Fault", True, 5
    exit_code = 5


class StartupRefused(MediasvcError):
    """One sentence that stops the start: a setting, a lock, a store or catalogue that says no."""

    code, title = "startup_refused", "Start Refused"
    exit_code = 7
