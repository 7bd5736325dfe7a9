"""Prove that rows and bytes agree; put right what can be put right."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from mediasvc.catalogue.interface import BlobRecord, Catalogue, Gone, Runs
from mediasvc.core.errors import StoreFault, StoreUnavailable
from mediasvc.core.task import NewTask, Task
from mediasvc.ingest.keep import clear_intent
from mediasvc.store.interface import BlobMissing, BlobStore

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is missing_blob, wrong_size, wrong_hash, unreadable_blob, ownerless_blob, unfinished_blob or
    stuck_task."""

    kind: str
    id: str  # of the blob or the task
    detail: str
    asset_id: str | None = None


class Fsck:
    """Looks at everything once. Beside a running server only what stays wrong on a second look is a finding."""

    def __init__(self, store: BlobStore, catalogue: Catalogue, runs: Runs) -> None:
        self._store = store
        self._catalogue = catalogue
        self._runs = runs

    async def findings(self, *, deep: bool = False) -> AsyncIterator[Finding]:
        async for finding in self._bytes_without_rows():
            yield finding
        async for finding in self._rows_without_bytes(deep=deep):
            yield finding
        for task in await self._stuck():
            yield Finding("stuck_task", task.id, f"task {task.kind} runs under no dispatcher", task.asset_id)

    async def _stuck(self) -> list[Task]:
        """A server may start or stop while we ask, so the dead are asked after once more."""
        suspects = {task.id for task in await self._catalogue.outbox.stuck(self._living())}
        again = await self._catalogue.outbox.stuck(self._living()) if suspects else ()
        return [task for task in again if task.id in suspects]

    def _living(self) -> list[str]:
        return [run for run in self._runs.known() if self._runs.alive(run)]

    async def _rows_without_bytes(self, *, deep: bool) -> AsyncIterator[Finding]:
        after = ""
        while page := await self._catalogue.blobs(after, _PAGE):
            for record in page:
                problem = None if record.doomed else await self._look(record, deep=deep)
                if problem and await self._still_owned(record.blob.id):
                    yield Finding(problem[0], record.blob.id, problem[1], record.asset_id)
            after = page[-1].blob.id

    async def _look(self, record: BlobRecord, *, deep: bool) -> tuple[str, str] | None:
        blob, what = record.blob, f"rendition {record.preset}" if record.preset else "original"
        try:
            size = (await self._store.stat(blob.id)).size
            if size != blob.size:
                return "wrong_size", f"the {what} has {size} bytes at rest, not {blob.size}"
            if deep and (found := await self._hash(blob.id)) != blob.sha256:
                return "wrong_hash", f"the {what} has SHA-256 {found} at rest, not {blob.sha256}"
        except BlobMissing:
            return "missing_blob", f"the {what} has no bytes in the store"
        except (StoreUnavailable, StoreFault) as error:
            await self._store.check()  # where the store itself is away, nothing can be said
            return "unreadable_blob", f"the {what} cannot be read: {error.detail}"
        return None

    async def _hash(self, blob_id: str) -> str:
        sha256 = hashlib.sha256()
        async with self._store.open(blob_id) as chunks:
            async for chunk in chunks:
                sha256.update(chunk)
        return sha256.hexdigest()

    async def _still_owned(self, blob_id: str) -> bool:
        record = await self._catalogue.blob(blob_id)
        return record is not None and not record.doomed

    async def _bytes_without_rows(self) -> AsyncIterator[Finding]:
        unfinished = [
            found async for found in self._store.scan_unfinished() if not await self._accounted(found)
        ]
        if unfinished:  # an upload that ended between the two looks is there no more
            there = {blob_id async for blob_id in self._store.scan_unfinished()}
            for blob_id in sorted(there.intersection(unfinished)):
                yield Finding("unfinished_blob", blob_id, "an upload that no row and no live server knows of")
        async for stored in self._store.scan():
            if not await self._accounted(stored.blob_id) and await self._exists(stored.blob_id):
                yield Finding(
                    "ownerless_blob", stored.blob_id, f"{stored.size} bytes that belong to no asset"
                )

    async def _accounted(self, blob_id: str) -> bool:
        """Whether a row or a live run answers for these bytes. Rows are looked at again after the intents: an
        upload that ends in between has moved from the second to the first."""
        if await self._catalogue.blob(blob_id) is not None:
            return True
        if await self._catalogue.upload_of_blob(blob_id) is not None:
            return True
        for intent in await self._catalogue.intents():
            if intent.blob_id == blob_id and self._runs.alive(intent.run):
                return True
        return await self._catalogue.blob(blob_id) is not None

    async def _exists(self, blob_id: str) -> bool:
        try:
            await self._store.stat(blob_id)
        except BlobMissing:
            return False
        return True

    async def repair(self, finding: Finding) -> str:
        """Put one finding right as far as that is possible; says what was done."""
        match finding.kind:
            case "ownerless_blob" | "unfinished_blob":
                if await clear_intent(self._store, self._catalogue, finding.id):
                    return "removed"
                if not await self._catalogue.blobs("", 1):
                    # More likely than a store full of leavings is a catalogue that belongs to another store.
                    return "left: the catalogue knows of no blob at all, and may not be that of this store"
                await self._store.discard(finding.id)
                return "removed"
            case "stuck_task":
                for run in await self._catalogue.outbox.runs():
                    if not self._runs.alive(run):
                        await self._catalogue.outbox.reclaim(run)
                return "queued again"
            case _:
                return await self._repair_blob(finding)

    async def _repair_blob(self, finding: Finding) -> str:
        record = await self._catalogue.blob(finding.id)
        if record is None:
            return "gone meanwhile"
        try:
            async with self._catalogue.transaction() as tx:
                if not record.preset:
                    await tx.set_asset_state(record.asset_id, "damaged")
                    return "asset marked damaged; upload it again under the same key to heal it"
                asset = await tx.asset(record.asset_id)
                await tx.doom_blob(finding.id)
                if asset:
                    await tx.enqueue(NewTask("analyse", asset.id, {"version": asset.version}))
                return "rendition queued again"
        except Gone:
            return "gone meanwhile"
