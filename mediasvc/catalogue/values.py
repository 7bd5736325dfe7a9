"""What the catalogue's door speaks of, beside the values of `core`."""

from collections.abc import Sequence
from dataclasses import dataclass

from mediasvc.core.asset import Asset, Blob


class Gone(Exception):
    """The row a statement was to change is not there any more, or not as expected."""


@dataclass(frozen=True, slots=True)
class Intent:
    """Recorded before a blob is written, so that a crash leaves nothing unknown.

    `run` is the start of the server that writes it. `bucket` and `reserved_*` hold room in a bucket's quota
    until the intent is closed.
    """

    blob_id: str
    run: str
    bucket: str | None = None
    reserved_bytes: int = 0
    reserved_assets: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """What a download needs to know, read in one go: the bytes and the asset they belong to."""

    asset_id: str
    bucket: str
    key: str
    name: str
    public: bool
    version: int
    modified_at: int
    blob_id: str
    size: int
    sha256: str
    media_type: str
    expires_at: float | None = None
    cors_origins: Sequence[str] = ()  # these two are the bucket's
    download_rate: int | None = None
    link_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Original:
    """What an archive needs to know of an asset; `public` is its bucket's."""

    asset_id: str
    bucket: str
    key: str
    name: str
    public: bool
    modified_at: int
    expires_at: float | None
    blob_id: str
    size: int
    crc32: int


@dataclass(frozen=True, slots=True)
class AssetQuery:
    """Which assets to list: within one bucket, in order of key.

    `key_prefix` is what the caller may see at most; `prefix` is what was asked for. With `delimiter`, keys
    that have it after the prefix are folded into `prefixes`, as S3 does. `after` is the position of the last
    page (opaque to callers: `AssetPage.next_after`).
    """

    bucket: str
    prefix: str = ""
    key_prefix: str = ""
    delimiter: str | None = None
    tag: str | None = None
    media_type: str | None = None  # exact, or `image/*`
    limit: int = 100
    after: str | None = None
    newest_first: bool = False  # instead of in order of key; folds nothing


@dataclass(frozen=True, slots=True)
class AssetPage:
    assets: Sequence[Asset]
    prefixes: Sequence[str] = ()
    next_after: str | None = None


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A blob as the catalogue has it, for `fsck`, `sweep` and `purge`. `preset` is "" for an original."""

    blob: Blob
    asset_id: str
    preset: str
    doomed: bool
