"""Every way in ends here: kept, counted, hashed, sniffed, catalogued, work queued, and only then acknowledged."""

import posixpath
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mediasvc.catalogue.interface import Catalogue, Gone, Intent, Transaction
from mediasvc.core.asset import Asset, Blob
from mediasvc.core.bucket import Bucket
from mediasvc.core.errors import BadKey, ChecksumMismatch, Conflict, NotFound, QuotaExceeded
from mediasvc.core.head_facts import facts_from_head
from mediasvc.core.ids import new_asset_id
from mediasvc.core.keys import MAX_KEY_BYTES
from mediasvc.core.media_types import decide
from mediasvc.core.signatures import HEAD_SIZE
from mediasvc.core.task import NewTask
from mediasvc.ingest.admission import Admission, Limit, Wanted, check_preconditions, check_type
from mediasvc.ingest.keep import Keeper


@dataclass(frozen=True, slots=True)
class Kept:
    """Durable bytes that nobody owns yet; `facts` are what their first bytes told."""

    admission: Admission
    blob: Blob
    media_type: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """An acknowledged asset, and whether it was new."""

    asset: Asset
    created: bool


class Receiver:
    """Carries the order of writes out: intent, durable blob, one transaction, acknowledgement."""

    def __init__(
        self,
        catalogue: Catalogue,
        keeper: Keeper,
        *,
        clock: Callable[[], float],
        derives: Callable[[str], bool],
        why_not: Callable[[str], str],
    ) -> None:
        self._catalogue = catalogue
        self._keeper = keeper
        self._clock = clock
        self._derives = derives
        self._why_not = why_not

    async def receive(self, admission: Admission, body: AsyncIterable[bytes | memoryview]) -> Received:
        """Store one body as one asset: durable and visible when this returns, or nothing is left of it."""
        return (await self.commit([await self.keep(admission, body)]))[0]

    async def keep(self, admission: Admission, body: AsyncIterable[bytes | memoryview]) -> Kept:
        """Make the bytes durable. Raises TooLarge, QuotaExceeded, TypeNotAllowed, ChecksumMismatch, what the
        store raises, and whatever `body` raises; then nothing is left."""
        wanted = admission.wanted
        checked = _Checked(admission, body)

        async def reserve(tx: Transaction, blob_id: str) -> Intent:
            place = await self.announced(tx, admission)
            checked.room = place.room
            more_bytes = max(0, (wanted.length or 0) - place.freed)
            return Intent(blob_id, self._keeper.run, place.bucket.name, more_bytes, int(not place.replaces))

        blob = await self._keeper.keep(checked, length=wanted.length, reserve=reserve)
        if wanted.sha256 is not None and wanted.sha256 != blob.sha256:
            await self._keeper.abandon(blob.id)
            raise ChecksumMismatch(
                f"the body's SHA-256 is {blob.sha256}, not the {wanted.sha256} that was announced"
            )
        return self.known(admission, blob, checked.media_type, checked.head)

    def known(self, admission: Admission, blob: Blob, media_type: str, head: bytes) -> Kept:
        """Durable bytes with what their first ones tell."""
        facts = {} if self._derives(media_type) else facts_from_head(media_type, head, blob.size)
        return Kept(admission, blob, media_type, facts)

    async def check_room(self, admission: Admission) -> None:
        """Whether what the head announces would fit now; nothing is reserved. Raises QuotaExceeded, StoreFull."""
        bucket = admission.bucket
        if bucket.quota_bytes is None and bucket.quota_assets is None:  # no need to wait for other writers
            self._keeper.check_room(admission.wanted.length or 0)
            return
        async with self._catalogue.transaction() as tx:
            await self.announced(tx, admission)

    async def room_for(self, bucket: str, key: str, already: int) -> Limit | None:
        """What an upload of unknown length, of which `already` bytes are reserved, may grow to: the quota's limit."""
        async with self._catalogue.transaction() as tx:
            found = await tx.bucket(bucket)
            if found is None or found.quota_bytes is None:
                return None
            usage, current = await tx.usage(bucket), await tx.asset_at(bucket, key)
        freed = current.blob.size if current else 0
        room = found.quota_bytes - usage.bytes - usage.reserved_bytes + already + freed
        return Limit(max(0, room), f"bucket:{bucket}", left=True)

    async def announced(self, tx: Transaction, admission: Admission) -> "_Place":
        """The place of an upload that is about to begin. Raises QuotaExceeded, StoreFull, NotFound."""
        length = admission.wanted.length or 0
        place = await _find_room(tx, admission, length)
        self._keeper.check_room(length)
        return place

    async def commit(self, kept: Sequence[Kept]) -> list[Received]:
        """Give the kept bytes their rows and tasks, all in one transaction; on failure all are abandoned."""
        try:
            async with self._catalogue.transaction() as tx:
                received = []
                for item in kept:
                    await self._keeper.adopt(tx, item.blob)
                    received.append(await self.enter(tx, item))
        except Gone as gone:
            await self.abandon(kept)
            raise Conflict("the bucket or the upload was removed meanwhile; send it again") from gone
        except BaseException:
            await self.abandon(kept)
            raise
        for item in kept:
            self._keeper.adopted(item.blob)
        return received

    async def abandon(self, kept: Sequence[Kept]) -> None:
        await self._keeper.abandon(*(item.blob.id for item in kept))

    async def enter(self, tx: Transaction, kept: Kept, *, promised: str | None = None) -> Received:
        """Write the asset's row and its tasks. `promised` is the id that its client was told it will have: where the
        key belongs to another asset by now, that one goes."""
        wanted, blob, now = kept.admission.wanted, kept.blob, self._clock()
        current = await tx.asset_at(wanted.bucket, wanted.key)
        if current and current.expired(now):
            await tx.delete_asset(current.id)
            current = None
        check_preconditions(wanted, current)
        key = wanted.key
        if current and promised and current.id != promised:
            await tx.delete_asset(current.id)
            current = None
        elif current and not wanted.replace:
            key, current = await _free_key(tx, wanted), None
        place = await _find_room(tx, kept.admission, blob.size)
        lifetime = wanted.expires_in if wanted.expires_in is not None else place.bucket.default_ttl
        derives = self._derives(kept.media_type)
        asset = Asset(
            id=current.id if current else promised or new_asset_id(),
            bucket=wanted.bucket,
            key=key,
            name=wanted.name,
            blob=blob,
            media_type=kept.media_type,
            state="processing" if derives else "ready",
            created_at=current.created_at if current else now,
            modified_at=max(int(now), current.modified_at + 1) if current else int(now),
            version=current.version + 1 if current else 1,
            expires_at=now + lifetime if lifetime is not None else None,
            tags=wanted.tags,
            metadata=wanted.metadata,
            facts=kept.facts,
            tasks_pending=int(derives),
        )
        await (tx.replace_asset(asset) if current else tx.add_asset(asset))
        if derives:
            await tx.enqueue(NewTask("analyse", asset.id, {"version": asset.version}))
        else:
            await tx.enqueue(
                NewTask("analyse", asset.id, state="done", detail=self._why_not(kept.media_type))
            )
        return Received(asset, created=current is None)


