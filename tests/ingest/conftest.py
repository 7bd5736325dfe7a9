"""A store, a catalogue and runs as a server has them, and what it would do with them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mediasvc.catalogue.interface import Intent
from mediasvc.catalogue.runs import FileRuns
from mediasvc.catalogue.sqlite import SqliteCatalogue
from mediasvc.core.asset import Asset, Blob, Rendition, State
from mediasvc.core.bucket import Bucket
from mediasvc.core.ids import new_asset_id, new_blob_id
from mediasvc.ingest.fsck import Finding, Fsck
from mediasvc.ingest.keep import Keeper
from mediasvc.ingest.sweep import Swept, sweep
from mediasvc.store.digests import Digests
from mediasvc.store.local import LocalStore


async def body(content: bytes) -> AsyncIterator[bytes]:
    yield content


@dataclass
class Place:
    """`now` is the clock of all of it."""

    store: LocalStore
    catalogue: SqliteCatalogue
    runs: FileRuns
    folder: Path
    now: float = 1_700_000_000.0

    def clock(self) -> float:
        return self.now

    def keeper(self) -> Keeper:
        """Of a run that begins now."""
        return Keeper(self.store, self.catalogue, self.runs.begin())

    def die(self, run: str) -> None:
        """What is left of a run whose process was killed: its file, without a lock."""
        self.runs.end(run)
        (self.folder / "runs" / run).touch()

    async def blob(self, content: bytes = b"content", *, run: str | None = None) -> Blob:
        """Bytes at rest: with the intent of a run, or with nobody to answer for them."""
        blob_id, digests = new_blob_id(), Digests()
        if run is not None:
            async with self.catalogue.transaction() as tx:
                await tx.open_intent(Intent(blob_id, run))
        await self.store.put(blob_id, body(content), digests)
        return Blob(blob_id, digests.size, digests.sha256, digests.crc32)

    async def asset(
        self,
        key: str,
        content: bytes = b"content",
        *,
        expires_at: float | None = None,
        state: State = "ready",
        media_type: str = "text/plain",
    ) -> Asset:
        asset = Asset(
            id=new_asset_id(),
            bucket="media",
            key=key,
            name=key,
            blob=await self.blob(content),
            media_type=media_type,
            state=state,
            created_at=self.now,
            modified_at=int(self.now),
            expires_at=expires_at,
        )
        async with self.catalogue.transaction() as tx:
            await tx.add_asset(asset)
        return asset

    async def rendition(self, asset: Asset, preset: str = "thumb") -> Rendition:
        made = Rendition(preset, await self.blob(b"small"), "image/webp", 10, 10)
        async with self.catalogue.transaction() as tx:
            await tx.save_findings(
                asset.id, asset.version, state="ready", facts={}, placeholder=None, renditions=[made]
            )
        return made

    async def sweep(self, *, own: Keeper | None = None) -> Swept:
        mine = {"own_run": own.run, "live": own.live} if own else {}
        return await sweep(self.store, self.catalogue, self.runs, clock=self.clock, **mine)  # type: ignore[arg-type]

    def fsck(self) -> Fsck:
        return Fsck(self.store, self.catalogue, self.runs)

    async def findings(self, *, deep: bool = False) -> list[Finding]:
        return [finding async for finding in self.fsck().findings(deep=deep)]

    async def kinds(self, *, deep: bool = False) -> list[str]:
        return sorted(finding.kind for finding in await self.findings(deep=deep))

    async def there(self, blob: Blob) -> bool:
        return blob.id in [stored.blob_id async for stored in self.store.scan()]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    store, runs = LocalStore(tmp_path / "blobs"), FileRuns(tmp_path / "runs")
    place = Place(store, SqliteCatalogue(tmp_path / "catalogue.db"), runs, tmp_path)
    place.catalogue = SqliteCatalogue(tmp_path / "catalogue.db", clock=place.clock)
    await place.catalogue.start()
    await store.start()
    async with place.catalogue.transaction() as tx:
        await tx.add_bucket(Bucket("media", place.now))
    yield place
    await store.close()
    await place.catalogue.close()
