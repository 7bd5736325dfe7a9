"""Uploads whose bytes do not come in appends: in parts, straight to the store, or whole, as often as it takes.

Parts: the store takes them with URLs that we sign, and nothing is visible until `complete` has looked at what is there:
its size, its SHA-256, its type. Only what is signed for can be sent, and nothing once it is complete. A URL for a whole
object would go on working after that, so there is none.
"""

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mediasvc.catalogue.interface import Catalogue
from mediasvc.core.access import Caller
from mediasvc.core.errors import BadRequest, Conflict, MediasvcError, NotFound, UploadGone
from mediasvc.core.upload import Upload
from mediasvc.ingest.admission import Admission
from mediasvc.ingest.arriving import Arriving
from mediasvc.ingest.commands import Append, Begin
from mediasvc.ingest.complete import check_head
from mediasvc.ingest.join import READ_AT_ONCE
from mediasvc.ingest.possession import DIRECT, Outcome
from mediasvc.ingest.resume import Resumer
from mediasvc.ingest.take_over import Held, Interruptible
from mediasvc.store.interface import BlobMissing, BlobStore, Digests, Growing, Lost, Presigned, SentPart

SIGNED_SECONDS = 3600  # a part may take that long; after that its URL is asked for again
MOST_PARTS = 10_000  # S3's limit, as the next one is
SMALLEST_PART = 5 << 20  # bytes of any part but the last
AHEAD = 32  # parts of any size that a client may have URLs for, beyond those that are there


@dataclass(frozen=True, slots=True)
class PartUrl:
    """Where to PUT one part. `span` is (first byte, bytes) of the whole where its length is known."""

    number: int
    url: str
    span: tuple[int, int] | None = None


