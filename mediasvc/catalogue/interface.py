"""The door to what we know: `Catalogue` for reading, `Transaction` for everything that changes.

Reads never show what has expired or was deleted. `Transaction` methods that change something raise
`Gone` when what they were told to change is no longer as the caller saw it; leaving the transaction by any
exception rolls all of it back. Both may raise CatalogueUnavailable.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from mediasvc.core.access import Key
from mediasvc.core.archive import Archive, Member
from mediasvc.core.asset import Asset, Blob, Rendition, State
from mediasvc.core.bucket import Bucket, Usage
from mediasvc.core.link import Link
from mediasvc.core.span import Span
from mediasvc.core.tally import Tally
from mediasvc.core.task import NewTask, Task


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


class Transaction(Protocol):
    """All of it happens, or none. Keep it short: writers wait for one another."""

    async def open_intent(self, intent: Intent) -> None:
        """Record that a blob is about to be written."""

    async def close_intent(self, blob_id: str) -> None:
        """Delete the intent, open and not condemned: exactly one row, else Gone."""

    async def condemn_intent(self, blob_id: str) -> None:
        """Mark the intent, so that nobody can close it any more; Gone where there is none. May be repeated."""

    async def drop_intent(self, blob_id: str) -> None:
        """Delete an intent, condemned or not, once its bytes are gone. None there: no error."""

    async def bucket(self, name: str) -> Bucket | None: ...
    async def usage(self, bucket: str) -> Usage:
        """Bytes and assets held (what has expired counts until it is swept), and reserved by open intents."""

    async def add_bucket(self, bucket: Bucket) -> None:
        """Raises Conflict where the name is taken."""

    async def save_bucket(self, bucket: Bucket) -> None:
        """Replace the policy of an existing bucket. Raises Gone."""

    async def delete_bucket(self, name: str) -> None:
        """Raises Conflict while it holds assets or uploads under way, Gone where there is none."""

    async def asset(self, asset_id: str) -> Asset | None:
        """The asset, expired or not."""

    async def asset_at(self, bucket: str, key: str) -> Asset | None:
        """The asset under this key, expired or not."""

    async def add_asset(self, asset: Asset) -> None:
        """Insert the asset and its original's blob row. Raises Conflict where the key is taken, Gone where
        the bucket is no more."""

    async def replace_asset(self, asset: Asset) -> None:
        """Give an asset its next version: `asset.version` is one more than the row's, else Gone.

        The blobs of the version before are doomed (renditions too), its waiting tasks cancelled.
        """

    async def save_asset(self, asset: Asset) -> None:
        """Write name, tags, metadata and expires_at of an asset (`PATCH`). Raises Gone."""

    async def save_findings(
        self,
        asset_id: str,
        version: int,
        *,
        state: State,
        facts: Mapping[str, Any],
        placeholder: Mapping[str, str] | None,
        renditions: Sequence[Rendition],
    ) -> None:
        """What a deriver found out about this version. Raises Gone where the version is not current any more."""

    async def delete_asset(self, asset_id: str) -> None:
        """Gone from every answer at once: the row goes, its tasks are cancelled and dropped, its blobs are
        doomed and a `purge` task is queued for them. Raises Gone."""

    async def doom_blob(self, blob_id: str) -> None: ...
    async def forget_blobs(self, blob_ids: Sequence[str]) -> None:
        """Delete the rows of doomed blobs whose bytes are gone."""

    async def set_asset_state(self, asset_id: str, state: State) -> None: ...

    async def enqueue(self, task: NewTask) -> str:
        """Queue work in the same transaction as what makes it necessary; gives the task's id."""

    async def add_link(self, link: Link) -> None:
        """Raises Gone where the asset is no more."""

    async def begin_download(self, link_id: str) -> None:
        """Count one download against the link's `max_downloads`. Raises Gone where it is used up, over or revoked."""

    async def drop_links(self, link_ids: Sequence[str]) -> int:
        """Delete links; gives how many there were."""

    async def end_links(self, asset_id: str) -> None:
        """End every link to the asset, with a row or without (`link_epoch` rises), and every archive that holds
        it. Raises Gone."""

    async def count_downloads(self, assets: Mapping[str, Tally], links: Mapping[str, Tally]) -> int:
        """Add to the counters of assets and links, by id; gives how many of them are not there any more."""

    async def add_archive(self, archive: Archive) -> None:
        """Begin to make one. It ends by itself with the first of its assets that is deleted or replaced, and
        lives no longer than any of them."""

    async def add_members(self, archive_id: str, members: Sequence[Member]) -> None:
        """Some of its entries. Raises Gone where an asset is not as it was, or ends before the archive."""

    async def finish_archive(self, archive_id: str) -> None:
        """All entries are there: it may be read. Raises Gone where it ended meanwhile."""

    async def drop_archive(self, archive_id: str, limit: int) -> bool:
        """Delete at most `limit` entries of an archive that is over; True once all of it is gone."""

    async def add_key(self, key: Key) -> None: ...
    async def revoke_key(self, key_id: str, now: float) -> None:
        """Raises Gone where there is no such live key."""


