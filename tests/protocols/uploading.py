"""Uploads in every state, made over the wire, and what a table's row asks of them."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import httpx

from tests.protocols import wire

UPLOADS = "/v1/uploads"
TUS = {"Tus-Resumable": "1.0.0"}
OCTETS = {"Content-Type": "application/offset+octet-stream"}
PARTIAL = {"Content-Type": "application/partial-upload"}
CONTENT = b"0123456789"  # of every upload here; the open ones have its first four bytes


def b64(raw: bytes | str) -> str:
    return base64.b64encode(raw.encode() if isinstance(raw, str) else raw).decode()


def metadata(**pairs: str) -> str:
    return ",".join(f"{name} {b64(value)}" for name, value in pairs.items())


def checksum(algorithm: str, body: bytes) -> str:
    return f"{algorithm} {b64(hashlib.new(algorithm, body).digest())}"


def digest(body: bytes) -> str:
    """As RFC 9530 has it."""
    return f"sha-256=:{b64(hashlib.sha256(body).digest())}:"


@cache
def zeros(size: int) -> str:
    """The SHA-256 of so many zero bytes, a whole number of MiB."""
    sha256 = hashlib.sha256()
    for _ in range(size >> 20):
        sha256.update(bytes(1 << 20))
    return sha256.hexdigest()


def create(client: httpx.Client, length: int | None, body: bytes | None = None, **headers: str) -> str:
    """A tus upload's URL."""
    how = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    how |= OCTETS if body is not None else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    made = client.post(UPLOADS, content=body, headers=TUS | how | named)
    assert made.status_code == 201, made.text
    return made.headers["Location"]


def patch(client: httpx.Client, url: str, offset: int, body: bytes | None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.patch(url, content=body, headers=TUS | OCTETS | {"Upload-Offset": str(offset)} | named)


def offset_of(client: httpx.Client, url: str) -> int | None:
    answer = client.head(url, headers=TUS)
    assert answer.status_code == 200, answer.status_code
    return int(answer.headers["Upload-Offset"]) if "Upload-Offset" in answer.headers else None


def upload(client: httpx.Client, content: bytes, **headers: str) -> str:
    """A whole one, in one request."""
    return create(client, len(content), content, **headers)


def concatenation(*urls: str) -> dict[str, str]:
    return {"Upload-Concat": "final;" + " ".join(urls)}


def asset_of(client: httpx.Client, url: str) -> httpx.Response:
    """The bytes that the upload has become."""
    told = client.get(url).json()
    assert told["state"] == "complete", told
    return client.get(told["asset"]["url"])


def target(url: str) -> str:
    """What the request line has."""
    return httpx.URL(url).raw_path.decode()


def make(client: httpx.Client, state: str) -> str:
    """The URL of an upload in that state."""
    match state:
        case "creation":
            return UPLOADS
        case "begun":
            return create(client, 10)
        case "open":
            return create(client, 10, CONTENT[:4])
        case "deferred":
            return create(client, None, CONTENT[:4])
        case "complete":
            return create(client, 10, CONTENT)
        case "partial":
            return create(client, 10, CONTENT[:4], Upload_Concat="partial")
        case "whole partial":
            return create(client, 10, CONTENT, Upload_Concat="partial")
        case "final":
            parts = [create(client, 5, part, Upload_Concat="partial") for part in (CONTENT[:5], CONTENT[5:])]
            made = client.post(UPLOADS, headers=TUS | concatenation(*parts))
            assert made.status_code == 201, made.text
            return made.headers["Location"]
        case "discarded":
            url = create(client, 10, CONTENT[:4])
            assert client.delete(url, headers=TUS).status_code == 204
            return url
        case "unknown":
            return f"{UPLOADS}/upl_nothing"
        case "draft":
            made = client.post(
                UPLOADS, content=CONTENT[:4], headers={"Upload-Complete": "?0", "Upload-Length": "10"}
            )
        case "draft deferred":
            made = client.post(UPLOADS, content=CONTENT[:4], headers={"Upload-Complete": "?0"})
        case "draft full":
            made = client.post(UPLOADS, content=CONTENT, headers={"Upload-Complete": "?0"})
        case _:
            raise AssertionError(state)
    assert made.status_code == 201, made.text
    return made.headers["Location"]


@dataclass(frozen=True)
class Row:
    """A request to an upload in some state, what it is answered, and where the upload is afterwards.

    `told`: headers of the answer; None: not there; "*": whatever they say. `offset` None: the upload is over.
    """

    at: str
    method: str
    headers: Mapping[str, str] | Sequence[tuple[str, str]]
    status: int
    told: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    offset: int | None = 4

    def ask(self, client: httpx.Client, url: str, besides: Mapping[str, str] = {}) -> httpx.Response:
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        return client.request(self.method, url, content=self.body, headers=[*besides.items(), *pairs])

    def check(self, answer: httpx.Response | wire.Answer) -> None:
        status = answer.status_code if isinstance(answer, httpx.Response) else answer.status
        assert status == self.status, (status, answer.headers, answer.content)
        for name, value in self.told.items():
            match value:
                case None:
                    assert name not in answer.headers, name
                case "*":
                    assert name in answer.headers, name
                case _:
                    assert answer.headers.get(name) == value, (name, answer.headers.get(name))
