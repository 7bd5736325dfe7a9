"""What goes over the wire as JSON: the models at the door."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mediasvc.core.asset import Asset
from mediasvc.core.durations import parse_duration
from mediasvc.core.media_types import essence
from mediasvc.core.task import Task
from mediasvc.web.urls import asset_url, rendition_url


def rfc3339(seconds: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)


def _tag(text: Any) -> Any:
    if isinstance(text, str) and not (
        text.strip() and len(text) <= 128 and text.isprintable() and "," not in text
    ):
        raise ValueError("a tag is 1 to 128 printable characters without a comma")
    return text.strip() if isinstance(text, str) else text


def _allowed_type(text: str) -> str:
    text = text.strip().lower()
    if text.endswith("/*") and essence(text[:-1] + "x"):
        return text
    if (media_type := essence(text)) is None:
        raise ValueError(f"{text[:64]!r} names no type of content; write image/png or image/*")
    return media_type


AllowedType = Annotated[str, AfterValidator(_allowed_type)]
Size = Annotated[int, Field(ge=0, le=2**63 - 1, strict=True, description="bytes")]
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


class DownloadsOut(BaseModel):
    """What was seen to be delivered: `count` answers that held the first byte, `bytes` in all."""

    count: int
    bytes: int


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
    downloads: DownloadsOut

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
            expires_at=when(asset.expires_at),
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
            downloads=DownloadsOut(count=asset.downloads, bytes=asset.downloaded_bytes),
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
            started_at=when(task.started_at),
            finished_at=when(task.finished_at),
        )


class Timeline(BaseModel):
    tasks: list[TaskOut]
