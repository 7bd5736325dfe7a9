"""Archives as JSON."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from mediasvc.deliver.links import LONGEST
from mediasvc.web.schemas import Duration, In


class ArchiveIn(In):
    """Either `assets`, or `bucket` and `prefix`."""

    assets: list[str] | None = Field(None, description="ids", examples=[["ast_01…"]])
    bucket: str | None = Field(None, description="`media` unless named")
    prefix: str | None = Field(None, description="of keys; names in the ZIP go on from its last `/`")
    name: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="of the ZIP", examples=["holidays"]
    )
    expires_in: Annotated[Duration, Field(le=LONGEST)]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.assets is not None and not (self.bucket is None and self.prefix is None):
            raise ValueError("name assets, or bucket and prefix, not both")
        return self


class ArchiveOut(BaseModel):
    url: str
    size: int = Field(description="bytes of the ZIP")
    expires_at: str
