"""Everything that changes the catalogue, once for every adapter (tasks at work: see `outbox`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mediasvc.catalogue import rows, statements
from mediasvc.catalogue.interface import Gone, Intent
from mediasvc.catalogue.links import LinkWrites
from mediasvc.catalogue.statements import Writer
from mediasvc.catalogue.tables import asset, blob, bucket, intent, key, link, living, task
from mediasvc.catalogue.uploads import UploadWrites
from mediasvc.core.access import Key
from mediasvc.core.asset import Asset, Rendition, State
from mediasvc.core.bucket import Bucket, Usage
from mediasvc.core.errors import Conflict
from mediasvc.core.event import Event
from mediasvc.core.ids import new_task_id
from mediasvc.core.task import NewTask

# Bytes that are doomed go whatever comes after them, and so does an upload that will become the asset.
_OF_NO_VERSION = ("purge", "join")


class CoreTransaction(LinkWrites, UploadWrites):
    """Implements `catalogue.interface.Transaction` over a transaction under way."""

    def __init__(self, writer: Writer, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock
        self.events: list[Event] = []  # what happened, if this is committed

    async def open_intent(self, new: Intent) -> None:
        if new.bucket is not None and await self.bucket(new.bucket) is None:
            raise Gone(f"bucket {new.bucket} is gone")
        await self._writer.change(
            sa.insert(intent).values(
                blob_id=new.blob_id,
                run=new.run,
                bucket=new.bucket,
                reserved_bytes=new.reserved_bytes,
                reserved_assets=new.reserved_assets,
            )
        )

    async def close_intent(self, blob_id: str) -> None:
        await self._exactly_one(
            sa.delete(intent).where(intent.c.blob_id == blob_id, intent.c.condemned == sa.false()),
            f"the intent of blob {blob_id}",
        )

    async def condemn_intent(self, blob_id: str) -> None:
        await self._exactly_one(
            sa.update(intent).where(intent.c.blob_id == blob_id).values(condemned=True),
            f"the intent of blob {blob_id}",
        )

    async def drop_intent(self, blob_id: str) -> None:
        await self._writer.change(sa.delete(intent).where(intent.c.blob_id == blob_id))

    async def bucket(self, name: str) -> Bucket | None:
        found = await self._writer.rows(statements.BUCKET.params(name=name))
        return rows.bucket_of(found[0]) if found else None

    async def usage(self, name: str) -> Usage:
        found = await self._writer.rows(statements.USAGE.params(name=name))
        return rows.usage_of(found[0]) if found else Usage()

    async def add_bucket(self, new: Bucket) -> None:
        values = {"name": new.name, "created_at": new.created_at, **rows.policy_columns(new)}
        await self._insert(bucket, values, f"bucket {new.name} exists")

    async def save_bucket(self, policy: Bucket) -> None:
        await self._exactly_one(
            sa.update(bucket).where(bucket.c.name == policy.name).values(**rows.policy_columns(policy)),
            f"bucket {policy.name}",
        )

    async def delete_bucket(self, name: str) -> None:
        alive = sa.or_(asset.c.expires_at.is_(None), asset.c.expires_at > self._clock())
        held = sa.select(asset.c.id).where(asset.c.bucket == name, alive).limit(1)
        under_way = sa.select(intent.c.blob_id).where(
            intent.c.bucket == name, intent.c.condemned == sa.false()
        )
        if await self._writer.rows(held):
            raise Conflict(f"bucket {name} holds assets; delete them first")
        if await self._writer.rows(under_way.limit(1)) or await self._uploading_into(name):
            raise Conflict(f"bucket {name} has uploads under way; wait for them to end")
        # What has expired nobody can see any more, so it does not stand in the way.
        for row in await self._writer.rows(sa.select(asset.c.id).where(asset.c.bucket == name)):
            await self.delete_asset(row.id)
        # A bucket made anew under this name is not what they were made for.
        await self._drop_tokens_of(name)
        await self._exactly_one(sa.delete(bucket).where(bucket.c.name == name), f"bucket {name}")

    async def asset(self, asset_id: str) -> Asset | None:
        return self._first(await self._writer.rows(statements.ANY_ASSET.params(asset_id=asset_id)))

    async def asset_at(self, bucket: str, key: str) -> Asset | None:
        return self._first(await self._writer.rows(statements.ANY_ASSET_AT.params(bucket=bucket, key=key)))

    async def add_asset(self, new: Asset) -> None:
        await self._count(new.bucket, added_bytes=new.blob.size, added_assets=1)
        values = {
            "id": new.id,
            "bucket": new.bucket,
            "key": new.key,
            "created_at": new.created_at,
            **rows.version_columns(new),
        }
        await self._insert(asset, values, f"{new.bucket} already has {new.key!r}")
        await self._insert(blob, rows.original_columns(new), f"blob {new.blob.id} is already known")
        self.events.append(Event(new.id, new.bucket, new.key))

    async def replace_asset(self, new: Asset) -> None:
        await self._exactly_one(
            sa.update(asset)
            .where(asset.c.id == new.id, asset.c.version == new.version - 1)
            .values(**rows.version_columns(new)),
            f"version {new.version - 1} of asset {new.id}",
        )
        replaced = await self._doom(new.id)
        await self._count(new.bucket, added_bytes=new.blob.size - replaced)
        await self._insert(blob, rows.original_columns(new), f"blob {new.blob.id} is already known")
        # The timeline begins anew with a version: an old failure says nothing about the new bytes.
        ended = task.c.state.not_in(("waiting", "running"))
        await self._writer.change(sa.delete(task).where(task.c.asset_id == new.id, ended))
        await self._writer.change(
            sa.update(task)
            .where(task.c.asset_id == new.id, task.c.state == "waiting", task.c.kind.not_in(_OF_NO_VERSION))
            .values(state="cancelled", finished_at=self._clock(), detail="the asset was replaced")
        )
        await self.enqueue(NewTask("purge", new.id))
        self.events.append(Event(new.id, new.bucket, new.key))

    async def save_asset(self, changed: Asset) -> None:
        await self._change_asset(
            sa.update(asset).where(asset.c.id == changed.id).values(**rows.described(changed)),
            f"asset {changed.id}",
        )
        if changed.expires_at is not None:
            await self._end_archives_at(changed.id, changed.expires_at)

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
        await self._change_asset(
            sa.update(asset)
            .where(asset.c.id == asset_id, asset.c.version == version)
            .values(
                state=state, facts=dict(facts), placeholder=None if placeholder is None else dict(placeholder)
            ),
            f"version {version} of asset {asset_id}",
        )
        # Looking again replaces what the last look made; the sweep finds what was doomed.
        await self._writer.change(
            sa.update(blob)
            .where(blob.c.asset_id == asset_id, blob.c.version == version, blob.c.preset != "", living)
            .values(doomed=True)
        )
        ids = [rendition.blob.id for rendition in renditions]
        await self._writer.change(sa.delete(blob).where(blob.c.id.in_(ids), blob.c.asset_id == asset_id))
        for rendition in renditions:
            columns = rows.rendition_columns(asset_id, version, rendition)
            await self._insert(blob, columns, f"blob {rendition.blob.id} is already known")

    async def delete_asset(self, asset_id: str) -> None:
        going = sa.delete(asset).where(asset.c.id == asset_id).returning(asset.c.bucket, asset.c.key)
        gone = await self._writer.rows(going)
        if not gone:
            raise Gone(f"asset {asset_id} is gone")
        await self._count(gone[0].bucket, added_bytes=-await self._doom(asset_id), added_assets=-1)
        await self._writer.change(sa.delete(task).where(task.c.asset_id == asset_id, task.c.kind != "join"))
        await self._writer.change(sa.delete(link).where(link.c.asset_id == asset_id))
        await self.enqueue(NewTask("purge", asset_id))
        self.events.append(Event(asset_id, gone[0].bucket, gone[0].key, deleted=True))

    async def doom_blob(self, blob_id: str) -> None:
        await self._exactly_one(
            sa.update(blob).where(blob.c.id == blob_id).values(doomed=True), f"blob {blob_id}"
        )

    async def forget_blobs(self, blob_ids: Sequence[str]) -> None:
        await self._writer.change(sa.delete(blob).where(blob.c.id.in_(blob_ids), ~living))

    async def set_asset_state(self, asset_id: str, state: State) -> None:
        await self._change_asset(
            sa.update(asset).where(asset.c.id == asset_id).values(state=state), f"asset {asset_id}"
        )

    async def enqueue(self, new: NewTask) -> str:
        task_id, now = new_task_id(), self._clock()
        await self._writer.change(
            sa.insert(task).values(
                id=task_id,
                kind=new.kind,
                asset_id=new.asset_id,
                payload=dict(new.payload),
                state=new.state,
                not_before=now,
                created_at=now,
                finished_at=None if new.state == "waiting" else now,
                detail=new.detail,
            )
        )
        return task_id

    async def add_key(self, new: Key) -> None:
        await self._insert(key, rows.key_columns(new), f"key {new.id} exists")

    async def revoke_key(self, key_id: str, now: float) -> None:
        await self._exactly_one(
            sa.update(key).where(key.c.id == key_id, statements.live(now)).values(revoked_at=now),
            f"key {key_id}",
        )

    async def _doom(self, asset_id: str) -> int:
        """Doom every living blob of an asset, and end the archives they are in; gives the size of its original."""
        await self._end_archives(asset_id)
        doomed = sa.update(blob).where(blob.c.asset_id == asset_id, living).values(doomed=True)
        gone = await self._writer.rows(doomed.returning(blob.c.preset, blob.c.size))
        return sum(row.size for row in gone if row.preset == "")

    async def _count(self, name: str, *, added_bytes: int, added_assets: int = 0) -> None:
        counted = sa.update(bucket).where(bucket.c.name == name)
        await self._exactly_one(
            counted.values(
                used_bytes=bucket.c.used_bytes + added_bytes, used_assets=bucket.c.used_assets + added_assets
            ),
            f"bucket {name}",
        )

    async def _change_asset(self, statement: sa.Update, what: str) -> None:
        changed = await self._writer.rows(statement.returning(asset.c.id, asset.c.bucket, asset.c.key))
        if len(changed) != 1:
            raise Gone(f"{what} is gone, or not as it was")
        self.events.append(Event(changed[0].id, changed[0].bucket, changed[0].key))

    @staticmethod
    def _first(found: Sequence[sa.Row[Any]]) -> Asset | None:
        return next(iter(rows.assets_of(found)), None)
