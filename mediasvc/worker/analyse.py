"""The task `analyse`: what an original shows, and its renditions, from one decode in a decoder process."""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiofiles

from mediasvc import metrics
from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.asset import Asset, Rendition
from mediasvc.core.recipe import PRESETS
from mediasvc.core.task import Task
from mediasvc.derive.interface import Findings, Output, Undecodable
from mediasvc.derive.sandbox import Sandbox
from mediasvc.ingest.keep import Keeper
from mediasvc.store.interface import BlobMissing, BlobStore
from mediasvc.worker.dispatcher import Final

_CHUNK = 1 << 20
_LARGEST = 2 << 30  # bytes; no picture that a decoder could hold is larger


class Analyse:
    """Handler of `analyse` tasks; running one again gives the same."""

    def __init__(
        self, store: BlobStore, catalogue: Catalogue, keeper: Keeper, sandbox: Sandbox, scratch: Path
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._keeper = keeper
        self._sandbox = sandbox
        self._scratch = scratch

    async def __call__(self, task: Task) -> str:
        asset = await self._catalogue.asset(task.asset_id)
        if asset is None or asset.version != task.payload.get("version"):
            return "another version took its place"
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            try:
                return await self._look_at(asset, Path(folder))
            except Gone:
                return "another version took its place"

    async def _look_at(self, asset: Asset, folder: Path) -> str:
        try:
            findings = await self._derive(asset, folder)
        except (Undecodable, BlobMissing) as error:
            reason = str(error) if isinstance(error, Undecodable) else "its bytes are not in the store"
            await self._mark_damaged(asset)
            raise Final(reason) from error
        await self._save(asset, findings, await self._keep(findings.outputs))
        return findings.problem or f"made {', '.join(output.preset for output in findings.outputs)}"

    async def _derive(self, asset: Asset, folder: Path) -> Findings:
        if asset.blob.size > _LARGEST:
            raise Undecodable(f"{asset.blob.size} bytes are more than a decoder is given ({_LARGEST})")
        workspace = folder / "renditions"
        workspace.mkdir()
        if self._store.files:
            source = self._store.files.path(asset.blob.id)
            await self._store.stat(asset.blob.id)
        else:
            source = folder / "original"
            async with aiofiles.open(source, "wb") as copy, self._store.open(asset.blob.id) as chunks:
                async for chunk in chunks:
                    await copy.write(chunk)
        return await self._sandbox.derive(source, asset.media_type, PRESETS, workspace)

    async def _keep(self, outputs: Sequence[Output]) -> list[Rendition]:
        made: list[Rendition] = []
        try:
            for output in outputs:
                blob = await self._keeper.keep(_read(output.path), length=output.path.stat().st_size)
                made.append(Rendition(output.preset, blob, output.media_type, output.width, output.height))
        except BaseException:
            await self._abandon(made)
            raise
        return made

    async def _save(self, asset: Asset, findings: Findings, made: Sequence[Rendition]) -> None:
        try:
            async with self._catalogue.transaction() as tx:
                for rendition in made:
                    await self._keeper.adopt(tx, rendition.blob)
                await tx.save_findings(
                    asset.id,
                    asset.version,
                    state="damaged" if findings.problem else "ready",
                    facts=_clean(findings.facts),
                    placeholder=findings.placeholder,
                    renditions=made,
                )
        except BaseException:
            await self._abandon(made)
            raise
        for rendition in made:
            self._keeper.adopted(rendition.blob)
            metrics.renditions.labels(rendition.preset).inc()

    async def _mark_damaged(self, asset: Asset) -> None:
        """What an earlier look made of this version stays. Raises Gone where the version is not current."""
        async with self._catalogue.transaction() as tx:
            current = await tx.asset(asset.id)
            if current is None or current.version != asset.version:
                raise Gone(f"version {asset.version} of asset {asset.id}")
            await tx.set_asset_state(asset.id, "damaged")

    async def _abandon(self, made: Sequence[Rendition]) -> None:
        await self._keeper.abandon(*(rendition.blob.id for rendition in made))


def _clean(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


async def _read(path: Path) -> AsyncIterator[bytes]:
    async with aiofiles.open(path, "rb") as file:
        while chunk := await file.read(_CHUNK):
            yield chunk