class _Checked:
    """A body that is counted and sniffed as it passes; stops at the first byte that is too many."""

    def __init__(self, admission: Admission, body: AsyncIterable[bytes | memoryview]) -> None:
        self._admission = admission
        self._body = body
        self.room: int | None = None
        self.head = b""
        self.media_type = "application/octet-stream"

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        limit, size, sniffed = self._admission.limit, 0, False
        held: list[bytes | memoryview] = []
        async for chunk in self._body:
            size += len(chunk)
            if limit and size > limit.bytes:
                raise limit.exceeded()
            if self.room is not None and size > self.room:
                bucket = self._admission.bucket
                raise _quota_exceeded(bucket, bucket.quota_bytes or 0, "bytes")
            if sniffed:
                yield chunk
                continue
            held.append(chunk)
            if size >= HEAD_SIZE:
                sniffed = True
                self._sniff(held)
                for earlier in held:
                    yield earlier
                held.clear()
        if not sniffed:
            self._sniff(held)
            for chunk in held:
                yield chunk

    def _sniff(self, held: Sequence[bytes | memoryview]) -> None:
        wanted, bucket = self._admission.wanted, self._admission.bucket
        self.head = b"".join(chunk[:HEAD_SIZE] for chunk in held)[:HEAD_SIZE]
        self.media_type = decide(self.head, wanted.declared_type, wanted.name)
        check_type(self.media_type, bucket, wanted)


@dataclass(frozen=True, slots=True)
class _Place:
    """A bucket as it is now. `room` is how many bytes it can take (None: no quota), what the upload replaces
    counted as free."""

    bucket: Bucket
    room: int | None
    replaces: bool
    freed: int


async def _find_room(tx: Transaction, admission: Admission, size: int) -> _Place:
    """Raises QuotaExceeded where `size` bytes do not fit, NotFound where the bucket is no more."""
    wanted = admission.wanted
    bucket = await tx.bucket(wanted.bucket)
    if bucket is None:
        raise NotFound(f"there is no bucket {wanted.bucket!r}")
    current = await tx.asset_at(wanted.bucket, wanted.key) if wanted.replace else None
    freed = current.blob.size if current else 0
    if bucket.quota_bytes is None and bucket.quota_assets is None:
        return _Place(bucket, None, current is not None, freed)
    usage = await tx.usage(bucket.name)
    taken = usage.assets + usage.reserved_assets
    if bucket.quota_assets is not None and current is None and taken >= bucket.quota_assets:
        raise _quota_exceeded(bucket, bucket.quota_assets, "assets")
    room = None
    if bucket.quota_bytes is not None:
        room = bucket.quota_bytes - usage.bytes - usage.reserved_bytes + freed
        if size > room:
            raise _quota_exceeded(bucket, bucket.quota_bytes, "bytes")
    return _Place(bucket, room, current is not None, freed)


def _quota_exceeded(bucket: Bucket, quota: int, unit: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"bucket {bucket.name} may hold {quota} {unit} and this would be more: delete assets or raise its quota",
        limit=quota,
        limit_source=f"bucket:{bucket.name}",
    )


async def _free_key(tx: Transaction, wanted: Wanted) -> str:
    """A key beside the taken one: six random characters before the extension. Raises BadKey where these could only
    stand in the place of the prefix, which says who may see it."""
    prefix = wanted.key.removesuffix(wanted.name)
    stem, extension = posixpath.splitext(wanted.key)
    while True:
        suffix = "-" + "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(6))
        room = MAX_KEY_BYTES - len((suffix + extension).encode())
        if len(prefix.encode()) > room:
            raise BadKey("the key is taken, and has no room for another name: shorten the prefix")
        candidate = stem.encode()[:room].decode(errors="ignore") + suffix + extension
        if await tx.asset_at(wanted.bucket, candidate) is None:
            return candidate
