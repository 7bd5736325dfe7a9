"""Blobs are written under an intent, so that whatever happens half-way is known and swept."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable

from mediasvc.catalogue.interface import Catalogue, Gone, Intent, Transaction
from mediasvc.core.asset import Blob
from mediasvc.core.errors import MediasvcError, StoreFull
from mediasvc.core.ids import new_blob_id
from mediasvc.logs import log
from mediasvc.store.interface import BlobStore, Digests


class Keeper:
    """Writes blobs for one run of the server.

    `live` holds the blob ids somebody here is working on: an intent of our own run that is not among them
    was left by a failure and may be swept.
    """

    def __init__(self, store: BlobStore, catalogue: Catalogue, run: str) -> None:
        self._store = store
        self._catalogue = catalogue
        self.run = run
        self.live: set[str] = set()

    def check_room(self, length: int) -> None:
        """Raises StoreFull where the store's disk has no `length` bytes left: better told before they come."""
        files = self._store.files
        if files is not None and length > files.free():
            raise StoreFull(
                f"the store has no room left for {length} bytes; free space on its disk, then send it again"
            )

    async def keep(
        self,
        body: AsyncIterable[bytes | memoryview],
        *,
        length: int | None = None,
        reserve: Callable[[Transaction, str], Awaitable[Intent]] | None = None,
    ) -> Blob:
        """Make `body` a durable blob with an open intent; nothing is left behind when this raises.

        `reserve` opens the intent itself where room has to be found in a quota first. Whoever gets the blob
        calls `adopt` in the transaction that gives it an owner, or else `abandon`.
        """
        blob_id, opened = new_blob_id(), False
        self.live.add(blob_id)
        try:
            async with self._catalogue.transaction() as tx:
                intent = await reserve(tx, blob_id) if reserve else Intent(blob_id, self.run)
                await tx.open_intent(intent)
                opened = True  # from here on a commit may go through, whatever it reports
            digests = Digests()
            stored = await self._store.put(blob_id, body, digests, length=length)
            return Blob(blob_id, stored.size, digests.sha256, digests.crc32)
        except BaseException:
            if opened:
                await self.abandon(blob_id)
            self.live.discard(blob_id)
            raise

    async def adopt(self, tx: Transaction, blob: Blob) -> None:
        """Close the intent in the transaction that writes the blob's owner. Raises Gone if it was swept."""
        await tx.close_intent(blob.id)

    def adopted(self, blob: Blob) -> None:
        """That transaction is through."""
        self.live.discard(blob.id)

    async def abandon(self, *blob_ids: str) -> None:
        """Remove the blobs and their intents, but for those that found an owner after all.

        The intent is condemned first: should a commit have gone through although it reported a failure, there
        is none any more and the bytes stay. What cannot be removed now is left to the sweep. A cancellation
        meanwhile is raised when all is done: whoever is stopped leaves nothing either.
        """
        clearing = asyncio.gather(*map(self._abandon, blob_ids))
        cancelled = False
        while not clearing.done():
            try:
                await asyncio.shield(clearing)
            except asyncio.CancelledError:
                cancelled = True
        clearing.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _abandon(self, blob_id: str) -> None:
        try:
            await clear_intent(self._store, self._catalogue, blob_id)
        except (MediasvcError, OSError) as error:
            log.warning("blob_left_to_sweep", blob_id=blob_id, reason=str(error))
        finally:
            self.live.discard(blob_id)


async def clear_intent(store: BlobStore, catalogue: Catalogue, blob_id: str) -> bool:
    """Condemn the intent, remove what was written under it, forget it. False where there was none."""
    try:
        async with catalogue.transaction() as tx:
            await tx.condemn_intent(blob_id)
    except Gone:
        return False
    await store.discard(blob_id)
    async with catalogue.transaction() as tx:
        await tx.drop_intent(blob_id)
    return True
