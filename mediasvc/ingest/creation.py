"""An upload begins: what may, what it will become, and its row."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Literal

from mediasvc.catalogue.interface import Catalogue, Gone, Transaction
from mediasvc.core.access import Caller
from mediasvc.core.errors import BadRequest, Forbidden, RateLimited
from mediasvc.core.ids import new_asset_id, new_blob_id, new_upload_id
from mediasvc.core.task import NewTask
from mediasvc.core.upload import Upload
from mediasvc.ingest.admission import Admission, Doorkeeper, Limit, Wanted
from mediasvc.ingest.arriving import Checks
from mediasvc.ingest.commands import Begin
from mediasvc.ingest.join import READ_AT_ONCE, Joining
from mediasvc.ingest.possession import Outcome
from mediasvc.ingest.receive import Receiver
from mediasvc.store.interface import BlobStore


class Creation(Joining):
    """`max_open`: unfinished uploads of one owner."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: BlobStore,
        doorkeeper: Doorkeeper,
        receiver: Receiver,
        run: str,
        *,
        clock: Callable[[], float],
        lifetime: float,
        max_open: int,
        durability: Literal["complete", "ack"],
    ) -> None:
        super().__init__(
            catalogue, store, receiver, run, clock=clock, lifetime=lifetime, durability=durability
        )
        self._doorkeeper = doorkeeper
        self._max_open = max_open

    async def admit(self, caller: Caller, command: Begin, wanted: Wanted) -> Admission | None:
        """Whether an upload may begin, by its head; None for a partial, which is decided with its final. Raises as
        `Doorkeeper.admit`, and QuotaExceeded, StoreFull, BadRequest, AppendMismatch, BodyMismatch."""
        if not command.has_body:
            Checks(command).compare()
        if command.concat == "partial":
            self._doorkeeper.admit_partial(caller, command.length)
            return None
        if command.parts:
            partials = [await self._partial(caller, part) for part in command.parts]
            wanted = replace(wanted, length=sum(part.length or 0 for part in partials))
        # What comes along is part of it, of however many bytes the whole will be.
        least = replace(wanted, length=max(wanted.length or 0, command.size or 0))
        admission = await self._doorkeeper.admit(caller, least)
        await self._receiver.check_room(admission)
        return replace(admission, wanted=wanted)

    async def create(
        self,
        caller: Caller,
        command: Begin,
        admission: Admission | None,
        notes: Mapping[str, str] = {},
    ) -> Outcome:
        """Make the upload's row: from here on it can be continued. `admission` is what `admit` gave. What comes along
        is appended next; a final is put together here, unless it is large: then in the background.

        Raises RateLimited where too many are open, Forbidden for a token that is used up, as `admit` besides.
        """
        now = self._clock()
        upload = Upload(
            id=new_upload_id(),
            owner=caller.key_id or "",
            created_at=now,
            expires_at=now + self._lifetime,
            blob_id=new_blob_id(),
            said=command.said,
            concat=command.concat,
            parts=tuple(command.parts),
            length=command.length,
            notes=notes,
            run=self._run,
        )
        async with self._catalogue.transaction() as tx:
            if await tx.open_upload_count(upload.owner) >= self._max_open:
                raise RateLimited(
                    f"{self._max_open} uploads of this key are unfinished: finish or delete some",
                    limit=self._max_open,
                    limit_source="key",
                    retry_after=60,
                )
            if caller.token:
                await _use_token(tx, upload.owner, now)
            if admission is not None:
                upload = await self._promise(tx, upload, admission)
            else:
                limit = self._doorkeeper.admit_partial(caller, command.length)
                upload = _limited(upload, limit)
            if upload.final:
                # Whatever becomes of this request, somebody puts it together.
                upload = replace(upload, state="completing")
                await tx.enqueue(NewTask("join", upload.asset_id, {"upload": upload.id}))
            await tx.add_upload(upload)
        if upload.final and (upload.length or 0) <= READ_AT_ONCE:  # its client waits for that
            await self.join(upload.id)
            return await self.outcome(await self._catalogue.upload(upload.id) or upload)
        return Outcome(upload)

    async def _promise(self, tx: Transaction, upload: Upload, admission: Admission) -> Upload:
        """What the upload will become: the asset that has the key already, or a new one."""
        wanted = admission.wanted
        current = await tx.asset_at(wanted.bucket, wanted.key)
        if current is not None and current.expired(self._clock()):
            current = None
        await self._receiver.announced(tx, admission)
        return replace(
            _limited(upload, admission.limit),
            asset_id=current.id if current else new_asset_id(),
            bucket=wanted.bucket,
            key=wanted.key,
            name=wanted.name,
            wanted=asdict(wanted),
            length=wanted.length if upload.length is None else upload.length,
        )

    async def _partial(self, caller: Caller, upload_id: str) -> Upload:
        upload = await self._known(caller, upload_id)
        if not upload.partial or not upload.received:
            raise BadRequest(f"{upload_id} is no finished partial upload: finish it first")
        return upload

    async def room(self, upload: Upload) -> Limit | None:
        """What may come at most, all in all: of a length that is known room was reserved when it began."""
        limit = Limit(upload.limit, upload.limit_source) if upload.limit is not None else None
        if upload.length is not None:
            return Limit(upload.length, "upload")
        quota = (
            await self._receiver.room_for(upload.bucket, upload.key, upload.offset) if upload.bucket else None
        )
        return min(
            (one for one in (limit, quota) if one is not None), key=lambda one: one.bytes, default=None
        )


def _limited(upload: Upload, limit: Limit | None) -> Upload:
    return replace(upload, limit=limit.bytes, limit_source=limit.source) if limit else upload


async def _use_token(tx: Transaction, token_id: str, now: float) -> None:
    try:
        await tx.use_upload_token(token_id, now)
    except Gone:
        raise Forbidden("the upload token is used up or expired: ask for a new one") from None