class Direct:
    """Carries them out, on uploads that `Resumer` began and holds."""

    def __init__(self, catalogue: Catalogue, store: BlobStore, resumer: Resumer) -> None:
        self._catalogue = catalogue
        self._store = store
        self._resumer = resumer

    async def create(self, caller: Caller, command: Begin, admission: Admission | None) -> Outcome:
        """As `Resumer.create`, for an upload whose bytes come in no other way."""
        return await self._resumer.create(caller, command, admission, {DIRECT: ""})

    async def sign(self, caller: Caller, upload_id: str, numbers: Sequence[int]) -> list[PartUrl]:
        """URLs for these parts; the first ones make it an upload in parts, which no append can go on with.

        Raises BadRequest for numbers that make no sense, Conflict where bytes came another way, TooLarge and
        QuotaExceeded where what was sent is too much already, NotFound where the store has no such URLs.
        """
        presigned = self._presigned
        await self._look(caller, upload_id)
        async with self._resumer.taken(caller, upload_id) as held:
            begun = await self._begun(held, presigned)
            upload = held.upload
            last = MOST_PARTS
            if upload.length is None:
                there = await self._there(presigned, upload, begun)
                if await self._too_much(held, there):
                    last = max(there, default=0) + AHEAD
            else:
                last = -(-upload.length // presigned.part_size(upload.length))
            if not numbers or min(numbers) < 1 or max(numbers) > last:
                raise BadRequest(f"ask for parts from 1 to {last}")
            await self._resumer.save(held, held.growing)
        made = []
        for number in numbers:
            span = part_span(upload.length, presigned, number)
            url = presigned.part(
                upload.blob_id, begun, number, seconds=SIGNED_SECONDS, size=span[1] if span else None
            )
            made.append(PartUrl(number, str(url), span))
        return made

    async def parts(self, caller: Caller, upload_id: str) -> Mapping[int, SentPart]:
        """What is in the store so far, by number; disturbs nobody."""
        upload = await self._look(caller, upload_id)
        begun = upload.notes.get(DIRECT, "")
        if upload.state != "open" or not begun:
            return {}
        return await self._there(self._presigned, upload, begun)

    async def complete(
        self, caller: Caller, upload_id: str, told: Sequence[tuple[int, str]] | None = None
    ) -> Outcome:
        """Make what was sent an asset, or say what is missing. May be repeated: then the answer is the same.

        `told`: numbers and ETags that the client means; None: whatever is there. Raises Conflict while parts are
        missing, NotFound where the asset was removed since. ChecksumMismatch, TypeNotAllowed, TooLarge and
        QuotaExceeded end the upload, and nothing stays.
        """
        presigned = self._presigned
        outcome = await self._resumer.look(caller, upload_id)
        if outcome.upload.state == "open":
            async with self._resumer.taken(caller, upload_id) as held:
                outcome = await self._complete(held, presigned, told)
        if outcome.upload.state == "completing":
            await self._resumer.join(upload_id)  # what is answered is durable
            outcome = await self._resumer.look(caller, upload_id)
        return _with_asset(outcome)

    async def _complete(
        self, held: Held, presigned: Presigned, told: Sequence[tuple[int, str]] | None
    ) -> Outcome:
        upload = held.upload
        if upload.state != "open":
            return await self._resumer.outcome(upload)
        begun = upload.notes.get(DIRECT)
        if not begun:
            raise Conflict("no part of this upload was sent to the store")
        try:
            there = await presigned.parts(upload.blob_id, begun)
        except Lost:
            growing = await self._whole(held)  # an earlier try may have come that far
        else:
            await self._too_much(held, there)
            growing = presigned.gathered(upload.blob_id, begun, _chosen(there, told, upload, presigned))
        if growing.size > READ_AT_ONCE:
            return Outcome(await self._resumer.complete_later(held, growing))
        await self._resumer.save(held, held.growing)  # it does not expire meanwhile
        return Outcome(*await self._resumer.completer.complete(held.upload, growing, None, None))

    async def put_whole(
        self, caller: Caller, upload_id: str, body: AsyncIterable[bytes | memoryview]
    ) -> Outcome:
        """The whole upload in one body. One that breaks leaves nothing and may be sent again; where it is complete
        already, the answer is the same again, and the body is not read. Raises NotFound where the asset was removed."""
        await self._look(caller, upload_id)
        async with self._resumer.taken(caller, upload_id) as held:
            upload = held.upload
            if upload.state == "complete":
                return _with_asset(await self._resumer.outcome(upload))
            if upload.state != "open" or upload.notes.get(DIRECT) != "":
                raise Conflict("the bytes of this upload come in another way")
            bucket = await self._catalogue.bucket(upload.bucket)
            held.body = Interruptible(body)
            arriving = Arriving(
                held.body,
                upload,
                Append(0),
                await self._resumer.room(upload),
                partial(check_head, upload, bucket),
            )
            digests = Digests()
            try:
                stored = await self._store.put(upload.blob_id, arriving, digests, length=upload.length)
            except MediasvcError as error:
                if arriving.refused is error:
                    await self._end(held, error)
                raise
            finally:
                held.body = None
            growing = Growing(upload.blob_id, stored.size)
            return Outcome(*await self._resumer.completer.complete(upload, growing, digests, None))

    @property
    def _presigned(self) -> Presigned:
        presigned = self._store.presigned
        if presigned is None:
            raise NotFound("this store takes no parts from clients: use tus, or send all of it at once")
        return presigned

    async def _look(self, caller: Caller, upload_id: str) -> Upload:
        """Raises Conflict of one that is completing: for whoever has the turn has it for long."""
        upload = (await self._resumer.look(caller, upload_id)).upload
        if upload.state == "completing":
            raise Conflict("the parts are being put together: ask for the upload's state")
        return upload

    async def _begun(self, held: Held, presigned: Presigned) -> str:
        """What the store calls the parts of this upload, begun now where none were."""
        upload = held.upload
        known = upload.length is not None or DIRECT in upload.notes
        if upload.state != "open" or upload.offset or upload.concat or not known:
            raise Conflict(
                "the bytes of this upload come in another way, or are all here: ask for its offset"
            )
        begun = str(upload.notes.get(DIRECT, ""))
        if not begun:
            begun = await presigned.begin(upload.blob_id)
            await self._resumer.save(held, Growing(upload.blob_id, 0, {DIRECT: begun}))
        return begun

    async def _there(self, presigned: Presigned, upload: Upload, begun: str) -> Mapping[int, SentPart]:
        try:
            return await presigned.parts(upload.blob_id, begun)
        except Lost:
            raise Conflict("the parts are being put together: ask for the upload's state") from None

    async def _too_much(self, held: Held, there: Mapping[int, SentPart]) -> bool:
        """Whether there is a limit to look after; what has gone beyond it is ended, and raised."""
        limit = await self._resumer.room(held.upload)
        if limit is not None and sum(part.size for part in there.values()) > limit.bytes:
            error = limit.exceeded("what was sent")
            await self._end(held, error)
            raise error
        return limit is not None

    async def _end(self, held: Held, error: MediasvcError) -> None:
        await self._resumer.completer.fail(held.upload, error.detail)

    async def _whole(self, held: Held) -> Growing:
        upload = held.upload
        try:
            size = (await self._store.stat(upload.blob_id)).size
        except BlobMissing:
            size = None
        if size is None or upload.length not in (None, size):
            gone = UploadGone("the store has forgotten the parts of this upload: begin a new one")
            await self._end(held, gone)
            raise gone
        return Growing(upload.blob_id, size)


def _with_asset(outcome: Outcome) -> Outcome:
    if outcome.received is None:
        raise NotFound("the asset of this upload was removed")
    return outcome


def part_span(length: int | None, presigned: Presigned, number: int) -> tuple[int, int] | None:
    """First byte and size of the part of that number."""
    if length is None:
        return None
    size = presigned.part_size(length)
    first = (number - 1) * size
    return first, min(size, length - first)


def _chosen(
    there: Mapping[int, SentPart],
    told: Sequence[tuple[int, str]] | None,
    upload: Upload,
    presigned: Presigned,
) -> list[SentPart]:
    """The parts that make the whole, in order. Raises Conflict for what is not there, BadRequest for what no store
    would put together."""
    if upload.length is not None:
        count = -(-upload.length // presigned.part_size(upload.length))
    else:
        count = len(told if told is not None else there)
    if told is not None and [number for number, _ in told] != list(range(1, count + 1)):
        raise BadRequest(f"name the parts from 1 to {count}, each once and in order")
    etags = dict(told or ())
    chosen, missing = [], []
    for number in range(1, count + 1):
        part, span = there.get(number), part_span(upload.length, presigned, number)
        if part is None or (span and part.size != span[1]):
            missing.append(number)
        elif number in etags and etags[number].strip('"') != part.etag.strip('"'):
            raise Conflict(f"part {number} is another one by now: list the parts, and send it again")
        else:
            chosen.append(part)
    if missing or not chosen:
        first = ", ".join(map(str, missing[:20]))
        raise Conflict(f"{len(missing)} parts are not there yet: {first}" if missing else "no part is there")
    if any(part.size < SMALLEST_PART for part in chosen[:-1]):
        raise BadRequest(f"every part but the last has {SMALLEST_PART} bytes or more")
    return chosen
