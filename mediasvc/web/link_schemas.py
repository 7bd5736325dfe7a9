"""Links as JSON."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field

from mediasvc.core.link import Link
from mediasvc.core.recipe import PRESET_NAMES
from mediasvc.deliver.links import LONGEST
from mediasvc.web.schemas import DownloadsOut, Duration, In, rfc3339


def _not_too_long(seconds: float) -> float:
    if seconds > LONGEST:
        raise ValueError(
            f"a link may last {LONGEST // 86400}d; what should be seen for longer belongs into a public bucket"
        )
    return seconds


def _preset(name: str) -> str:
    if name not in PRESET_NAMES:
        raise ValueError(f"there is no preset {name[:64]!r}, only {', '.join(sorted(PRESET_NAMES))}")
    return name


class LinkIn(In):
    expires_in: Annotated[Duration, AfterValidator(_not_too_long)] = Field(
        description="a plain link may last up to a tenth (at least a minute) longer, so that equal requests give equal "
        "URLs; none outlives the key that made it",
        examples=["7d"],
    )
    disposition: Literal["inline", "attachment"] | None = Field(
        None, description="`attachment` makes browsers save it; `inline` types only are ever shown in place"
    )
    recipe: Annotated[str, AfterValidator(_preset)] | None = Field(
        None, description="link to this rendition; default: the original", examples=["preview"]
    )
    max_downloads: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = Field(
        None,
        description="an answer that holds the first byte counts, HEAD and the rest of a download do not; "
        "such a link is listed and can be revoked by itself",
    )


class NewLinkOut(BaseModel):
    id: str | None = Field(None, description="only of a link with `max_downloads`", examples=["lnk_…"])
    url: str
    expires_at: str


class LinkOut(BaseModel):
    """A link with `max_downloads`; of plain ones nothing is kept."""

    id: str
    url: str
    created_at: str
    expires_at: str
    max_downloads: int
    begun: int = Field(description="how many of `max_downloads` are used up")
    downloads: DownloadsOut

    @classmethod
    def of(cls, link: Link, base: str) -> Self:
        return cls(
            id=link.id,
            url=base + link.url,
            created_at=rfc3339(link.created_at),
            expires_at=rfc3339(link.expires_at),
            max_downloads=link.max_downloads,
            begun=link.begun,
            downloads=DownloadsOut(count=link.downloads, bytes=link.downloaded_bytes),
        )


class LinkList(BaseModel):
    links: list[LinkOut]
    next_cursor: str | None
