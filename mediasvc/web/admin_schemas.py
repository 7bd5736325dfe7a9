"""Buckets and keys as JSON."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field

from mediasvc.core.access import SCOPES, Key
from mediasvc.core.bucket import Bucket
from mediasvc.core.origins import parse_origin
from mediasvc.web.schemas import AllowedType, Duration, In, Size, rfc3339, when

_FASTEST = 2**40  # bytes a second: nginx multiplies it with seconds, in 63 bits


def _scope(text: str) -> str:
    if text not in SCOPES:
        raise ValueError(f"{text!r} is no scope; there are {', '.join(SCOPES)}")
    return text


class BucketPolicy(In):
    """What a bucket allows; a field not sent stays as it is (or gets its default)."""

    public: bool | None = None
    max_asset_size: Size | None = None
    allowed_types: Annotated[list[AllowedType], Field(max_length=256)] | None = None
    default_ttl: Duration | None = None
    quota_bytes: Size | None = None
    quota_assets: Size | None = None
    metadata_policy: str | None = Field(
        None, description="`keep`, the only one that is built", examples=["keep"]
    )
    presets: Any = Field(None, description="not built yet: refused")
    cors_origins: (
        Annotated[list[Annotated[str, AfterValidator(parse_origin)]], Field(max_length=100)] | None
    ) = Field(
        None,
        description="of the origins the server allows, those whose pages may read this bucket's `/b`, `/f` and "
        "`/i` URLs; empty: all of them",
        examples=[["https://app.example.org"]],
    )
    download_rate: Annotated[int, Field(strict=True, ge=1, le=_FASTEST)] | None = Field(
        None, description="bytes a second and connection, behind nginx", examples=[1_000_000]
    )


class BucketIn(BucketPolicy):
    name: Annotated[str, Field(examples=["photos"])]


class BucketOut(BaseModel):
    name: str
    created_at: str
    public: bool
    max_asset_size: int | None
    allowed_types: Sequence[str]
    default_ttl: float | None
    quota_bytes: int | None
    quota_assets: int | None
    metadata_policy: str
    cors_origins: Sequence[str]
    download_rate: int | None

    @classmethod
    def of(cls, bucket: Bucket) -> Self:
        return cls(
            name=bucket.name,
            created_at=rfc3339(bucket.created_at),
            public=bucket.public,
            max_asset_size=bucket.max_asset_size,
            allowed_types=bucket.allowed_types,
            default_ttl=bucket.default_ttl,
            quota_bytes=bucket.quota_bytes,
            quota_assets=bucket.quota_assets,
            metadata_policy="keep",
            cors_origins=bucket.cors_origins,
            download_rate=bucket.download_rate,
        )


class BucketList(BaseModel):
    buckets: list[BucketOut]
    next_cursor: str | None


class KeyIn(In):
    name: Annotated[str, Field(max_length=200)] = ""
    scopes: Annotated[list[Annotated[str, AfterValidator(_scope)]], Field(min_length=1)] = Field(
        examples=[["assets:write"]]
    )
    bucket: str | None = None
    prefix: Annotated[str, Field(max_length=1024)] = ""
    expires_in: Duration | None = None
    max_asset_size: Size | None = None


class KeyOut(BaseModel):
    id: str
    name: str
    hint: str = Field(description="how the secret begins")
    scopes: list[str]
    bucket: str | None
    prefix: str
    created_at: str
    expires_at: str | None
    max_asset_size: int | None

    @classmethod
    def of(cls, key: Key, **more: Any) -> Self:
        return cls(
            id=key.id,
            name=key.name,
            hint=key.hint,
            scopes=sorted(key.scopes),
            bucket=key.bucket,
            prefix=key.prefix,
            created_at=rfc3339(key.created_at),
            expires_at=when(key.expires_at),
            max_asset_size=key.max_asset_size,
            **more,
        )


class NewKeyOut(KeyOut):
    secret: str = Field(description="shown this once", examples=["msk_…"])


class KeyList(BaseModel):
    keys: list[KeyOut]
    next_cursor: str | None
