"""Who is asking, and what they may do to which bucket and prefix."""

from collections.abc import Set
from dataclasses import dataclass

SCOPES = ("assets:read", "assets:write", "assets:delete", "buckets:admin", "keys:admin", "metrics:read")


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is kept: its secret only as a SHA-256 (it has 192 random bits, so a fast hash will do).

    `bucket` and `prefix` narrow every scope of the key; `max_asset_size` bounds each asset it writes.
    """

    id: str
    secret_sha256: str
    hint: str  # the first characters of the secret, to tell keys apart
    scopes: frozenset[str]
    created_at: float
    name: str = ""
    bucket: str | None = None
    prefix: str = ""
    expires_at: float | None = None
    max_asset_size: int | None = None
    revoked_at: float | None = None

    def live(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request: the bearer of a key or of an upload token (`key_id` is then its id), or nobody
    (`key_id` is None)."""

    key_id: str | None = None
    scopes: Set[str] = frozenset()
    bucket: str | None = None
    prefix: str = ""
    max_asset_size: int | None = None
    token: bool = False

    @classmethod
    def bearing(cls, key: Key) -> "Caller":
        return cls(key.id, key.scopes, key.bucket, key.prefix, key.max_asset_size)

    @property
    def anonymous(self) -> bool:
        return self.key_id is None

    def has(self, scope: str) -> bool:
        return scope in self.scopes

    def sees_bucket(self, bucket: str) -> bool:
        """Whether the bucket is within what the key was narrowed to, whatever its scopes."""
        return not self.anonymous and (self.bucket is None or self.bucket == bucket)

    def sees(self, bucket: str, key: str) -> bool:
        """Whether the key of an asset is within what the caller was narrowed to."""
        return self.sees_bucket(bucket) and key.startswith(self.prefix)


ANONYMOUS = Caller()
ADMIN_KEY_ID = "key_admin"  # the fixed key of the settings: it has no row
ADMIN_SCOPES = frozenset(SCOPES)
