"""Uploads for the contract suites, and the steps they go through: each a transaction of its own."""

from collections.abc import Sequence
from typing import Any

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.bucket import Bucket
from mediasvc.core.ids import new_asset_id, new_blob_id, new_upload_id
from mediasvc.core.upload import Upload, UploadState

NOW = 1_700_000_000.0  # as the clock of these catalogues has it
UNDER_WAY: Sequence[UploadState] = ("open", "completing")
ENDED: Sequence[UploadState] = ("complete", "failed")


def an_upload(**values: Any) -> Upload:
    given = {"owner": "key_a", "expires_at": NOW + 60, "bucket": "media", "key": "k", "length": 100, **values}
    given = {"blob_id": new_blob_id(), "asset_id": new_asset_id(), **given}
    return Upload(new_upload_id(), created_at=1.5, **given)


async def add(catalogue: Catalogue, *uploads: Upload) -> None:
    async with catalogue.transaction() as tx:
        for bucket in {upload.bucket for upload in uploads} - {""}:
            if await tx.bucket(bucket) is None:
                await tx.add_bucket(Bucket(bucket, 1.0))
        for upload in uploads:
            await tx.add_upload(upload)


async def added(catalogue: Catalogue, **values: Any) -> Upload:
    upload = an_upload(**values)
    await add(catalogue, upload)
    return upload


async def claim(catalogue: Catalogue, upload: Upload, run: str = "run_a") -> Upload:
    async with catalogue.transaction() as tx:
        return await tx.claim_upload(upload.id, run=run, epoch=upload.epoch)


async def save(catalogue: Catalogue, changed: Upload, at_offset: int) -> None:
    async with catalogue.transaction() as tx:
        await tx.save_upload(changed, at_offset=at_offset, epoch=changed.epoch)


async def end(catalogue: Catalogue, upload: Upload, *, expires_at: float = NOW + 60, **values: Any) -> None:
    async with catalogue.transaction() as tx:
        await tx.end_upload(
            upload.id, epoch=upload.epoch, expires_at=expires_at, **{"state": "complete", **values}
        )
