"""What is decided before the first body byte: bucket, scope, key, size, type, preconditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.access import Caller
from mediasvc.core.asset import Asset
from mediasvc.core.bucket import Bucket, type_allowed
from mediasvc.core.conditions import check_write
from mediasvc.core.errors import Forbidden, NotFound, QuotaExceeded, TooLarge, TypeNotAllowed, Unauthorised


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request wants to store, as far as its head tells. `replace` is False where a taken key is
    given another name instead (form and drop box)."""

    bucket: str
    key: str
    name: str
    replace: bool
    declared_type: str | None = None
    length: int | None = None
    sha256: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_in: float | None = None
    allowed_types: Sequence[str] = ()  # narrower than the bucket's: an upload token's
    if_match: str | None = None
    if_none_match: str | None = None
    if_unmodified_since: str | None = None

    @property
    def conditional(self) -> bool:
        return (self.if_match, self.if_none_match, self.if_unmodified_since) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Limit:
    """So many bytes, and who says so (`server`, `key`, `store`, `bucket:NAME`). `left`: they are what a quota has
    left."""

    bytes: int
    source: str
    left: bool = False

    def exceeded(self, what: str = "the body") -> TooLarge | QuotaExceeded:
        if self.left:
            return QuotaExceeded(
                f"{what} is larger than the {self.bytes} bytes that the bucket's quota has left",
                limit=self.bytes,
                limit_source=self.source,
            )
        return TooLarge(
            f"{what} is larger than the {self.bytes} bytes that {self.source} allows",
            limit=self.bytes,
            limit_source=self.source,
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """Let in: what is wanted, into which bucket, and the smallest limit on its size."""

    wanted: Wanted
    bucket: Bucket
    limit: Limit | None


class Doorkeeper:
    """Decides; changes nothing."""

    def __init__(self, catalogue: Catalogue, *, server_limit: int | None, store_limit: int | None) -> None:
        self._catalogue = catalogue
        self._limits = [
            Limit(size, source)
            for size, source in ((server_limit, "server"), (store_limit, "store"))
            if size is not None
        ]

    async def admit(self, caller: Caller, wanted: Wanted) -> Admission:
        """Raises what the caller may hear: Unauthorised, NotFound, Forbidden, TooLarge, TypeNotAllowed,
        PreconditionFailed, in this order. Quota is decided by `Receiver`, which reserves it."""
        bucket = await self.bucket_for_writing(caller, wanted.bucket)
        if not caller.sees(wanted.bucket, wanted.key):
            raise NotFound(f"there is no bucket {wanted.bucket!r} with this key for the caller")
        limit = self._smallest(caller, bucket)
        if limit and wanted.length is not None and wanted.length > limit.bytes:
            raise limit.exceeded()
        if wanted.declared_type:
            check_type(wanted.declared_type, bucket, wanted)
        if wanted.conditional:
            check_preconditions(wanted, await self._catalogue.asset_at(wanted.bucket, wanted.key))
        return Admission(wanted, bucket, limit)

    def admit_partial(self, caller: Caller, length: int | None) -> Limit | None:
        """One of several uploads that will be put together: bucket and key come with the whole. Gives the largest
        size that it may have."""
        if caller.anonymous:
            raise Unauthorised("send an API key: Authorization: Bearer msk_…")
        if not caller.has("assets:write"):
            raise Forbidden("the key lacks the scope assets:write")
        limit = self._smallest(caller, None)
        if limit and length is not None and length > limit.bytes:
            raise limit.exceeded("the upload")
        return limit

    async def bucket_for_writing(self, caller: Caller, name: str) -> Bucket:
        """The bucket, if the caller may write somewhere in it."""
        if caller.anonymous:
            raise Unauthorised("send an API key: Authorization: Bearer msk_…")
        bucket = await self._catalogue.bucket(name) if caller.sees_bucket(name) else None
        if bucket is None:
            raise NotFound(f"there is no bucket {name!r}")
        if not caller.has("assets:write"):
            raise Forbidden("the key lacks the scope assets:write")
        return bucket

    def _smallest(self, caller: Caller, bucket: Bucket | None) -> Limit | None:
        limits = list(self._limits)
        if bucket is not None and bucket.max_asset_size is not None:
            limits.append(Limit(bucket.max_asset_size, f"bucket:{bucket.name}"))
        if caller.max_asset_size is not None:
            limits.append(Limit(caller.max_asset_size, "key"))
        return min(limits, key=lambda limit: limit.bytes, default=None)


def check_preconditions(wanted: Wanted, current: Asset | None) -> None:
    """Raises PreconditionFailed; asked before the body, and again in the last transaction."""
    check_write(
        current.etag if current else None,
        if_match=wanted.if_match,
        if_none_match=wanted.if_none_match,
        if_unmodified_since=wanted.if_unmodified_since,
        last_modified=current.modified_at if current else None,
    )


def check_type(media_type: str, bucket: Bucket, wanted: Wanted) -> None:
    """Raises TypeNotAllowed."""
    for who, allowed in (
        (f"bucket {bucket.name}", bucket.allowed_types),
        ("this token", wanted.allowed_types),
    ):
        if not type_allowed(media_type, allowed):
            raise TypeNotAllowed(f"{who} does not take {media_type}; it takes {', '.join(allowed)}")
