"""What a user owns: one original, what we know of it, and its renditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["processing", "ready", "damaged", "quarantined"]


def etag_of(sha256: str) -> str:
    """The strong validator of bytes: the quoted first 32 hex digits of their SHA-256, the same everywhere."""
    return f'"{sha256[:32]}"'


@dataclass(frozen=True, slots=True)
class Blob:
    """Immutable bytes at rest; belongs to one asset, as its original or as a rendition."""

    id: str
    size: int
    sha256: str
    crc32: int


@dataclass(frozen=True, slots=True)
class Rendition:
    """A blob made from one version of an asset by a preset."""

    preset: str
    blob: Blob
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Asset:
    """One original under one key of one bucket. Times are seconds since the epoch.

    `modified_at` is when this version was made: whole seconds, later than the version it replaced.
    `facts` is what we measured, `metadata` what the uploader said. `placeholder` is
    `{thumbhash, color, data_uri}` once an image was looked at. `downloads` and `downloaded_bytes` are what was
    seen to be delivered of the original, in all its versions.
    """

    id: str
    bucket: str
    key: str
    name: str
    blob: Blob
    media_type: str
    state: State
    created_at: float
    modified_at: int
    version: int = 1
    expires_at: float | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    placeholder: Mapping[str, str] | None = None
    renditions: Mapping[str, Rendition] = field(default_factory=dict)
    tasks_pending: int = 0
    tasks_failed: int = 0
    downloads: int = 0
    downloaded_bytes: int = 0

    @property
    def etag(self) -> str:
        return etag_of(self.blob.sha256)

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now
