"""What the dialects of resumable uploads ask for, in one language: tus and the draft only translate.

Begin   an upload; its first bytes may come along
Append  bytes at an offset
Inspect how far it has come
Discard it
Describe what this server can do
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a body must hash to. `algorithm` is a name of hashlib's, or crc32."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Begin:
    """`length` None: not known yet. `names` are bucket, key, filename and filetype as far as the client said them,
    and whatever else it said. `said` and `concat` are tus's headers as they were sent. `parts`: ids of the uploads to
    put together, in order. `size`: of the body, where its head says so. `completes`: whether the upload is complete
    with the body's end; None: as soon as `length` bytes are there. Of the body are `checksum`, which is tus's, and
    `content_digest`, HTTP's. `sha256`: of the whole, in hex.
    """

    length: int | None
    names: Mapping[str, str] = field(default_factory=dict)
    said: str = ""
    concat: str = ""
    parts: Sequence[str] = ()
    has_body: bool = False
    size: int | None = None
    completes: bool | None = None
    checksum: Checksum | None = None
    content_digest: Checksum | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """The body begins at `offset`. `length`: the whole one, where it is said here. `size`: of this body, where its
    head says so. `completes` and the checksums as in Begin. `whole`: a body that breaks off counts nothing."""

    offset: int
    length: int | None = None
    size: int | None = None
    completes: bool | None = None
    whole: bool = False
    checksum: Checksum | None = None
    content_digest: Checksum | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Inspect:
    pass


@dataclass(frozen=True, slots=True)
class Discard:
    pass


@dataclass(frozen=True, slots=True)
class Describe:
    pass


Command = Begin | Append | Inspect | Discard | Describe


@dataclass(frozen=True, slots=True)
class Limits:
    """What this server, or this upload, takes at most: bytes, and seconds. None: no limit."""

    max_size: int | None = None
    max_append_size: int | None = None
    max_age: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a dialect answers: no body, but what the route adds where it answers with an asset."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
