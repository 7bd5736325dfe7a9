"""An original on its way in: whose it is, what it will become, and how far it has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

UploadState = Literal["open", "completing", "complete", "failed"]
KEPT_AFTER_END = 86400.0  # seconds that a finished upload can still be asked after


@dataclass(frozen=True, slots=True)
class Upload:
    """A row of its own, whatever the way in. Sizes in bytes, times in seconds since the epoch.

    `offset` bytes are safely received and only ever grow; `length` is what is expected (None: not said yet).
    `epoch` counts who has taken it over: a writer with an older one changes nothing any more. `run` is the start of
    the server that holds it. What is received so far rests under `blob_id`; `notes` is what the store remembers of it.
    A partial (of a tus concatenation) has no bucket, and becomes no asset by itself.
    """

    id: str
    owner: str  # the key or the upload token that began it
    created_at: float
    expires_at: float
    blob_id: str
    asset_id: str = ""  # promised from the first answer on
    bucket: str = ""
    key: str = ""
    name: str = ""
    wanted: Mapping[str, Any] = field(
        default_factory=dict
    )  # the rest of what was asked for, as ingest keeps it
    said: str = ""  # tus: Upload-Metadata as it was sent
    concat: str = ""  # tus: Upload-Concat as it was sent
    parts: Sequence[str] = ()  # ids of the partials that a final is made of
    length: int | None = None
    limit: int | None = None  # the largest length that was allowed when it began
    limit_source: str = ""
    offset: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    unverified: bool = False  # bytes behind `offset` may be there whose checksum nobody has compared
    epoch: int = 0
    run: str = ""
    state: UploadState = "open"
    created: bool = True  # of a complete one: whether its asset was new
    detail: str = ""  # of a failed one: why

    @property
    def partial(self) -> bool:
        return self.concat == "partial"

    @property
    def final(self) -> bool:
        return self.concat.startswith("final")

    @property
    def received(self) -> bool:
        """Whether every byte is here."""
        return self.length is not None and self.offset == self.length


@dataclass(frozen=True, slots=True)
class UploadToken:
    """Lets whoever has its secret upload, within what it says, and nothing else. The secret is kept hashed.

    `used` counts the uploads begun with it, of which `max_count` are allowed.
    """

    id: str
    secret_sha256: str
    owner: str  # the key that made it
    bucket: str
    prefix: str
    created_at: float
    expires_at: float
    max_size: int | None = None
    max_count: int | None = None
    allowed_types: Sequence[str] = ()
    used: int = 0
