"""Uploads whose bytes are all here, and have to be read once more before they are an asset: the finals of tus, large
ones that came in parts, past us, and those whose digests nobody knows any more, after a restart.

While that goes on the upload is `completing`. Whoever asks for it waits for the same work, or is told at once that it
has no offset; removing it stops the work, and after a crash the task in the outbox begins it anew.
"""

import asyncio
from dataclasses import replace

from mediasvc.core.errors import ChecksumMismatch
from mediasvc.core.task import NewTask
from mediasvc.core.upload import Upload
from mediasvc.ingest.possession import Possession
from mediasvc.ingest.take_over import Held
from mediasvc.store.interface import Growing

READ_AT_ONCE = 64 << 20  # bytes that are read again while the upload is held


class Joining(Possession):
    """What becomes of uploads that are `completing`."""

    async def join(self, upload_id: str) -> str:
        """Make an asset of it, together with whoever else asks for that; run again after a crash it begins anew."""
        return await asyncio.shield(self._begin_join(upload_id))

    def joins(self, upload_id: str) -> bool:
        """Whether that is going on."""
        return upload_id in self._joins

    async def close(self) -> None:
        """Let go of all uploads: nothing is read or written any more when this returns."""
        self.stop()
        await asyncio.gather(*self._joins.values(), return_exceptions=True)

    async def complete_later(self, held: Held, growing: Growing, sha256: str | None = None) -> Upload:
        """From here on it is `completing`, made of `growing`, and goes on whether or not somebody waits for it."""
        wanted = dict(held.upload.wanted)
        if sha256 and wanted.get("sha256") not in (None, sha256):
            why = "two SHA-256 were announced for it"
            await self._end(held, why)
            raise ChecksumMismatch(why)
        upload = replace(
            held.upload,
            state="completing",
            offset=growing.size,
            length=growing.size,
            notes=growing.notes,
            wanted=wanted | ({"sha256": sha256} if sha256 else {}),
            expires_at=self._clock() + self._lifetime,
        )
        async with self._catalogue.transaction() as tx:
            await tx.enqueue(NewTask("join", upload.asset_id, {"upload": upload.id}))
            await tx.save_upload(upload, at_offset=held.upload.offset, epoch=upload.epoch)
        held.hold(upload, None)
        self._begin_join(upload.id)
        return upload

    def _begin_join(self, upload_id: str) -> "asyncio.Task[str]":
        join = self._joins.get(upload_id)
        if join is None:
            join = self._joins[upload_id] = asyncio.create_task(self._join(upload_id))
            join.add_done_callback(lambda done: self._joined(upload_id, done))
        return join

    def _joined(self, upload_id: str, join: "asyncio.Task[str]") -> None:
        del self._joins[upload_id]
        if not join.cancelled():
            join.exception()  # looked at: whoever waits for it hears of it, and the log does

    async def _join(self, upload_id: str) -> str:
        async with self._holdings.taken(upload_id) as held:
            upload = await self._catalogue.upload(upload_id)
            if upload is None or upload.state != "completing":
                return "there is nothing to join any more"
            try:
                if upload.final:
                    await self.completer.join(upload, held.read_for_end)
                    return f"joined {len(upload.parts)} partial uploads"
                growing = Growing(upload.blob_id, upload.offset, upload.notes)
                await self.completer.complete(upload, growing, None, reading=held.read_for_end)
                return f"read {upload.offset} bytes again"
            finally:
                held.joining = None
                self._holdings.forget(upload_id)
