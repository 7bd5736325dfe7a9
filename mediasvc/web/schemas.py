"""What goes over the wire as JSON: the models at the door."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mediasvc.core.access import SCOPES, Key
from mediasvc.core.asset import Asset
from mediasvc.core.bucket import Bucket
from mediasvc.core.durations import parse_duration
from mediasvc.core.media_types import essence
from mediasvc.core.task import Task
from mediasvc.web.urls import asset_url, rendition_url


def rfc3339(seconds: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def _allowed_type(text: str) -> str:
    text = text.strip().lower()
    if text.endswith("/*") and essence(text[:-1] + "x"):
        return text
    if (media_type := essence(text)) is None:
        raise ValueError(f"{text!r} is no media type; write image/png or image/*")
    return media_type


def _scope(text: str) -> str:
    if text not in SCOPES:
        raise ValueError(f"{text!r} is no scope; there are {', '.join(SCOPES)}")
    return text


def _tag(text: Any) -> Any:
    if isinstance(text, str) and not (
        text.strip() and len(text) <= 128 and text.isprintable() and "," not in text
    ):
        raise ValueError("a tag is 1 to 128 printable characters without a comma")
    return text.strip() if isinstance(text, str) else text


Size = Annotated[int, Field(ge=0, le=2**63 - 1, description="bytes")]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(description="seconds, or a number with s, m, h or d", examples=["30d"]),
]
Tag = Annotated[str, BeforeValidator(_tag)]
Text = Annotated[str, Field(max_length=2048)]


class In(BaseModel):
    """What callers send; unknown fields are refused, so that a misspelled one is not lost in silence."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457, with `code` to tell errors apart by program."""

    title: str
    status: int
    code: str = Field(examples=["not_found"])
    detail: str = Field(description="what is wrong and how to mend it")
    request_id: str
    retryable: bool
    limit: int | None = Field(None, description="for limits: how much is allowed")
    limit_source: str | None = Field(None, examples=["bucket:media"])


class RenditionOut(BaseModel):
    url: str
    width: int
    height: int
    media_type: str
    size: int


class Placeholder(BaseModel):
    thumbhash: str = Field(description="base64")
    color: str = Field(examples=["#a4b1c2"])
    data_uri: str = Field(description="a tiny picture, ready for `src`")


class TaskCounts(BaseModel):
    pending: int
    failed: int


class AssetOut(BaseModel):
    """An asset as everybody gets it; `facts.gps` only with a key."""

    id: str
    bucket: str
    key: str
    name: str
    size: int
    media_type: str
    sha256: str
    etag: str
    version: int
    state: str = Field(examples=["ready"])
    created_at: str
    expires_at: str | None
    tags: Sequence[str]
    metadata: Mapping[str, str]
    facts: Mapping[str, Any]
    placeholder: Placeholder | None
    url: str
    renditions: Mapping[str, RenditionOut]
    tasks: TaskCounts

    @classmethod
    def of(cls, asset: Asset, base: str, *, with_gps: bool) -> Self:
        return cls(
            id=asset.id,
            bucket=asset.bucket,
            key=asset.key,
            name=asset.name,
            size=asset.blob.size,
            media_type=asset.media_type,
            sha256=asset.blob.sha256,
            etag=asset.etag,
            version=asset.version,
            state=asset.state,
            created_at=rfc3339(asset.created_at),
            expires_at=_when(asset.expires_at),
            tags=asset.tags,
            metadata=asset.metadata,
            facts={name: fact for name, fact in asset.facts.items() if with_gps or name != "gps"},
            placeholder=Placeholder(**asset.placeholder) if asset.placeholder else None,
            url=asset_url(base, asset),
            renditions={
                preset: RenditionOut(
                    url=rendition_url(base, asset, rendition),
                    width=rendition.width,
                    height=rendition.height,
                    media_type=rendition.media_type,
                    size=rendition.blob.size,
                )
                for preset, rendition in asset.renditions.items()
            },
            tasks=TaskCounts(pending=asset.tasks_pending, failed=asset.tasks_failed),
        )


class Failure(BaseModel):
    filename: str
    status: int
    code: str
    detail: str


class UploadedOut(BaseModel):
    assets: list[AssetOut]


class PartlyUploadedOut(UploadedOut):
    failed: list[Failure]


class AssetList(BaseModel):
    assets: list[AssetOut]
    prefixes: list[str]
    next_cursor: str | None


class AssetPatch(In):
    """What may be changed without sending bytes; a field not sent stays."""

    name: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    tags: Annotated[list[Tag], Field(max_length=64)] | None = None
    metadata: Annotated[dict[Annotated[str, Field(max_length=128)], Text], Field(max_length=64)] | None = None
    expires_in: Duration | None = Field(None, description="from now; null: never expires")


class CheckItem(In):
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")]
    size: Size
    bucket: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.key is not None and self.bucket is None:
            self.bucket = "media"
        return self


class CheckIn(In):
    items: Annotated[list[CheckItem], Field(max_length=1000)]


class Presence(BaseModel):
    present: bool
    id: str | None = None


class CheckOut(BaseModel):
    items: list[Presence]


class TaskOut(BaseModel):
    id: str
    kind: str = Field(examples=["analyse"])
    state: str = Field(examples=["done"])
    attempts: int
    detail: str
    created_at: str
    started_at: str | None
    finished_at: str | None

    @classmethod
    def of(cls, task: Task) -> Self:
        return cls(
            id=task.id,
            kind=task.kind,
            state=task.state,
            attempts=task.attempts,
            detail=task.detail,
            created_at=rfc3339(task.created_at),
            started_at=_when(task.started_at),
            finished_at=_when(task.finished_at),
        )


class Timeline(BaseModel):
    tasks: list[TaskOut]


class BucketPolicy(In):
    """What a bucket allows; a field not sent stays as it is (or gets its default)."""

    public: bool | None = None
    max_asset_size: Size | None = None
    allowed_types: (
        Annotated[list[Annotated[str, BeforeValidator(_allowed_type)]], Field(max_length=256)] | None
    ) = None
    default_ttl: Duration | None = None
    quota_bytes: Size | None = None
    quota_assets: Size | None = None
    metadata_policy: str | None = Field(
        None, description="`keep`, the only one that is built", examples=["keep"]
    )
    presets: Any = Field(None, description="not built yet: refused")
    cors_origins: Any = Field(None, description="not built yet: refused")
    download_rate: Any = Field(None, description="not built yet: refused")


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
        )


class BucketList(BaseModel):
    buckets: list[BucketOut]
    next_cursor: str | None


class KeyIn(In):
    name: Annotated[str, Field(max_length=200)] = ""
    scopes: Annotated[list[Annotated[str, BeforeValidator(_scope)]], Field(min_length=1)] = Field(
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
            expires_at=_when(key.expires_at),
            max_asset_size=key.max_asset_size,
            **more,
        )


class NewKeyOut(KeyOut):
    secret: str = Field(description="shown this once", examples=["msk_…"])


class KeyList(BaseModel):
    keys: list[KeyOut]
    next_cursor: str | None
