"""The questions asked of the catalogue, once for every adapter, and the door they go through."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from mediasvc.catalogue.tables import (
    asset,
    blob,
    bucket,
    intent,
    key,
    link,
    living,
    task,
    under_way,
    upload,
)


class Reader(Protocol):
    """Runs one statement by itself and gives all its rows."""

    async def rows(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]: ...


class Writer(Reader, Protocol):
    """A transaction under way."""

    async def change(self, statement: sa.Executable, values: Sequence[Mapping[str, Any]] = ()) -> int:
        """Run a statement that changes rows, once or once for each of `values`; gives how many rows."""


now: sa.BindParameter[float] = sa.bindparam("now", type_=sa.Double())
unexpired = sa.or_(asset.c.expires_at.is_(None), asset.c.expires_at > now)


def live(now: float | sa.BindParameter[float]) -> sa.ColumnElement[bool]:
    """A key that opens something."""
    unexpired = sa.or_(key.c.expires_at.is_(None), key.c.expires_at > now)
    return sa.and_(key.c.revoked_at.is_(None), unexpired)


def _tasks_in(*states: str) -> sa.ScalarSelect[int]:
    return (
        sa.select(sa.func.count())
        .select_from(task)
        .where(task.c.asset_id == asset.c.id, task.c.state.in_([sa.literal_column(f"'{s}'") for s in states]))
        .correlate(asset)
        .scalar_subquery()
    )


# One statement, so one snapshot: an asset with the blobs of its version, a row for each blob.
ASSETS = sa.select(
    *asset.c,
    _tasks_in("waiting", "running").label("tasks_pending"),
    _tasks_in("failed").label("tasks_failed"),
    *(column.label(f"blob_{column.name}") for column in blob.c),
).join_from(asset, blob, sa.and_(blob.c.asset_id == asset.c.id, blob.c.version == asset.c.version, living))
ANY_ASSET = ASSETS.where(asset.c.id == sa.bindparam("asset_id"))
ANY_ASSET_AT = ASSETS.where(asset.c.bucket == sa.bindparam("bucket"), asset.c.key == sa.bindparam("key"))
ASSET = ANY_ASSET.where(unexpired)
ASSET_AT = ANY_ASSET_AT.where(unexpired)

_SOURCES = (
    sa.select(
        asset.c.id,
        asset.c.bucket,
        asset.c.key,
        asset.c.name,
        bucket.c.public,
        asset.c.version,
        asset.c.modified_at,
        blob.c.id.label("blob_id"),
        blob.c.size,
        blob.c.sha256,
        blob.c.media_type,
        asset.c.expires_at,
        bucket.c.cors_origins,
        bucket.c.download_rate,
        asset.c.link_epoch,
    )
    .join_from(asset, blob, sa.and_(blob.c.asset_id == asset.c.id, blob.c.version == asset.c.version, living))
    .join(bucket, bucket.c.name == asset.c.bucket)
    .where(blob.c.preset == sa.bindparam("preset"))
)
# Sources and keys come with the time they end, for the reader to judge: so an adapter may remember them.
SOURCE = _SOURCES.where(asset.c.id == sa.bindparam("asset_id"))
SOURCE_AT = _SOURCES.where(asset.c.bucket == sa.bindparam("bucket"), asset.c.key == sa.bindparam("key"))

_same = blob.alias("same")
ASSETS_WITH = ASSETS.where(
    asset.c.id.in_(
        sa.select(_same.c.asset_id)
        .join_from(_same, asset, sa.and_(asset.c.id == _same.c.asset_id, asset.c.version == _same.c.version))
        .where(
            _same.c.sha256 == sa.bindparam("sha256"),
            _same.c.size == sa.bindparam("size"),
            _same.c.preset == "",
            _same.c.doomed == sa.false(),
            unexpired,
        )
        .order_by(asset.c.id)
        .limit(sa.bindparam("limit"))
        .correlate(None)
    )
).order_by(asset.c.id)

BUCKET = sa.select(bucket).where(bucket.c.name == sa.bindparam("name"))
KEY = sa.select(key).where(key.c.id == sa.bindparam("key_id"))
KEY_BY_SECRET = sa.select(key).where(
    key.c.secret_sha256 == sa.bindparam("secret_sha256"), key.c.revoked_at.is_(None)
)
TASKS_OF = (
    sa.select(task).where(task.c.asset_id == sa.bindparam("asset_id")).order_by(task.c.created_at, task.c.id)
)
LINK = sa.select(link).where(link.c.id == sa.bindparam("link_id"))
BLOB = sa.select(blob).where(blob.c.id == sa.bindparam("blob_id"))


def _sum(amount: sa.ColumnElement[Any], *within: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
    return (
        sa.select(sa.func.coalesce(sa.func.sum(amount), 0)).where(*within).correlate(bucket).scalar_subquery()
    )


_intended = (intent.c.bucket == bucket.c.name, intent.c.condemned == sa.false())
_uploading = (upload.c.bucket == bucket.c.name, under_way)
_replacing = sa.exists(sa.select(asset.c.id).where(asset.c.id == upload.c.asset_id))
_expected = sa.func.coalesce(upload.c.length, upload.c.offset)
USAGE = sa.select(
    bucket.c.used_bytes,
    bucket.c.used_assets,
    (_sum(intent.c.reserved_bytes, *_intended) + _sum(_expected, *_uploading)).label("reserved_bytes"),
    (_sum(intent.c.reserved_assets, *_intended) + _sum(sa.case((_replacing, 0), else_=1), *_uploading)).label(
        "reserved_assets"
    ),
).where(bucket.c.name == sa.bindparam("name"))


def _counting(counted: sa.Table, **more: sa.ColumnElement[int]) -> sa.Update:
    return (
        sa.update(counted)
        .where(counted.c.id == sa.bindparam("counted"))
        .values(
            downloads=counted.c.downloads + sa.bindparam("count"),
            downloaded_bytes=counted.c.downloaded_bytes + sa.bindparam("sent"),
            **more,
        )
    )


COUNT_ASSET = _counting(asset)
COUNT_LINK = _counting(link, begun=link.c.begun - sa.bindparam("returned"))
