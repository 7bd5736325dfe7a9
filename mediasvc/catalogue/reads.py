"""Reads of many rows, once for every adapter. Single ones are the adapter's own: they are on the download path."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa

from mediasvc.catalogue import rows
from mediasvc.catalogue.archives import ArchiveReads
from mediasvc.catalogue.interface import AssetPage, AssetQuery, BlobRecord, Intent
from mediasvc.catalogue.listing import list_assets
from mediasvc.catalogue.statements import Reader, live
from mediasvc.catalogue.tables import asset, blob, bucket, doomed, intent, key, link, task
from mediasvc.catalogue.uploads import UploadReads
from mediasvc.core.access import Key
from mediasvc.core.bucket import Bucket
from mediasvc.core.link import Link


class CoreReads(ArchiveReads, UploadReads):
    """The part of `catalogue.interface.Catalogue` that reads many rows."""

    def __init__(self, reader: Reader, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock

    async def keys(self, after: str | None = None, limit: int = 1000) -> Sequence[Key]:
        named = sa.select(key).where(key.c.id > (after or ""), live(self._clock())).order_by(key.c.id)
        return [rows.key_of(row) for row in await self._reader.rows(named.limit(limit))]

    async def buckets(self, after: str | None = None, limit: int = 1000) -> Sequence[Bucket]:
        named = sa.select(bucket).where(bucket.c.name > (after or "")).order_by(bucket.c.name).limit(limit)
        return [rows.bucket_of(row) for row in await self._reader.rows(named)]

    async def assets(self, query: AssetQuery) -> AssetPage:
        return await list_assets(self._reader, query, self._clock())

    async def expired(self, now: float, limit: int) -> Sequence[str]:
        over = sa.select(asset.c.id).where(asset.c.expires_at <= now).order_by(asset.c.expires_at)
        return [row.id for row in await self._reader.rows(over.limit(limit))]

    async def links(self, asset_id: str, after: str | None = None, limit: int = 1000) -> Sequence[Link]:
        going = sa.select(link).where(link.c.asset_id == asset_id, link.c.expires_at > self._clock())
        page = going.where(link.c.id > (after or "")).order_by(link.c.id).limit(limit)
        return [rows.link_of(row) for row in await self._reader.rows(page)]

    async def expired_links(self, now: float, limit: int) -> Sequence[str]:
        over = sa.select(link.c.id).where(link.c.expires_at <= now).order_by(link.c.expires_at)
        return [row.id for row in await self._reader.rows(over.limit(limit))]

    async def blobs(self, after: str = "", limit: int = 1000) -> Sequence[BlobRecord]:
        ledger = sa.select(blob).where(blob.c.id > after).order_by(blob.c.id).limit(limit)
        return [rows.record_of(row) for row in await self._reader.rows(ledger)]

    async def doomed_blobs(self, asset_id: str | None = None, limit: int = 1000) -> Sequence[BlobRecord]:
        ledger = sa.select(blob).where(doomed).limit(limit)
        if asset_id is not None:
            ledger = ledger.where(blob.c.asset_id == asset_id)
        return [rows.record_of(row) for row in await self._reader.rows(ledger)]

    async def intents(self) -> Sequence[Intent]:
        recorded = sa.select(intent).order_by(intent.c.blob_id)
        return [rows.intent_of(row) for row in await self._reader.rows(recorded)]

    async def unpurged(self, limit: int) -> Sequence[str]:
        queued = sa.exists().where(
            task.c.asset_id == blob.c.asset_id,
            task.c.kind == "purge",
            task.c.state.in_(("waiting", "running")),
        )
        left = sa.select(blob.c.asset_id).distinct().where(doomed, ~queued).limit(limit)
        return [row.asset_id for row in await self._reader.rows(left)]
