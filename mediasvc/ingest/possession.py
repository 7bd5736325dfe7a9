"""Uploads while they are served here: whose they are, who has the turn, and what of them is saved."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal

from mediasvc.catalogue.interface import Catalogue, Gone
from mediasvc.core.access import Caller
from mediasvc.core.errors import Forbidden, NotFound, Superseded, Unauthorised, UploadGone
from mediasvc.core.ids import well_formed
from mediasvc.core.upload import Upload
from mediasvc.ingest.complete import Completer
from mediasvc.ingest.receive import Received, Receiver
from mediasvc.ingest.take_over import Held, Holdings
from mediasvc.store.interface import BlobStore, Digests, Growing, Lost

DIRECT = "direct"  # in the notes of an upload whose bytes come in no appends: `ingest/direct.py` sees to them


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an upload stands after a command, and the asset it has become."""

    upload: Upload
    received: Received | None = None


class Possession:
    """`lifetime`: seconds an unfinished upload is kept after its last append."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: BlobStore,
        receiver: Receiver,
        run: str,
        *,
        clock: Callable[[], float],
        lifetime: float,
        durability: Literal["complete", "ack"],
    ) -> None:
        self._catalogue = catalogue
        self._store = store
        self._receiver = receiver
        self._run = run
        self._clock = clock
        self._lifetime = lifetime
        self._durability = durability
        self._holdings = Holdings()
        self._joins: dict[str, asyncio.Task[str]] = {}  # what is being read for its end, by upload id
        self.completer = Completer(catalogue, store, receiver, clock=clock)

    def stop(self) -> None:
        """The server stops: uploads that hang must not be waited for."""
        self._holdings.stop()

    async def outcome(self, upload: Upload) -> Outcome:
        """With the asset of a complete one, while there is one."""
        asset = await self._catalogue.asset(upload.asset_id) if upload.state == "complete" else None
        return Outcome(upload, Received(asset, upload.created) if asset else None)

    @asynccontextmanager
    async def taken(self, caller: Caller, upload_id: str, *, ends: bool = False) -> AsyncIterator[Held]:
        """The upload, for this request alone: whoever was writing has left. `ends`: it is to be removed. Raises as
        `append`."""
        await self._known(caller, upload_id)
        async with self._holdings.taken(upload_id, ends=ends) as held:
            upload = await self._known(caller, upload_id)
            try:
                if not held.known or held.upload != upload:
                    held.hold(upload, Digests() if upload.offset == 0 else None)
                    appended = not upload.final and DIRECT not in upload.notes
                    if upload.state == "open" and upload.run != self._run and appended:
                        await self._find_again(held)
                yield held
            except Gone:
                raise Superseded("the upload was ended meanwhile") from None
            except Lost:
                await self._end(held, "bytes that were acknowledged are not there any more")
                raise UploadGone("the upload lost bytes: begin a new one") from None

    async def _known(self, caller: Caller, upload_id: str) -> Upload:
        """Raises NotFound, Unauthorised, Forbidden; UploadGone where it is over."""
        if caller.anonymous:
            raise Unauthorised("send an API key: Authorization: Bearer msk_…")
        upload = await self._catalogue.upload(upload_id) if well_formed("upl", upload_id) else None
        if upload is None or not may_continue(caller, upload):
            raise NotFound("there is no such upload")
        if not caller.has("assets:write"):
            raise Forbidden("the key lacks the scope assets:write")
        if upload.state == "failed" or upload.expires_at <= self._clock():
            raise UploadGone(f"the upload is over ({upload.detail or 'expired'}): begin a new one")
        return upload

    async def _find_again(self, held: Held) -> None:
        """Take over from a process that is no more: with what it left in the store."""
        async with self._catalogue.transaction() as tx:
            claimed = await tx.claim_upload(held.upload.id, run=self._run, epoch=held.upload.epoch)
        held.hold(claimed, held.digests)
        found = await self._store.resumable.found(held.growing, all_of_it=not claimed.unverified)
        if claimed.length is not None and found.size > claimed.length:
            found = replace(found, size=claimed.length)
        if found != held.growing:
            held.digests = None
            await self.save(held, found)

    async def save(self, held: Held, growing: Growing, *, unverified: bool = False) -> None:
        """What is acknowledged from here on."""
        if self._durability == "ack" and growing.size > held.growing.size:
            await self._store.resumable.sync(growing)
        saved = replace(
            held.upload,
            offset=growing.size,
            notes=growing.notes,
            unverified=unverified,
            expires_at=self._clock() + self._lifetime,
        )
        async with self._catalogue.transaction() as tx:
            await tx.save_upload(saved, at_offset=held.growing.size, epoch=saved.epoch)
        held.upload = held.saved = saved
        held.growing = growing

    async def _end(self, held: Held, why: str) -> None:
        """It will not become anything: its bytes go, and its row says why for a while."""
        await self.completer.fail(held.upload, why)
        self._holdings.forget(held.upload.id)


def may_continue(caller: Caller, upload: Upload) -> bool:
    """Whoever began it, and any key that may write its bucket and key; a token only its own."""
    if caller.key_id == upload.owner:
        return True
    if caller.token:
        return False
    return caller.sees(upload.bucket, upload.key) if upload.bucket else caller.bucket is None
