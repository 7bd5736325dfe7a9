"""Clients talk to an S3 store directly: URLs to read blobs with, and to send the parts of new ones."""

from collections.abc import Mapping, Sequence

from mediasvc.store.interface import Growing, Lost, PresignedUrl, SentPart
from mediasvc.store.parts import PartPlan
from mediasvc.store.presign import Presigner
from mediasvc.store.s3_client import S3Client, UploadGone
from mediasvc.store.s3_kept import Kept, parts_there
from mediasvc.store.s3_send import OCTETS


class S3Presigned:
    """URLs of blobs (the `Presigned` capability)."""

    def __init__(self, client: S3Client) -> None:
        url, credentials = client.url, client.credentials
        self._client = client
        self._inside = Presigner(client.endpoint, url.bucket, url.region, credentials)
        self._outside = Presigner(url.public_endpoint or client.endpoint, url.bucket, url.region, credentials)

    def inside(self, blob_id: str, *, seconds: int) -> PresignedUrl:
        return self._inside.url(blob_id, seconds=seconds)

    def outside(self, blob_id: str, *, seconds: int, answer: Mapping[str, str]) -> PresignedUrl:
        return self._outside.url(blob_id, seconds=seconds, answer=answer)

    def part_size(self, length: int) -> int:
        return PartPlan(length).size(1)

    async def begin(self, blob_id: str) -> str:
        answer = await self._client.ask("create_multipart_upload", Key=blob_id, ContentType=OCTETS)
        upload_id: str = answer["UploadId"]
        # One whose answer was lost, and one that nobody has noted.
        await self._client.abort_unfinished(blob_id, but=upload_id)
        return upload_id

    def part(
        self, blob_id: str, begun: str, number: int, *, seconds: int, size: int | None = None
    ) -> PresignedUrl:
        return self._outside.part(blob_id, begun, number, seconds=seconds, length=size)

    async def parts(self, blob_id: str, begun: str) -> Mapping[int, SentPart]:
        try:
            there = await parts_there(self._client, blob_id, begun)
        except UploadGone as gone:
            raise Lost("the multipart upload is over") from gone
        return {number: SentPart(*part) for number, part in there.items()}

    def gathered(self, blob_id: str, begun: str, parts: Sequence[SentPart]) -> Growing:
        return Kept(begun, tuple((part.etag, part.size) for part in parts)).growing(blob_id)
