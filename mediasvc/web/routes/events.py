"""The live feed: what happens to a caller's assets, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from mediasvc.core.access import Caller
from mediasvc.core.errors import NotFound
from mediasvc.core.event import Event
from mediasvc.core.keys import normalise_prefix
from mediasvc.feed import News
from mediasvc.web.deps import BaseDep, CallerDep, Desk, DeskDep, require
from mediasvc.web.problems import problems
from mediasvc.web.schemas import AssetOut
from mediasvc.web.session import Sessions

router = APIRouter(prefix="/v1/events", tags=["events"])
PULSE = 15.0  # seconds; proxies cut what is silent for a minute
_RETRY = b"retry: 2000\n\n"  # milliseconds after which browsers connect again
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "A stream without end", "content": {"text/event-stream": {}}}
}
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Deleted(BaseModel):
    id: str
    bucket: str
    key: str


@router.get(
    "",
    response_class=StreamingResponse,
    summary="Follow what happens to assets, as server-sent events",
    description="`asset` carries an asset's JSON: made, replaced, or changed in state or renditions. `deleted` "
    "carries `{id, bucket, key}`. `refresh` means that more happened than could be told: list again, as after "
    "connecting again. Nothing is repeated. Every 15 s a comment. The stream ends with the key.",
    responses=problems(400, 401, 403, 404) | _STREAM,
)
async def follow(
    request: Request,
    caller: CallerDep,
    desk: DeskDep,
    base: BaseDep,
    bucket: Annotated[str | None, Query(description="only this bucket")] = None,
    prefix: Annotated[str, Query(description="only keys that begin with it")] = "",
) -> StreamingResponse:
    catalogue = desk.house.catalogue
    if bucket is not None and (not caller.sees_bucket(bucket) or await catalogue.bucket(bucket) is None):
        raise NotFound(f"there is no bucket {bucket[:64]!r}")
    require(caller, "assets:read")
    wanted = normalise_prefix(prefix)
    if request.scope["state"].get("head"):  # what has no end would never be answered
        return StreamingResponse(iter(()), headers=_HEADERS, media_type="text/event-stream")

    def wants(event: Event) -> bool:
        return (
            bucket in (None, event.bucket)
            and event.key.startswith(wanted)
            and caller.sees(event.bucket, event.key)
        )

    async def stream() -> AsyncIterator[bytes]:
        house = desk.house
        sessions = Sessions(house.catalogue, house.signer, house.admin_secret, house.records.clock)
        with house.feed.follow(wants) as follower:
            yield _RETRY
            while (news := await follower.news(PULSE)) is not None:
                if not await sessions.lives(caller):
                    return
                async for told in _told(desk, news, base, caller):
                    yield told

    return StreamingResponse(stream(), headers=_HEADERS, media_type="text/event-stream")


async def _told(desk: Desk, news: News, base: str, caller: Caller) -> AsyncIterator[bytes]:
    if news.missed:
        yield b"event: refresh\ndata: {}\n\n"
    elif not news.events:
        yield b": still here\n\n"
    for event in news.events:
        # As it is now: what happened to it since will be told again, which harms nobody.
        asset = None if event.deleted else await desk.house.catalogue.asset(event.asset_id)
        if event.deleted:
            yield _event("deleted", Deleted(id=event.asset_id, bucket=event.bucket, key=event.key))
        elif asset is not None and caller.sees(asset.bucket, asset.key):
            yield _event("asset", AssetOut.of(asset, base, with_gps=True))


def _event(name: str, data: BaseModel) -> bytes:
    """JSON has no line breaks outside of its strings, and escapes them within."""
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n".encode()
