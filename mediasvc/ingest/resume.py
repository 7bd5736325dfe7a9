"""Carries the commands of resumable uploads out, whatever dialect they came in.

One row for each upload, one request at a time for each row (`take_over`). The row is written when an append ends and
whenever the store has something to remember; what the store kept besides is found again after a crash.
"""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from mediasvc.core.access import Caller
from mediasvc.core.errors import (
    AlreadyComplete,
    AppendMismatch,
    BodyMismatch,
    Conflict,
    Forbidden,
    InconsistentLength,
    MediasvcError,
    Superseded,
)
from mediasvc.core.upload import Upload
from mediasvc.ingest.arriving import Arriving, Hasher, agreed, hasher_of
from mediasvc.ingest.commands import Append
from mediasvc.ingest.complete import check_head
from mediasvc.ingest.creation import Creation
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
        async with self.taken(caller, upload_id) as held:
            return await self._append(caller, held, command, body)

    async def inspect(self, caller: Caller, upload_id: str, *, length_ends: bool = False) -> Outcome:
        """How far it has come; ends whoever is writing, so that the offset stays what it says. `length_ends`: whether
        it is complete as soon as its length is there. Raises as `append` then."""
        upload = await self._known(caller, upload_id)
        if (
            upload.state == "completing"
        ):  # nobody has an offset to agree on, and being joined may take a while
            return Outcome(upload)
        async with self.taken(caller, upload_id) as held:
            upload = held.upload
            grows = upload.state == "open" and not upload.final and DIRECT not in upload.notes
            if length_ends and grows and upload.received:
                # Who brought the last byte died before the end. A client that hears offset = length goes its way.
                return await self._complete(held, None)
            return Outcome(upload)

    async def look(self, caller: Caller, upload_id: str) -> Outcome:
        """The same without disturbing anybody, with the asset of a complete one."""
        upload = await self._known(caller, upload_id)
        growing_file = self._holdings.busy(upload_id) and self._store.files is not None
        if growing_file and not upload.unverified and self._durability == "complete":
            # Between two appends the row knows; meanwhile the file does, and not even a crash takes that back.
            growing = Growing(upload.blob_id, upload.offset, upload.notes)
            with suppress(Lost):
                found = await self._store.resumable.found(growing, all_of_it=True)
                upload = replace(upload, offset=found.size)
        return await self.outcome(upload)

    async def discard(self, caller: Caller, upload_id: str) -> None:
        """Remove the upload and its bytes; of a complete one the asset stays."""
        async with self.taken(caller, upload_id) as held:
            if held.upload.state != "complete":
                # The bytes first: a row whose bytes are gone tells so, bytes whose row is gone are nobody's.
                await self._store.discard(held.upload.blob_id)
            async with self._catalogue.transaction() as tx:
                await tx.drop_uploads([upload_id])
            self._holdings.forget(upload_id)

    async def join(self, upload_id: str) -> str:
        """Put a large final together, in the background; run again after a crash it begins anew."""
        async with self._holdings.taken(upload_id):
            upload = await self._catalogue.upload(upload_id)
            if upload is None or upload.state != "completing":
                return "there is nothing to join any more"
            await self.completer.join(upload)
        return f"joined {len(upload.parts)} partial uploads"

    # --- bytes

    async def _append(self, caller: Caller, held: Held, command: Append, body: Body | None) -> Outcome:
        upload = held.upload
        if upload.final:
            raise Forbidden("a final upload takes no bytes: it is made of its partial ones")
        if DIRECT in upload.notes and upload.state == "open":
            raise Conflict("this upload's bytes go straight to the store: send its parts, or begin another")
        if upload.state == "complete" or (upload.partial and upload.received):
            return await self._replay(caller, upload, command)
        held.upload = agreed(upload, command)
        if upload.length is None and held.upload.length is not None:
            await self._check_told(upload, held.upload.length)
        if body is not None:
            await self._take_bytes(held, command, body)
        else:
            _compare(command, hasher_of(command.checksum))
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
        try:
            return Outcome(*await self.completer.complete(held.upload, held.growing, held.digests, sha256))
        finally:
            self._holdings.forget(held.upload.id)

    async def _replay(self, caller: Caller, upload: Upload, command: Append) -> Outcome:
        """The final answer once more, for whoever lost it."""
        if command.offset != upload.offset or command.size or command.completes is False:
            raise AlreadyComplete("the upload is complete", offset=upload.offset, provided=command.offset)
        return await self.look(caller, upload.id)

    async def _take_bytes(self, held: Held, command: Append, body: Body) -> None:
        """Let the store append, and save what it keeps; a body that is refused, or not what its checksum says, leaves
        the offset as it was."""
        hasher = hasher_of(command.checksum)
        all_or_nothing = command.whole or hasher is not None
        if not all_or_nothing and held.upload.unverified:
            await self._cut(held)
        before = held.growing
        digests, held.digests = held.digests.copy() if held.digests is not None else None, None

        def feed(slab: memoryview) -> None:
            if digests is not None:
                digests.update(slab)
            if hasher is not None:
                hasher.update(slab)

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
            if digests is not None and digests.size == held.growing.size:
                held.digests = digests
        if all_or_nothing:
            _compare(command, hasher)
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


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _compare(command: Append, hasher: Hasher | None) -> None:
    """Raises BodyMismatch: tus has a status of its own for this."""
    if hasher is not None and command.checksum is not None and hasher.digest() != command.checksum.digest:
        mismatch = AppendMismatch if command.completes is None else BodyMismatch
        raise mismatch(
            f"the body's {command.checksum.algorithm} is not the announced one; nothing of it was kept"
        )
