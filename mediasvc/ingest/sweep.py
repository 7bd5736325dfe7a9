"""Uploads nobody finished, blobs nobody owns, assets whose time is over, tasks nobody works on."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue, Gone, Runs
from mediasvc.core.errors import StoreFault, Superseded
from mediasvc.core.upload import KEPT_AFTER_END
from mediasvc.ingest.keep import clear_intent
from mediasvc.ingest.purge import purge
from mediasvc.store.interface import BlobStore

_PAGE = 500
_ENTRIES = 2000  # of an archive, deleted at once


@dataclass(slots=True)
class Swept:
    """How many of each kind a sweep removed or put right."""

    uploads: int = 0
    expired: int = 0
    blobs: int = 0
    tasks: int = 0
    links: int = 0
    archives: int = 0

    def __str__(self) -> str:
        return (
            f"{self.uploads} unfinished uploads and {self.blobs} ownerless blobs removed, "
            f"{self.expired} expired assets deleted, {self.tasks} interrupted tasks queued again"
        )


async def sweep(
    store: BlobStore,
    catalogue: Catalogue,
    runs: Runs,
    *,
    clock: Callable[[], float],
    own_run: str | None = None,
    live: Collection[str] = frozenset(),
) -> Swept:
    """Remove what no acknowledgement speaks for. Safe beside a running server and another sweep.

    What belongs to a dead run is stale at once; what belongs to a live one never, but for intents of our own
    run (`own_run`) that are not among the blob ids somebody works on (`live`). Raises StoreUnavailable where
    bytes cannot be removed now, StoreFault at its end where some cannot; the next sweep goes on.
    """
    swept = Swept()
    dead = [run for run in runs.known() if not runs.alive(run)]
    for run in await catalogue.outbox.runs():
        if not runs.alive(run):
            swept.tasks += await catalogue.outbox.reclaim(run)
    while expired := await catalogue.expired(clock(), _PAGE):
        for asset_id in expired:
            try:
                async with catalogue.transaction() as tx:
                    await tx.delete_asset(asset_id)
                swept.expired += 1
            except Gone:  # somebody else deleted it
                continue
    while over := await catalogue.expired_links(clock(), _PAGE):
        async with catalogue.transaction() as tx:
            swept.links += await tx.drop_links(over)
    while done := await catalogue.stale_archives(clock(), _PAGE):
        for archive_id in done:
            await _drop_archive(catalogue, archive_id)
        swept.archives += len(done)
    while spent := await catalogue.upload_tokens_over(clock(), _PAGE):
        async with catalogue.transaction() as tx:
            await tx.drop_upload_tokens(spent)
    faults: dict[str, StoreFault] = {}
    looked_at: set[str] = set()
    while late := [one for one in await catalogue.stale_uploads(clock(), _PAGE) if one not in looked_at]:
        for upload_id in late:
            looked_at.add(upload_id)
            try:
                swept.uploads += await _sweep_upload(store, catalogue, upload_id, clock())
            except (Gone, Superseded):  # somebody goes on with it after all
                continue
            except StoreFault as fault:
                faults[upload_id] = fault
    for intent in await catalogue.intents():
        stale = intent.blob_id not in live if intent.run == own_run else not runs.alive(intent.run)
        try:
            if stale and await clear_intent(store, catalogue, intent.blob_id):
                swept.uploads += 1
        except StoreFault as fault:
            faults[intent.blob_id] = fault
    while unpurged := [one for one in await _unpurged(catalogue, own_run) if one not in faults]:
        for asset_id in unpurged:
            try:
                swept.blobs += await purge(store, catalogue, asset_id)
            except StoreFault as fault:
                faults[asset_id] = fault
    for kind, count in asdict(swept).items():
        metrics.swept.labels(kind).inc(count)
    if faults:
        raise next(iter(faults.values()))
    for run in dead:
        runs.end(run)
    return swept


async def _sweep_upload(store: BlobStore, catalogue: Catalogue, upload_id: str, now: float) -> int:
    """End an upload whose time is over; forget one that ended a while ago. Gives how many were ended."""
    upload = await catalogue.upload(upload_id)
    if upload is None or upload.state in ("complete", "failed"):
        async with catalogue.transaction() as tx:
            await tx.drop_uploads([upload_id])
        return 0
    # Whoever still writes to it, or makes an asset of it, finds out when it wants to save.
    async with catalogue.transaction() as tx:
        upload = await tx.claim_upload(upload_id, run=upload.run, epoch=upload.epoch)
    await store.discard(upload.blob_id)
    async with catalogue.transaction() as tx:
        await tx.end_upload(
            upload_id,
            epoch=upload.epoch,
            state="failed",
            detail="expired",
            expires_at=now + KEPT_AFTER_END,
        )
    return 1


async def _drop_archive(catalogue: Catalogue, archive_id: str) -> None:
    """Part by part: other writers must not wait for a hundred thousand entries."""
    dropped = False
    while not dropped:
        async with catalogue.transaction() as tx:
            dropped = await tx.drop_archive(archive_id, _ENTRIES)


async def _unpurged(catalogue: Catalogue, own_run: str | None) -> Collection[str]:
    """Assets whose doomed bytes nobody is coming for; on the command line, where no dispatcher may run, all."""
    if own_run is not None:
        return await catalogue.unpurged(_PAGE)
    return {record.asset_id for record in await catalogue.doomed_blobs(limit=_PAGE)}
