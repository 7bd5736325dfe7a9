"""How bytes leave, decided before touching any of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mediasvc.core.span import Span
from mediasvc.core.tally import Delivery

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Nothing:
    """No body: HEAD, 304."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, slots=True)
class SendFile:
    """The kernel copies the spans from the blob's file to the socket; bytes between them are ours.

    `size` is that of the whole blob: a file of any other size is not it.
    """

    name: ClassVar[str] = "sendfile"
    blob_id: str
    size: int
    parts: Sequence[bytes | Span]


@dataclass(frozen=True, slots=True)
class Stream:
    """The same, read from the store and written piece by piece."""

    name: ClassVar[str] = "stream"
    blob_id: str
    size: int
    parts: Sequence[bytes | Span]


@dataclass(frozen=True, slots=True)
class HandToNginx:
    """nginx sends the bytes: the headers say where it finds them, and what it tells the client besides.

    Where the blob is a file of ours, one of another size than `size` is not it.
    """

    name: ClassVar[str] = "nginx"
    blob_id: str
    size: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """The client fetches the bytes from the store: the headers hold the presigned URL."""

    name: ClassVar[str] = "redirect"
    blob_id: str
    size: int


Body = Nothing | SendFile | Stream | HandToNginx | Redirect


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole answer: status, headers, and how its body gets out.

    `status` is what the client will see; nginx finds the headers of a 200 or 206 under other names. `counts` is the
    id of the link with a row that this answer uses up one download of: count it just before anything is sent.
    `delivery` is what the bytes count for once they are out; None: nothing of the asset leaves.
    """

    status: int
    headers: list[Header]
    body: Body
    counts: str = ""
    delivery: Delivery | None = None
