"""How bytes leave, decided before touching any of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mediasvc.core.span import Span

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
class Plan:
    """A whole answer: status, headers, and how its body gets out."""

    status: int
    headers: list[Header]
    body: Nothing | SendFile | Stream
