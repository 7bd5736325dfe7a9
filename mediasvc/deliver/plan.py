"""How bytes leave, decided before touching any of them."""

from collections.abc import Sequence
from typing import ClassVar

from mediasvc.core.span import Span
from mediasvc.core.tally import Delivery
from mediasvc.core.value import value

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]


@value
class Nothing:
    """No body: HEAD, 304. Of a HEAD `blob_id` and `size` are those of the blob that a GET would send."""

    name: ClassVar[str] = "none"
    blob_id: str = ""
    size: int = 0


@value
class SendFile:
    """The kernel copies the spans from the blob's file to the socket; bytes between them are ours.

    `size` is that of the whole blob: a file of any other size is not it.
    """

    name: ClassVar[str] = "sendfile"
    blob_id: str
    size: int
    parts: Sequence[bytes | Span]


@value
class Stream:
    """The same, read from the store and written piece by piece."""

    name: ClassVar[str] = "stream"
    blob_id: str
    size: int
    parts: Sequence[bytes | Span]


@value
class HandToNginx:
    """nginx sends the bytes: the headers say where it finds them, and what it tells the client besides.

    Where the blob is a file of ours, one of another size than `size` is not it.
    """

    name: ClassVar[str] = "nginx"
    blob_id: str
    size: int


@value
class Redirect:
    """The client fetches the bytes from the store: the headers hold the presigned URL."""

    name: ClassVar[str] = "redirect"
    blob_id: str
    size: int


Body = Nothing | SendFile | Stream | HandToNginx | Redirect


@value
class Plan:
    """A whole answer: status, headers, and how its body gets out.

    `status` is what the client will see; nginx finds the headers of a 200 or 206 under other names. `counts` is the
    id of the link with a row that this answer uses up one download of: count it just before anything is sent.
    `delivery` is what the bytes count for once they are out; None: nothing of the asset leaves.
    `lasts`: until the catalogue changes, whoever has the same key gets the same for the same request.
    """

    status: int
    headers: list[Header]
    body: Body
    counts: str = ""
    delivery: Delivery | None = None
    lasts: bool = False
