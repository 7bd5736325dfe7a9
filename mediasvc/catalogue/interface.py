"""The door to what we know: `Catalogue` for reading, `Transaction` for everything that changes.

Reads never show what has expired or was deleted, unless they say so. `Transaction` methods that change something
raise `Gone` when what they were told to change is no longer as the caller saw it; leaving the transaction by any
exception rolls all of it back. Both may raise CatalogueUnavailable. Other rooms see only this module.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mediasvc.catalogue.changes import Transaction as Transaction
from mediasvc.catalogue.memory import Memory as Memory
from mediasvc.catalogue.values import AssetPage as AssetPage
from mediasvc.catalogue.values import AssetQuery as AssetQuery
from mediasvc.catalogue.values import BlobRecord as BlobRecord
from mediasvc.catalogue.values import Gone as Gone
from mediasvc.catalogue.values import Intent as Intent
from mediasvc.catalogue.values import Original as Original
from mediasvc.catalogue.values import Source as Source
from mediasvc.core.access import Key
from mediasvc.core.archive import Archive, Member
from mediasvc.core.asset import Asset
from mediasvc.core.bucket import Bucket
from mediasvc.core.link import Link
from mediasvc.core.span import Span
from mediasvc.core.task import Task
from mediasvc.core.upload import Upload, UploadToken


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

    @property
    def memory(self) -> Memory:
        """For what follows from nothing but what was read here: it is forgotten when anybody commits."""

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

    async def upload(self, upload_id: str) -> Upload | None:
        """The upload in whatever state, and until it is swept also after its time."""

    async def uploads(
        self, owner: str | None, after: str | None = None, limit: int = 1000
    ) -> Sequence[Upload]:
        """The owner's (None: everybody's), in whatever state, oldest first, which is in order of id."""

    async def completing_uploads(self, after: str | None = None, limit: int = 1000) -> Sequence[Upload]:
        """Those that are `completing`, in order of id."""

    async def promised(self, asset_id: str) -> Upload | None:
        """The newest upload that will become this asset: completing, or open and not over."""

    async def upload_of_blob(self, blob_id: str) -> Upload | None:
        """The upload, open or completing, whose bytes rest under this id."""

    async def stale_uploads(self, now: float, limit: int) -> Sequence[str]:
        """Ids of uploads, in whatever state, whose time is over and that are still here."""

    async def upload_token_by_secret(self, secret_sha256: str) -> UploadToken | None:
        """A token that has not expired, used up or not."""

    async def upload_tokens_over(self, now: float, limit: int) -> Sequence[str]:
        """Ids of tokens whose time is over and that are still here."""

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
