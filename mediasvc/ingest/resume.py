"""Carries the commands of resumable uploads out, whatever dialect they came in.

One row for each upload, one request at a time for each row (`take_over`). The row is written when an append ends and
whenever the store has something to remember; what the store kept besides is found again after a crash.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from mediasvc.core.access import Caller
from mediasvc.core.errors import (
    AlreadyComplete,
    Conflict,
    Forbidden,
    InconsistentLength,
    Locked,
    MediasvcError,
    Superseded,
    TooLarge,
    UploadGone,
)
from mediasvc.core.upload import Upload
from mediasvc.ingest.arriving import Arriving, Checks, agreed, ends_upload
from mediasvc.ingest.commands import Append
from mediasvc.ingest.complete import check_head
from mediasvc.ingest.creation import Creation
from mediasvc.ingest.join import READ_AT_ONCE
from mediasvc.ingest.possession import DIRECT, Outcome
from mediasvc.ingest.take_over import Held
from mediasvc.store.interface import Growing, Lost

Body = AsyncIterable[bytes | memoryview]


class Resumer(Creation):
    """Appends, and all else that is asked of an upload that has begun."""

    async def append(self, caller: Caller, upload_id: str, command: Append, body: Body | None) -> Outcome:
        """Raises OffsetMismatch, InconsistentLength, TooLarge, AppendMismatch, Forbidden (a final), UploadGone; where
        the body breaks off, what `body` raised, after all that came was kept; where a newer request takes over,
        Superseded."""
        while True:
            upload = await self._known(caller, upload_id)
            if _is_read_again(upload):
                await self.join(upload_id)  # whoever lost the last answer waits for it with the others
            async with self.taken(caller, upload_id) as held:
                if not _is_read_again(held.upload):
                    outcome = await self._append(caller, held, command, body)
                    break
        if outcome.upload.state != "completing":
            return outcome
        await self.join(upload_id)  # what is answered is durable
        return await self.look(caller, upload_id)

    async def inspect(self, caller: Caller, upload_id: str, *, length_ends: bool = False) -> Outcome:
        """How far it has come; ends whoever is writing, so that the offset stays what it says. `length_ends`: whether
        it is complete as soon as its length is there. Raises as `append` then."""
        upload = await self._known(caller, upload_id)
        if upload.state == "completing":
            return self._in_between(upload)
        async with self.taken(caller, upload_id) as held:
            upload = held.upload
            if upload.state == "completing":  # by whoever had the turn
                return self._in_between(upload)
            grows = upload.state == "open" and not upload.final and DIRECT not in upload.notes
            if length_ends and grows and upload.received:
                # Who brought the last byte died before the end. A client that hears offset = length goes its way.
                outcome = await self._complete(held, None)
                return self._in_between(outcome.upload) if outcome.upload.state == "completing" else outcome
            return Outcome(upload)

    def _in_between(self, upload: Upload) -> Outcome:
        """Of one that is completing, which may take a while: nobody has an offset to agree on."""
        if upload.final:
            return Outcome(upload)  # tus has an answer for that
        self._begin_join(upload.id)
        raise Locked("all of it is here, and is being read once more: ask again")

    async def look(self, caller: Caller, upload_id: str) -> Outcome:
        """The same without disturbing anybody, with the asset of a complete one."""
        upload = await self._known(caller, upload_id)
        growing_file = self._store.files is not None and upload.state == "open" and DIRECT not in upload.notes
        if growing_file and (self._holdings.busy(upload_id) or upload.run != self._run):
            upload = await self._as_found(upload)
        return await self.outcome(upload)

    async def _as_found(self, upload: Upload) -> Upload:
        """Between two appends the row knows how far it is; else the file does, and not even a crash takes that back."""
        growing = Growing(upload.blob_id, upload.offset, upload.notes)
        all_of_it = not upload.unverified and self._durability == "complete"
        try:
            found = await self._store.resumable.found(growing, all_of_it=all_of_it)
        except Lost:
            if upload.run == self._run:
                return upload  # it ended in this moment
            raise UploadGone("the upload lost bytes: begin a new one") from None
        return replace(upload, offset=found.size if upload.length is None else min(found.size, upload.length))

    async def discard(self, caller: Caller, upload_id: str) -> None:
        """Remove the upload and its bytes; of a complete one the asset stays."""
        async with self.taken(caller, upload_id, ends=True) as held:
            if held.upload.state != "complete":
                # The bytes first: a row whose bytes are gone tells so, bytes whose row is gone are nobody's.
                await self._store.discard(held.upload.blob_id)
            async with self._catalogue.transaction() as tx:
                await tx.drop_uploads([upload_id])
            self._holdings.forget(upload_id)

    # --- bytes

    async def _append(self, caller: Caller, held: Held, command: Append, body: Body | None) -> Outcome:
        upload = held.upload
        if upload.final:
            raise Forbidden("a final upload takes no bytes: it is made of its partial ones")
        if DIRECT in upload.notes and upload.state == "open":
            raise Conflict("this upload's bytes go straight to the store: send its parts, or begin another")
        if upload.state == "complete" or (upload.partial and upload.received):
            return await self._replay(caller, upload, command)
        try:
            held.upload = agreed(upload, command)
        except TooLarge as error:
            if ends_upload(error, command):
                await self._end(held, error.detail)
            raise
        if upload.length is None and held.upload.length is not None:
            await self._check_told(upload, held.upload.length)
        if body is not None:
            await self._take_bytes(held, command, body)
        else:
            Checks(command).compare()
        ends = held.upload.received if command.completes is None else command.completes
        if ends and held.upload.length is None:
            held.upload = replace(held.upload, length=held.upload.offset)
        if held.upload != held.saved:
            await self.save(held, held.growing)
        if not ends:
            return Outcome(held.upload)
        if not held.upload.received:
            raise InconsistentLength(
                f"the upload is to end at byte {held.upload.length}, and is at {held.upload.offset}"
            )
        return await self._complete(held, command.sha256)

    async def _complete(self, held: Held, sha256: str | None) -> Outcome:
        if held.upload.partial:
            await self._store.resumable.finish(held.growing)
            return Outcome(held.upload)
        if held.digests is None and held.growing.size > READ_AT_ONCE:
            return Outcome(await self.complete_later(held, held.growing, sha256))
        try:
            return Outcome(*await self.completer.complete(held.upload, held.growing, held.digests, sha256))
        finally:
            self._holdings.forget(held.upload.id)

    async def _replay(self, caller: Caller, upload: Upload, command: Append) -> Outcome:
        """The final answer once more, for whoever lost it."""
        if command.offset != upload.offset or command.size or command.completes is False:
            raise AlreadyComplete("the upload is complete", offset=upload.offset, provided=command.offset)
        if command.length not in (None, upload.length):
            raise InconsistentLength(f"the upload has {upload.length} bytes, not {command.length}")
        Checks(command).compare()
        return await self.look(caller, upload.id)

    async def _take_bytes(self, held: Held, command: Append, body: Body) -> None:
        """Let the store append, and save what it keeps; a body that is refused, or not what its checksum says, leaves
        the offset as it was."""
        checks = Checks(command)
        all_or_nothing = command.whole or bool(checks)
        if not all_or_nothing and held.upload.unverified:
            await self._cut(held)
        before = held.growing
        earlier, held.digests = held.digests, None
        digests = earlier.copy() if earlier is not None else None

        def feed(slab: memoryview) -> None:
            if digests is not None:
                digests.update(slab)
            checks.update(slab)

        if all_or_nothing:
            await self.save(held, before, unverified=True)
        arriving = Arriving(
            held.read(body),
            held.upload,
            command,
            await self.room(held.upload),
            partial(check_head, held.upload, await self._catalogue.bucket(held.upload.bucket)),
            partial(self._stay, held),
            held.head[: before.size],
        )
        kept = before
        try:
            appending = self._store.resumable.append(before, arriving, feed, length=held.upload.length)
            async with aclosing(appending):
                async for kept in appending:
                    if not all_or_nothing and arriving.refused is None:
                        await self.save(held, kept)
        except MediasvcError as error:
            if arriving.refused is error:
                await (self._end(held, error.detail) if arriving.fatal else self._cut(held))
            if not isinstance(error, Superseded) or kept.size - before.size != command.size:
                raise
            # The whole body was here before the newer request: that one gets to see the end of it.
        finally:
            held.body = None
            held.head = arriving.head[: held.growing.size]
            # Of an append that does not count what came before is known all the same.
            known = (one for one in (digests, earlier) if one is not None and one.size == held.growing.size)
            held.digests = next(known, None)
        if all_or_nothing:
            checks.compare()
            await self.save(held, kept)
            held.digests, held.head = digests, arriving.head

    async def _stay(self, held: Held) -> None:
        """An upload does not expire while bytes of it come, in however long an append."""
        if held.upload.expires_at - self._clock() < self._lifetime / 2:
            await self.save(held, held.growing, unverified=held.upload.unverified)

    async def _cut(self, held: Held) -> None:
        """Remove what an append that did not count left behind the offset: after a crash it would be found there."""
        appending = self._store.resumable.append(held.growing, _nothing(), lambda _: None)
        async with aclosing(appending):
            async for kept in appending:
                await self.save(held, kept)

    async def _check_told(self, upload: Upload, length: int) -> None:
        """Of a length that is told late room was not reserved yet. Raises QuotaExceeded."""
        room = await self.room(upload)
        if room is not None and length > room.bytes:
            raise room.exceeded("the upload")


def _is_read_again(upload: Upload) -> bool:
    return upload.state == "completing" and not upload.final


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
