"""The bytes of what was deleted or replaced follow their rows."""

from mediasvc.catalogue.interface import Catalogue
from mediasvc.store.interface import BlobStore


async def purge(store: BlobStore, catalogue: Catalogue, asset_id: str) -> int:
    """Delete the doomed blobs of an asset, bytes first, then their rows; gives how many. May be repeated."""
    purged = 0
    while doomed := await catalogue.doomed_blobs(asset_id):
        blob_ids = [record.blob.id for record in doomed]
        await store.delete(*blob_ids)
        async with catalogue.transaction() as tx:
            await tx.forget_blobs(blob_ids)
        purged += len(blob_ids)
    return purged
