"""Rows into values and back. A row is whatever has the columns as attributes."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any

from mediasvc.catalogue.interface import BlobRecord, Intent
from mediasvc.core.access import Key
from mediasvc.core.asset import Asset, Blob, Rendition
from mediasvc.core.bucket import Bucket, Usage
from mediasvc.core.link import Link
from mediasvc.core.task import Task


def bucket_of(row: Any) -> Bucket:
    return Bucket(
        row.name,
        row.created_at,
        public=row.public,
        max_asset_size=row.max_asset_size,
        allowed_types=tuple(row.allowed_types),
        default_ttl=row.default_ttl,
        quota_bytes=row.quota_bytes,
        quota_assets=row.quota_assets,
        cors_origins=tuple(row.cors_origins),
        download_rate=row.download_rate,
    )


def policy_columns(bucket: Bucket) -> Mapping[str, Any]:
    return {
        "public": bucket.public,
        "max_asset_size": bucket.max_asset_size,
        "allowed_types": list(bucket.allowed_types),
        "default_ttl": bucket.default_ttl,
        "quota_bytes": bucket.quota_bytes,
        "quota_assets": bucket.quota_assets,
        "cors_origins": list(bucket.cors_origins),
        "download_rate": bucket.download_rate,
    }


def usage_of(row: Any) -> Usage:
    return Usage(row.used_bytes, row.used_assets, int(row.reserved_bytes), int(row.reserved_assets))


def key_of(row: Any) -> Key:
    return Key(
        row.id,
        row.secret_sha256,
        row.hint,
        frozenset(row.scopes),
        row.created_at,
        row.name,
        row.bucket,
        row.prefix,
        row.expires_at,
        row.max_asset_size,
        row.revoked_at,
    )


def key_columns(key: Key) -> Mapping[str, Any]:
    return {
        "id": key.id,
        "secret_sha256": key.secret_sha256,
        "hint": key.hint,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "name": key.name,
        "bucket": key.bucket,
        "prefix": key.prefix,
        "expires_at": key.expires_at,
        "max_asset_size": key.max_asset_size,
        "revoked_at": key.revoked_at,
    }


def assets_of(rows: Iterable[Any]) -> list[Asset]:
    """Assets from rows of `statements.ASSETS`, the rows of one asset side by side."""
    found = (_asset_of(list(group)) for _, group in groupby(rows, key=attrgetter("id")))
    return [asset for asset in found if asset is not None]


def _asset_of(rows: list[Any]) -> Asset | None:
    blobs = {row.blob_preset: row for row in rows}
    original = blobs.pop("", None)
    if original is None:
        return None
    return Asset(
        id=original.id,
        bucket=original.bucket,
        key=original.key,
        name=original.name,
        blob=_blob_of(original),
        media_type=original.media_type,
        state=original.state,
        created_at=original.created_at,
        modified_at=original.modified_at,
        version=original.version,
        expires_at=original.expires_at,
        tags=tuple(original.tags),
        metadata=original.metadata,
        facts=original.facts,
        placeholder=original.placeholder,
        renditions={
            preset: Rendition(preset, _blob_of(row), row.blob_media_type, row.blob_width, row.blob_height)
            for preset, row in sorted(blobs.items())
        },
        tasks_pending=original.tasks_pending,
        tasks_failed=original.tasks_failed,
        downloads=original.downloads,
        downloaded_bytes=original.downloaded_bytes,
    )


def _blob_of(row: Any) -> Blob:
    return Blob(row.blob_id, row.blob_size, row.blob_sha256, row.blob_crc32)


def described(asset: Asset) -> Mapping[str, Any]:
    """What an uploader may say of an asset."""
    return {
        "name": asset.name,
        "tags": list(asset.tags),
        "metadata": dict(asset.metadata),
        "expires_at": asset.expires_at,
    }


def version_columns(asset: Asset) -> Mapping[str, Any]:
    """What comes with a version of an asset."""
    return {
        **described(asset),
        "media_type": asset.media_type,
        "state": asset.state,
        "version": asset.version,
        "modified_at": asset.modified_at,
        "facts": dict(asset.facts),
        "placeholder": None if asset.placeholder is None else dict(asset.placeholder),
    }


def original_columns(asset: Asset) -> Mapping[str, Any]:
    return _blob_columns(asset.blob, asset.id, asset.version, "", asset.media_type, 0, 0)


def rendition_columns(asset_id: str, version: int, rendition: Rendition) -> Mapping[str, Any]:
    return _blob_columns(
        rendition.blob,
        asset_id,
        version,
        rendition.preset,
        rendition.media_type,
        rendition.width,
        rendition.height,
    )


def _blob_columns(
    blob: Blob, asset_id: str, version: int, preset: str, media_type: str, width: int, height: int
) -> Mapping[str, Any]:
    return {
        "id": blob.id,
        "asset_id": asset_id,
        "version": version,
        "preset": preset,
        "media_type": media_type,
        "size": blob.size,
        "sha256": blob.sha256,
        "crc32": blob.crc32,
        "width": width,
        "height": height,
        "doomed": False,
    }


def record_of(row: Any) -> BlobRecord:
    return BlobRecord(Blob(row.id, row.size, row.sha256, row.crc32), row.asset_id, row.preset, row.doomed)


def task_of(row: Any) -> Task:
    return Task(
        row.id,
        row.kind,
        row.asset_id,
        row.payload,
        row.state,
        row.attempts,
        row.not_before,
        row.created_at,
        row.started_at,
        row.finished_at,
        row.run,
        row.detail,
    )


def link_of(row: Any) -> Link:
    return Link(
        row.id,
        row.asset_id,
        row.created_at,
        row.expires_at,
        row.url,
        row.max_downloads,
        row.begun,
        row.downloads,
        row.downloaded_bytes,
    )


def intent_of(row: Any) -> Intent:
    return Intent(row.blob_id, row.run, row.bucket, row.reserved_bytes, row.reserved_assets)
