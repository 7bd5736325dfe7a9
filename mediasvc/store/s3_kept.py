"""What of a growing blob an S3 store has, as it is noted and as it is found there."""

import re
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count

from mediasvc.store.interface import BlobMissing, Growing, Lost
from mediasvc.store.parts import SMALLEST, Sequel
from mediasvc.store.s3_client import S3Client, UploadGone

Part = tuple[str, int]  # ETag and bytes

_TAIL = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}", re.ASCII)


def new_tail(blob_id: str) -> str:
    """A key of its own for every tail: one that nobody counts must not destroy the one before."""
    return f"{blob_id}.{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Kept:
    """Parts of a multipart upload, and behind them the tail: an object of its own, until it is part of one.

    `old` is the tail of the append before: an append that is not counted leaves it to whoever comes after.
    """

    upload_id: str = ""
    parts: tuple[Part, ...] = ()
    tail: str = ""
    tail_size: int = 0
    old: str = ""

    @classmethod
    def noted(cls, growing: Growing) -> "Kept":
        """Raises Lost where the notes are of another size."""
        notes = growing.notes
        kept = cls(
            notes.get("upload_id", ""),
            tuple((etag, size) for etag, size in notes.get("parts", ())),
            notes.get("tail", ""),
            notes.get("tail_size", 0),
            notes.get("old", ""),
        )
        if kept.size != growing.size:
            raise Lost(f"{kept.size} bytes are noted, not {growing.size}")
        return kept

    def growing(self, blob_id: str) -> Growing:
        notes = {
            "upload_id": self.upload_id,
            "parts": [list(part) for part in self.parts],
            "tail": self.tail,
            "tail_size": self.tail_size,
            "old": self.old,
        }
        return Growing(blob_id, self.size, notes)

    @property
    def size(self) -> int:
        return self._in_parts + self.tail_size

    @property
    def _in_parts(self) -> int:
        return sum(size for _, size in self.parts)

    @property
    def last(self) -> int:
        """Bytes of the last part."""
        return self.parts[-1][1] if self.parts else 0

    def with_part(self, part: Part) -> "Kept":
        """The tail is part of it."""
        return replace(self, parts=(*self.parts, part), tail="", tail_size=0)

    def with_tail(self, key: str, size: int) -> "Kept":
        return replace(self, tail=key, tail_size=size)

    def sequel(self, length: int | None) -> Sequel:
        return Sequel(len(self.parts), self._in_parts, self.last, length)

    def with_more(self, there: dict[int, Part]) -> "Kept":
        """And the parts that were stored and never noted. One that is no larger than the tail, or than S3 takes in
        the middle, is not theirs: `finish` has sent it, or `Append` has blotted it out."""
        kept = self
        for number in count(len(self.parts) + 1):
            part = there.get(number)
            if part is None or part[1] <= kept.tail_size or part[1] < max(SMALLEST, kept.last):
                break
            kept = kept.with_part(part)
        return kept


async def parts_there(client: S3Client, blob_id: str, upload_id: str, *, after: int = 0) -> dict[int, Part]:
    """Every part beyond that number. Raises Lost where the upload is gone."""
    there: dict[int, Part] = {}
    markers = {"NextPartNumberMarker": "PartNumberMarker"}
    asked = {"Key": blob_id, "UploadId": upload_id, "PartNumberMarker": after}
    try:
        async for page in client.pages("list_parts", markers, **asked):
            for part in page.get("Parts", ()):
                there[part["PartNumber"]] = (part["ETag"], part["Size"])
    except (UploadGone, BlobMissing):  # RGW says NoSuchKey where S3 says NoSuchUpload
        raise Lost("the multipart upload is not there") from None
    return there


async def size_of(client: S3Client, key: str) -> int | None:
    """Bytes of an object; None: there is none."""
    try:
        return int((await client.ask("head_object", Key=key))["ContentLength"])
    except BlobMissing:
        return None


async def tails_there(client: S3Client, prefix: str = "") -> AsyncIterator[str]:
    """The keys of tails; the first 32 characters are the blob's id."""
    markers = {"NextContinuationToken": "ContinuationToken"}
    async for page in client.pages("list_objects_v2", markers, Prefix=prefix):
        for item in page.get("Contents", ()):
            if _TAIL.fullmatch(item["Key"]):
                yield item["Key"]


async def remove_tails(client: S3Client, blob_id: str) -> None:
    """All of one blob."""
    await remove(client, [key async for key in tails_there(client, f"{blob_id}.")])


async def remove(client: S3Client, keys: Iterable[str]) -> None:
    # One by one: DeleteObjects needs a checksum that not every store takes.
    for key in keys:
        with suppress(BlobMissing):
            await client.ask("delete_object", Key=key)