class Outbox(Protocol):
    """The dispatcher's side of the task table."""

    async def claim(self, run: str, now: float, limit: int) -> Sequence[Task]:
        """Take due tasks: state `running`, attempts counted before the work begins."""

    async def finish(self, task_id: str, run: str, *, detail: str = "") -> None: ...
    async def fail(self, task_id: str, run: str, *, detail: str) -> None:
        """Final: it will not be tried again."""

    async def postpone(
        self, task_id: str, run: str, *, not_before: float, detail: str, counted: bool
    ) -> None:
        """Back among the waiting; an attempt that was not the task's fault is not counted."""

    async def reclaim(self, run: str) -> int:
        """Put what a dead run left running back among the waiting; bury (`failed`) what had its MAX_ATTEMPTS."""

    async def runs(self) -> Sequence[str]:
        """Every run under which tasks are marked running."""

    async def next_due(self) -> float | None:
        """When the next waiting task may run."""

    async def stuck(self, live_runs: Sequence[str]) -> Sequence[Task]:
        """Tasks running under no live run."""

    async def counts(self) -> Mapping[str, int]:
        """Tasks by state."""


class Catalogue(Protocol):
    """What we know. Single reads are cheap enough for the download path (microseconds on SQLite)."""

    @property
    def outbox(self) -> Outbox: ...

    async def start(self) -> None:
        """Bring the schema up to date (under a lock) and open. Raises StartupRefused."""

    async def check(self) -> None:
        """Raise CatalogueUnavailable unless it answers and can be written to."""

    async def close(self) -> None: ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Durable when the block is left: the commit survives a power cut."""

    async def key_by_secret(self, secret_sha256: str) -> Key | None:
        """A key that is neither revoked nor expired."""

    async def keys(self, after: str | None = None, limit: int = 1000) -> Sequence[Key]:
        """Live keys in order of id."""

    async def key(self, key_id: str) -> Key | None: ...
    async def bucket(self, name: str) -> Bucket | None: ...
    async def buckets(self, after: str | None = None, limit: int = 1000) -> Sequence[Bucket]: ...
    async def asset(self, asset_id: str) -> Asset | None:
        """With renditions and task counts."""

    async def asset_at(self, bucket: str, key: str) -> Asset | None: ...
    async def assets(self, query: AssetQuery) -> AssetPage: ...
    async def assets_with(self, sha256: str, size: int, limit: int = 100) -> Sequence[Asset]:
        """Assets whose original has this content."""

    async def source(self, asset_id: str, preset: str = "") -> Source | None:
        """The original (preset "") or a rendition of the current version, for a download."""

    async def source_at(self, bucket: str, key: str) -> Source | None: ...
    async def link(self, link_id: str) -> Link | None:
        """A link with a row that is not over, used up or not."""

    async def links(self, asset_id: str, after: str | None = None, limit: int = 1000) -> Sequence[Link]:
        """The asset's links with rows that are not over, oldest first, which is in order of id."""

    async def expired_links(self, now: float, limit: int) -> Sequence[str]:
        """Ids of links whose time is over and that are still here."""

    async def originals(self, asset_ids: Sequence[str]) -> Sequence[Original]:
        """Of at most 1000 assets those that are there, in order of key."""

    async def originals_under(
        self, bucket: str, prefix: str, after: str | None, limit: int
    ) -> Sequence[Original]:
        """Of the assets whose key begins with the prefix and comes after `after`, in order of key."""

    async def archive(self, archive_id: str) -> Archive | None:
        """One that is whole and has not ended with one of its assets; also after it expired, so that a
        download goes on."""

    async def members(
        self, archive_id: str, span: Span, limit: int, *, listed: bool = False
    ) -> Sequence[Member]:
        """Entries in order of their place, from the one that holds the first byte of the span, of which header
        and file begin before its end; with `listed` the same of the listing, in which the span then counts."""

    async def stale_archives(self, now: float, limit: int) -> Sequence[str]:
        """Ids of archives that ended, that were over a day ago, or that nobody is making any more."""

    async def tasks_of(self, asset_id: str) -> Sequence[Task]:
        """The asset's timeline, oldest first."""

    async def expired(self, now: float, limit: int) -> Sequence[str]:
        """Ids of assets whose time is over and that are still here."""

    async def blobs(self, after: str = "", limit: int = 1000) -> Sequence[BlobRecord]:
        """The ledger of blobs, doomed ones too, in order of blob id."""

    async def blob(self, blob_id: str) -> BlobRecord | None: ...
    async def doomed_blobs(self, asset_id: str | None = None, limit: int = 1000) -> Sequence[BlobRecord]: ...
    async def intents(self) -> Sequence[Intent]:
        """Open and condemned ones."""

    async def unpurged(self, limit: int) -> Sequence[str]:
        """Asset ids with doomed blobs and no `purge` task waiting or running."""


class Runs(Protocol):
    """Which starts of which servers are alive. What belongs to a dead run is stale at once."""

    def begin(self) -> str:
        """Announce this run; gives its id. Alive until `end` or until the process dies, however it dies."""

    def alive(self, run: str) -> bool: ...
    def end(self, run: str) -> None:
        """Forget a run: our own at the end, a dead one once everything of it was swept."""

    def known(self) -> Sequence[str]:
        """Every run that began and was not ended, dead or alive."""
