"""Uploads and upload tokens as JSON."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from mediasvc.core.upload import Upload, UploadToken
from mediasvc.ingest.possession import DIRECT, Outcome
from mediasvc.store.interface import Presigned
from mediasvc.web.schemas import AllowedType, AssetOut, Duration, In, Size, rfc3339
from mediasvc.web.urls import named_asset_url


class PutOut(BaseModel):
    """One request with the whole as its body."""

    method: Literal["PUT"] = "PUT"
    url: str


class TusOut(BaseModel):
    url: str


class PartsOut(BaseModel):
    """Straight to the store: `POST url?numbers=1,2` gives URLs for these parts, each to be PUT as it is. All parts but
    the last have `size` bytes. `complete` is asked (POST) when all `count` of them are there."""

    url: str
    complete: str
    size: int
    count: int

    @classmethod
    def of(cls, upload: Upload, url: str, presigned: Presigned | None) -> Self | None:
        """None where bytes come, or have to come, another way."""
        if presigned is None or not upload.length or upload.offset or upload.concat:
            return None
        size = presigned.part_size(upload.length)
        return cls(url=f"{url}/parts", complete=f"{url}/complete", size=size, count=-(-upload.length // size))


class PartUrlOut(BaseModel):
    """PUT exactly `size` bytes, those from `offset` on, with no other header that matters."""

    number: int
    url: str
    offset: int
    size: int


class PartUrlList(BaseModel):
    parts: list[PartUrlOut]
    expires_at: str


class SentPartOut(BaseModel):
    number: int
    size: int


class SentPartList(BaseModel):
    """What is in the store so far."""

    parts: list[SentPartOut]


class UploadOut(BaseModel):
    """An upload: how far it has come, and what it is, or will be, called. `asset` once it is complete."""

    id: str
    state: str = Field(examples=["open"])
    offset: int
    length: int | None
    created_at: str
    expires_at: str
    sha256: str | None = Field(description="what the whole was announced to hash to")
    bucket: str | None
    key: str | None
    url: str = Field(description="the upload's own")
    asset_id: str | None
    asset_url: str | None = Field(description="where the asset is, or will be")
    asset: AssetOut | None
    put: PutOut | None
    tus: TusOut | None
    parts: PartsOut | None

    @classmethod
    def of(cls, outcome: Outcome, base: str, uploads_url: str, presigned: Presigned | None = None) -> Self:
        upload, received = outcome.upload, outcome.received
        url, sendable = f"{uploads_url}/{upload.id}", upload.state == "open" and not upload.final
        direct = DIRECT in upload.notes
        return cls(
            id=upload.id,
            state=upload.state,
            offset=upload.offset,
            length=upload.length,
            created_at=rfc3339(upload.created_at),
            expires_at=rfc3339(upload.expires_at),
            sha256=upload.wanted.get("sha256"),
            bucket=upload.bucket or None,
            key=upload.key or None,
            url=url,
            asset_id=upload.asset_id or None,
            asset_url=named_asset_url(base, upload.asset_id, upload.name) if upload.asset_id else None,
            asset=AssetOut.of(received.asset, base, with_gps=True) if received else None,
            put=PutOut(url=url) if sendable and upload.offset == 0 and not direct else None,
            tus=TusOut(url=url) if sendable and not direct else None,
            parts=PartsOut.of(upload, url, presigned) if sendable else None,
        )


class UploadList(BaseModel):
    uploads: list[UploadOut]
    next_cursor: str | None


class UploadIn(In):
    """What is to be uploaded; how it can be sent is in the answer."""

    bucket: str = "media"
    key: Annotated[str, Field(max_length=4096)] | None = None
    name: Annotated[str, Field(max_length=1024)] | None = None
    size: Size
    media_type: Annotated[str, Field(max_length=255)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None


class UploadTokenIn(In):
    """Who has the token may begin `max_count` uploads (each partial of a concatenation is one), each of `max_size`
    bytes at most, whose types are among `allowed_types`."""

    bucket: str
    prefix: Annotated[str, Field(max_length=1024)] = ""
    max_size: Size | None = None
    max_count: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    allowed_types: Annotated[tuple[AllowedType, ...], Field(max_length=64)] = ()
    expires_in: Duration


class UploadTokenOut(BaseModel):
    """`token` is shown this once. `companion_url` only where the store has presigned URLs."""

    token: str
    tus_url: str
    companion_url: str | None
    expires_at: str

    @classmethod
    def of(cls, token: UploadToken, secret: str, base: str, *, companion: bool) -> Self:
        url = f"{base}/t/{secret}"
        return cls(
            token=secret,
            tus_url=f"{url}/tus",
            companion_url=url if companion else None,
            expires_at=rfc3339(token.expires_at),
        )
