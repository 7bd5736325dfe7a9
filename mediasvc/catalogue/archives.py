"""Archives, once for every adapter: which assets go in, what went in, and when that is over."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mediasvc.catalogue.interface import Gone, Original
from mediasvc.catalogue.listing import begins
from mediasvc.catalogue.statements import Reader
from mediasvc.catalogue.tables import archive, archive_entry, asset, blob, bucket, living
from mediasvc.catalogue.writes import Writes
from mediasvc.core.archive import Archive, Member
from mediasvc.core.span import Span
from mediasvc.core.zip64 import Entry, Layout

_MAKING = 3600.0  # seconds after which one that is not ready was left by a crash
_GRACE = 86400.0  # seconds after its end that a download of it may go on

_ORIGINALS = (
    sa.select(
        asset.c.id.label("asset_id"),
        asset.c.bucket,
        asset.c.key,
        asset.c.name,
        bucket.c.public,
        asset.c.modified_at,
        asset.c.expires_at,
        blob.c.id.label("blob_id"),
        blob.c.size,
        blob.c.crc32,
    )
    .join_from(asset, blob, sa.and_(blob.c.asset_id == asset.c.id, blob.c.version == asset.c.version, living))
    .join(bucket, bucket.c.name == asset.c.bucket)
    .where(blob.c.preset == "")
)
# An entry is taken only while its archive is being made and its bytes are the asset's: whatever ends that later
# finds the entry, and ends the archive.
_ADD_MEMBER = sa.insert(archive_entry).from_select(
    [column.name for column in archive_entry.c],
    sa.select(*(sa.bindparam(column.name, type_=column.type) for column in archive_entry.c)).where(
        sa.exists(
            sa.select(blob.c.id)
            .join_from(blob, asset, sa.and_(asset.c.id == blob.c.asset_id, asset.c.version == blob.c.version))
            .join(archive, archive.c.id == sa.bindparam("archive_id", type_=sa.Text()))
            .where(
                blob.c.id == sa.bindparam("blob_id", type_=sa.Text()),
                blob.c.asset_id == sa.bindparam("asset_id", type_=sa.Text()),
                living,
                archive.c.state == "making",
                sa.or_(asset.c.expires_at.is_(None), asset.c.expires_at >= archive.c.expires_at),
            )
        )
    ),
)
_MEMBERS = sa.select(
    *(archive_entry.c[field] for field in ("name", "size", "crc32", "modified_at", "start", "listed")),
    archive_entry.c.asset_id,
    archive_entry.c.blob_id,
)
ARCHIVE = sa.select(archive).where(archive.c.id == sa.bindparam("archive_id"), archive.c.state == "ready")


def archive_of(row: Any) -> Archive:
    layout = Layout(row.count, row.listing_start, row.tail_start)
    return Archive(row.id, row.created_at, row.expires_at, row.name, layout)


class ArchiveReads:
    """The part of `catalogue.interface.Catalogue` about archives that reads many rows."""

    _reader: Reader
    _clock: Callable[[], float]

    async def originals(self, asset_ids: Sequence[str]) -> Sequence[Original]:
        return await self._originals(asset.c.id.in_(asset_ids))

    async def originals_under(
        self, bucket: str, prefix: str, after: str | None, limit: int
    ) -> Sequence[Original]:
        chosen = [asset.c.bucket == bucket, *begins(asset.c.key, prefix)]
        if after is not None:
            chosen.append(asset.c.key > after)
        return await self._originals(*chosen, limit=limit)

    async def _originals(
        self, *chosen: sa.ColumnElement[bool], limit: int | None = None
    ) -> Sequence[Original]:
        alive = sa.or_(asset.c.expires_at.is_(None), asset.c.expires_at > self._clock())
        found = _ORIGINALS.where(alive, *chosen).order_by(asset.c.key).limit(limit)
        return [Original(**row._mapping) for row in await self._reader.rows(found)]

    async def members(
        self, archive_id: str, span: Span, limit: int, *, listed: bool = False
    ) -> Sequence[Member]:
        place = archive_entry.c.listed if listed else archive_entry.c.start
        first = sa.select(sa.func.max(place)).where(
            archive_entry.c.archive_id == archive_id, place <= span.start
        )
        found = (
            _MEMBERS.where(
                archive_entry.c.archive_id == archive_id,
                place >= first.scalar_subquery(),
                place < span.stop,
            )
            .order_by(place)
            .limit(limit)
        )
        return [_member_of(row) for row in await self._reader.rows(found)]

    async def stale_archives(self, now: float, limit: int) -> Sequence[str]:
        stale = sa.or_(
            archive.c.state == "ended",
            archive.c.expires_at <= now - _GRACE,
            sa.and_(archive.c.state == "making", archive.c.created_at <= now - _MAKING),
        )
        return [row.id for row in await self._reader.rows(sa.select(archive.c.id).where(stale).limit(limit))]


class ArchiveWrites(Writes):
    """The part of `catalogue.interface.Transaction` about archives."""

    async def add_archive(self, new: Archive) -> None:
        values = {"id": new.id, "created_at": new.created_at, "expires_at": new.expires_at, "name": new.name}
        await self._writer.change(sa.insert(archive).values(**values, state="making", **asdict(new.layout)))

    async def add_members(self, archive_id: str, members: Sequence[Member]) -> None:
        values = [
            {
                "archive_id": archive_id,
                **asdict(member.entry),
                "asset_id": member.asset_id,
                "blob_id": member.blob_id,
            }
            for member in members
        ]
        if values and await self._writer.change(_ADD_MEMBER, values) != len(values):
            raise Gone(f"an asset of archive {archive_id} is gone, or not as it was")

    async def finish_archive(self, archive_id: str) -> None:
        making = sa.update(archive).where(archive.c.id == archive_id, archive.c.state == "making")
        if await self._writer.change(making.values(state="ready")) != 1:
            raise Gone(f"archive {archive_id} ended while it was made")

    async def drop_archive(self, archive_id: str, limit: int) -> bool:
        held = archive_entry.c.archive_id == archive_id
        rest = sa.select(archive_entry.c.start).where(held).order_by(archive_entry.c.start)
        dropped = sa.delete(archive_entry).where(held)
        if left := await self._writer.rows(rest.offset(limit).limit(1)):
            await self._writer.change(dropped.where(archive_entry.c.start < left[0].start))
            await self._writer.change(
                sa.update(archive).where(archive.c.id == archive_id).values(state="ended")
            )
            return False
        await self._writer.change(dropped)
        await self._writer.change(sa.delete(archive).where(archive.c.id == archive_id))
        return True

    async def _end_archives(self, asset_id: str) -> None:
        """Of which this asset's bytes are a part."""
        await self._writer.change(_holding(asset_id).values(state="ended"))

    async def _end_archives_at(self, asset_id: str, expires_at: float) -> None:
        """None of which lives longer than its assets."""
        longer = _holding(asset_id).where(archive.c.expires_at > expires_at)
        await self._writer.change(longer.values(expires_at=expires_at))


def _holding(asset_id: str) -> sa.Update:
    holding = sa.select(archive_entry.c.archive_id).where(archive_entry.c.asset_id == asset_id)
    return sa.update(archive).where(archive.c.id.in_(holding))


def _member_of(row: Any) -> Member:
    # By position: looking the columns up by name would cost as much as all else that a small file needs.
    *entry, asset_id, blob_id = row
    return Member(Entry(*entry), asset_id, blob_id)
