"""A bucket and its policy: limits, types, privacy, lifetime."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bucket:
    """A named group of assets. Sizes in bytes, durations in seconds, `None` means no limit.

    `allowed_types` holds media types, `image/*` for a family; empty allows everything. `cors_origins` narrows the
    server's for the bucket's byte routes; empty leaves them. `download_rate` is bytes a second and connection.
    """

    name: str
    created_at: float
    public: bool = False
    max_asset_size: int | None = None
    allowed_types: Sequence[str] = ()
    default_ttl: float | None = None
    quota_bytes: int | None = None
    quota_assets: int | None = None
    cors_origins: Sequence[str] = ()
    download_rate: int | None = None

    def allows_type(self, media_type: str) -> bool:
        return type_allowed(media_type, self.allowed_types)


def type_allowed(media_type: str, allowed: Sequence[str]) -> bool:
    """Whether the media type, or its family (`image/*`), is among those allowed; none named: all are."""
    return not allowed or media_type in allowed or media_type.partition("/")[0] + "/*" in allowed


@dataclass(frozen=True, slots=True)
class Usage:
    """What a bucket holds, and what uploads under way have reserved in it."""

    bytes: int = 0
    assets: int = 0
    reserved_bytes: int = 0
    reserved_assets: int = 0
