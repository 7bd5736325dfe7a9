"""What routes ask for: the house, the caller, the base of URLs, and the admission of an upload."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from mediasvc.bootstrap import House
from mediasvc.core.access import Caller
from mediasvc.core.asset import Asset
from mediasvc.core.checksums import expected_sha256
from mediasvc.core.durations import parse_duration
from mediasvc.core.errors import BadKey, BadRequest, Forbidden, NotFound, Unauthorised
from mediasvc.core.ids import well_formed
from mediasvc.core.keys import decode_path, normalise_key
from mediasvc.core.media_types import essence
from mediasvc.ingest.admission import Admission, Wanted
from mediasvc.web.preflight import Welcome, is_preflight
from mediasvc.web.urls import base_url

MAX_TAGS = 64
MAX_METADATA = 16 * 1024  # bytes of names and values together
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes work with; `ring` tells the dispatcher that there is work."""

    house: House
    ring: Callable[[], None]
    healthy: Callable[[], bool]

    async def ring_bell(self) -> None:
        """For BackgroundTasks, which would call a plain function in a thread; the bell belongs to the event loop."""
        self.ring()


# FastAPI calls plain functions in threads: a trip each, which takes longer than all of them. So these are async.


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


async def _house(request: Request) -> House:
    house: House = request.app.state.desk.house
    return house


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _base(request: Request) -> str:
    desk: Desk = request.app.state.desk
    return base_url(request.scope, desk.house.settings.public_url)


DeskDep = Annotated[Desk, Depends(_desk)]
HouseDep = Annotated[House, Depends(_house)]
CallerDep = Annotated[Caller, Depends(_caller)]
BaseDep = Annotated[str, Depends(_base)]


def require(caller: Caller, scope: str) -> None:
    """Raises Unauthorised or Forbidden."""
    if caller.anonymous:
        raise Unauthorised("send an API key: Authorization: Bearer msk_…")
    if not caller.has(scope):
        raise Forbidden(f"the key lacks the scope {scope}")


async def visible_asset(desk: Desk, caller: Caller, asset_id: str) -> Asset:
    """The asset, if it lies within what the caller's key was made for. Raises NotFound."""
    asset = await desk.house.catalogue.asset(asset_id) if well_formed("ast", asset_id) else None
    if asset is None or not caller.sees(asset.bucket, asset.key):
        raise NotFound(f"there is no asset {asset_id[:64]}")
    return asset


async def admit(request: Request, caller: Caller, desk: Desk, wanted: Wanted) -> Admission:
    """Let an upload in by what its head says. A preflight ends here, before anything is changed or reserved."""
    admission = await desk.house.doorkeeper.admit(caller, wanted)
    if is_preflight(request.scope):
        await desk.house.receiver.check_room(admission)
        raise Welcome
    return admission


async def key_ends_at(desk: Desk, caller: Caller) -> float | None:
    """When the caller's key expires: what it gives to others must not outlive it."""
    key = await desk.house.catalogue.key(caller.key_id) if caller.key_id else None
    return key.expires_at if key else None


def named_asset(request: Request) -> tuple[str, str]:
    """Bucket and key from the URL `/b/{bucket}/{key…}`, decoded from the bytes that were sent."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    bucket, _, key = raw.removeprefix(b"/b/").partition(b"/")
    if not key:
        raise BadKey("name a key: /b/{bucket}/{key}")
    try:
        return decode_path(bucket), normalise_key(decode_path(key))
    except BadKey:
        if request.state.caller.anonymous:
            raise Unauthorised("send an API key: Authorization: Bearer msk_…") from None
        raise


@dataclass(frozen=True, slots=True)
class Said:
    """What an upload's headers say about the asset, whatever the door."""

    declared_type: str | None
    length: int | None
    tags: tuple[str, ...]
    metadata: Mapping[str, str]
    expires_in: float | None

    @classmethod
    def by(cls, request: Request) -> "Said":
        """Raises BadRequest for what cannot be understood."""
        headers = request.headers
        return cls(
            essence(headers.get("content-type")),
            int(headers["content-length"]) if "content-length" in headers else None,
            tags_in(_utf8(headers.get("x-tags", "").encode("latin-1"))),  # as Starlette decoded it
            metadata_in(headers.raw),
            lifetime_in(headers.get("x-expires-in"), "X-Expires-In"),
        )


def body_sha256(request: Request) -> str | None:
    """The SHA-256 that the whole body is announced to have."""
    headers = request.headers
    return expected_sha256(
        headers.get("x-checksum-sha256"), headers.get("content-digest"), headers.get("repr-digest")
    )


def lifetime_in(text: str | None, name: str) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise BadRequest(f"{name} {error}") from None


def tags_in(text: str) -> tuple[str, ...]:
    """`a,b` → tags, in order, each once."""
    tags = tuple(dict.fromkeys(filter(None, (tag.strip() for tag in text.split(",")))))
    if len(tags) > MAX_TAGS or any(len(tag) > 128 or not tag.isprintable() for tag in tags):
        raise BadRequest(
            f"there may be up to {MAX_TAGS} tags of up to 128 printable characters, comma-separated"
        )
    return tags


def metadata_named(said: Mapping[str, str]) -> dict[str, str]:
    """Of what a client of tus says besides, all that may be metadata of ours."""
    metadata = {name: value for name, value in said.items() if _NAME.fullmatch(name)}
    return metadata if _size(metadata) <= MAX_METADATA else {}


def _size(metadata: Mapping[str, str]) -> int:
    return sum(len(name) + len(value.encode()) for name, value in metadata.items())


def metadata_in(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """`X-Meta-Name: value` headers; the name in lower case."""
    metadata: dict[str, str] = {}
    for raw_name, value in headers:
        if raw_name.startswith(b"x-meta-"):
            name = raw_name[7:].decode("latin-1")
            if not _NAME.fullmatch(name):
                raise BadRequest("the name after X-Meta- is 1 to 128 of a-z, 0-9, '.', '_' and '-'")
            metadata[name] = _utf8(value)
    if _size(metadata) > MAX_METADATA:
        raise BadRequest(f"all X-Meta headers together may hold {MAX_METADATA} bytes")
    return metadata


def _utf8(value: bytes) -> str:
    """Header bytes as people send them: UTF-8, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def not_found(what: str) -> NotFound:
    return NotFound(f"there is no such {what}")
